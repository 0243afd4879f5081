"""The head that reads a shared tower's class tokens, and the low-rank updates that it may come with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tellsign.errors import WeightsError
from tellsign.towers import ClipTower


class SemanticHead(nn.Module):
    """A linear head on the class tokens after chosen blocks.

    Parameters
    ----------
    blocks : sequence of int
        Counted from 1.
    width : int
        Of the tower's tokens.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, blocks: Sequence[int], width: int) -> None:
        super().__init__()
        self.blocks, self.width = tuple(blocks), width
        shape = (len(self.blocks), width)
        self.weight = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(()))
        # Statistics of the training tokens, so that all weights are on one scale.
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def forward(self, tokens: Tensor) -> Tensor:
        """Log-odds that a picture is made by AI.

        Parameters
        ----------
        tokens : float tensor of (B, depth, width)
            `tellsign.towers.class_tokens`.

        Returns
        -------
        float32 tensor of (B,)
        """
        chosen = tokens[:, [b - 1 for b in self.blocks]].float()
        out: Tensor = self.bias + (((chosen - self.mean) / self.std) * self.weight).sum(dim=(1, 2))
        return out

    def fits(self, tower: ClipTower, file: Path) -> None:
        """Check that the head was trained on a tower of this shape.

        Raises
        ------
        WeightsError
            It was not; the error names the head's file.
        """
        if tower.width != self.width or tower.depth < max(self.blocks):
            raise WeightsError(
                str(file),
                f"takes a tower of width {self.width} with at least {max(self.blocks)} blocks,"
                f" got width {tower.width} and {tower.depth} blocks",
            )
