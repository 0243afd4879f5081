"""Rows of numbers that are computed once and kept; an interrupted computation goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm


def kept_rows(
    out: Path,
    name: str,
    items: Sequence[int],
    compute: Callable[[Sequence[int]], NDArray[np.generic]],
    *,
    told: Mapping[str, object],
    batch: int = 16,
) -> NDArray[np.generic]:
    """`compute` of all items, as `NAME.npy` has them; `NAME.json` says of what and how many are done.

    Parameters
    ----------
    out : Path
    name : str
    items : sequence of int
    compute : callable
        Some items to an array of as many rows.
    told : mapping
        What else decides the numbers, as JSON has it. Rows that were kept when other things were told are computed
        anew, and those of other items; more items begin with the rows of those that came first.
    batch : int, default 16
        Items at a time; as many are lost at most.

    Returns
    -------
    array of (len(items), ...)
        Mapped from the file.
    """
    file, notes = out / f"{name}.npy", out / f"{name}.json"
    what = json.loads(json.dumps({"told": dict(told), "items": list(items)}))
    done = 0
    if file.is_file() and notes.is_file():
        state = json.loads(notes.read_text())
        done = min(state["done"], len(items))
        if state["told"] != what["told"] or state["items"][:done] != what["items"][:done]:
            done = 0
        elif len(items) <= state["done"]:
            return _mapped(file)[: len(items)]
    store: Any = np.lib.format.open_memmap(file, "r+") if done else None
    if store is not None and len(store) != len(items):
        store = _lengthened(file, store[:done], len(items))
    for start in tqdm(range(done, len(items), batch), desc=name, unit="batch"):
        rows = compute(items[start : start + batch])
        if store is None:
            notes.unlink(missing_ok=True)
            store = np.lib.format.open_memmap(file, "w+", rows.dtype, (len(items), *rows.shape[1:]))
        store[start : start + len(rows)] = rows
        store.flush()
        part = notes.with_suffix(".part")
        part.write_text(json.dumps(what | {"done": start + len(rows)}))
        part.replace(notes)
    return _mapped(file)


def _mapped(file: Path) -> NDArray[Any]:
    rows: NDArray[Any] = np.load(file, mmap_mode="r")
    return rows


def _lengthened(file: Path, rows: NDArray[np.generic], count: int) -> NDArray[np.generic]:
    """The file with room for `count` rows, which begin with those that it has."""
    part = file.with_suffix(".part")
    longer = np.lib.format.open_memmap(part, "w+", rows.dtype, (count, *rows.shape[1:]))
    longer[: len(rows)] = rows
    longer.flush()
    part.replace(file)
    return np.lib.format.open_memmap(file, "r+")


__all__ = ["kept_rows"]
