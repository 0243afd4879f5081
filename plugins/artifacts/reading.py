"""Reads the large lettering of a picture, with PP-OCR through rapidocr (extra `lettering`); its models come with it."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.plugin import UnavailableError

SIDE = 960
"""Longest side at which lettering is looked for."""
LONGEST = 2000
"""Longest side at which it is read."""
MANY = 20
"""Lines above which a picture is a document or a screen, and is not read."""
READ = 8
"""Lines that are read: the largest."""
LEAST_HEIGHT = 14
"""Pixels."""
MISSING = 'lettering is not read: it needs the extra `lettering` (pip install "tellsign[lettering]")'


@attrs.frozen(kw_only=True)
class Line:
    """A line of lettering."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom, in the picture's pixels."""
    height: float
    """Of the letters, in the picture's pixels; the line may be turned."""
    found: float
    """How sure the search is, in [0, 1]."""
    text: str = ""
    """Empty where it was not read."""
    sure: float = 0.0
    """How sure the reading is, in [0, 1]."""


@cache
def reader() -> Any:
    """The reader, built once.

    Raises
    ------
    UnavailableError
        The extra is not installed.
    """
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise UnavailableError(MISSING) from error
    # It tells the terminal where its models are.
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    return RapidOCR(
        params={
            "Global.log_level": "error",
            "Global.text_score": 0.0,
            "Global.max_side_len": 4000,
            "Det.limit_side_len": 640,
            "Det.limit_type": "max",
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )


def read(pixels: NDArray[np.uint8]) -> list[Line]:
    """The lines of a picture; those that are large are read, and none where there are many.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)

    Returns
    -------
    list of Line
        Largest first.

    Raises
    ------
    UnavailableError
        The extra is not installed.
    """
    engine = reader()
    image = Image.fromarray(pixels)
    factor = max(1.0, max(image.size) / LONGEST)
    if factor > 1:
        image = image.resize((max(1, round(image.width / factor)), max(1, round(image.height / factor))))
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    scale = image.width / small.width
    found = engine(_bgr(np.asarray(small)), use_det=True, use_cls=False, use_rec=False)
    if found.boxes is None:
        return []
    native = np.asarray(image)
    lines = [
        _line(np.asarray(corners, np.float64) * scale, float(sure))
        for corners, sure in zip(found.boxes, found.scores, strict=True)
    ]
    lines.sort(key=lambda line: -_area(line))
    if len(lines) <= MANY:
        lines = [_read(engine, native, line) if n < READ else line for n, line in enumerate(lines)]
    return [_scaled(line, factor) for line in lines]


def _bgr(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels[:, :, ::-1])


def _line(corners: NDArray[np.float64], found: float) -> Line:
    left, top = corners.min(axis=0)
    right, bottom = corners.max(axis=0)
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    return Line(box=(left, top, right, bottom), height=float(min(sides[1], sides[3])), found=found)


def _area(line: Line) -> float:
    left, top, right, bottom = line.box
    return (right - left) * (bottom - top)


def _read(engine: Any, pixels: NDArray[np.uint8], line: Line) -> Line:
    if line.height < LEAST_HEIGHT:
        return line
    left, top, right, bottom = line.box
    margin = 0.15 * line.height
    rows = slice(max(0, int(top - margin)), int(bottom + margin) + 1)
    columns = slice(max(0, int(left - margin)), int(right + margin) + 1)
    piece = pixels[rows, columns]
    if min(piece.shape[:2]) < 10:
        return line
    said = engine(_bgr(piece), use_det=False, use_cls=False, use_rec=True)
    if not said.txts:
        return line
    return attrs.evolve(line, text=str(said.txts[0]), sure=float(said.scores[0]))


def _scaled(line: Line, factor: float) -> Line:
    left, top, right, bottom = (v * factor for v in line.box)
    return attrs.evolve(line, box=(left, top, right, bottom), height=line.height * factor)


__all__ = ["LEAST_HEIGHT", "MANY", "READ", "Line", "read", "reader"]
