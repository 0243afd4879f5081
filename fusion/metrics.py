"""Numbers about scores. numpy only; the results tables of `tellsign eval` have their own, with intervals."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 15


def auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Chance that a row of label 1 scores above one of label 0, ties half; NaN without both labels.

    With `weights` rows are drawn by them, within their label.
    """
    y, s = np.asarray(labels) == 1, np.asarray(scores, np.float64)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    if y.all() or not y.any():
        return math.nan
    _, where = np.unique(s, return_inverse=True)
    ones, zeros = np.bincount(where, w * y), np.bincount(where, w * ~y)
    below = np.cumsum(zeros) - zeros / 2
    return float((ones * below).sum() / (ones.sum() * zeros.sum()))


def balanced_accuracy(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean of the two classes' shares on the right side of .5 (.5 counts as 1); NaN without both labels."""
    y, yes = np.asarray(labels) == 1, np.asarray(probabilities, np.float64) >= 0.5
    if y.all() or not y.any():
        return math.nan
    return float((yes[y].mean() + (~yes[~y]).mean()) / 2)


def expected_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None, *, bins: int = BINS
) -> float:
    """Mean distance of probability and frequency over bins of equal mass."""
    y, p = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    if not len(y):
        return math.nan
    order = np.argsort(p, kind="stable")
    reached = np.cumsum(w[order]) - w[order] / 2
    bin_of = np.minimum((reached / w.sum() * bins).astype(int), bins - 1)
    gap = np.bincount(bin_of, (w * (y - p))[order], minlength=bins)
    return float(np.abs(gap).sum() / w.sum())


def brier(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean squared distance of probability and label."""
    y, p = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    return float(np.average((p - y) ** 2, weights=None if weights is None else np.asarray(weights)))


def log_loss(labels: ArrayLike, log_odds: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean negative log-likelihood, from log-odds."""
    y, z = np.asarray(labels, np.float64), np.asarray(log_odds, np.float64)
    loss: NDArray[np.float64] = np.logaddexp(0, z) - y * z
    return float(np.average(loss, weights=None if weights is None else np.asarray(weights)))


def summary(labels: ArrayLike, log_odds: ArrayLike, weights: ArrayLike | None = None) -> dict[str, float | int]:
    """AUC and balanced accuracy over rows, ECE, Brier and log loss by weight, and the counts."""
    y, z = np.asarray(labels), np.asarray(log_odds, np.float64)
    p = 1 / (1 + np.exp(-np.clip(z, -500, 500)))
    return {
        "n": len(y),
        "n_ai": int((y == 1).sum()),
        "auc": auc(y, z),
        "balanced_accuracy": balanced_accuracy(y, p),
        "ece": expected_calibration_error(y, p, weights),
        "brier": brier(y, p, weights),
        "log_loss": log_loss(y, z, weights),
    }


__all__ = ["auc", "balanced_accuracy", "brier", "expected_calibration_error", "log_loss", "summary"]
