"""What is kept of a picture under a condition: numbers, in arrays that are as long at the start as at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.schemas import Label

from .items import AI, TAMPERED, Item
from .shortcuts import Traits

LABELS = tuple(label.value for label in Label)
_NUMBERS = ("quality", "size", "blockiness", "sharpness", "spectrum")
_WORDS = ("format", "tables")


@attrs.frozen(kw_only=True)
class Row:
    """What is kept of one picture under one condition."""

    item: Item
    p_ai: float | None
    label: str
    traits: Traits
    p_tampered: float | None = None


@attrs.frozen(kw_only=True)
class Outcome:
    """One answer, as the journal keeps it."""

    label: str
    p_ai: float | None
    p_tampered: float | None
    traits: Traits
    hits: tuple[int, int, int] | None = None
    """Pixels found, accused wrongly, and missed; None where there is no mask or no map."""
    peers: dict[str, float | None] = attrs.field(factory=dict)
    notices: tuple[str, ...] = ()
    versions: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True, eq=False)
class Columns:
    """Pictures that were scored under one condition, as columns of one length n."""

    label: NDArray[np.int_]
    p: NDArray[np.float64]
    """NaN where there is no probability."""
    verdict: NDArray[np.object_]
    source: NDArray[np.object_]
    group: NDArray[np.object_]
    masked: NDArray[np.bool_]
    subsets: NDArray[np.object_]
    """Tuples of names."""
    traits: dict[str, Sequence[Any]]
    asks: str = AI

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which have a probability."""
        return np.isfinite(self.p)

    def __len__(self) -> int:
        return len(self.label)

    def take(self, keep: NDArray[np.bool_]) -> Columns:
        """The rows for which `keep` (n,) is true."""
        return attrs.evolve(
            self,
            label=self.label[keep],
            p=self.p[keep],
            verdict=self.verdict[keep],
            source=self.source[keep],
            group=self.group[keep],
            masked=self.masked[keep],
            subsets=self.subsets[keep],
            traits={name: _picked(values, keep) for name, values in self.traits.items()},
        )


def columns(rows: Iterable[Row], asks: str = AI) -> Columns:
    """Rows as columns; the score is p_ai, or p_tampered where the data set asks that."""
    rows = list(rows)
    p = [r.p_tampered if asks == TAMPERED else r.p_ai for r in rows]
    return Columns(
        label=np.array([r.item.label for r in rows], int),
        p=np.array([np.nan if v is None else v for v in p], np.float64),
        verdict=_objects([r.label for r in rows]),
        source=_objects([r.item.source for r in rows]),
        group=_objects([r.item.group for r in rows]),
        masked=np.array([r.item.mask for r in rows], bool),
        subsets=_objects([r.item.subsets for r in rows]),
        traits={name: [getattr(r.traits, name) for r in rows] for name in (*_WORDS, *_NUMBERS)},
        asks=asks,
    )


class Store:
    """Outcomes of one condition, by the picture's place in the data set.

    Parameters
    ----------
    items : sequence of n Item
    peers : sequence of str
    """

    def __init__(self, items: Sequence[Item], peers: Sequence[str] = ()) -> None:
        n = len(items)
        self.items = items
        self.verdict = np.full(n, -1, np.int8)
        self.p_ai, self.p_tampered = np.full(n, np.nan), np.full(n, np.nan)
        self.numbers = np.full((n, len(_NUMBERS)), np.nan)
        self.words = np.full((n, len(_WORDS)), -1, np.int32)
        self.known: list[str] = []
        self.codes: dict[str, int] = {}
        self.hits = np.full((n, 3), -1, np.int64)
        self.peers = {name: np.full(n, np.nan) for name in peers}

    def add(self, place: int, outcome: Outcome) -> None:
        """Keep an outcome; a second one for the same place takes the first one's."""
        self.verdict[place] = LABELS.index(outcome.label)
        self.p_ai[place] = np.nan if outcome.p_ai is None else outcome.p_ai
        self.p_tampered[place] = np.nan if outcome.p_tampered is None else outcome.p_tampered
        self.numbers[place] = [getattr(outcome.traits, name) for name in _NUMBERS]
        self.words[place] = [self._code(getattr(outcome.traits, name)) for name in _WORDS]
        if outcome.hits is not None:
            self.hits[place] = outcome.hits
        for name, values in self.peers.items():
            score = outcome.peers.get(name)
            values[place] = np.nan if score is None else score

    def _code(self, word: str) -> int:
        """A word's number; formats and quantisation tables repeat from picture to picture."""
        if word not in self.codes:
            self.codes[word] = len(self.known)
            self.known.append(word)
        return self.codes[word]

    @property
    def there(self) -> NDArray[np.bool_]:
        """Which pictures were scored."""
        return self.verdict >= 0

    def columns(self, asks: str = AI) -> Columns:
        """Of the pictures that were scored."""
        there = np.flatnonzero(self.there)
        items = [self.items[int(i)] for i in there]
        traits: dict[str, Sequence[Any]] = {
            name: [self.known[c] for c in self.words[there, k]] for k, name in enumerate(_WORDS)
        }
        traits |= {name: self.numbers[there, k] for k, name in enumerate(_NUMBERS)}
        return Columns(
            label=np.array([i.label for i in items], int),
            p=(self.p_tampered if asks == TAMPERED else self.p_ai)[there],
            verdict=_objects([LABELS[c] for c in self.verdict[there]]),
            source=_objects([i.source for i in items]),
            group=_objects([i.group for i in items]),
            masked=np.array([i.mask for i in items], bool),
            subsets=_objects([i.subsets for i in items]),
            traits=traits,
            asks=asks,
        )


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    """A one-dimensional array of objects, tuples included."""
    out = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        out[i] = value
    return out


def _picked(values: Sequence[Any], keep: NDArray[np.bool_]) -> Sequence[Any]:
    return [values[int(i)] for i in np.flatnonzero(keep)]
