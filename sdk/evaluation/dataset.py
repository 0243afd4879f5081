"""Labelled pictures on disk: a CSV or a folder with real/ and fake/."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np

from tellsign.errors import TellsignError

REAL, FAKE = 0, 1
_SIDES = {"real": REAL, "fake": FAKE}


class DataError(TellsignError, ValueError):
    """DATA cannot be evaluated; the message is one sentence that says what is wrong and where."""


@attrs.frozen(kw_only=True)
class Item:
    """One labelled picture."""

    path: Path
    name: str
    """The path as DATA writes it; what tables and error lists print."""
    label: int
    """1 = AI, 0 = real."""
    source: str
    """Collection that a real picture comes from, generator of a fake one."""
    group: str
    """Pictures of one group are drawn together by the bootstrap."""
    mask: bool = False
    """Whether DATA names a mask: parts of this picture are known to be edited."""


@attrs.frozen(kw_only=True)
class Dataset:
    """What DATA holds, before any picture is opened."""

    items: tuple[Item, ...]
    data: str
    """DATA as it was given."""
    split: str | None = None
    notes: tuple[str, ...] = ()
    """Sentences that belong beside the numbers."""

    def count(self, label: int) -> int:
        """How many pictures have `label`."""
        return sum(item.label == label for item in self.items)


def load(
    data: str | Path,
    *,
    root: str | Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Read DATA.

    Parameters
    ----------
    data : str or Path
        A CSV with the columns `path` (or `crop`) and `label` (1 = AI, 0 = real) and, where known, `generator`,
        `source`, `group`, `mask` and `split`; or a folder with `real/` and `fake/`, whose sub-folders name the sources
        and the generators.
    root : str or Path, optional
        Where relative paths of the CSV start; the CSV's own folder by default.
    split : str, optional
        Take only the rows whose column `split` says so.
    limit : int, optional
        At most so many pictures: half of each class, spread evenly over its sources, drawn with `seed`.
    seed : int, default 0

    Returns
    -------
    Dataset
        With at least one picture of each label.

    Raises
    ------
    DataError
        DATA is not there, lacks a column, has a label other than 0 and 1, or lacks one of the classes.
    """
    path = Path(data)
    if path.is_dir():
        if split is not None:
            raise DataError(f"--split {split} needs a CSV with a column split, and {path} is a folder.")
        if root is not None:
            raise DataError(f"--root {root} is for the relative paths of a CSV, and {path} is a folder.")
        items, notes = _from_folder(path)
    elif path.is_file():
        items, notes = _from_csv(path, Path(root) if root is not None else path.parent, split)
    else:
        raise DataError(f"DATA must be a CSV file or a folder with real/ and fake/, and {path} is neither.")
    for label, word in ((REAL, "real (label 0)"), (FAKE, "AI (label 1)")):
        if not any(item.label == label for item in items):
            where = f"split {split} of {path}" if split else str(path)
            raise DataError(f"Both classes are needed, and {where} holds no {word} picture.")
    if limit is not None:
        items = _limited(items, limit, seed)
    return Dataset(items=tuple(items), data=str(data), split=split, notes=tuple(notes))


def _from_folder(folder: Path) -> tuple[list[Item], list[str]]:
    sides = {_SIDES[p.name.lower()]: p for p in sorted(folder.iterdir()) if p.is_dir() and p.name.lower() in _SIDES}
    if len(sides) < len(_SIDES):
        have = ", ".join(sorted(p.name + "/" for p in folder.iterdir() if p.is_dir())) or "no sub-folder"
        raise DataError(f"The folder {folder} must hold real/ and fake/, and it has {have}.")
    items: list[Item] = []
    for label in (REAL, FAKE):
        side = sides[label]
        # Every file that is not hidden counts: one with a wrong suffix is named as unreadable, not dropped in silence.
        for path in sorted(side.rglob("*")):
            inside = path.relative_to(side)
            if not path.is_file() or any(part.startswith(".") for part in inside.parts):
                continue
            name = path.relative_to(folder).as_posix()
            source = inside.parts[0] if len(inside.parts) > 1 else side.name
            items.append(Item(path=path, name=name, label=label, source=source, group=name))
    return items, []


