"""What a shared tower is shown of a picture's meaning, computed once for all plugins that ask.

The semantic and the reasoning plugin get one view under one key. Both go through `semantic_tokens`, so that a picture
costs one forward pass however many of them look.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tellsign.schemas import SemanticView

from .clip import Block, ClipTower, clip_input
from .lora import LoraSet

if TYPE_CHECKING:
    from tellsign.runtime import DeviceRuntime

BRANCH = 3
"""Blocks before a tower's end at which all tokens are kept beside the class tokens, so that a plugin whose low-rank
updates are in the last blocks runs only these anew (`branch`)."""


@attrs.frozen(eq=False)
class SemanticPass:
    """What one forward pass leaves of one view, for every plugin that asks."""

    classes: Tensor
    """float32 (depth, width): the class token after every block."""
    branching: Tensor
    """(1 + rows * columns, width): all tokens after block depth - `BRANCH`, in the tower's type."""


def semantic_square(image: NDArray[np.uint8], side: int = 224) -> NDArray[np.uint8]:
    """The central square of a semantic view at a tower's size.

    A square, because the proportions of a picture tell its source (generated pictures are square more often than
    photographs) and squeezing it to one would show them.

    Parameters
    ----------
    image : uint8 array of (h, w, 3)
        `SemanticView.image`.
    side : int, default 224
        In pixels.

    Returns
    -------
    uint8 array of (side, side, 3)
    """
    height, width = image.shape[:2]
    cut = min(height, width)
    left, top = (width - cut) / 2, (height - cut) / 2
    box = (left, top, left + cut, top + cut)
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box=box))


@torch.inference_mode()
def run_blocks(
    tower: ClipTower, squares: NDArray[np.uint8], keep: Collection[int] = ()
) -> tuple[Tensor, dict[int, Tensor]]:
    """One forward pass through all blocks.

    Parameters
    ----------
    tower : ClipTower
    squares : uint8 array of (B, side, side, 3)
    keep : collection of int
        Blocks, counted from 1, after which all tokens are kept; 0 is before the first.

    Returns
    -------
    classes : float32 tensor of (B, depth, width)
        The class token after every block, on the tower's device.
    kept : dict from block to tensor of (B, 1 + rows * columns, width)
        In the tower's type.
    """
    x = tower.embed(clip_input(torch.from_numpy(squares.copy()).to(tower.conv1.weight.device)))
    x = x.to(next(tower.transformer.parameters()).dtype)
    classes, kept = [], {0: x} if 0 in keep else {}
    for number, block in enumerate(tower.transformer.resblocks, start=1):
        x = block(x, None, f"{number}")
        classes.append(x[:, 0].float())
        if number in keep:
            kept[number] = x
    return torch.stack(classes, dim=1), kept


def class_tokens(tower: ClipTower, squares: NDArray[np.uint8]) -> Tensor:
    """The class token after every block.

    Parameters
    ----------
    tower : ClipTower
    squares : uint8 array of (B, side, side, 3)

    Returns
    -------
    float32 tensor of (B, depth, width)
        On the tower's device.
    """
    return run_blocks(tower, squares)[0]


def branch(tower: ClipTower, tokens: Tensor, first: int, last: int, lora: LoraSet | None = None) -> Tensor:
    """The class token after block `last`, of a run that begins at block `first` with updates of its own.

    Block `last` is computed for the class token alone, which costs a sixth of it: keys and values are still those of
    all tokens.

    Parameters
    ----------
    tower : ClipTower
    tokens : tensor of (B, N, width)
        After block first - 1, as `run_blocks` keeps them.
    first, last : int
        Counted from 1.
    lora : LoraSet, optional
        Updates under the names that `LoraSet.for_tower` gives.

    Returns
    -------
    float32 tensor of (B, width)
    """
    if not 1 <= first <= last <= tower.depth:
        raise ValueError(f"first and last take blocks 1 <= first <= last <= {tower.depth}, got {first} and {last}")
    x = tokens.to(next(tower.transformer.parameters()).dtype)
    for number in range(first, last):
        x = tower.transformer.resblocks[number - 1](x, lora, f"{number}")
    block = tower.transformer.resblocks[last - 1]
    assert isinstance(block, Block)
    return block.class_token(x, lora, f"{last}").float()


def semantic_pass(
    views: Sequence[SemanticView], tower: ClipTower, runtime: DeviceRuntime, *, key: str
) -> list[SemanticPass]:
    """One forward pass per view and batch, whoever asks and whatever for.

    Parameters
    ----------
    views : sequence of SemanticView
    tower : ClipTower
        As `runtime.use(key, ...)` lent it.
    runtime : DeviceRuntime
    key : str
        The tower's key in the runtime (`CLIP_VIT_B16`).
    """

    def compute(missing: Sequence[int]) -> list[SemanticPass]:
        side, at = tower.grid * tower.patch, max(0, tower.depth - BRANCH)
        out: list[SemanticPass] = []
        for start in range(0, len(missing), runtime.batch_size):
            part = missing[start : start + runtime.batch_size]
            squares = np.stack([semantic_square(views[i].image, side) for i in part])
            classes, kept = run_blocks(tower, squares, (at,))
            out += [SemanticPass(c, t) for c, t in zip(classes.unbind(), kept[at].unbind(), strict=True)]
        return out

    return runtime.shared_forwards(f"{key}/semantic", [v.key for v in views], compute)


def semantic_tokens(
    views: Sequence[SemanticView], tower: ClipTower, runtime: DeviceRuntime, *, key: str
) -> list[Tensor]:
    """The class tokens of views: `semantic_pass` for those who read nothing else.

    Parameters
    ----------
    views : sequence of SemanticView
    tower : ClipTower
        As `runtime.use(key, ...)` lent it.
    runtime : DeviceRuntime
    key : str
        The tower's key in the runtime (`CLIP_VIT_B16`).

    Returns
    -------
    list of float32 tensors of (depth, width)
        The last row through `tower.ln_post` and `tower.proj` is the embedding that CLIP aligns with text.
    """
    return [one.classes for one in semantic_pass(views, tower, runtime, key=key)]
