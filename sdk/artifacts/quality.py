"""Measures of quality by picture, from a table, for the correlation with a detector's answers."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tellsign.evaluation import metrics
from tellsign.evaluation.items import DataError

from .fidelity import correlations

Quality = Mapping[str, Mapping[str, float]]
"""By measure and by picture's name."""


def read_quality(file: Path) -> dict[str, dict[str, float]]:
    """Read a CSV with a column `name`, as DATA writes pictures' names, and a column of numbers per measure.

    Cells that are empty or no finite number are left out.

    Raises
    ------
    DataError
        There is no such column, or no measure.
    """
    try:
        with file.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            names = [c for c in reader.fieldnames or () if c != "name"]
            if "name" not in (reader.fieldnames or ()) or not names:
                raise DataError(f"{file} needs a column `name` and one per measure, got {reader.fieldnames}.")
            out: dict[str, dict[str, float]] = {n: {} for n in names}
            for line in reader:
                for n in names:
                    value = _number(line[n])
                    if value is not None:
                        out[n][line["name"]] = value
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error}).") from error
    return out


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def against_quality(
    quality: Quality, names: Sequence[str], p: Sequence[float], group: Sequence[str], *, draws: int, seed: int
) -> dict[str, dict[str, Any]]:
    """How each measure goes with the answers on generated pictures.

    Parameters
    ----------
    quality : mapping
    names, p, group : sequences of n
        Generated pictures that were judged.
    draws, seed : int
        Of the bootstrap.

    Returns
    -------
    dict of dict
        By measure: `n` pictures that have it, `n_missing`, `mean`, and what `fidelity.correlations` gives.
    """
    out: dict[str, dict[str, Any]] = {}
    for measure, by_name in quality.items():
        there = [k for k, name in enumerate(names) if name in by_name]
        values = np.array([by_name[names[k]] for k in there], np.float64)
        answers = np.array([p[k] for k in there], np.float64)
        groups = np.array([group[k] for k in there], dtype=object)
        out[measure] = {
            "n": len(there),
            "n_missing": len(names) - len(there),
            "mean": float(values.mean()) if there else None,
            "accuracy": float((answers >= metrics.CUT).mean()) if there else None,
            **correlations(values, answers, group=groups, draws=draws if there else 0, seed=seed),
        }
    return out


__all__ = ["Quality", "against_quality", "read_quality"]
