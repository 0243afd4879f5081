"""What the checks see in every picture of a list, kept so that thresholds can be chosen without looking again."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from PIL import Image

from tellsign.errors import SettingError
from tellsign.plugins.artifacts.lattice import lattice
from tellsign.plugins.artifacts.reading import Line, read

NEEDED = ("path", "domain", "source", "label")
LARGEST = 60_000_000
"""Pixels of the largest picture that is opened."""


@attrs.frozen(kw_only=True)
class Row:
    """A picture of the list."""

    path: str
    domain: str
    """What kind of picture: photo, art, scan, screenshot, generated."""
    source: str
    """Collection, repository or generator."""
    label: int
    """1 generated, 0 real."""

    @property
    def half(self) -> str:
        """Which half of the sources it is in, by a hash of the source's name: "tune" or "report"."""
        return ("tune", "report")[hashlib.blake2b(self.source.encode(), digest_size=4).digest()[0] % 2]


@attrs.frozen(kw_only=True)
class Seen:
    """What the checks saw."""

    row: Row
    size: tuple[int, int]
    """Width and height."""
    lattice: float | None
    lines: tuple[Line, ...]


def read_list(file: Path) -> list[Row]:
    """The list: a CSV with the columns `NEEDED`; paths are relative to it.

    Raises
    ------
    SettingError
        A column is missing.
    """
    with file.open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        missing = [c for c in NEEDED if c not in (reader.fieldnames or ())]
        if missing:
            raise SettingError("list", f"a CSV with the columns {', '.join(NEEDED)}", f"none of {missing}")
        return [
            Row(path=str(file.parent / r["path"]), domain=r["domain"], source=r["source"], label=int(r["label"]))
            for r in reader
        ]


def look(row: Row) -> Seen:
    """Open a picture and ask every check what it sees."""
    with Image.open(row.path) as image:
        if image.width * image.height > LARGEST:
            raise SettingError("picture", f"at most {LARGEST} pixels", f"{row.path} of {image.size}")
        pixels = np.asarray(image.convert("RGB"))
    return Seen(row=row, size=(pixels.shape[1], pixels.shape[0]), lattice=lattice(pixels), lines=tuple(read(pixels)))


def look_at_all(rows: Iterable[Row], kept: Path) -> Iterator[Seen]:
    """What was seen in every picture; what `kept` (JSON lines) holds is not looked at again."""
    known = {seen.row: seen for seen in read_kept(kept)}
    for row in rows:
        if row in known:
            yield known[row]
            continue
        try:
            seen = look(row)
        except (OSError, ValueError) as error:
            print(f"{row.path}: {error}")
            continue
        with kept.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(attrs.asdict(seen), separators=(",", ":")) + "\n")
        yield seen


def read_kept(kept: Path) -> list[Seen]:
    """The lines of such a file; a last one that was cut off is left out."""
    out = []
    for text in kept.read_text(encoding="utf-8").splitlines() if kept.is_file() else ():
        try:
            told: dict[str, Any] = json.loads(text)
        except ValueError:
            continue
        lines = tuple(Line(**line | {"box": tuple(line["box"])}) for line in told["lines"])
        row = Row(**told["row"])
        out.append(Seen(row=row, size=tuple(told["size"]), lattice=told["lattice"], lines=lines))
    return out


__all__ = ["Row", "Seen", "look", "look_at_all", "read_kept", "read_list"]
