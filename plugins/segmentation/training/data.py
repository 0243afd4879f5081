"""Reads what `tellsign forge` wrote: pictures with two masks, and which labels count."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.errors import SettingError

NEEDED = ("id", "path", "kind", "tool", "ai_mask", "ma_mask", "ai_loss", "ma_loss", "group", "source")
ONES = "ones"
"""In place of a mask's path: the whole picture. An empty path is an empty mask."""
UNTOUCHED = "untouched"
"""The kind of pictures that nothing was done to."""
MANY_TOOLS = ("generated", "aisplice")
"""Kinds whose tool is the generator's name; they are told together."""


@attrs.frozen(kw_only=True)
class ForgedRow:
    """One line of the manifest."""

    id: str
    path: Path
    cls: int
    """1 where the picture holds synthesised pixels."""
    kind: str
    tool: str
    ai_mask: Path | str
    """The mask's file, "ones" or ""."""
    ma_mask: Path | str
    ai_counts: bool
    """Whether the AI mask is known and trained."""
    ma_counts: bool
    group: str
    source: str

    @property
    def made_by(self) -> str:
        """Kind and tool, as results are grouped."""
        return self.kind if not self.tool or self.kind in MANY_TOOLS else f"{self.kind}/{self.tool}"


@attrs.frozen
class Sample:
    """A picture with its masks."""

    pixels: NDArray[np.uint8]
    """uint8 (H, W, 3)."""
    ai: NDArray[np.uint8]
    """uint8 (H, W) of 0 and 1."""
    manipulation: NDArray[np.uint8]


def read_forged(folder: Path) -> list[ForgedRow]:
    """Read the manifest of a forged folder.

    Parameters
    ----------
    folder : Path
        With `manifest.csv`, pictures and masks.

    Raises
    ------
    SettingError
        No manifest, or one without the columns `NEEDED`.
    """
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        raise SettingError("folder", "a folder that `tellsign forge` wrote, with manifest.csv", str(folder))
    with manifest.open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        missing = [c for c in NEEDED if c not in (reader.fieldnames or ())]
        if missing:
            raise SettingError("folder", f"a manifest with the columns {', '.join(NEEDED)}", f"none of {missing}")
        return [_row(folder, line) for line in reader]


def _row(folder: Path, line: Mapping[str, str]) -> ForgedRow:
    def mask(told: str) -> Path | str:
        return told if told in ("", ONES) else folder / told

    return ForgedRow(
        id=line["id"],
        path=folder / line["path"],
        # Moved pixels are real ones: GAMMA's Table 1 gives copy-move and splicing class 0.
        cls=int(bool(line["ai_mask"])),
        kind=line["kind"],
        tool=line["tool"],
        ai_mask=mask(line["ai_mask"]),
        ma_mask=mask(line["ma_mask"]),
        ai_counts=line["ai_loss"] != "0",
        ma_counts=line["ma_loss"] != "0",
        group=line["group"],
        source=line["source"],
    )


def load(row: ForgedRow) -> Sample:
    """Open a row's picture and masks."""
    with Image.open(row.path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return Sample(pixels, _mask(row.ai_mask, pixels), _mask(row.ma_mask, pixels))


def _mask(told: Path | str, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    shape = pixels.shape[:2]
    if isinstance(told, str):
        return np.full(shape, int(told == ONES), np.uint8)
    with Image.open(told) as image:
        mask = (np.asarray(image.convert("L")) > 127).astype(np.uint8)
    if mask.shape != shape:
        raise SettingError("mask", f"a mask of the picture's size {shape}", f"{told} of {mask.shape}")
    return mask


def without_tools(rows: Iterable[ForgedRow], tools: Sequence[str]) -> list[ForgedRow]:
    """All rows but those that the named tools or kinds made: what a leave-one-kind-out run trains on."""
    return [r for r in rows if not {r.tool, r.kind, r.made_by} & set(tools)]


def few(rows: Sequence[ForgedRow], limit: int) -> list[ForgedRow]:
    """At most `limit` rows of each kind and tool, chosen at random; all where it is 0."""
    rng, by_tool = np.random.default_rng(0), dict[str, list[ForgedRow]]()
    for row in rows:
        by_tool.setdefault(row.made_by, []).append(row)
    return [part[i] for part in by_tool.values() for i in sorted(rng.permutation(len(part))[: limit or len(part)])]


def hold_out(rows: Sequence[ForgedRow], share: float) -> tuple[list[ForgedRow], list[ForgedRow]]:
    """Split off about `share` of the groups for validation, by a hash of the group's name; no group is in both."""

    def place(row: ForgedRow) -> float:
        return int.from_bytes(hashlib.blake2b(row.group.encode(), digest_size=6).digest(), "big") / 2**48

    return [r for r in rows if place(r) >= share], [r for r in rows if place(r) < share]


def balanced(
    rows: Sequence[ForgedRow], authentic: float, emphasis: Mapping[str, float] | None = None
) -> NDArray[np.float64]:
    """How often to draw each row: kinds alike, tools within a kind alike, large sources by their square root.

    Parameters
    ----------
    rows : sequence of ForgedRow
    authentic : float
        Share of untouched pictures among the draws, where there are any.
    emphasis : mapping of str to float, optional
        Factors of kinds.

    Returns
    -------
    float64 array of (n,)
        Probabilities.
    """
    weight = np.ones(len(rows))
    for names, power in (
        ([f"{r.kind}/{r.tool}/{r.source}" for r in rows], 0.5),
        ([r.made_by for r in rows], 1.0),
        ([r.kind for r in rows], 1.0),
    ):
        total = dict.fromkeys(names, 0.0)
        for name, w in zip(names, weight.tolist(), strict=True):
            total[name] += w
        weight /= np.array([total[name] for name in names]) ** power
    weight *= [(emphasis or {}).get(r.kind, 1.0) for r in rows]
    untouched = np.array([r.kind == UNTOUCHED for r in rows])
    if untouched.any() and not untouched.all():
        weight[untouched] *= authentic / weight[untouched].sum()
        weight[~untouched] *= (1 - authentic) / weight[~untouched].sum()
    return np.asarray(weight / weight.sum(), np.float64)
