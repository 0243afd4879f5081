"""From DATA to labelled pictures: a table, a folder with real/ and fake/, or a benchmark as it was published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np

from . import layouts
from .items import AI, FAKE, REAL, TAMPERED, DataError, Dataset, Item
from .layouts.tree import Folder, Tree
from .layouts.two_folders import plain_pictures


def load(
    data: str | Path,
    *,
    root: str | Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    layout: str | None = None,
    reals: str | Path | None = None,
    per_subset: int | None = None,
) -> Dataset:
    """Read DATA.

    Parameters
    ----------
    data : str or Path
        A table with the columns `path` (or `crop`) and `label` (1 = AI, 0 = real) and, where known, `generator`,
        `source`, `group`, `mask` and `split`; a folder with `real/` and `fake/`, whose sub-folders name the sources and
        the generators; or any data set of `tellsign.evaluation.layouts`, as its archive unpacks.
    root : str or Path, optional
        Where relative paths of a list start; the list's own folder by default.
    split : str, optional
        Take only this split, where DATA has any.
    limit : int, optional
        At most so many pictures: half of each class, spread evenly over its sources, drawn with `seed`.
    seed : int, default 0
    layout : str, optional
        Name of a layout; by default it is recognised.
    reals : str or Path, optional
        A folder of real pictures, for benchmarks that are published without; they count in every row of its table.
    per_subset : int, optional
        At most so many pictures of each class in every row of the benchmark's table, drawn with `seed`.

    Returns
    -------
    Dataset
        With at least one picture of each label, unless the data set is published with one class only.

    Raises
    ------
    DataError
        DATA is not there, fits no layout or two, lacks a column, has a label other than 0 and 1, or lacks a class.
    """
    path = Path(data)
    if not path.is_dir() and not path.is_file():
        raise DataError(
            f"DATA must be a table (CSV, JSON, parquet) or a folder with real/ and fake/ or a known data set, and "
            f"{path} is neither."
        )
    chosen = layouts.by_name(layout) if layout is not None else layouts.recognise(path)
    if path.is_dir() and root is not None and chosen.name in ("plain", "dda-pairs"):
        raise DataError(f"--root {root} is for the relative paths of a list, and {path} is a folder.")
    reading = layouts.read(path, chosen, layouts.Options(split=split, root=None if root is None else Path(root)))
    if split is not None and reading.split is None:
        raise DataError(f"--split {split} is for data sets with splits, and {chosen.title} ({path}) has none.")
    items = list(reading.items)
    notes = list(reading.notes)
    if reals is not None:
        items += _reals(Path(reals), items)
    if chosen.known != "published":
        notes.append(f"Read as {chosen.title}, whose layout is known {chosen.known}; docs/evaluation.md says how.")
    first, second = ("real", "AI") if reading.asks == AI else ("authentic", "tampered")
    for label, word in ((REAL, f"{first} (label 0)"), (FAKE, f"{second} (label 1)")):
        if not any(item.label == label for item in items):
            where = f"split {reading.split} of {path}" if reading.split else str(path)
            if not reading.one_class or not items:
                raise DataError(f"Both classes are needed, and {where} holds no {word} picture.")
            notes.append(
                f"{where} holds no {word} picture, so nothing that compares the classes (AUC, balanced accuracy) is "
                "given" + ("; --real FOLDER adds some." if label == REAL else ".")
            )
    if per_subset is not None:
        items = _per_subset(items, per_subset, seed)
    if limit is not None:
        items = _limited(items, limit, seed)
    return Dataset(
        items=tuple(items),
        data=str(data),
        split=reading.split,
        notes=tuple(notes),
        layout=chosen.name,
        asks=reading.asks,
    )


def _reals(folder: Path, items: Sequence[Item]) -> list[Item]:
    """Pictures of `--real`, grouped with the fakes of the same stem where the data set groups by stem."""
    if not folder.is_dir():
        raise DataError(f"--real must be a folder of real pictures, and {folder} is not one.")
    every = tuple(dict.fromkeys(s for item in items for s in item.subsets))
    groups = {item.group for item in items}
    prefixes = {group.rsplit("/", 1)[0] for group in groups if "/" in group}
    out = []
    for item in plain_pictures(Folder(folder), Tree(folder), REAL):
        stem = item.path.stem
        shared = next((f"{p}/{stem}" for p in sorted(prefixes) if f"{p}/{stem}" in groups), None)
        name = f"{folder.name}/{item.name}"
        out.append(attrs.evolve(item, name=name, group=shared or name, subsets=every))
    if not out:
        raise DataError(f"--real {folder} holds no file.")
    return out


def _per_subset(items: Sequence[Item], most: int, seed: int) -> list[Item]:
    if most < 1:
        raise DataError(f"Pictures per row of the table must be at least 1, got {most}.")
    order = np.random.default_rng(seed).permutation(len(items))
    taken: dict[tuple[str, int], int] = {}
    keep: dict[int, Item] = {}
    for i in map(int, order):
        item = items[i]
        rows = item.subsets or ((item.source,) if item.label == FAKE else ("",))
        # A real picture that serves several rows stays in those that still want it, and is scored once.
        wants = tuple(s for s in rows if taken.get((s, item.label), 0) < most)
        if wants:
            keep[i] = attrs.evolve(item, subsets=wants) if item.subsets else item
            for s in wants:
                taken[s, item.label] = taken.get((s, item.label), 0) + 1
    return [keep[i] for i in sorted(keep)]


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


__all__ = ["AI", "FAKE", "REAL", "TAMPERED", "DataError", "Dataset", "Item", "load"]
