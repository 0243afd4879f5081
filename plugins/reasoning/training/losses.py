"""ReAlign's two losses: image drawn to its text, and the label.

The paper's contrastive loss has no temperature. With unit vectors it then cannot fall below about 2.49 for 32 pairs,
so the scale is a setting: 1 is the literal reading.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BCE_WEIGHT = 8.0
"""Of the label against the text, as the paper has it."""


def contrastive(v: Tensor, t: Tensor, scale: float | Tensor = 1.0, same: Tensor | None = None) -> Tensor:
    """Symmetric contrastive loss: (image to text + text to image) / 2.

    Parameters
    ----------
    v, t : float tensors of (N, d)
        Unit vectors; row i of one belongs to row i of the other.
    scale : float
        Multiplies the similarities.
    same : bool tensor of (N, N), optional
        Pairs that count as belonging together as well (equal texts); the target is spread over them. By default only
        the diagonal.

    Returns
    -------
    float scalar tensor
        log N where all vectors are equal.
    """
    if v.shape != t.shape or v.ndim != 2:
        raise ValueError(f"v and t take one shape (N, d), got {tuple(v.shape)} and {tuple(t.shape)}")
    logits = scale * (v @ t.T)
    if same is None:
        target = torch.arange(len(v), device=v.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    share = same.float() / same.float().sum(dim=1, keepdim=True)
    back = same.T.float() / same.T.float().sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, share) + F.cross_entropy(logits.T, back)) / 2


def total(con: Tensor, bce: Tensor, weight: float = BCE_WEIGHT) -> Tensor:
    """L = L_con + 8 BCE."""
    return con + weight * bce
