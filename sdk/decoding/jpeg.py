"""JPEG: the quality behind a quantisation table, and saving again."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.errors import SettingError

# The luminance table of the JPEG standard (ITU-T T.81, table K.1), which libjpeg scales by its quality.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


@lru_cache(maxsize=1)
def _sums() -> tuple[int, ...]:
    """Sum of the luminance table at quality 1 to 100, falling."""
    table = np.array(_LUMA)
    scales = [5000 // q if q < 50 else 200 - 2 * q for q in range(1, 101)]
    return tuple(int(np.clip((table * s + 50) // 100, 1, 255).sum()) for s in scales)


def estimate_quality(table: Sequence[int]) -> int | None:
    """Quality on libjpeg's scale of a luminance quantisation table.

    Exact for tables that libjpeg scaled, and so for Pillow's; for a camera's own table the quality whose table is
    nearest in its sum.

    Parameters
    ----------
    table : sequence of int
        64 numbers, in any order.

    Returns
    -------
    int or None
        1 to 100; None where `table` does not have 64 positive numbers.
    """
    if len(table) != 64 or min(table) < 1:
        return None
    total = sum(table)
    return min(range(1, 101), key=lambda q: (abs(_sums()[q - 1] - total), -q))


def encode_jpeg(pixels: NDArray[np.uint8], quality: int, subsampling: str = "4:2:0") -> bytes:
    """Save as a baseline JPEG without metadata.

    Parameters
    ----------
    pixels : numpy.ndarray
        RGB uint8 (H, W, 3).
    quality : int
        1 to 100 on libjpeg's scale.
    subsampling : str
        "4:4:4", "4:2:2" or "4:2:0".

    Returns
    -------
    bytes
        The file.

    Raises
    ------
    SettingError
        A parameter was given something else.
    """
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3):
        got = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise SettingError("pixels", "a uint8 array (H, W, 3)", got)
    if not isinstance(quality, int) or isinstance(quality, bool) or not 1 <= quality <= 100:
        raise SettingError("quality", "an integer from 1 to 100", quality)
    if subsampling not in _SUBSAMPLINGS:
        raise SettingError("subsampling", "one of " + ", ".join(_SUBSAMPLINGS), subsampling)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()


def reencode(pixels: NDArray[np.uint8], quality: int = 90, subsampling: str = "4:2:0") -> NDArray[np.uint8]:
    """The pixels after one trip through a JPEG file; parameters and errors as `encode_jpeg`.

    Returns
    -------
    numpy.ndarray
        RGB uint8 (H, W, 3), of the same size.
    """
    with Image.open(io.BytesIO(encode_jpeg(pixels, quality, subsampling)), formats=("JPEG",)) as image:
        return np.array(image)
