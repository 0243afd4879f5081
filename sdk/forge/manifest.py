"""The manifest of a folder of forgeries: one line per picture, appended once its files are there."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.decoding import decode

from .errors import ForgeError

NAME = "manifest.csv"
PROVENANCE = "provenance.jsonl"
ONES = "ones"
"""In a mask's column: all of the picture. An empty column is none of it."""


@attrs.frozen(kw_only=True)
class ForgedRow:
    """One picture of a manifest; the fields are its columns."""

    id: str
    path: str
    """Relative to the manifest's folder, as the masks are."""
    cls: int
    """1 where pixels are synthesised by a neural network, else 0."""
    kind: str
    """One of `labels.KINDS`."""
    tool: str
    """What made the region; empty for untouched pictures."""
    ai_mask: str
    """File of the AI mask (L, 0 or 255), "ones", or empty for none."""
    ma_mask: str
    """File of the manipulation mask, likewise."""
    ai_loss: int
    """1 where the AI mask counts in training."""
    ma_loss: int
    """1 where the manipulation mask counts in training."""
    base: str
    """Name of the picture that was forged."""
    donor: str
    """Name of the picture that a region was taken from; empty where none was."""
    group: str
    source: str
    """The base's."""
    seed: int
    share: float
    """Forged region's share of the picture, 0 to 1."""


FIELDS = tuple(f.name for f in attrs.fields(ForgedRow))


def line(row: ForgedRow) -> str:
    """The row as a line of CSV, line end included."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow([getattr(row, f) for f in FIELDS])
    return buffer.getvalue()


def append(file: Path, text: str) -> None:
    """Append to a file and hand it to the disk, so that a line that is there is there whole."""
    with file.open("a", encoding="utf-8", newline="") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def read_manifest(folder: Path) -> list[ForgedRow]:
    """The rows of `folder`'s manifest.

    Raises
    ------
    ForgeError
        There is no manifest, or it has other columns.
    """
    file = folder / NAME
    if not file.is_file():
        raise ForgeError(f"{folder} has no {NAME}; `tellsign forge` writes one")
    with file.open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise ForgeError(f"{file} has other columns than {', '.join(FIELDS)}")
        try:
            return [_row(record) for record in reader]
        except (TypeError, ValueError) as error:
            raise ForgeError(f"{file}, line {reader.line_num}, cannot be read: {error}") from error


def mend(folder: Path) -> list[ForgedRow]:
    """The rows of a manifest whose writer may have been stopped; a half-written last line is cut off both files.

    Returns
    -------
    list of ForgedRow
        Empty where there is no manifest yet.
    """
    for name in (NAME, PROVENANCE):
        file = folder / name
        if file.is_file() and (data := file.read_bytes()) and not data.endswith(b"\n"):
            with file.open("r+b") as handle:
                handle.truncate(data.rfind(b"\n") + 1)
    file = folder / NAME
    if not file.is_file() or not file.stat().st_size:
        return []
    return read_manifest(folder)


def _row(record: dict[str, str]) -> ForgedRow:
    kinds: dict[str, Any] = {"cls": int, "ai_loss": int, "ma_loss": int, "seed": int, "share": float}
    return ForgedRow(**{name: kinds.get(name, str)(record[name]) for name in FIELDS})


def load(folder: Path, row: ForgedRow) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """One picture with its masks.

    Parameters
    ----------
    folder : Path
        Of the manifest.
    row : ForgedRow

    Returns
    -------
    pixels : uint8 array of (H, W, 3)
    ai, ma : bool arrays of (H, W)
        Whether they count in training is `row.ai_loss` and `row.ma_loss`.

    Raises
    ------
    DecodeError
        The picture cannot be read.
    ForgeError
        A mask is not there or has another size than the picture.
    """
    pixels = decode(folder / row.path).pixels
    return pixels, _mask(folder, row.ai_mask, pixels.shape), _mask(folder, row.ma_mask, pixels.shape)


def _mask(folder: Path, name: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if name in ("", ONES):
        return np.full(shape[:2], name == ONES)
    try:
        with Image.open(folder / name) as image:
            mask = np.asarray(image.convert("L")) > 127
    except OSError as error:
        raise ForgeError(f"the mask {folder / name} cannot be read") from error
    if mask.shape != shape[:2]:
        raise ForgeError(f"the mask {folder / name} is {mask.shape}, and its picture is {shape[:2]}")
    return mask


def read_provenance(folder: Path) -> dict[str, dict[str, Any]]:
    """Id -> where each picture's pixels come from."""
    with (folder / PROVENANCE).open(encoding="utf-8") as handle:
        records = [json.loads(text) for text in handle]
    return {record["id"]: record for record in records}
