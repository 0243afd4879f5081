"""Makes what the tower is shown of every picture, three times over: what training and the tables read."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from tellsign import decode
from tellsign.data.normalise import MINIMUM, overview, reencode
from tellsign.data.purity import tag
from tellsign.data.rows import PictureRow
from tellsign.data.squares import VERSIONS
from tellsign.errors import DecodeError
from tellsign.schemas import Picture, Task
from tellsign.towers import semantic_square
from tellsign.views import semantic_view

__all__ = ["FIELDS", "SIDE", "VERSIONS", "damaged", "prepare", "squares"]

SIDE = 224
FIELDS = ("index", "label", "source", "content", "group", "split", "path")


def squares(pixels: NDArray[np.uint8], seed: int, side: int = SIDE) -> NDArray[np.uint8]:
    """What the tower is shown of a picture in each of `VERSIONS`.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
    seed : int
        Of the draws; take one that does not depend on the class.
    side : int, default 224
        What the tower takes, in pixels.

    Returns
    -------
    uint8 array of (3, side, side, 3)
    """
    rng = np.random.default_rng([seed, 1])
    whole = overview(pixels, rng)
    shown = [_square(whole, side), _square(pixels, side), damaged(whole, rng, side)]
    return np.stack(shown)


def damaged(whole: NDArray[np.uint8], rng: np.random.Generator, side: int = SIDE) -> NDArray[np.uint8]:
    """An augmented square: cut, made smaller, saved again, noisier; draws that know nothing of the class.

    Parameters
    ----------
    whole : uint8 array of (h, w, 3)
    rng : numpy.random.Generator
    side : int, default 224

    Returns
    -------
    uint8 array of (side, side, 3)
    """
    height, width = whole.shape[:2]
    cut = int(min(height, width) * rng.uniform(0.6, 1))
    left, top = int(rng.integers(width - cut + 1)), int(rng.integers(height - cut + 1))
    target = int(cut * rng.uniform(0.4, 1))
    image = Image.fromarray(whole).resize(
        (target, target), Image.Resampling.BICUBIC, box=(left, top, left + cut, top + cut)
    )
    pixels = reencode(np.asarray(image), int(rng.integers(40, 96)))
    if rng.random() < 0.5:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    noise = float(rng.uniform(2, 10)) if rng.random() < 0.5 else 0.0
    blur = float(rng.uniform(0, 1.5))
    view = semantic_view(
        Picture(pixels=pixels), key="training", quality=int(rng.integers(30, 71)), blur=blur, noise=noise
    )
    return semantic_square(view.image, side)


def _square(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return semantic_square(semantic_view(Picture(pixels=pixels), key="training").image, side)


def _made(row: PictureRow, side: int) -> NDArray[np.uint8] | str:
    try:
        pixels = decode(row.path).pixels
    except DecodeError as error:
        return error.code
    if min(pixels.shape[:2]) < MINIMUM:
        return "too_small"
    return squares(pixels, zlib.crc32(f"{row.source}/{row.path.name}/semantic".encode()), side)


def prepare(
    rows: Sequence[PictureRow], out: Path, *, skipped: Collection[Path] = (), workers: int = 2, side: int = SIDE
) -> int:
    """Write `squares.npy` (uint8 (n, 3, side, side, 3)) and `squares.csv`, and tag the folder as semantic data.

    Parameters
    ----------
    rows : sequence of PictureRow
    out : Path
    skipped : collection of Path
        Pictures to leave out: near-duplicates that cross a split.
    workers : int, default 2
        Threads that decode.
    side : int, default 224
        What the tower takes, in pixels.

    Returns
    -------
    int
        Number of pictures. Those that cannot be read or are too small are listed in `skipped.csv`.
    """
    out.mkdir(parents=True, exist_ok=True)
    tag(out, Task.SEMANTIC)
    leave = {p.resolve() for p in skipped}
    rows = [r for r in rows if r.path.resolve() not in leave]
    # What is chosen on comes first, mixed, so that a look at an unfinished folder is a fair one.
    order = np.random.default_rng(0).permutation(len(rows))
    rows = sorted((rows[i] for i in order), key=lambda r: r.split not in ("fit", "fuse"))
    store = np.lib.format.open_memmap(out / "squares.npy", "w+", np.uint8, (len(rows), len(VERSIONS), side, side, 3))
    index = 0
    with (
        (out / "squares.csv").open("w", newline="") as handle,
        (out / "skipped.csv").open("w", newline="") as other,
        ThreadPoolExecutor(workers) as pool,
    ):
        table, left_out = csv.writer(handle), csv.writer(other)
        table.writerow(FIELDS)
        left_out.writerow(("path", "why"))
        for row, made in tqdm(_ahead(pool, rows, side), total=len(rows), desc="squares", unit="picture"):
            if isinstance(made, str):
                left_out.writerow((row.path, made))
                continue
            store[index] = made
            table.writerow((index, row.label, row.source, row.content, row.group, row.split, row.path))
            handle.flush()
            index += 1
    store.flush()
    return index


def _ahead(
    pool: ThreadPoolExecutor, rows: Sequence[PictureRow], side: int, most: int = 16
) -> Iterator[tuple[PictureRow, NDArray[np.uint8] | str]]:
    """Rows with what was made of them, a few at a time: all of them at once would fill the memory."""
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        yield from zip(part, pool.map(lambda row: _made(row, side), part), strict=True)
