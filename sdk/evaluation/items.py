"""One labelled picture, and what a data set is before any picture is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import attrs

from tellsign.errors import TellsignError

from .truth import Truth

REAL, FAKE = 0, 1
AI, TAMPERED = "ai", "tampered"


class DataError(TellsignError, ValueError):
    """DATA cannot be evaluated; the message says what is wrong, where, and what would help."""


class Content(Protocol):
    """Where a picture's bytes are when they are no file of their own: a cell of a parquet file."""

    def read(self) -> bytes:
        """The picture's file."""


@attrs.frozen(kw_only=True)
class Item:
    """One labelled picture."""

    path: Path
    """Of the picture, or of the file that `content` reads from."""
    name: str
    """The path as DATA writes it; what tables and error lists print."""
    label: int
    """1 = AI (or tampered, where the data set asks that), 0 = real."""
    source: str
    """Collection that a real picture comes from, generator of a fake one."""
    group: str
    """Pictures of one group are drawn together by the bootstrap."""
    mask: bool = False
    """Whether DATA names a mask: parts of this picture are known to be edited."""
    truth: Truth | None = None
    """Which pixels are edited or carry an artifact; None where DATA does not say."""
    subsets: tuple[str, ...] = ()
    """Rows of the benchmark's own table that the picture counts in; a real one may serve several generators."""
    content: Content | None = None

    @property
    def file(self) -> Path | bytes:
        """What the decoder reads: the path, or the bytes where the picture lies inside another file."""
        return self.path if self.content is None else self.content.read()


@attrs.frozen(kw_only=True)
class Dataset:
    """What DATA holds, before any picture is opened."""

    items: tuple[Item, ...]
    data: str
    """DATA as it was given."""
    split: str | None = None
    notes: tuple[str, ...] = ()
    """Sentences that belong beside the numbers."""
    layout: str = "plain"
    """Name of the layout that it was read as."""
    asks: str = AI
    """What label 1 means: "ai" or "tampered"."""

    def count(self, label: int) -> int:
        """How many pictures have `label`."""
        return sum(item.label == label for item in self.items)

    @property
    def subsets(self) -> tuple[str, ...]:
        """Rows of the benchmark's table, in the order of their first picture."""
        return tuple(dict.fromkeys(name for item in self.items for name in item.subsets))

    def where(self, keep: Callable[[Item], bool]) -> Dataset:
        """The data set with those items only for which `keep` is true."""
        return attrs.evolve(self, items=tuple(item for item in self.items if keep(item)))
