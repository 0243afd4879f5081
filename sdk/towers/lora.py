"""Low-rank updates that are passed to a tower instead of being written into it.

peft writes its adapters into the module that it is given. Here one tower serves several plugins at once, each with an
adapter of its own, so the update is an argument of the forward pass: y + (alpha / r) B A x (Hu et al., arXiv
2106.09685; A Kaiming-uniform, B zero, so that the update starts at nothing).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LoraSet(nn.Module):
    """Low-rank updates of named linear maps.

    Parameters
    ----------
    shapes : mapping from name to (inputs, outputs)
        One update each; other names pass through unchanged.
    rank : int
    alpha : float
        The update is scaled by alpha / rank.
    """

    def __init__(self, shapes: dict[str, tuple[int, int]], *, rank: int, alpha: float) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank takes an integer of at least 1, got {rank}")
        self.rank, self.alpha, self.scale = rank, alpha, alpha / rank
        # Dots separate modules in parameter names, so the maps' own names are kept with slashes.
        self.down = nn.ParameterDict({_key(n): nn.Parameter(torch.empty(rank, i)) for n, (i, _) in shapes.items()})
        self.up = nn.ParameterDict({_key(n): nn.Parameter(torch.zeros(o, rank)) for n, (_, o) in shapes.items()})
        for down in self.down.values():
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))

    @classmethod
    def for_tower(cls, width: int, blocks: Iterable[int], *, rank: int, alpha: float, ratio: float = 4.0) -> LoraSet:
        """Updates of all four linear maps in each of `blocks` (counted from 1) of a `ClipTower`."""
        hidden = int(width * ratio)
        maps = {
            "attn.in_proj": (width, 3 * width),
            "attn.out_proj": (width, width),
            "mlp.c_fc": (width, hidden),
            "mlp.c_proj": (hidden, width),
        }
        return cls({f"{b}.{m}": s for b in blocks for m, s in maps.items()}, rank=rank, alpha=alpha)

    def add(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """`y` plus the update of map `name` for its input `x`; `y` itself where there is none."""
        change = self.change(name, x)
        return y if change is None else y + change

    def change(self, name: str, x: Tensor) -> Tensor | None:
        """The update of map `name` for its input `x`; None where there is none."""
        key = _key(name)
        if key not in self.down:
            return None
        down, up = self.down[key].to(x.dtype), self.up[key].to(x.dtype)
        return F.linear(F.linear(x, down), up) * self.scale

    def parts(self, name: str) -> tuple[Tensor, Tensor] | None:
        """The update of map `name` as A (rank, inputs) and alpha / r B (outputs, rank); None where there is none."""
        key = _key(name)
        return (self.down[key], self.up[key] * self.scale) if key in self.down else None

    @torch.no_grad()
    def delta(self, name: str) -> Tensor:
        """The update as a matrix (outputs, inputs): what merging it would add to the weight."""
        key = _key(name)
        whole: Tensor = self.up[key] @ self.down[key] * self.scale
        return whole


def _key(name: str) -> str:
    return name.replace(".", "/")
