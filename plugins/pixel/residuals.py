"""Statistics of high-pass residuals, and a linear probe on them: the part of the plugin that has no network.

After the spatial rich model (SRM, Fridrich and Kodovsky, 2012): what remains of a picture when each pixel is predicted
from its neighbours hardly depends on what it shows, and a decoder's smooth noise differs there from a sensor's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 3
"""Residuals are counted from -3 to 3 quantisation steps; beyond lies the edge of an object."""
STEP = 1.5
"""Quantisation step in grey levels."""

_SQUARE3 = [[-0.25, 0.5, -0.25], [0.5, -1.0, 0.5], [-0.25, 0.5, -0.25]]
_SQUARE5 = [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
KERNELS: tuple[Tensor, ...] = (
    *(torch.tensor([k], dtype=torch.float32) for k in ([-1, 1], [1, -2, 1], [1, -3, 3, -1])),
    *(torch.tensor([k], dtype=torch.float32).T for k in ([-1, 1], [1, -2, 1], [1, -3, 3, -1])),
    torch.diag(torch.tensor([1.0, -2.0, 1.0])),
    torch.diag(torch.tensor([1.0, -2.0, 1.0])).flip(1),
    torch.tensor(_SQUARE3),
    torch.tensor(_SQUARE5, dtype=torch.float32) / 12,
)
"""First- to third-order differences along both axes, second-order ones along both diagonals, and two squares."""

_STATES = (2 * LEVELS + 1) ** 2
SIZE = len(KERNELS) * (_STATES + 1)
"""Numbers that `statistics` gives of a crop."""


def statistics(crops: Tensor) -> Tensor:
    """Co-occurrences of quantised residuals of the luma, and their mean magnitude.

    Parameters
    ----------
    crops : uint8 tensor of (B, H, W, 3)

    Returns
    -------
    float32 tensor of (B, 500)
        For each kernel the share of each pair of horizontal neighbours, 7 x 7, and log(1 + mean magnitude in grey
        levels).
    """
    # Sums written out, and no convolution: which algorithm that takes depends on the batch, and a residual on the edge
    # between two levels would then fall differently alone and among others.
    red, green, blue = crops.float().unbind(-1)
    luma = red * 0.299 + green * 0.587 + blue * 0.114
    n = len(crops)
    apart = torch.arange(n, device=crops.device)[:, None, None] * _STATES
    out: list[Tensor] = []
    for kernel in KERNELS:
        residual = _filtered(luma, kernel)
        level = residual.div(STEP).round().clamp(-LEVELS, LEVELS).long() + LEVELS
        pair = level[:, :, :-1] * (2 * LEVELS + 1) + level[:, :, 1:]
        counts = torch.bincount((pair + apart).flatten(), minlength=n * _STATES).view(n, _STATES)
        out += [counts.float() / pair[0].numel(), residual.abs().mean(dim=(1, 2)).log1p()[:, None]]
    return torch.cat(out, dim=1)


def _filtered(luma: Tensor, kernel: Tensor) -> Tensor:
    """(B, H, W) correlated with a kernel, where it fits."""
    rows, columns = kernel.shape
    height, width = luma.shape[1] - rows + 1, luma.shape[2] - columns + 1
    out = torch.zeros((len(luma), height, width), device=luma.device)
    for i, row in enumerate(kernel.tolist()):
        for j, weight in enumerate(row):
            if weight:
                out = out + luma[:, i : i + height, j : j + width] * weight
    return out


class ResidualProbe(nn.Module):
    """A linear probe on `statistics`."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(SIZE))
        self.bias = nn.Parameter(torch.zeros(()))
        # Of the training features, so that all weights are on one scale.
        self.register_buffer("mean", torch.zeros(SIZE))
        self.register_buffer("std", torch.ones(SIZE))

    def forward(self, crops: Tensor) -> Tensor:
        """uint8 crops (B, H, W, 3) to float32 logits (B,)."""
        scaled: Tensor = (statistics(crops) - self.mean) / self.std
        return scaled @ self.weight + self.bias


__all__ = ["KERNELS", "SIZE", "ResidualProbe", "statistics"]
