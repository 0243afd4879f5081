"""A super-resolved patch: the region scaled down by two and brought back by a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import ForgeError
from .onnx import Session

Pixels = NDArray[np.uint8]
Upscaler = Callable[[Pixels], Pixels]
"""uint8 (h, w, 3) to uint8 (2 h, 2 w, 3)."""
MARGIN = 16
"""Pixels of surroundings that the network sees around the region's box."""


class OnnxUpscaler:
    """A network that doubles a picture, such as Real-ESRGAN x2 (Wang et al. 2021).

    Parameters
    ----------
    file : Path
        ONNX; float32 (1, 3, h, w) in [0, 1] to (1, 3, 2 h, 2 w).
    """

    def __init__(self, file: Path) -> None:
        self.session = Session(file, inputs=1)

    def __call__(self, pixels: Pixels) -> Pixels:
        """Double the size."""
        height, width = pixels.shape[:2]
        # Real-ESRGAN x2 folds 2 x 2 pixels into channels first, and so wants even sides.
        even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        x = np.ascontiguousarray(even.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        out = np.clip(self.session.run(x)[0].transpose(1, 2, 0), 0, 1)
        return np.asarray(np.rint(out * 255), np.uint8)[: 2 * height, : 2 * width]


def upscaled(pixels: Pixels, region: NDArray[np.bool_], upscaler: Upscaler) -> Pixels:
    """The region's box (and `MARGIN` around it) scaled down by two and up again by the network; the rest untouched.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
    region : bool array of (H, W)
        Not empty.
    upscaler : Upscaler

    Returns
    -------
    uint8 array of (H, W, 3)
        The caller blends the region in.
    """
    y, x = np.nonzero(region)
    if not len(y):
        raise ForgeError("up-scaling takes a region with at least one pixel, got an empty one")
    top, bottom = max(int(y.min()) - MARGIN, 0), min(int(y.max()) + 1 + MARGIN, pixels.shape[0])
    left, right = max(int(x.min()) - MARGIN, 0), min(int(x.max()) + 1 + MARGIN, pixels.shape[1])
    patch = pixels[top:bottom, left:right]
    # Even sides, so that half and double agree.
    tall, wide = patch.shape[0] + patch.shape[0] % 2, patch.shape[1] + patch.shape[1] % 2
    even = np.pad(patch, ((0, tall - patch.shape[0]), (0, wide - patch.shape[1]), (0, 0)), mode="edge")
    half = Image.fromarray(even).resize((wide // 2, tall // 2), Image.Resampling.BICUBIC)
    answer = upscaler(np.asarray(half))
    if answer.shape != even.shape or answer.dtype != np.uint8:
        raise ForgeError(
            f"an up-scaler answers with uint8 of shape {even.shape} here, this one with {answer.dtype} of shape "
            f"{answer.shape}"
        )
    out = pixels.copy()
    out[top:bottom, left:right] = answer[: bottom - top, : right - left]
    return out
