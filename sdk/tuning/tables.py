"""Score tables as files: CSV, or Parquet that says itself what its columns mean.

Scoring may happen anywhere: `tune DATA --export evidence.parquet` on the machines that have the pictures, and
`tune --table evidence.parquet` on one that has none. The Parquet file carries the meaning of each column and the
versions of the plugins in its schema's metadata, so that a table of another plugin version is not taken for this one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from tellsign.errors import SettingError
from tellsign.fusion.features import FeatureColumn, columns
from tellsign.fusion.origin import scored_by
from tellsign.fusion.table import FIELDS, ScoreTable
from tellsign.schemas import Declaration

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

REQUIRED = FIELDS[:3]
_NUMBERS = ("label", "tampered", "edited")
_DEFAULT = {"tampered": -1, "edited": 0, "split": ""}
_KEY = b"tellsign"
BATCH = 65_536
"""Rows of one record batch."""


@attrs.frozen(kw_only=True)
class Heading:
    """What a table file says of its columns."""

    columns: tuple[FeatureColumn, ...]
    plugins: dict[str, Any]
    """Versions and weights' hashes by plugin; empty where the file does not say."""
    rows: int | None
    """None for CSV, which must be read to be counted."""


def is_parquet(path: Path) -> bool:
    """Whether the path is to be read or written as Parquet."""
    return path.suffix.lower() in (".parquet", ".pq")


def heading(path: str | Path, declarations: Mapping[str, Declaration]) -> Heading:
    """Read a table's head only.

    Parameters
    ----------
    path : str or Path
        Parquet by its suffix, else CSV.
    declarations : mapping of str to Declaration
        Of the installed plugins: what a CSV's columns mean, and what a Parquet file's must mean where the plugin is
        installed.

    Raises
    ------
    SettingError
        No such file, a column that nobody declares, a missing one, or one that means something else here.
    """
    target = Path(path)
    if not target.is_file():
        raise SettingError("table", "a CSV or Parquet file", str(path))
    known = {c.name: c for c in columns(declarations)}
    if not is_parquet(target):
        with target.open(encoding="utf-8", errors="replace") as file:
            names = [x.strip() for x in file.readline(1 << 20).rstrip("\r\n").split(",")]
        return Heading(columns=_meant(names, known, "the installed plugins"), plugins={}, rows=None)
    found = _open(target)
    names = list(found.schema_arrow.names)
    told = (found.schema_arrow.metadata or {}).get(_KEY)
    plugins: dict[str, Any] = {}
    if told is not None:
        try:
            parsed = json.loads(told)
            made = {entry["name"]: FeatureColumn(**entry) for entry in parsed["columns"]}
            plugins = dict(parsed["plugins"])
        except (ValueError, TypeError, KeyError) as error:
            raise SettingError("table", "Parquet whose metadata tells its columns", f"{target}: {error}") from error
        differing = sorted(n for n, c in made.items() if n in known and known[n] != c)
        if differing:
            allowed = "columns that mean what the installed plugins declare"
            raise SettingError("table", allowed, f"others for {', '.join(differing)}")
        known = made
    return Heading(columns=_meant(names, known, str(target)), plugins=plugins, rows=found.metadata.num_rows)


def load(path: str | Path, declarations: Mapping[str, Declaration]) -> ScoreTable:
    """Read a whole table into memory; parameters and errors as `heading`."""
    target = Path(path)
    head = heading(target, declarations)
    try:
        if not is_parquet(target):
            return ScoreTable.load(target, head.columns)
        parts = list(batches(target, head))
        return joined(parts)
    except ValueError as error:
        # The file's name and not its path: what is wrong must fit the line.
        why = str(error).removeprefix(f"{target}: ")
        raise SettingError("table", "a score table", f"{target.name}: {why}") from error


def batches(path: str | Path, head: Heading, *, size: int = BATCH) -> Iterator[ScoreTable]:
    """A Parquet file's rows, `size` at a time, in order; only one batch is in memory.

    Raises
    ------
    SettingError
        A cell that is not what its column takes.
    """
    file = _open(Path(path))
    names = set(file.schema_arrow.names)
    wanted = [*(c.name for c in head.columns), *(f for f in FIELDS if f in names)]
    for batch in file.iter_batches(batch_size=size, columns=wanted):
        if batch.num_rows:
            try:
                yield _table(batch, head.columns)
            except (ValueError, TypeError) as error:
                raise SettingError("table", "a score table", f"{Path(path).name}: {error}") from error


