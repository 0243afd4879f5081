"""What the page draws: the ROC, the reliability diagram, and the pictures that were most confidently wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from . import metrics
from .items import FAKE, REAL
from .outcomes import Columns

POINTS = 201
"""The ROC is thinned to at most so many points."""


def roc(columns: Columns) -> dict[str, list[float]] | None:
    """False- and true-positive rates, from (0, 0) to (1, 1); None where a class is missing."""
    kept = columns.take(columns.scored)
    if not (kept.label == FAKE).any() or not (kept.label == REAL).any():
        return None
    false, true, _ = roc_curve(kept.label, kept.p)
    if len(false) > POINTS:
        # Evenly along the curve, not along one axis: both its steep and its flat part keep their shape.
        length = np.r_[0, np.cumsum(np.abs(np.diff(false)) + np.abs(np.diff(true)))]
        keep = np.unique(np.searchsorted(length, np.linspace(0, length[-1], POINTS)))
        false, true = false[keep], true[keep]
    return {"fpr": [float(v) for v in false], "tpr": [float(v) for v in true]}


def reliability(columns: Columns) -> list[dict[str, Any]]:
    """Equal-mass bins of the probability: `n`, mean `p`, `share` of label 1 and its `share_ci` (Wilson)."""
    kept = columns.take(columns.scored)
    bins = metrics.mass_bins(kept.p)
    out = []
    for b in np.unique(bins):
        of = bins == b
        n, positive = int(of.sum()), int(kept.label[of].sum())
        out.append(
            {"n": n, "p": float(kept.p[of].mean()), "share": positive / n, "share_ci": metrics.wilson(positive, n)}
        )
    return out


def mistakes(
    label: NDArray[np.int_], p: NDArray[np.float64], most: int = 8
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Places of the reals with the highest p at or above .5, and of the fakes with the lowest below; worst first.

    Parameters
    ----------
    label : int array of (n,)
    p : float array of (n,)
        NaN counts as no answer.
    most : int
        Of each kind.
    """
    known = np.isfinite(p)
    reals = np.flatnonzero(known & (label == REAL) & (p >= metrics.CUT))
    fakes = np.flatnonzero(known & (label == FAKE) & (p < metrics.CUT))
    return reals[np.argsort(-p[reals], kind="stable")][:most], fakes[np.argsort(p[fakes], kind="stable")][:most]