def _from_csv(path: Path, root: Path, split: str | None) -> tuple[list[Item], list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns = [c.strip() for c in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV in UTF-8 ({error}).") from error
    where = "path" if "path" in columns else "crop"
    found = ", ".join(columns) or "none"
    if where not in columns:
        raise DataError(f"{path} needs a column path (or crop), and its columns are: {found}.")
    if "label" not in columns:
        raise DataError(f"{path} needs a column label, and its columns are: {found}.")
    notes = []
    if split is not None:
        if "split" not in columns:
            raise DataError(f"--split {split} needs a column split in {path}, and its columns are: {found}.")
        splits = sorted({(row["split"] or "").strip() for _, row in rows})
        rows = [(line, row) for line, row in rows if (row["split"] or "").strip() == split]
        if not rows:
            raise DataError(f"{path} has no split {split}, and its splits are: {', '.join(splits) or 'none'}.")
    elif len({row["split"] for _, row in rows} if "split" in columns else ()) > 1:
        notes.append("DATA has a column split and all of its splits are evaluated together; --split NAME takes one.")
    items: dict[str, Item] = {}
    first: dict[str, int] = {}
    repeated = 0
    for line, row in rows:
        item = _item(row, line, path, root, where)
        before = items.get(item.name)
        if before is None:
            items[item.name], first[item.name] = item, line
        elif before.label == item.label:
            repeated += 1
        else:
            raise DataError(
                f"{path} gives {item.name} label {before.label} in line {first[item.name]} and label "
                f"{item.label} in line {line}."
            )
    if not items:
        raise DataError(f"{path} has a header and no rows.")
    if repeated:
        notes.append(f"{repeated} rows repeat a picture that an earlier row names; each picture is counted once.")
    return list(items.values()), notes


def _item(row: dict[str, str], line: int, path: Path, root: Path, where: str) -> Item:
    def cell(name: str) -> str:
        return (row.get(name) or "").strip()

    name = cell(where)
    if not name:
        raise DataError(f"{path}, line {line}: the column {where} is empty.")
    # Tables that passed through a float column write 1.0.
    label = {"0": REAL, "1": FAKE, "0.0": REAL, "1.0": FAKE}.get(cell("label"))
    if label is None:
        raise DataError(f"{path}, line {line}: label must be 0 (real) or 1 (AI), got {cell('label')!r}.")
    source = cell("source") or ("real" if label == REAL else "")
    if label == FAKE:
        source = cell("generator") or source or "fake"
    return Item(
        path=root / name, name=name, label=label, source=source, group=cell("group") or name, mask=bool(cell("mask"))
    )


def _limited(items: Sequence[Item], limit: int, seed: int) -> list[Item]:
    if limit < 2:
        raise DataError(f"--limit must be at least 2 (one picture of each class), got {limit}.")
    order = np.random.default_rng(seed).permutation(len(items))
    queues: dict[int, list[int]] = {}
    for label in (REAL, FAKE):
        by_source: dict[str, list[int]] = {}
        for i in order:
            if items[i].label == label:
                by_source.setdefault(items[i].source, []).append(int(i))
        # One of each source, then a second of each, ...: a big source must not push the small ones out.
        turns = [(turn, i) for queue in by_source.values() for turn, i in enumerate(queue)]
        queues[label] = [i for _, i in sorted(turns, key=lambda pair: pair[0])]
    half = limit // 2
    fakes = max(half, limit - len(queues[REAL]))
    take = queues[FAKE][:fakes]
    take += queues[REAL][: limit - len(take)]
    return [items[i] for i in sorted(take)]
