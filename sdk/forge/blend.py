"""Puts a forged region into a picture and leaves every other pixel as it was, bit for bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import ForgeError


def blend(original: NDArray[np.uint8], forged: NDArray[np.uint8], region: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """`region * forged + (1 - region) * original` (GAMMA, section 3), without arithmetic on the untouched pixels.

    Parameters
    ----------
    original, forged : uint8 arrays of one shape (H, W, 3)
    region : bool array of (H, W)

    Returns
    -------
    uint8 array of (H, W, 3)

    Raises
    ------
    ForgeError
        The shapes differ: a forged picture of another size was resampled, and so would be its surroundings.
    """
    if original.shape != forged.shape or region.shape != original.shape[:2]:
        raise ForgeError(
            f"blending takes three arrays of one height and width, got {original.shape}, {forged.shape} and a region "
            f"of {region.shape}"
        )
    return np.where(region[..., None], forged, original)


def changed_outside(original: NDArray[np.uint8], forged: NDArray[np.uint8], region: NDArray[np.bool_]) -> float:
    """Share of the pixels outside `region` that differ, 0 to 1; 0 where the region is everything."""
    outside = ~region
    if not outside.any():
        return 0.0
    return float((original != forged).any(axis=2)[outside].mean())
