"""Which pictures take part, and the window that is looked at of each."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.errors import SettingError
from tellsign.forge.manifest import ONES, ForgedRow, load, read_manifest

from .setting import Setting

UNTOUCHED = "untouched"
FIT, TEST, SEEN = "fit", "test", "seen"
_TRIES = 30
_LEAST = 0.02  # of the window: a region that is hardly in it cannot be looked at


@attrs.frozen(kw_only=True)
class Sample:
    """One picture of the experiment."""

    folder: Path
    row: ForgedRow
    part: str
    """`fit`; `test`: untouched, or inpainted by held-out tools; `seen`: for the test too, by tools of the fit."""

    @property
    def name(self) -> str:
        """Tells it from all others of the experiment."""
        return f"{self.folder.name}/{self.row.id}/{self.part}"

    @property
    def fake(self) -> bool:
        """Whether part of it was inpainted."""
        return self.row.kind != UNTOUCHED


def choose(folders: Sequence[Path], setting: Setting) -> list[Sample]:
    """Draw the pictures; no photograph is in the fit and the test.

    Raises
    ------
    SettingError
        The folders hold too few.
    """
    rng = np.random.default_rng(setting.pictures_seed)
    rows = [(folder, row) for folder in folders for row in read_manifest(folder)]
    rows = [rows[i] for i in rng.permutation(len(rows))]

    def take(tools: Sequence[str] | None, count: int, part: str, not_of: set[str]) -> list[Sample]:
        fitting = [
            Sample(folder=f, row=r, part=part)
            for f, r in rows
            if r.group not in not_of and (r.kind == UNTOUCHED if tools is None else _region(r) and r.tool in tools)
        ]
        if len(fitting) < count:
            name = "untouched pictures" if tools is None else f"pictures with a region by {', '.join(tools)}"
            raise SettingError("--forged", f"folders with {count} more {name} for the {part}", len(fitting))
        return fitting[:count]

    held_out = take(setting.held_out, setting.test, TEST, set())
    bases = {s.row.group for s in held_out}
    test = held_out + take(None, setting.test, TEST, set()) + take(setting.fit_tools, setting.seen, SEEN, bases)
    bases = {s.row.group for s in test}
    return test + take(setting.fit_tools, setting.fit, FIT, bases) + take(None, setting.fit, FIT, bases)


def _region(row: ForgedRow) -> bool:
    return any(name not in ("", ONES) for name in (row.ai_mask, row.ma_mask))


def window(sample: Sample, side: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A native square of the picture, with its region in it where it has one.

    Returns
    -------
    pixels : uint8 array of (side, side, 3)
    region : bool array of (side, side)
        False everywhere in an untouched picture.
    """
    pixels, ai, ma = load(sample.folder, sample.row)
    region = (ai if sample.row.ai_mask not in ("", ONES) else ma) if sample.fake else np.zeros(pixels.shape[:2], bool)
    height, width = region.shape
    if min(height, width) < side:
        raise SettingError("side", f"at most {min(height, width)}, the short side of {sample.row.path}", side)
    rng = np.random.default_rng(zlib.crc32(f"{sample.folder.name}/{sample.row.id}".encode()))
    best, most = (0, 0), -1.0
    for _ in range(_TRIES):
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        share = float(region[top : top + side, left : left + side].mean())
        if share > most:
            best, most = (top, left), share
        if not sample.fake or share >= _LEAST:
            best = top, left
            break
    top, left = best
    return pixels[top : top + side, left : left + side], region[top : top + side, left : left + side]
