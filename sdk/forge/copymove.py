"""Copy-move: part of a picture pasted elsewhere in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import ForgeError

OVERLAP = 0.1
"""The copied and the covered region share less than this part of their area."""
_TRIES = 60


def shifted(region: NDArray[np.bool_], down: int, right: int) -> NDArray[np.bool_]:
    """`region` moved by whole pixels; what leaves the frame is lost.

    Parameters
    ----------
    region : bool array of (H, W)
    down, right : int
        Pixels.
    """
    out = np.zeros_like(region)
    height, width = region.shape
    rows = slice(max(down, 0), height + min(down, 0))
    columns = slice(max(right, 0), width + min(right, 0))
    rows_from = slice(max(-down, 0), height + min(-down, 0))
    columns_from = slice(max(-right, 0), width + min(-right, 0))
    out[rows, columns] = region[rows_from, columns_from]
    return out


def find_offset(region: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int] | None:
    """From where `region` can be copied: (down, right) to a place inside the frame that overlaps less than `OVERLAP`.

    Returns
    -------
    (int, int) or None
        None where none was found: the region is too large or too spread out.
    """
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if not len(rows):
        return None
    height, width = region.shape
    area = int(region.sum())
    for _ in range(_TRIES):
        down = int(rng.integers(-rows[0], height - rows[-1]))
        right = int(rng.integers(-columns[0], width - columns[-1]))
        if int((region & shifted(region, down, right)).sum()) < OVERLAP * area:
            return down, right
    return None


def copy_move(
    pixels: NDArray[np.uint8],
    region: NDArray[np.bool_],
    rng: np.random.Generator,
    offset: tuple[int, int] | None = None,
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Cover `region` with pixels of another place of the same picture.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
    region : bool array of (H, W)
        What is covered, which is what the manipulation mask marks.
    rng : numpy.random.Generator
    offset : (int, int), optional
        From where, as `find_offset` gives it; searched for unless given.

    Returns
    -------
    forged : uint8 array of (H, W, 3)
        The values inside `region` are those of the copied place, each as often as there.
    offset : (int, int)
        From the covered to the copied place, in pixels down and right.

    Raises
    ------
    ForgeError
        No place fits.
    """
    offset = offset or find_offset(region, rng)
    if offset is None:
        raise ForgeError(f"copy-move found no place from which a region of {region.mean():.0%} could be copied")
    down, right = offset
    y, x = np.nonzero(region)
    out = pixels.copy()
    out[y, x] = pixels[y + down, x + right]
    return out, offset
