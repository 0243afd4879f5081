"""Format alignment: no class may be recognised by the container or the compression of its files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUALITY = 96
"""Of generated and forged pictures (GAMMA, section 3.1); Pillow's tables then sum to 292 (luma) and 443 (chroma)."""


def jpeg96(pixels: NDArray[np.uint8], *, full_colour: bool = False) -> bytes:
    """A JPEG file of quality 96.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
    full_colour : bool, default False
        4:4:4 instead of Pillow's 4:2:0.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, subsampling=0 if full_colour else 2)
    return buffer.getvalue()


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file, lightly compressed: these are many and short-lived."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def aligned(path: Path, pixels: NDArray[np.uint8], *, fake: bool) -> tuple[bytes, str]:
    """A whole picture's file, aligned as GAMMA does it.

    A real picture keeps its bytes, whatever they are. A generated one keeps them where it is a JPEG already, and
    becomes a JPEG of quality 96 where it is anything else.

    Parameters
    ----------
    path : Path
        The file.
    pixels : uint8 array of (H, W, 3)
        What it decodes to.
    fake : bool

    Returns
    -------
    bytes, and the suffix to store them under
    """
    data = path.read_bytes()
    if not fake or data[:3] == b"\xff\xd8\xff":
        return data, path.suffix.lower() or ".jpg"
    return jpeg96(pixels), ".jpg"
