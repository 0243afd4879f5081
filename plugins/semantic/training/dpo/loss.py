"""The loss of direct preference optimisation (Rafailov et al., arXiv 2305.18290, eq. 7), as AlignGemini trains with.

`train` uses trl's; this is the reference that trl's is tested against, and what an own loop would need.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

BETA = 0.05
"""Strength of the pull towards the reference, as reported for AlignGemini."""


def dpo_loss(
    chosen: Tensor, rejected: Tensor, chosen_reference: Tensor, rejected_reference: Tensor, *, beta: float = BETA
) -> Tensor:
    """-log sigmoid(beta ((log p_c - log p_c,ref) - (log p_r - log p_r,ref))), averaged over pairs.

    Parameters
    ----------
    chosen, rejected : float tensors of (B,)
        Log-probabilities of the whole answers under the model that learns.
    chosen_reference, rejected_reference : float tensors of (B,)
        The same under the model as it was.
    beta : float
        Above 0.

    Returns
    -------
    float scalar tensor
        log 2 where the two models agree.

    Raises
    ------
    ValueError
        beta is not above 0, or the shapes differ.
    """
    if not beta > 0:
        raise ValueError(f"beta takes a number above 0, got {beta}")
    shapes = {tuple(t.shape) for t in (chosen, rejected, chosen_reference, rejected_reference)}
    if len(shapes) != 1:
        raise ValueError(f"log-probabilities take four tensors of one shape, got {sorted(shapes)}")
    margin = (chosen - chosen_reference) - (rejected - rejected_reference)
    return -F.logsigmoid(beta * margin).mean()


def answer_log_p(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Log-probability of the answers in a batch.

    Parameters
    ----------
    logits : float tensor of (B, T, vocabulary)
    ids : int64 tensor of (B, T)
    mask : tensor of (B, T)
        1 at the tokens of the answer; the first position never counts, nothing predicts it.

    Returns
    -------
    float32 tensor of (B,)
    """
    log_p = logits[:, :-1].float().log_softmax(dim=-1).gather(2, ids[:, 1:, None])[..., 0]
    return (log_p * mask[:, 1:]).sum(dim=1)
