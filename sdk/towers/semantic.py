"""What a shared tower is shown of a picture's meaning, computed once for all plugins that ask.

The semantic and the reasoning plugin get one view under one key. Both go through `semantic_tokens`, so that a picture
costs one forward pass however many of them look.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tellsign.schemas import SemanticView

from .clip import ClipTower, clip_input

if TYPE_CHECKING:
    from tellsign.runtime import DeviceRuntime


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
    x = tower.embed(clip_input(torch.from_numpy(squares.copy()).to(tower.conv1.weight.device)))
    x = x.to(next(tower.transformer.parameters()).dtype)
    out = []
    for number, block in enumerate(tower.transformer.resblocks, start=1):
        x = block(x, None, f"{number}")
        out.append(x[:, 0].float())
    return torch.stack(out, dim=1)


def semantic_tokens(
    views: Sequence[SemanticView], tower: ClipTower, runtime: DeviceRuntime, *, key: str
) -> list[Tensor]:
    """The class tokens of views, one forward pass per view and batch whoever asks.

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

    def compute(missing: Sequence[int]) -> list[Tensor]:
        side = tower.grid * tower.patch
        out: list[Tensor] = []
        for start in range(0, len(missing), runtime.batch_size):
            part = missing[start : start + runtime.batch_size]
            out += class_tokens(tower, np.stack([semantic_square(views[i].image, side) for i in part])).unbind()
        return out

    return runtime.shared_forwards(f"{key}/semantic", [v.key for v in views], compute)
