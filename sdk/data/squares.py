"""Squares of semantic views, prepared once: what the towers' heads are trained on."""

from __future__ import annotations

import csv
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

VERSIONS = ("overview", "plain", "damaged")
"""overview: the whole through the project's normalising pipeline, as evaluation gives it. plain: the whole as it is, as
a user gives it. damaged: the overview cut, made smaller and scrambled at random."""


@attrs.frozen
class Squares:
    """What `python -m tellsign.plugins.semantic.training prepare` wrote to a folder."""

    pixels: NDArray[np.uint8]
    """uint8 (n, 3, 224, 224, 3), memory-mapped; the middle axis in the order of `VERSIONS`."""
    label: NDArray[np.int64]
    source: NDArray[np.str_]
    content: NDArray[np.str_]
    group: NDArray[np.str_]
    split: NDArray[np.str_]
    path: NDArray[np.str_]

    @classmethod
    def read(cls, folder: Path) -> Squares:
        """Read a folder; one that is still being written gives what is there."""
        with (folder / "squares.csv").open(newline="") as handle:
            rows = list(csv.DictReader(handle))
        return cls(
            np.load(folder / "squares.npy", mmap_mode="r")[: len(rows)],
            np.array([int(r["label"]) for r in rows]),
            *(np.array([r[name] for r in rows]) for name in ("source", "content", "group", "split", "path")),
        )

    def __len__(self) -> int:
        return len(self.label)
