"""GAMMA's training loss (equation 6)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from .model import GammaOutput

ALPHA = 2.0
"""Weight of the class and of the AI mask against the manipulation mask."""

WEIGHTS: Mapping[str, float] = {"cls": ALPHA, "ai": ALPHA, "manipulation": 1.0}


def masked_bce(logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Mean binary cross-entropy of the pictures that count.

    Parameters
    ----------
    logits : float tensor of (B, ...)
    target : float tensor of the same shape, in [0, 1]
    counts : float tensor of (B,)
        1 where a picture's label is known, 0 where it is not.

    Returns
    -------
    float tensor of ()
        0 where none counts.
    """
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1).mean(dim=1)
    return (each * counts).sum() / counts.sum().clamp_min(1)


def gamma_loss(
    output: GammaOutput,
    cls: Tensor,
    ai: Tensor,
    manipulation: Tensor,
    ai_counts: Tensor | None = None,
    manipulation_counts: Tensor | None = None,
    *,
    weights: Mapping[str, float] = WEIGHTS,
) -> dict[str, Tensor]:
    """The weighted parts of alpha * (L_cls + L_AI) + L_Ma; their sum is the loss.

    Parameters
    ----------
    output : GammaOutput
    cls : float tensor of (B, 1)
    ai, manipulation : float tensor of (B, 1, H, W), in [0, 1]
    ai_counts, manipulation_counts : float tensor of (B,), optional
        Whether each picture's mask is known; by default all are. A fully generated picture has no manipulation mask.
    weights : mapping of str to float
        Of the parts "cls", "ai", "manipulation"; a part that is not named is not trained (the ablation of the heads).
    """
    ones = torch.ones(len(cls), device=cls.device)
    parts = {
        "cls": (output.logit, cls, None),
        "ai": (output.ai, ai, ai_counts),
        "manipulation": (output.manipulation, manipulation, manipulation_counts),
    }
    return {
        name: weight * masked_bce(logits, target, ones if counts is None else counts)
        for name, weight in weights.items()
        for logits, target, counts in (parts[name],)
    }
