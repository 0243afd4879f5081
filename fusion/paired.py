"""How far one model's held-out scores are from another's on the same pictures, with intervals. numpy only."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import metrics

DRAWS = 200


@attrs.frozen(kw_only=True)
class Difference:
    """One model minus another: the number and its 95 % interval over draws of families."""

    value: float
    low: float
    high: float


def differences(
    labels: ArrayLike,
    one: ArrayLike,
    other: ArrayLike,
    weights: ArrayLike,
    families: ArrayLike,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Difference]:
    """Differences of AUC and of log loss, both by weight.

    Whole families are drawn, with replacement and within their label: the next generator is another family.

    Parameters
    ----------
    labels : array_like (n,)
        0 or 1, both present.
    one, other : array_like (n,)
        Log-odds of the same pictures.
    weights : array_like (n,)
        Positive.
    families : array_like of str (n,)
    draws : int
    seed : int

    Returns
    -------
    dict
        "auc" and "log_loss": Difference. `one` is better where the first is positive and the second negative.
    """
    y, a, b, w = (np.asarray(x, np.float64) for x in (labels, one, other, weights))
    names = np.char.add(np.where(y == 1, "1/", "0/"), np.asarray(families).astype(str))
    _, family = np.unique(names, return_inverse=True)
    label_of = np.zeros(family.max() + 1)
    label_of[family] = y
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {"auc": [], "log_loss": []}
    for draw in range(draws + 1):
        times = np.ones(len(label_of))
        if draw:
            times = np.zeros(len(label_of))
            for v in (0, 1):
                mine = np.flatnonzero(label_of == v)
                times[mine] = np.bincount(rng.integers(len(mine), size=len(mine)), minlength=len(mine))
        now = w * times[family]
        for v in (0, 1):
            now[y == v] /= now[y == v].sum()
        kept = now > 0
        for name, measure in (("auc", metrics.auc), ("log_loss", metrics.log_loss)):
            this, that = (measure(y[kept], z[kept], now[kept]) for z in (a, b))
            found[name].append(this - that)
    return {k: _interval(np.array(v)) for k, v in found.items()}


def _interval(values: NDArray[np.float64]) -> Difference:
    low, high = np.quantile(values[1:], (0.025, 0.975)).tolist() if len(values) > 1 else (np.nan, np.nan)
    return Difference(value=float(values[0]), low=low, high=high)


__all__ = ["DRAWS", "Difference", "differences"]
