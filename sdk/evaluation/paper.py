"""The benchmark's own table: one row per generator or site, each with its own reals, and their mean.

Accuracy is the mean of the two classes' accuracies at a probability of .5. A row without reals has the accuracy on
fakes alone, and says so; 0 is a value here and does not mean that something is missing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from . import metrics
from .items import FAKE, REAL
from .metrics import CUT, Floats
from .outcomes import Columns
from .summary import POOLED, SMALL


def table(columns: Columns, *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Rows of the benchmark's table.

    Parameters
    ----------
    columns : Columns
        Pictures without a probability are left out and counted.
    draws, seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        `rows`: by name `n_real`, `n_fake`, `accuracy` (of both classes, or of the one that is there), `accuracy_ci`,
        `accuracy_real`, `accuracy_fake`, `ap`, `auc`; `mean`: the rows' unweighted mean of each, over the rows that
        have it, and `rows_with` it; `one_class`: rows in which a class is missing.
    """
    kept = columns.take(columns.scored)
    rows = {name: _row(kept.take(of), draws, seed) for name, of in members(kept).items()}
    names = ("accuracy", "accuracy_real", "accuracy_fake", "ap", "auc")
    values = {n: [r[n] for r in rows.values() if r[n] is not None] for n in names}
    return {
        "rows": rows,
        "mean": {n: float(np.mean(v)) if v else None for n, v in values.items()},
        "rows_with": {n: len(v) for n, v in values.items()},
        "one_class": [name for name, r in rows.items() if not (r["n_real"] and r["n_fake"])],
    }


def members(columns: Columns) -> dict[str, NDArray[np.bool_]]:
    """Which pictures belong to each row; bool (n,).

    A data set without rows of its own has one per generator, each with all reals; small generators share one.
    """
    names = list(dict.fromkeys(n for own in columns.subsets for n in own))
    if names:
        out = {n: np.array([n in own for own in columns.subsets], bool) for n in names}
        everywhere = np.array([not own for own in columns.subsets], bool)
        return {n: of | everywhere for n, of in out.items()}
    real = columns.label == REAL
    counts = Counter(str(n) for n in columns.source[~real])
    out = {n: real | (columns.source == n) for n, count in counts.items() if count >= SMALL}
    if small := [n for n, count in counts.items() if count < SMALL]:
        out[POOLED] = real | np.isin(columns.source.astype(str), small)
    return out


def _row(part: Columns, draws: int, seed: int) -> dict[str, Any]:
    label, p = part.label, part.p
    right = ((p >= CUT) == (label == FAKE)).astype(np.float64)
    own = {y: float(right[label == y].mean()) if (label == y).any() else None for y in (REAL, FAKE)}
    present = [v for v in own.values() if v is not None]
    both = len(present) == 2

    def accuracy(weights: Floats) -> Floats:
        parts = [
            (weights[:, label == y] @ right[label == y]) / weights[:, label == y].sum(1)
            for y in (REAL, FAKE)
            if (label == y).any()
        ]
        return np.asarray(np.mean(parts, axis=0))

    boot = metrics.Bootstrap(label, part.group, draws, seed).intervals({"accuracy": accuracy}) if present else {}
    return {
        "n_real": int((label == REAL).sum()),
        "n_fake": int((label == FAKE).sum()),
        "accuracy": float(np.mean(present)) if present else None,
        "accuracy_ci": boot.get("accuracy"),
        "accuracy_real": own[REAL],
        "accuracy_fake": own[FAKE],
        "ap": float(average_precision_score(label, p)) if both else None,
        "auc": metrics.auc(label, p),
    }
