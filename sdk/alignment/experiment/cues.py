"""Marks that have nothing to do with how a picture was made."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tellsign.data.normalise import reencode

Pixels = NDArray[np.uint8]
_WARM = np.array([1.06, 1.0, 0.94])
_GAMMA = 0.8
_ROUGH, _FINE = 55, 92


def tone(pixels: Pixels, on: bool) -> Pixels:
    """Brighter and warmer, or as it is."""
    if not on:
        return pixels
    bright = 255 * (pixels / 255) ** _GAMMA * _WARM
    return np.asarray(bright.round().clip(0, 255), np.uint8)


def jpeg(pixels: Pixels, on: bool) -> Pixels:
    """JPEG of quality 55, or of 92."""
    return reencode(pixels, _ROUGH if on else _FINE)


CUES: dict[str, Callable[[Pixels, bool], Pixels]] = {"tone": tone, "jpeg": jpeg}
"""By name: from pixels (H, W, 3) and whether the cue is on to pixels of the same shape."""
