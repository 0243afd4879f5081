"""The tower's class tokens of every prepared square."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tellsign.data.rows import SPLITS
from tellsign.towers import ClipTower, class_tokens

from .prepare import VERSIONS


@attrs.frozen
class Squares:
    """What `prepare` wrote to a folder."""

    pixels: NDArray[np.uint8]
    """uint8 (n, 3, 224, 224, 3), memory-mapped; the middle axis in the order of `VERSIONS`."""
    label: NDArray[np.int64]
    source: NDArray[np.str_]
    content: NDArray[np.str_]
    group: NDArray[np.str_]
    split: NDArray[np.str_]

    @classmethod
    def read(cls, folder: Path) -> Squares:
        """Read a folder; one that is still being written gives what is there."""
        with (folder / "squares.csv").open(newline="") as handle:
            rows = list(csv.DictReader(handle))
        return cls(
            np.load(folder / "squares.npy", mmap_mode="r")[: len(rows)],
            np.array([int(r["label"]) for r in rows]),
            *(np.array([r[name] for r in rows]) for name in ("source", "content", "group", "split")),
        )

    def __len__(self) -> int:
        return len(self.label)


def extract(
    squares: Squares, version: str, tower: ClipTower, out: Path, *, splits: Collection[str] = SPLITS, batch: int = 16
) -> None:
    """Write `tokens-<version>.npy`: float16 (n, depth, width), the class token after every block.

    An interrupted extraction goes on: rows that are done are not zero. Rows of other splits than `splits` stay zero.
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
    missing = np.flatnonzero(~store[:, -1].any(axis=1) & np.isin(squares.split, list(splits)))
    for start in tqdm(range(0, len(missing), batch), desc=version, unit="batch"):
        part = missing[start : start + batch]
        store[part] = class_tokens(tower, squares.pixels[part, which]).half().cpu().numpy()
    store.flush()


def read_tokens(folder: Path, version: str) -> NDArray[np.float16]:
    """What `extract` wrote, memory-mapped: float16 (n, depth, width)."""
    return np.asarray(np.load(folder / f"tokens-{version}.npy", mmap_mode="r"))
