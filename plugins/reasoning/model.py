"""What the plugin adds to a shared tower, and to the small network: low-rank updates, and a head on a unit vector.

ReAlign: an image embedding that was drawn to reasoning texts, and a two-layer head on it.
No text encoder is part of any of this.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tellsign.errors import WeightsError
from tellsign.towers import BRANCH, ClipTower, LoraSet, SemanticPass, branch

HIDDEN = 512
"""Width of the head's first layer."""


class Head(nn.Module):
    """Two layers on a unit vector, to log-odds that a picture is made by AI.

    Parameters
    ----------
    dim : int
        Of the vector.
    hidden : int
    """

    slope: Tensor
    offset: Tensor

    def __init__(self, dim: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(dim, hidden), nn.Linear(hidden, 1)
        # What training leaves are odds of its own set; these put zero at the model's own threshold.
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))

    def raw(self, v: Tensor) -> Tensor:
        """Unit vectors (B, dim) to log-odds (B,) as trained."""
        out: Tensor = self.second(F.gelu(self.first(v)))[:, 0]
        return out

    def forward(self, v: Tensor) -> Tensor:
        """Unit vectors (B, dim) to log-odds (B,) whose zero is the model's own threshold."""
        return self.raw(v) * self.slope + self.offset


def qkv_updates(width: int, first: int, last: int, *, rank: int, alpha: float) -> LoraSet:
    """Low-rank updates of queries, keys and values of blocks `first` to `last`; the packed map counts as one target."""
    maps = {f"{b}.attn.in_proj": (width, 3 * width) for b in range(first, last + 1)}
    return LoraSet(maps, rank=rank, alpha=alpha)


class TowerModel(nn.Module):
    """Updates of a tower's blocks `first` to `last`, and the head on the class token after `last`.

    Parameters
    ----------
    width, dim : int
        Of the tower's tokens, and of the embedding: the tower's projection where `last` is its last block, else
        `width`.
    first, last : int
        Counted from 1.
    rank : int
    alpha : float
    projected : bool
        The embedding is the tower's own (`ln_post`, `proj`), which CLIP aligned with text; otherwise the standardised
        class token.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, *, width: int, dim: int, first: int, last: int, rank: int, alpha: float, projected: bool, hidden: int
    ) -> None:
        super().__init__()
        self.width, self.dim, self.first, self.last, self.projected = width, dim, first, last, projected
        self.lora = qkv_updates(width, first, last, rank=rank, alpha=alpha)
        self.head = Head(dim, hidden)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def embed(self, tower: ClipTower, passed: list[SemanticPass]) -> Tensor:
        """Unit vectors float32 (B, dim) of views, from what the shared pass left of them."""
        token = branch(tower, torch.stack([p.branching for p in passed]), self.first, self.last, self.lora)
        return self.vector(tower, token)

    def vector(self, tower: ClipTower, token: Tensor) -> Tensor:
        """Class tokens (B, width) after block `last` to unit vectors (B, dim)."""
        z = tower.ln_post(token) @ tower.proj if self.projected else (token - self.mean) / self.std
        return F.normalize(z, dim=1)

    def fits(self, tower: ClipTower, file: Path) -> None:
        """Check that the updates were trained on a tower of this shape.

        Raises
        ------
        WeightsError
            They were not, or begin elsewhere than the shared pass keeps its tokens; the error names their file.
        """
        at = tower.depth - BRANCH
        dim = tower.proj.shape[1] if self.projected else tower.width
        if (tower.width, dim, at + 1) != (self.width, self.dim, self.first) or self.last > tower.depth:
            raise WeightsError(
                str(file),
                f"takes a tower of width {self.width} that keeps its tokens after block {self.first - 1}, got width"
                f" {tower.width} and block {at}",
            )


class StudentModel(nn.Module):
    """The head on the small network's pooled features, for machines without the tower.

    Parameters
    ----------
    features, dim, hidden : int
        Pooled features, embedding, head.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, features: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.features, self.dim = features, dim
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.project = nn.Linear(features, dim)
        self.head = Head(dim, hidden)

    def embed(self, pooled: Tensor) -> Tensor:
        """Pooled features (B, features) to unit vectors (B, dim)."""
        return F.normalize(self.project((pooled - self.mean) / self.std), dim=1)
