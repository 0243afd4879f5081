"""Pictures that are nearly the same, by perceptual hash."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NEAR = 4
"""Hashes that differ in at most so many of 64 bits belong to one picture."""


def perceptual_hash(pixels: NDArray[np.uint8]) -> np.uint64:
    """DCT hash of the luma: 32 x 32, the 8 x 8 lowest frequencies against their median (the usual "pHash").

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
    """
    import scipy.fft

    small = np.asarray(Image.fromarray(pixels).convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    low = scipy.fft.dctn(small, norm="ortho")[:8, :8]
    bits = (low > np.median(low)).ravel()
    return np.uint64(int.from_bytes(np.packbits(bits).tobytes(), "big"))


def near_pairs(hashes: NDArray[np.uint64], distance: int = NEAR) -> list[tuple[int, int]]:
    """Index pairs (i < j) whose hashes differ in at most `distance` bits.

    Parameters
    ----------
    hashes : uint64 array of (n,)
    distance : int, default 4
    """
    pairs: list[tuple[int, int]] = []
    for i in range(len(hashes) - 1):
        bits = np.bitwise_count(hashes[i + 1 :] ^ hashes[i])
        pairs += [(i, i + 1 + int(j)) for j in np.flatnonzero(bits <= distance)]
    return pairs
