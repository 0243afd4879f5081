"""The table that the fusion is trained on."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.schemas import Label
from tellsign.schemas.checks import refuse, several

from .features import FeatureColumn, keep_blocks, pattern_key, present_blocks

FIELDS = ("label", "group", "source", "family", "split", "tampered", "edited")
"""Columns of the CSV beside the features; the first three are required."""


def _floats(value: Any) -> NDArray[np.float64]:
    return np.ascontiguousarray(value, np.float64)


def _ints(value: Any) -> NDArray[np.int64]:
    return np.ascontiguousarray(value, np.int64)


def _texts(value: Any) -> NDArray[np.str_]:
    return np.asarray([str(v) for v in value], dtype=np.str_)


def _columns(value: Iterable[FeatureColumn]) -> tuple[FeatureColumn, ...]:
    return tuple(value)


# The optional fields are filled once the table's length is known.
_NONE: Any = None


def _maybe_ints(value: Any) -> NDArray[np.int64]:
    return _NONE if value is None else _ints(value)


def _maybe_texts(value: Any) -> NDArray[np.str_]:
    return _NONE if value is None else _texts(value)


@attrs.frozen(eq=False)
class ScoreTable:
    """Feature rows of known pictures.

    A picture may have several rows (several versions of it, or the answers with and without one of its blocks); rows
    that share content share a `group` and count as one picture wherever pictures are counted.
    """

    rows: NDArray[np.float64] = attrs.field(converter=_floats)
    """float64 (n, columns); NaN where the block did not answer."""
    columns: tuple[FeatureColumn, ...] = attrs.field(converter=_columns, validator=several(FeatureColumn, at_least=1))
    """Of both heads, ordered by name."""
    label: NDArray[np.int64] = attrs.field(converter=_ints)
    """1 where the picture holds synthesised pixels, else 0."""
    group: NDArray[np.str_] = attrs.field(converter=_texts)
    """Ties rows that share content."""
    source: NDArray[np.str_] = attrs.field(converter=_texts)
    """Generator or collection."""
    family: NDArray[np.str_] = attrs.field(default=_NONE, converter=_maybe_texts)
    """What is left out together: the generator's family, or the real source; default `source`."""
    tampered: NDArray[np.int64] = attrs.field(default=_NONE, converter=_maybe_ints)
    """1 where pixels were moved, pasted or painted, 0 where not, -1 where unknown; default unknown."""
    edited: NDArray[np.int64] = attrs.field(default=_NONE, converter=_maybe_ints)
    """1 where only a part of the picture was synthesised; default 0."""
    split: NDArray[np.str_] = attrs.field(default=_NONE, converter=_maybe_texts)

    def __attrs_post_init__(self) -> None:
        n = len(self.label)
        fill = {
            "family": self.source,
            "tampered": np.full(n, -1, np.int64),
            "edited": np.zeros(n, np.int64),
            "split": np.full(n, "", np.str_),
        }
        for name, value in fill.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if n == 0 or self.rows.shape != (n, len(self.columns)):
            raise refuse(self, "rows", f"an array of ({n or 'n'}, {len(self.columns)}) with n of at least 1", self.rows)
        for name in FIELDS:
            if getattr(self, name).shape != (n,):
                raise refuse(self, name, f"an array of ({n},)", getattr(self, name))
        if np.isinf(self.rows).any():
            raise refuse(self, "rows", "finite numbers and NaN", "infinite ones")
        for name, allowed in (("label", (0, 1)), ("tampered", (-1, 0, 1)), ("edited", (0, 1))):
            if not np.isin(getattr(self, name), allowed).all():
                raise refuse(self, name, f"values in {allowed}", np.unique(getattr(self, name)).tolist())
        names = [c.name for c in self.columns]
        if len(set(names)) != len(names):
            raise refuse(self, "columns", "columns of different names", names)
        order = sorted(range(len(names)), key=names.__getitem__)
        if order != list(range(len(names))):
            object.__setattr__(self, "columns", tuple(self.columns[i] for i in order))
            object.__setattr__(self, "rows", np.ascontiguousarray(self.rows[:, order]))

    def __len__(self) -> int:
        return len(self.label)

    @property
    def patterns(self) -> tuple[frozenset[str], ...]:
        """Blocks that answered, per row."""
        return tuple(present_blocks(row, self.columns) for row in self.rows)

    @property
    def kinds(self) -> tuple[Label, ...]:
        """The definite label that is true of each row."""
        return tuple(
            (Label.AI_EDITED if edited else Label.AI_GENERATED)
            if label
            else (Label.TAMPERED if tampered == 1 else Label.AUTHENTIC)
            for label, tampered, edited in zip(
                self.label.tolist(), self.tampered.tolist(), self.edited.tolist(), strict=True
            )
        )

    @property
    def sha256(self) -> str:
        """Hash of everything in the table."""
        digest = hashlib.sha256(self.rows.tobytes())
        digest.update(repr([attrs.astuple(c) for c in self.columns]).encode())
        for name in FIELDS:
            digest.update(repr(getattr(self, name).tolist()).encode())
        return digest.hexdigest()

    def take(self, rows: Any) -> ScoreTable:
        """The table of these rows (row numbers or a mask)."""
        fields = {name: getattr(self, name)[rows] for name in FIELDS}
        return ScoreTable(rows=self.rows[rows], columns=self.columns, **fields)

    def with_pattern(self, blocks: frozenset[str]) -> NDArray[np.int64]:
        """Numbers of the rows in which at least `blocks` answered."""
        return np.flatnonzero([blocks <= p for p in self.patterns])

    def masked(self, blocks: frozenset[str]) -> NDArray[np.float64]:
        """All rows with the columns outside `blocks` set to NaN, float64 (n, columns)."""
        return keep_blocks(self.rows, self.columns, blocks)

    def pattern_names(self) -> tuple[str, ...]:
        """The patterns that occur, by key."""
        return tuple(sorted({pattern_key(p) for p in self.patterns}))

    def save(self, path: str | Path) -> None:
        """Write as CSV: feature columns by name, then label, group, source, family, split, tampered, edited.

        Numbers are written so that they read back bit for bit; NaN is an empty cell.
        """
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*(c.name for c in self.columns), *FIELDS])
            for i, row in enumerate(self.rows.tolist()):
                cells = ["" if v != v else repr(v) for v in row]
                writer.writerow([*cells, *(getattr(self, name)[i].item() for name in FIELDS)])

    @classmethod
    def load(cls, path: str | Path, columns: Sequence[FeatureColumn]) -> ScoreTable:
        """Read what `save` wrote.

        Parameters
        ----------
        path : str or Path
        columns : sequence of FeatureColumn
            What the feature columns mean (`tellsign.fusion.columns(declarations)`); the CSV has their names only.

        Raises
        ------
        ValueError
            A column of `columns` or a required one is missing, an unknown one is there, or a cell is no number.
        """
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or ())
            names = [c.name for c in columns]
            missing = [x for x in (*names, *FIELDS[:3]) if x not in header]
            foreign = [x for x in header if x not in names and x not in FIELDS]
            if missing or foreign or len(set(header)) != len(header):
                raise ValueError(
                    f"{path}: header takes {[*names, *FIELDS]}, got {header}; missing {missing}, foreign {foreign}"
                )
            records = list(reader)
            ragged = [i for i, r in enumerate(records, 2) if None in r or None in r.values()]
            if ragged:
                raise ValueError(f"{path}: cells: every row takes {len(header)}, row {ragged[0]} has another number")
        try:
            rows = [[float(r[x]) if r[x] else np.nan for x in names] for r in records]
            fields: dict[str, Any] = {}
            for name in FIELDS:
                if name in header:
                    numeric = name in ("label", "tampered", "edited")
                    fields[name] = [int(r[name]) if numeric else r[name] for r in records]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: cells take numbers, got one that is not: {error}") from error
        return cls(rows=np.array(rows, np.float64).reshape(len(records), len(names)), columns=tuple(columns), **fields)


__all__ = ["FIELDS", "ScoreTable"]
