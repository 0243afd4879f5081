"""A lattice of 16 pixels in the fine detail: what a decoder that upsamples by 16 leaves.

Networks that draw from a grid of codes (VQGAN and its kin, arXiv 2012.09841) or grow a picture in steps of two repeat
themselves with the grid's period: the spectrum of their fine detail has peaks at multiples of 1/16 cycles per pixel
(Zhang et al., arXiv 1907.06515). Half of those multiples are JPEG's own, whose blocks have 8 pixels; only the others
are looked at. Halftones and weaves have peaks of their own, but hardly at all of these places at once, so no single
one counts for much.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

Floats = NDArray[np.float64]
PERIOD = 16
WINDOW = 256
MOST = 16
"""Windows that are looked at, at most."""
SURROUNDINGS = 9
"""Places a side that a peak is held against."""
FLAT = 0.5
"""Grey levels below which a pixel of the fine detail is flat."""
MOST_FLAT = 0.25
"""Share of flat pixels above which a window is drawn, not photographed or painted, and says nothing: what programs draw
stands on lattices of its own."""
MOST_EXCESS = 2.0
"""Nats that one place counts for, at most, either way."""


def lattice(pixels: NDArray[np.uint8]) -> float | None:
    """How far the lattice's places stand out of the spectrum of the fine detail.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)

    Returns
    -------
    float or None
        Mean over the places of the log power above that of the places around it, in nats; about 0 without a lattice.
        None where no window of 256 pixels has detail.
    """
    spectra = [spectrum(detail) for detail in _details(pixels)]
    if not spectra:
        return None
    mean = np.mean(spectra, axis=0)
    n = SURROUNDINGS**2
    around = (uniform_filter(mean, SURROUNDINGS, mode="wrap") * n - mean) / (n - 1)
    rows, columns = PLACES
    return float(np.clip((mean - around)[rows, columns], -MOST_EXCESS, MOST_EXCESS).mean())


def spectrum(detail: Floats) -> Floats:
    """Log power of a square (n, n) under a Hann window, (n, n)."""
    side = np.hanning(len(detail))
    return np.asarray(np.log(np.abs(np.fft.fft2(detail * side[:, None] * side)) ** 2 + 1e-3))


def _details(pixels: NDArray[np.uint8]) -> Iterator[Floats]:
    height, width = pixels.shape[:2]
    places = [(y, x) for y in _starts(height) for x in _starts(width)]
    for k in np.unique(np.linspace(0, len(places) - 1, min(MOST, len(places))).round().astype(int)) if places else ():
        y, x = places[k]
        square = pixels[y : y + WINDOW, x : x + WINDOW].astype(np.float64) @ (0.299, 0.587, 0.114)
        around = (np.roll(square, 1, 0) + np.roll(square, -1, 0) + np.roll(square, 1, 1) + np.roll(square, -1, 1)) / 4
        detail = square - around
        if (np.abs(detail) < FLAT).mean() <= MOST_FLAT:
            yield detail


def _starts(length: int) -> range:
    return range((length % WINDOW) // 2, length - WINDOW + 1, WINDOW)


def _places() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the spectrum where a period of 16 shows and one of 8 does not."""
    step = WINDOW // PERIOD
    rows, columns = np.meshgrid(np.arange(PERIOD), np.arange(PERIOD), indexing="ij")
    odd = (rows % 2 == 1) | (columns % 2 == 1)
    # On the axes lies what edges along them leave.
    chosen = odd & (rows > 0) & (columns > 0)
    return rows[chosen] * step, columns[chosen] * step


PLACES = _places()


__all__ = ["PERIOD", "WINDOW", "lattice", "spectrum"]
