"""How often the sign of up-scaling is seen, rightly and wrongly."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.data.normalise import reencode
from tellsign.plugins.segmentation.enhancement import lattice

from .data import load, read_forged

QUALITIES = (None, 95, 90)
"""As it is, and JPEG qualities."""


def lattices(folders: Sequence[Path], photos: Path | None = None) -> dict[str, tuple[float, ...]]:
    """By kind and tool: how many pictures are large enough, and the share that looks rebuilt at each of `QUALITIES`.

    Parameters
    ----------
    folders : sequence of Path
        What `tellsign forge` wrote.
    photos : Path, optional
        CSV with the columns path and label; its rows of label 0 count as "photograph".
    """
    seen: dict[str, list[list[bool]]] = {}
    for name, pixels in _pictures(folders, photos):
        told = [lattice(pixels if q is None else reencode(pixels, q)) for q in QUALITIES]
        if told[0] is not None:
            seen.setdefault(name, []).append([t is not None and t.rebuilt for t in told])
    return {name: (len(part), *np.mean(part, axis=0).tolist()) for name, part in sorted(seen.items())}


def _pictures(folders: Sequence[Path], photos: Path | None) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    for folder in folders:
        for row in read_forged(folder):
            yield row.made_by, load(row).pixels
    if photos is not None:
        with photos.open(newline="", encoding="utf-8") as handle:
            for line in csv.DictReader(handle):
                if line["label"] == "0":
                    with Image.open(photos.parent / line["path"]) as image:
                        yield "photograph", np.asarray(image.convert("RGB"))
