"""Whether a network rebuilt the whole picture's pixels: up-scalers leave a lattice, whatever the picture shows.

A network that doubles maps and smooths them by a convolution repeats itself every two or four pixels, which shows as
lone peaks of the residual's spectrum at multiples of a quarter of the sampling rate (Odena et al., "Deconvolution and
checkerboard artifacts", 2016; Zhang et al., arXiv 1907.06515). JPEG's blocks make peaks at all multiples of an eighth;
where those stand out nothing is said. Beyond GAMMA, and no evidence of synthesis: an up-scaled photograph is one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LONGEST = 512
"""Side in pixels of the middle of the picture that is looked at."""
SHORTEST = 160
"""Below this there are too few periods."""
CLIP = 4.0
"""Residuals are cut off at so many grey levels, so that edges do not speak."""
NEAR = 4
"""Frequencies either way that a peak is held against."""
QUIET = 0.0
"""Most that the peaks at odd eighths may stand out (log of amplitude); above it, blocks of JPEG are likely."""
CUT = 0.62
"""From which height (log of amplitude) the peaks at quarters are a lattice: `training lattice` says what it gives."""

_QUARTERS = [(i, j) for i in (0, 2, 4, 6) for j in (0, 2, 4, 6) if (i, j) != (0, 0) and (i, j) <= (-i % 8, -j % 8)]
_EIGHTHS = [(i, j) for i in range(8) for j in range(8) if (i % 2 or j % 2) and (i, j) <= (-i % 8, -j % 8)]


class Lattice(NamedTuple):
    """How far peaks of the residual's spectrum stand out of their neighbours, mean of the log of the amplitude."""

    quarters: float
    """At multiples of a quarter of the sampling rate: periods of two and four pixels."""
    eighths: float
    """At odd multiples of an eighth: JPEG's blocks, which are at the quarters as well."""

    @property
    def rebuilt(self) -> bool:
        """Whether the quarters alone stand out."""
        return self.quarters > CUT and self.eighths < QUIET


def lattice(image: NDArray[np.uint8]) -> Lattice | None:
    """Look for the lattice in the middle of a picture.

    Parameters
    ----------
    image : uint8 array of (H, W, 3)

    Returns
    -------
    Lattice or None
        None where the shorter side is below `SHORTEST`.
    """
    side = min(*image.shape[:2], LONGEST + 4)
    if side < SHORTEST:
        return None
    top, left = ((n - side) // 2 for n in image.shape[:2])
    luma = image[top : top + side, left : left + side].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    inner = luma[1:-1, 1:-1]
    beside = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    side = min(inner.shape) // 8 * 8
    residual = np.clip(inner - beside / 4, -CLIP, CLIP)[:side, :side]
    spectrum = np.log(np.abs(np.fft.fft2(residual)) + 1e-6)
    near = np.arange(-NEAR, NEAR + 1)

    def height(place: tuple[int, int]) -> float:
        y, x = (i * side // 8 for i in place)
        return float(spectrum[y, x] - np.median(spectrum[np.ix_((y + near) % side, (x + near) % side)]))

    return Lattice(float(np.mean([height(p) for p in _QUARTERS])), float(np.mean([height(p) for p in _EIGHTHS])))


__all__ = ["CUT", "QUIET", "SHORTEST", "Lattice", "lattice"]
