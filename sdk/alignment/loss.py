"""The loss that draws attention to artifacts, and the number that says whether it went there."""

from __future__ import annotations

from torch import Tensor


def alignment_loss(
    attended: Tensor, target: Tensor, *, benign: float = 0.4, known: Tensor | None = None, soft: bool = False
) -> Tensor:
    """Weighted squared distance between where a model looks and where the artifact is.

    Reconstructed from X-AIGD, whose formula is missing from the paper's text: patches of the artifact weigh 1, benign
    ones `benign`. At 1 it is the mean squared error; at 0 what the model does outside the artifact is free.

    Parameters
    ----------
    attended : tensor of (B, n)
        In [0, 1], from `attention_map`.
    target : tensor of (B, n)
        In [0, 1], from `patch_shares`; zeros for real pictures.
    benign : float, default 0.4
        In [0, 1]; the paper's lambda.
    known : bool tensor of (B,), optional
        False for generated pictures without annotation. They do not count: they have artifacts, nobody knows where.
    soft : bool, default False
        Weigh a patch by its share, target + benign * (1 - target), instead of all or nothing.

    Returns
    -------
    scalar tensor
        Mean over the pictures that are known; 0 where none is.
    """
    if attended.shape != target.shape or attended.ndim != 2:
        raise ValueError(
            f"attended and target take one shape (B, n), got {tuple(attended.shape)} and {tuple(target.shape)}"
        )
    if not 0 <= benign <= 1:
        raise ValueError(f"benign takes a number in [0, 1], got {benign}")
    hard = (target > 0).to(attended.dtype)
    share = target if soft else hard
    weight = share + benign * (1 - share)
    per_picture = (weight * (attended - target) ** 2).mean(dim=1)
    if known is None:
        return per_picture.mean()
    if known.shape != attended.shape[:1]:
        raise ValueError(f"known takes a tensor of ({len(attended)},), got {tuple(known.shape)}")
    counted = known.to(per_picture.dtype)
    return (per_picture * counted).sum() / counted.sum().clamp(min=1)


def attention_mass(attended: Tensor, target: Tensor) -> Tensor:
    """Share of the attention that lies on the artifact.

    Parameters
    ----------
    attended : tensor of (B, n)
        From 0.
    target : tensor of (B, n)
        Shares in [0, 1].

    Returns
    -------
    tensor of (B,)
        In [0, 1]; NaN where nothing is attended.
    """
    return (attended * target).sum(dim=1) / attended.sum(dim=1)
