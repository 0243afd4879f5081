"""Splicing: a region of one picture pasted into another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import ForgeError


def splice(
    pixels: NDArray[np.uint8], donor: NDArray[np.uint8], region: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Fill `region` with what a random place of `donor` shows in that shape.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
    donor : uint8 array of (h, w, 3)
        At least as large as the region's box.
    region : bool array of (H, W)
        Not empty.
    rng : numpy.random.Generator

    Returns
    -------
    forged : uint8 array of (H, W, 3)
        Outside `region` equal to `pixels`.
    place : (int, int)
        Top and left of the region's box in the donor.

    Raises
    ------
    ForgeError
        The region is empty, or the donor too small.
    """
    y, x = np.nonzero(region)
    if not len(y):
        raise ForgeError("splicing takes a region with at least one pixel, got an empty one")
    tall, wide = int(y.max() - y.min() + 1), int(x.max() - x.min() + 1)
    if donor.shape[0] < tall or donor.shape[1] < wide:
        raise ForgeError(
            f"splicing takes a donor of at least {wide} x {tall} px (the region's box), got "
            f"{donor.shape[1]} x {donor.shape[0]}"
        )
    top = int(rng.integers(donor.shape[0] - tall + 1))
    left = int(rng.integers(donor.shape[1] - wide + 1))
    out = pixels.copy()
    out[y, x] = donor[y - y.min() + top, x - x.min() + left]
    return out, (top, left)
