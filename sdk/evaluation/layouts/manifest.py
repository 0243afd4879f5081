"""A table of pictures: CSV, JSON lines or a JSON list, with `path` and `label` and whatever else is known."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from tellsign.evaluation.items import DataError, Item
from tellsign.evaluation.truth import MaskPicture, Nothing

from .artifacts import records
from .layout import FAKE, PLAIN, REAL, Options, Reading, Signs
from .tree import Tree

_JSON = (".json", ".jsonl")
Rows = list[tuple[int, Mapping[str, str]]]


@attrs.frozen(kw_only=True)
class Manifest:
    """The columns `path` (or `crop`) and `label`; where known `generator`, `source`, `group`, `mask` and `split`."""

    name: str = "manifest"
    title: str = "table of pictures"
    known: str = "published"
    rank: int = PLAIN
    expects: str = "CSV, .jsonl or .json with path,label[,generator,source,group,mask,split] (label 1 = AI)"

    def recognise(self, tree: Tree) -> Signs:
        """Any file that is no parquet; what it lacks is said when it is read."""
        if not tree.is_file or tree.path.suffix.casefold() == ".parquet":
            return Signs()
        return Signs(seen=(f"the table {tree.path.name}",))

    def read(self, tree: Tree, options: Options) -> Reading:
        """See `Layout.read`."""
        if not tree.is_file:
            raise DataError(f"{tree.path} is a folder; this layout is {self.expects}.")
        path = tree.path
        root = options.root if options.root is not None else path.parent
        items, notes = _items(path, root, options.split)
        return Reading(items=tuple(items), notes=tuple(notes), split=options.split)


def _items(path: Path, root: Path, split: str | None) -> tuple[list[Item], list[str]]:
    columns, rows = _json(path) if path.suffix.casefold() in _JSON else _csv(path)
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
        splits = sorted({(row.get("split") or "").strip() for _, row in rows})
        rows = [(line, row) for line, row in rows if (row.get("split") or "").strip() == split]
        if not rows:
            raise DataError(f"{path} has no split {split}, and its splits are: {', '.join(splits) or 'none'}.")
    elif len({row.get("split") for _, row in rows} if "split" in columns else ()) > 1:
        notes.append("DATA has a column split and all of its splits are evaluated together; --split NAME takes one.")
    items: dict[str, Item] = {}
    first: dict[str, int] = {}
    repeated = 0
    for line, row in rows:
        item = _item(row, line, path, root, where, masks="mask" in columns)
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


def _csv(path: Path) -> tuple[list[str], Rows]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns = [c.strip() for c in reader.fieldnames or []]
            reader.fieldnames = columns
            return columns, [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV in UTF-8 ({error}).") from error


def _json(path: Path) -> tuple[list[str], Rows]:
    rows: Rows = []
    columns: dict[str, None] = {}
    for n, row in enumerate(records(path), 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, entry {n}: must be an object with path and label, got {str(row)[:60]}.")
        columns |= dict.fromkeys(row)
        rows.append((n, {k: _text(v) for k, v in row.items()}))
    return list(columns), rows


def _text(value: Any) -> str:
    return "" if value is None else str(int(value)) if isinstance(value, bool) else str(value)


def _item(row: Mapping[str, str], line: int, path: Path, root: Path, where: str, *, masks: bool) -> Item:
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
    mask = cell("mask")
    return Item(
        path=root / name,
        name=name,
        label=label,
        source=source,
        group=cell("group") or name,
        mask=bool(mask),
        truth=MaskPicture(path=root / mask, name=mask) if mask else Nothing() if masks and label == REAL else None,
    )


KNOWN = (Manifest(),)
