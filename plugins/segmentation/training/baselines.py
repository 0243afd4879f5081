"""What a mask must beat: the whole picture marked, and a plain map of the noise residual."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .metrics import Counts, pool

BLOCK = 16
"""Pixels over which the residual's energy is averaged."""
CUTS = tuple(np.round(np.linspace(0.05, 0.95, 19), 2).tolist())


def noise_map(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How far the noise at each pixel is from what is usual in the picture.

    The residual of a 3 x 3 median, its log energy over `BLOCK` px, and the distance from the picture's median in units
    of the median distance, brought to [0, 1] by x / (x + 3).

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)

    Returns
    -------
    float32 array of (H, W) in [0, 1)
    """
    luma = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    residual = luma - ndimage.median_filter(luma, 3)
    energy = np.log(ndimage.uniform_filter(residual**2, BLOCK) + 0.05)
    distance = np.abs(energy - np.median(energy))
    ratio = distance / max(float(np.median(distance)), 1e-3)
    return np.asarray(ratio / (ratio + 3), np.float32)


def at_each_cut(heat: NDArray[np.float32], truth: NDArray[np.bool_]) -> list[Counts]:
    """Counts of a map at each of `CUTS`."""
    return [Counts.of(heat >= cut, truth) for cut in CUTS]


def best_cut(pictures: Sequence[list[Counts]]) -> tuple[float, Counts]:
    """The cut with the best pooled F1 over pictures, and its counts: an oracle, in the baseline's favour."""
    pooled = [pool([counts[i] for counts in pictures]) for i in range(len(CUTS))]
    best = max(range(len(CUTS)), key=lambda i: pooled[i].f1 or 0.0)
    return CUTS[best], pooled[best]
