"""What needs no learned fusion: AlignGemini's OR of the branches, and single columns made comparable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .calibration import Affine, fit_platt
from .features import FeatureColumn

Floats = NDArray[np.float64]


def or_rule(scores: Mapping[str, float | None], thresholds: float | Mapping[str, float] = 0.5) -> bool | None:
    """Fake if any branch that answered is above its threshold (arXiv 2512.06746).

    A branch that is missing is not a branch that says real: it takes no part.

    Parameters
    ----------
    scores : mapping of str to float or None
        In [0, 1] by branch; None or NaN where the branch did not answer.
    thresholds : float or mapping of str to float
        A branch with threshold 1 is off.

    Returns
    -------
    bool or None
        None where no branch answered.
    """
    answered = {k: s for k, s in scores.items() if s is not None and not math.isnan(s)}
    if not answered:
        return None
    missing = [] if not isinstance(thresholds, Mapping) else sorted(set(answered) - set(thresholds))
    if missing:
        raise ValueError(f"thresholds takes a number for every branch that answered, got none for {missing}")
    return any(s > (thresholds[k] if isinstance(thresholds, Mapping) else thresholds) for k, s in answered.items())


@attrs.frozen(eq=False)
class SingleColumns:
    """Every column alone, Platt-scaled, so that columns of different units can be compared, ORed and averaged."""

    columns: tuple[FeatureColumn, ...]
    scalers: tuple[Affine | None, ...]
    """None for a column without both labels in training."""
    auc: tuple[float, ...]
    """On the training rows where the column is present; NaN where it cannot be said."""

    def log_odds(self, values: Floats) -> Floats:
        """float64 (n, columns), NaN where missing."""
        out = np.full(values.shape, np.nan)
        for j, scaler in enumerate(self.scalers):
            seen = ~np.isnan(values[:, j])
            if scaler is not None:
                out[seen, j] = scaler.log_odds(_direction(self.columns[j]) * values[seen, j])
        return out

    def highest(self, values: Floats) -> Floats:
        """The OR rule as a score: float64 (n,), the highest log-odds of the columns; above 0 is the OR at .5."""
        return np.asarray(np.nan_to_num(np.fmax.reduce(self.log_odds(values), axis=1)), np.float64)

    def mean(self, values: Floats) -> Floats:
        """Mean log-odds of the columns that are present, float64 (n,)."""
        z = self.log_odds(values)
        seen = ~np.isnan(z)
        return np.asarray(np.where(seen, z, 0).sum(1) / np.maximum(seen.sum(1), 1), np.float64)

    def best(self, values: Floats) -> Floats:
        """Log-odds of the present column that ranked best in training, float64 (n,)."""
        z = self.log_odds(values)
        order = np.argsort([-a if not math.isnan(a) else math.inf for a in self.auc], kind="stable")
        out = np.full(len(z), np.nan)
        for j in order:
            out = np.where(np.isnan(out), z[:, j], out)
        return np.asarray(np.nan_to_num(out), np.float64)


def fit_single_columns(
    values: Floats, labels: ArrayLike, columns: Sequence[FeatureColumn], weights: ArrayLike
) -> SingleColumns:
    """Fit `SingleColumns` on float64 `values` (n, columns), labels 0 or 1 and positive weights."""
    from .metrics import auc

    y, w = np.asarray(labels), np.asarray(weights, np.float64)
    scalers: list[Affine | None] = []
    ranks: list[float] = []
    for j, column in enumerate(columns):
        seen = ~np.isnan(values[:, j])
        x = _direction(column) * values[seen, j]
        both = len(np.unique(y[seen])) == 2
        scalers.append(fit_platt(x, y[seen], weights=w[seen]) if both else None)
        ranks.append(auc(y[seen], x))
    return SingleColumns(tuple(columns), tuple(scalers), tuple(ranks))


def _direction(column: FeatureColumn) -> int:
    return column.direction or 1


__all__ = ["SingleColumns", "fit_single_columns", "or_rule"]
