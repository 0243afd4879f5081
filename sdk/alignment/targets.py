"""Artifact masks on a model's patch grid."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def patch_shares(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Share of each patch that the artifact covers.

    Parameters
    ----------
    masks : bool or float tensor of (B, H, W)
        In [0, 1], at the size that the model is given, after its own resize and crop. Real pictures have zeros.
    grid : (int, int)
        Patches down and across; H and W are multiples of them.

    Returns
    -------
    float tensor of (B, rows * columns)
        In [0, 1], row by row as a vision transformer counts its patches; a patch half covered is .5.
    """
    if masks.ndim != 3:
        raise ValueError(f"masks takes a tensor of (B, H, W), got {tuple(masks.shape)}")
    rows, columns = grid
    height, width = masks.shape[1:]
    if height % rows or width % columns:
        raise ValueError(f"masks takes a height and width that are multiples of {grid}, got {height} x {width}")
    dense = masks.to(masks.dtype if masks.is_floating_point() else torch.float32)
    return F.avg_pool2d(dense[:, None], (height // rows, width // columns)).flatten(1)
