"""How much each picture of `fit` counts for a probe: sources, art, and an offset for each source.

A collection of a thousand photographs and one of twenty paintings are one source each; what every source of a class
has in common is what a probe should learn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import NDArray


@attrs.frozen(kw_only=True)
class Balance:
    """Weights and offsets of a probe's training pictures."""

    power: float = 0.5
    """A source counts by this power of its size: 1 is its size, 0 makes all sources equal."""
    by_content: bool = False
    """Whether a source's photographs, art, screenshots and scans count as sources of their own."""
    art: float = 0.0
    """Share of the real side that art makes up, if there is any; 0 leaves it as it comes."""
    offset: float = 0.0
    """Scale of a penalised offset per source, which explains what only that source has; 0 does without."""

    def weights(self, rows: Rows) -> NDArray[np.float64]:
        """A weight for each row: both classes have one total, and the mean is 1."""
        keys = list(zip(rows.labels.tolist(), self.sources(rows), strict=True))
        count = Counter(keys)
        weight = np.array([count[k] ** (self.power - 1.0) for k in keys])
        if self.art:
            art, other = ((rows.labels == 0) & ((rows.contents == "art") == is_art) for is_art in (True, False))
            if art.any() and other.any():
                weight[art] *= self.art / (1 - self.art) * weight[other].sum() / weight[art].sum()
        for y in (0, 1):
            weight[rows.labels == y] /= weight[rows.labels == y].sum()
        return weight * len(weight) / 2

    def sources(self, rows: Rows) -> list[str]:
        """The name of what counts as a row's source."""
        if not self.by_content:
            return [str(s) for s in rows.sources]
        return [f"{s}/{c}" for s, c in zip(rows.sources, rows.contents, strict=True)]

    def columns(self, rows: Rows) -> NDArray[np.float32]:
        """The offsets' columns, float32 (n, sources of both classes); none where `offset` is 0."""
        if not self.offset:
            return np.zeros((len(rows.labels), 0), np.float32)
        keys = [f"{y}/{s}" for y, s in zip(rows.labels, self.sources(rows), strict=True)]
        _, where = np.unique(keys, return_inverse=True)
        return np.asarray(np.eye(where.max() + 1)[where] * self.offset, np.float32)


@attrs.frozen
class Rows:
    """What is known of the pictures that features belong to; arrays of (n,)."""

    labels: NDArray[np.int64]
    sources: NDArray[np.str_]
    contents: NDArray[np.str_]

    def __getitem__(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Rows:
        return Rows(self.labels[which], self.sources[which], self.contents[which])

    @classmethod
    def plain(cls, labels: NDArray[np.int64], sources: Sequence[str]) -> Rows:
        """Rows of which nothing else is known."""
        return cls(labels, np.array(sources), np.full(len(labels), "photo"))
