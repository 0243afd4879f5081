"""Other detectors in the same tables: a callable that is given the same pictures, or a CSV of its scores."""

from __future__ import annotations

import csv
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.errors import TellsignError
from tellsign.schemas import Label, Picture

from .items import DataError, Item
from .outcomes import Columns


class PeerError(TellsignError):
    """A peer raised, or answered what is no score."""


class Peer(Protocol):
    """What `module:callable` must name.

    It is called with a sequence of n pictures (RGB uint8 (H, W, 3) at `.pixels`, the file's bytes at `.original` where
    there is a file) and gives n scores, higher for AI; None where it has none. Scores in [0, 1] are taken for
    probabilities; if any is outside, all are taken for log-odds.
    """

    def __call__(self, pictures: Sequence[Picture]) -> Sequence[float | None]:
        """Scores of n pictures."""


@attrs.frozen(kw_only=True)
class CallablePeer:
    """A detector that runs beside this one."""

    name: str
    where: str
    call: Callable[[Sequence[Picture]], Sequence[float | None]]

    def scores(self, pictures: Sequence[Picture]) -> list[float | None]:
        """Scores of n pictures.

        Raises
        ------
        PeerError
            It raised, or gave something else than n numbers.
        """
        try:
            found = list(self.call(pictures))
            values = [None if v is None else float(v) for v in found]
        except Exception as error:
            raise PeerError(f"peer {self.name} ({self.where}) failed: {type(error).__name__}: {error}") from error
        if len(values) != len(pictures):
            raise PeerError(f"peer {self.name} gave {len(values)} scores for {len(pictures)} pictures")
        return [None if v is None or not np.isfinite(v) else v for v in values]


@attrs.frozen(kw_only=True)
class ListedPeer:
    """A detector whose scores somebody has written down."""

    name: str
    where: str
    table: dict[tuple[str, str | None], float]
    """By picture, and by condition where the table has such a column."""

    def score(self, item: Item, condition: str, native: str) -> float | None:
        """The score of a picture under a condition; a table without that column speaks of native pictures."""
        for name in keys(item):
            if (name, condition) in self.table:
                return self.table[name, condition]
            if condition == native and (name, None) in self.table:
                return self.table[name, None]
        return None


def keys(item: Item) -> tuple[str, ...]:
    """What a table may call a picture: its name in DATA, its whole path, its last two parts, its file name."""
    parts = PurePosixPath(item.name).parts
    return (item.name, os.fspath(item.path), "/".join(parts[-2:]), parts[-1] if parts else item.name)


def load(given: str) -> CallablePeer | ListedPeer:
    """A peer by what the command line says of it.

    Parameters
    ----------
    given : str
        "module:callable" or "scores.csv", with "name=" before it where another name shall be printed.

    Raises
    ------
    DataError
        The module, the callable, the file or its columns are not there.
    """
    name, equals, where = given.partition("=")
    if not equals:
        name, where = "", given
    if where.casefold().endswith(".csv") or Path(where).is_file():
        return _listed(name or Path(where).stem, Path(where))
    module, colon, attribute = where.partition(":")
    if not (colon and module and attribute):
        raise DataError(f"--peer takes module:callable or a CSV of scores, with NAME= before it, got {given!r}.")
    return CallablePeer(name=name or attribute, where=where, call=_imported(module, attribute, where))


def _imported(module: str, attribute: str, where: str) -> Callable[[Sequence[Picture]], Sequence[float | None]]:
    # As with `python -m`: a module in the working folder is found.
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise DataError(f"--peer {where} cannot be imported: {type(error).__name__}: {error}.") from error
    finally:
        if added:
            sys.path.remove(here)
    if isinstance(found, type):
        found = found()
    if not callable(found):
        raise DataError(f"--peer {where} is a {type(found).__name__} and cannot be called.")
    return found  # type: ignore[no-any-return]


def _listed(name: str, path: Path) -> ListedPeer:
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns = [c.strip() for c in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"--peer {path} cannot be read as a CSV in UTF-8 ({error}).") from error
    where = next((c for c in ("path", "filename", "name") if c in columns), None)
    if where is None or "score" not in columns:
        raise DataError(
            f"--peer {path} needs a column path (or filename, or name) and a column score, and its columns are: "
            f"{', '.join(columns) or 'none'}."
        )
    table: dict[tuple[str, str | None], float] = {}
    for line, row in rows:
        text = (row["score"] or "").strip()
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            raise DataError(f"--peer {path}, line {line}: score must be a number, got {text!r}.") from None
        key = ((row[where] or "").strip(), (row.get("condition") or "").strip() or None)
        if table.setdefault(key, value) != value:
            raise DataError(f"--peer {path}, line {line}: {key[0]} has a second score, {value:g}.")
    return ListedPeer(name=name, where=str(path), table=table)


def probabilities(raw: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    """Scores as probabilities, and what they were taken for.

    Parameters
    ----------
    raw : float array of any shape
        NaN where there is no score.

    Returns
    -------
    (float array of the same shape in [0, 1], "probability" or "log-odds")
    """
    known = raw[np.isfinite(raw)]
    if not len(known) or (known.min() >= 0 and known.max() <= 1):
        return raw, "probability"
    return 0.5 * (1 + np.tanh(raw / 2)), "log-odds"


def columns_of(columns: Columns, p: NDArray[np.float64]) -> Columns:
    """The same pictures with a peer's probabilities; it calls AI what is at least .5 and never abstains."""
    verdict = np.empty(len(p), dtype=object)
    verdict[:] = np.where(p >= 0.5, Label.AI_GENERATED.value, Label.AUTHENTIC.value)
    verdict[~np.isfinite(p)] = Label.UNCERTAIN.value
    return attrs.evolve(columns, p=p, verdict=verdict)
