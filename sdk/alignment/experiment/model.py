"""The network that learns: two transformer blocks and a head on frozen tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tellsign.towers.clip import Block


class Reader(nn.Module):
    """From tokens of a tower to one logit per picture, read off the class token.

    Parameters
    ----------
    inputs : int
        Width of the tower's tokens.
    width, heads, depth : int
        Of the blocks.
    """

    def __init__(self, inputs: int, *, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.narrow = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(Block(width, heads, 2.0) for _ in range(depth))
        self.last = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, inputs), the class token first, to (B,)."""
        x = self.narrow(self.norm(tokens))
        for block in self.blocks:
            x = block(x, None, "")
        out: Tensor = self.head(self.last(x[:, 0]))[:, 0]
        return out


def pooled(tokens: Tensor, by: int) -> Tensor:
    """Patch tokens averaged over squares of `by` a side: (B, 1 + g * g, C) to (B, 1 + (g / by) ** 2, C)."""
    if by == 1:
        return tokens
    b, n, width = tokens.shape
    grid = math.isqrt(n - 1)
    if grid * grid != n - 1 or grid % by:
        raise ValueError(f"tokens takes a square grid of patches that {by} divides, got {n - 1} patches")
    squares = tokens[:, 1:].reshape(b, grid // by, by, grid // by, by, width).mean(dim=(2, 4))
    return torch.cat([tokens[:, :1], squares.flatten(1, 2)], dim=1)