def joined(parts: Sequence[ScoreTable]) -> ScoreTable:
    """One table of several with the same columns."""
    if not parts:
        raise ValueError("a table takes at least one row, got none")
    fields = {f: np.concatenate([getattr(p, f) for p in parts]) for f in FIELDS}
    return ScoreTable(rows=np.concatenate([p.rows for p in parts]), columns=parts[0].columns, **fields)


def save(table: ScoreTable, path: str | Path, declarations: Mapping[str, Declaration]) -> None:
    """Write a table, as Parquet or CSV by the path's suffix."""
    target = Path(path)
    if not is_parquet(target):
        table.save(target)
        return
    pa, pq = _arrow()
    with pq.ParquetWriter(str(target), schema_of(table.columns, declarations)) as writer:
        for start in range(0, len(table), BATCH):
            part = table.take(np.arange(start, min(start + BATCH, len(table))))
            arrays = [pa.array(part.rows[:, j], pa.float64(), from_pandas=True) for j in range(len(part.columns))]
            arrays += [pa.array(getattr(part, f).tolist()) for f in FIELDS]
            writer.write_table(
                pa.Table.from_arrays(arrays, names=[*(c.name for c in part.columns), *FIELDS]).cast(writer.schema)
            )


def schema_of(made: Sequence[FeatureColumn], declarations: Mapping[str, Declaration]) -> pyarrow.Schema:
    """The Parquet schema of a table, with the meaning of its columns as metadata."""
    pa, _ = _arrow()
    fields = [pa.field(c.name, pa.float64()) for c in made]
    fields += [pa.field(f, pa.int8() if f in _NUMBERS else pa.string()) for f in FIELDS]
    plugins = scored_by(declarations, made)
    told = {"columns": [{**attrs.asdict(c), "task": str(c.task)} for c in made], "plugins": plugins}
    return pa.schema(fields, metadata={_KEY: json.dumps(told, sort_keys=True).encode()})


def _meant(names: Sequence[str], known: Mapping[str, FeatureColumn], where: str) -> tuple[FeatureColumn, ...]:
    missing = [f for f in REQUIRED if f not in names]
    foreign = [n for n in names if n not in known and n not in FIELDS]
    if missing or foreign or len(set(names)) != len(names):
        problem = [f"lacks {', '.join(missing)}"] if missing else []
        problem += [f"has {', '.join(foreign[:5])}, which {where} do not declare"] if foreign else []
        problem += ["names a column twice"] if len(set(names)) != len(names) else []
        raise SettingError("table", f"the columns {', '.join(REQUIRED)} and declared ones", "; ".join(problem))
    made = tuple(known[n] for n in sorted(n for n in names if n in known))
    if not made:
        raise SettingError("table", "at least one column of a plugin", "none")
    return made


def _table(batch: pyarrow.RecordBatch, made: Sequence[FeatureColumn]) -> ScoreTable:
    rows = np.column_stack([np.asarray(batch.column(c.name).to_numpy(zero_copy_only=False), np.float64) for c in made])
    fields: dict[str, Any] = {}
    have = batch.schema.names
    for name in FIELDS:
        if name not in have:
            continue
        values = batch.column(name).to_pylist()
        if name in REQUIRED and any(v is None for v in values):
            raise ValueError(f"{name} takes a value in every row, got an empty cell")
        if name in _DEFAULT:
            values = [_DEFAULT[name] if v is None else v for v in values]
        fields[name] = values
    return ScoreTable(rows=rows, columns=made, **fields)


def _open(path: Path) -> pyarrow.parquet.ParquetFile:
    pa, pq = _arrow()
    try:
        return pq.ParquetFile(str(path))
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingError("table", "a Parquet file", f"{path.name}: {first}") from error


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SettingError("table", "pyarrow for Parquet: pip install 'tellsign[parquet]'", "not installed") from error
    return pyarrow, pyarrow.parquet


__all__ = ["BATCH", "Heading", "batches", "heading", "is_parquet", "joined", "load", "save", "schema_of"]
