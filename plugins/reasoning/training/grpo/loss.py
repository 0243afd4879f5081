"""GRPO's loss (Shao et al., arXiv 2402.03300), with which ReAlign trains AIGI-R1.

`train` uses trl's; this is the reference that trl's is tested against.
"""

from __future__ import annotations

from torch import Tensor

BETA, EPSILON = 0.04, 0.2
"""Weight of the divergence from the reference, as reported of ReAlign; half-width of the clipping, not reported."""


def group_advantages(rewards: Tensor) -> Tensor:
    """How much better each answer is than the others to the same picture: (R - mean) / (std + 1e-4).

    Parameters
    ----------
    rewards : float tensor of (groups, G)
        G above 1.

    Returns
    -------
    float tensor of (groups, G)
        With the unbiased deviation; 0 throughout a group of equal rewards.
    """
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(f"rewards takes shape (groups, G) with G above 1, got {tuple(rewards.shape)}")
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.std(dim=1, keepdim=True) + 1e-4)


def kl_k3(log_p: Tensor, log_p_reference: Tensor) -> Tensor:
    """Schulman's third estimate of the divergence from the reference, exp(d) - d - 1 with d = log p_ref - log p.

    Of any shape; never negative, 0 where the two agree.
    """
    d = log_p_reference - log_p
    return d.exp() - d - 1


def grpo_loss(
    log_p: Tensor,
    log_p_old: Tensor,
    log_p_reference: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    beta: float = BETA,
    epsilon: float = EPSILON,
) -> Tensor:
    """-min(rho A, clip(rho, 1 - e, 1 + e) A) + beta KL, averaged over each answer's tokens and then over answers.

    Parameters
    ----------
    log_p, log_p_old, log_p_reference : float tensors of (B, T)
        Log-probabilities of the answers' tokens: under the model that learns, as they were drawn, under the reference.
    advantages : float tensor of (B,)
    mask : tensor of (B, T)
        1 at tokens of the answer.
    beta, epsilon : float

    Returns
    -------
    float scalar tensor
    """
    shapes = {tuple(t.shape) for t in (log_p, log_p_old, log_p_reference, mask)}
    if len(shapes) != 1 or advantages.shape != log_p.shape[:1]:
        raise ValueError(f"log_p and mask take one shape (B, T) and advantages (B,), got {sorted(shapes)}")
    ratio = (log_p - log_p_old).exp()
    gain = advantages[:, None]
    policy = -(ratio * gain).minimum(ratio.clamp(1 - epsilon, 1 + epsilon) * gain)
    per_token = policy + beta * kl_k3(log_p, log_p_reference)
    return ((per_token * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()
