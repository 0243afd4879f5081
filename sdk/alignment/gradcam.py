"""Grad-CAM, for networks that convolve."""

from __future__ import annotations

import torch
from torch import Tensor


def grad_cam(logits: Tensor, features: Tensor) -> Tensor:
    """Where a convolutional network saw what made it say "made by AI".

    Selvaraju et al. (arXiv 1610.02391): each channel weighed by the mean of its gradient, what is positive of the sum.

    Parameters
    ----------
    logits : tensor of (B,) or (B, 1)
        For "made by AI", computed from `features`.
    features : tensor of (B, C, h, w)
        The last convolutional stage's output, with its graph.

    Returns
    -------
    tensor of (B, h, w)
        From 0, not normalised.
    """
    if features.ndim != 4:
        raise ValueError(f"features takes a tensor of (B, C, h, w), got {tuple(features.shape)}")
    (gradient,) = torch.autograd.grad(logits.sum(), features, retain_graph=True)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * features).sum(dim=1).relu()
