"""Whole photographs that were enhanced and not generated: denoised and sharpened, up-scaled, compressed by a network.

A policy needs pictures to be held to: none of these is AI-made in the sense of a verdict, whatever network touched it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .upscale import Upscaler, upscaled

Pixels = NDArray[np.uint8]
Enhancer = Callable[[Pixels, np.random.Generator], Pixels]
"""uint8 (H, W, 3) and a random generator to uint8 of the same shape."""

DENOISE = "denoise"
"""Name of the enhancement that needs no network."""


def denoised(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """What a telephone does to a dark picture: edge-keeping smoothing, then sharpening.

    A bilateral filter (Tomasi & Manduchi 1998) over 5 x 5 px with a range of 6 to 20 grey levels, then an unsharp mask
    of radius 1 and amount .3 to .8.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
    rng : numpy.random.Generator

    Returns
    -------
    uint8 array of (H, W, 3)
    """
    from scipy.ndimage import gaussian_filter

    spread, amount = float(rng.uniform(6, 20)), float(rng.uniform(0.3, 0.8))
    values = pixels.astype(np.float32)
    padded = np.pad(values, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    total, weights = np.zeros_like(values), np.zeros((*values.shape[:2], 1), np.float32)
    for down in range(5):
        for across in range(5):
            near = padded[down : down + values.shape[0], across : across + values.shape[1]]
            apart = ((near - values) ** 2).mean(axis=2, keepdims=True)
            weight = np.exp(-apart / (2 * spread**2) - ((down - 2) ** 2 + (across - 2) ** 2) / 8)
            total += weight * near
            weights += weight
    smooth = total / weights
    sharp = smooth + amount * (smooth - gaussian_filter(smooth, (1, 1, 0)))
    return np.asarray(np.clip(np.rint(sharp), 0, 255), np.uint8)


def super_resolved(upscaler: Upscaler) -> Enhancer:
    """The whole picture, halved and doubled by a network."""

    def enhance(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        return upscaled(pixels, np.ones(pixels.shape[:2], bool), upscaler)

    return enhance


__all__ = ["DENOISE", "Enhancer", "denoised", "super_resolved"]
