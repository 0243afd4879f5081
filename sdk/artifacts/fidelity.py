"""Does a detector fail where there is little to see: its answers against the artifact proportion of the pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from tellsign.evaluation import metrics

LEAST = 3
"""Pictures that a correlation needs."""


def fidelity(
    proportion: NDArray[np.float64],
    p: NDArray[np.float64],
    *,
    group: NDArray[np.object_] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Detection of generated pictures with and without annotated artifacts, and the rank correlation.

    Parameters
    ----------
    proportion : float array of (n,)
        Artifact proportion of generated pictures (PAR), in [0, 1].
    p : float array of (n,)
        Probability that each is generated.
    group : array of n str, optional
        What the bootstrap draws together; by default each picture by itself.
    draws, seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        `clean` and `flawed`: {n, accuracy, accuracy_ci} of the pictures with a proportion of 0 and above;
        `spearman_p` and `spearman_right`: Spearman's correlation of the proportion with p and with being judged
        right (p >= .5), each with `_ci`. None where there are fewer than three pictures or nothing varies.
    """
    proportion, p = np.asarray(proportion, np.float64), np.asarray(p, np.float64)
    if proportion.shape != p.shape or p.ndim != 1:
        raise ValueError(f"proportion and p take one shape (n,), got {proportion.shape} and {p.shape}")
    right = (p >= metrics.CUT).astype(np.float64)
    out: dict[str, Any] = {}
    for name, of in (("clean", proportion == 0), ("flawed", proportion > 0)):
        n = int(of.sum())
        hits = int(right[of].sum())
        out[name] = {"n": n, "accuracy": hits / n if n else None, "accuracy_ci": metrics.wilson(hits, n)}
    return out | correlations(proportion, p, group=group, draws=draws, seed=seed)


def correlations(
    quality: NDArray[np.float64],
    p: NDArray[np.float64],
    *,
    group: NDArray[np.object_] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Rank correlation of a measure of quality with the answers on generated pictures.

    Parameters
    ----------
    quality : float array of (n,)
        Artifact proportion, NIQE, or any other.
    p, group, draws, seed
        See `fidelity`.

    Returns
    -------
    dict
        `spearman_p` and `spearman_right`, each with `_ci`; see `fidelity`.
    """
    quality, p = np.asarray(quality, np.float64), np.asarray(p, np.float64)
    if quality.shape != p.shape or p.ndim != 1:
        raise ValueError(f"quality and p take one shape (n,), got {quality.shape} and {p.shape}")
    right = (p >= metrics.CUT).astype(np.float64)
    groups = np.arange(len(p)).astype(str).astype(object) if group is None else group
    boot = metrics.Bootstrap(np.ones(len(p), int), groups, draws, seed)
    out: dict[str, Any] = {}
    for name, values in (("spearman_p", p), ("spearman_right", right)):
        value = spearman(quality, values)
        out[name] = value
        statistic = _resampled(quality, values)
        out[f"{name}_ci"] = None if value is None else boot.intervals({name: statistic})[name]
    return out


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None where it cannot be had."""
    if len(a) < LEAST or len(np.unique(a)) < 2 or len(np.unique(b)) < 2:
        return None
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _resampled(a: NDArray[np.float64], b: NDArray[np.float64]) -> metrics.Statistic:
    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.full(len(weights), np.nan)
        for k, times in enumerate(weights):
            at = np.repeat(np.arange(len(a)), times.astype(int))
            value = spearman(a[at], b[at])
            out[k] = np.nan if value is None else value
        return out

    return statistic
