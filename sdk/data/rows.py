"""Rows of the project's pictures, each with the split that rules what it may be used for."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import attrs

from tellsign.errors import SettingError

SPLITS = ("fit", "fuse", "user", "test")

# Pictures of one thing share a group; which part of the file name tells the thing, by source.
_THING = {
    "food_phone": re.compile(r"([a-z]+\d+)[ST]?\(\d+\)", re.IGNORECASE),
    "product_studio": re.compile(r"/([a-z]{2,4}\d+)-", re.IGNORECASE),
    "polyu_noisy": re.compile(r"/([^/]+?)_(?:real|mean)\.", re.IGNORECASE),
}


@attrs.frozen(kw_only=True)
class PictureRow:
    """One picture of the project's data."""

    path: Path
    label: int
    """1 = made by AI."""
    source: str
    """Generator or collection; whole sources belong to one split."""
    content: str
    group: str
    """Pictures that share content or prompt share it; no group crosses a split."""
    split: str
    tampered: int = -1
    """1 where pixels were moved, pasted or painted by hand, 0 where not, -1 where nobody asks."""
    edited: int = 0
    """1 where only a part was synthesised."""
    forged: bool = False
    """A forgery of ours, or the untouched window beside it."""
    as_is: bool = False
    """Looked at whole and unchanged, as a user gives it, and not through the normalising pipeline."""


def read_rows(shared: Path, full: Path | None = None) -> list[PictureRow]:
    """Read the project's rows.

    Parameters
    ----------
    shared : Path
        Folder with `manifest.csv` (native crops) and `splits.json`.
    full : Path, optional
        Folder with the whole pictures and their `manifest.csv`. A source that is there is taken from there; the
        others come from the crops of `shared`.

    Returns
    -------
    list of PictureRow
        In the manifests' order, whole pictures first.

    Raises
    ------
    SettingError
        A manifest is not there, or puts a source into another split than `splits.json`.
    """
    for need in ("manifest.csv", "splits.json"):
        if not (shared / need).is_file():
            raise SettingError("shared", f"a folder with {need}", str(shared))
    rows: list[PictureRow] = []
    if full is not None:
        rows += [_whole(full, r) for r in _table(full / "manifest.csv")]
    have = {(r.label, r.source) for r in rows}
    for r in _table(shared / "manifest.csv"):
        if (int(r["label"]), r["source"]) not in have:
            rows.append(
                PictureRow(
                    path=shared / r["crop"],
                    label=int(r["label"]),
                    source=r["source"],
                    content=r["content"],
                    group=r["group"],
                    split=r["split"],
                    tampered=_untouched(r),
                )
            )
    _check(rows, json.loads((shared / "splits.json").read_text()))
    return rows


def _table(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise SettingError("manifest", "a CSV file", str(path))
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def _whole(folder: Path, row: dict[str, str]) -> PictureRow:
    original = "/" + row["original"]
    if row["repo"] == "dcsan/imagen":
        group = "prompt/" + Path(row["original"]).parent.name
    else:
        thing = _THING.get(row["source"])
        hit = thing.search(original) if thing else None
        group = f"{row['source']}/{hit.group(1).lower() if hit else row['original']}"
    return PictureRow(
        path=folder / row["path"],
        label=int(row["label"]),
        source=row["source"],
        content=row["content"],
        group=group,
        split=row["split"],
        tampered=_untouched(row),
    )


def _untouched(row: dict[str, str]) -> int:
    """Photographs count as not tampered with; of generated pictures it is not asked."""
    return -1 if int(row["label"]) else 0


def _check(rows: list[PictureRow], splits: dict[str, dict[str, list[str]]]) -> None:
    split_of = {
        (label, source): split
        for split, sides in splits.items()
        for label, side in enumerate(("real", "fake"))
        for source in sides[side]
    }
    for row in rows:
        want = split_of.get((row.label, row.source))
        if want != row.split:
            raise SettingError(f"split of source {row.source!r}", f"{want!r} (splits.json)", row.split)
