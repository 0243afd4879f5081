"""The tower's class tokens of every prepared square."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tellsign.data.rows import SPLITS
from tellsign.data.squares import VERSIONS, Squares
from tellsign.towers import ClipTower, class_tokens

__all__ = ["Squares", "extract", "read_tokens"]


def extract(
    squares: Squares,
    version: str,
    tower: ClipTower,
    out: Path,
    *,
    splits: Collection[str] = SPLITS,
    rows: NDArray[np.int64] | None = None,
    batch: int = 16,
) -> None:
    """Write `tokens-<version>.npy`: float16 (n, depth, width), the class token after every block.

    An interrupted extraction goes on: rows that are done are not zero. Rows of other splits than `splits`, or outside
    `rows` (places in `squares`) where these are given, stay zero.
    """
    which = VERSIONS.index(version)
    file = out / f"tokens-{version}.npy"
    shape = (len(squares.pixels), tower.depth, tower.width)
    if file.is_file():
        store = np.lib.format.open_memmap(file, "r+")
        if store.shape != shape:
            raise ValueError(f"{file} has shape {store.shape}, and the folder asks for {shape}: remove it first")
    else:
        store = np.lib.format.open_memmap(file, "w+", np.float16, shape)
    wanted = np.isin(squares.split, list(splits))[: len(store)]
    if rows is not None:
        wanted = np.isin(np.arange(len(wanted)), rows)
    missing = np.flatnonzero(~store[: len(wanted), -1].any(axis=1) & wanted)
    for start in tqdm(range(0, len(missing), batch), desc=version, unit="batch"):
        part = missing[start : start + batch]
        store[part] = class_tokens(tower, squares.pixels[part, which]).half().cpu().numpy()
    store.flush()


def read_tokens(folder: Path, version: str) -> NDArray[np.float16]:
    """What `extract` wrote, memory-mapped: float16 (n, depth, width)."""
    return np.asarray(np.load(folder / f"tokens-{version}.npy", mmap_mode="r"))
