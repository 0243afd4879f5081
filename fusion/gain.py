"""What a new fusion gains over the one before on held-out pictures, with an interval. numpy only."""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .conformal import group_weights

Floats = NDArray[np.float64]

_CELLS = 4_000_000


@attrs.frozen(kw_only=True)
class Gain:
    """Mean fall of the log loss, both classes weighing the same, and what is sure of it."""

    mean: float
    """Nats per picture; above 0 the new fusion is better."""
    low: float
    high: float
    confidence: float
    """Of the interval [low, high]."""
    before: float
    """Log loss."""
    after: float
    groups: int

    @property
    def proven(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.low > 0


def log_losses(labels: ArrayLike, log_odds: ArrayLike) -> Floats:
    """Negative log-likelihood of each row, float64 (n,)."""
    y, z = np.asarray(labels, np.float64), np.asarray(log_odds, np.float64)
    return np.asarray(np.logaddexp(0, z) - y * z, np.float64)


def even_weights(labels: ArrayLike, groups: ArrayLike) -> Floats:
    """Weights that sum to 1, each class to one half, and within a class every group the same.

    A probability at even prior odds can only be judged on data where half of the pictures are AI; with these weights
    any data with both classes are such data.
    """
    y, g = np.asarray(labels), np.asarray(groups).astype(str)
    out = np.zeros(len(y))
    for value in (0, 1):
        own = np.flatnonzero(y == value)
        if len(own):
            weight = group_weights(g[own])
            out[own] = weight / weight.sum() / 2
    return out


def group_draws(labels: ArrayLike, groups: ArrayLike, *, draws: int, seed: int) -> Iterator[Floats]:
    """How often each row occurs when whole groups are drawn with replacement: float64 (d, n) blocks.

    Groups of label 0 only, of label 1 only and of both are drawn apart, each as often as there are of its kind, so
    that no draw lacks a class.
    """
    y = np.asarray(labels)
    _, code = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    count = int(code.max()) + 1
    ones, size = np.bincount(code, y, minlength=count), np.bincount(code, minlength=count)
    kind = np.where(ones == 0, 0, np.where(ones == size, 1, 2))
    rng = np.random.default_rng(seed)
    rows = max(1, _CELLS // len(code))
    for start in range(0, draws, rows):
        times = np.zeros((min(rows, draws - start), count))
        for k in range(3):
            members = np.flatnonzero(kind == k)
            if len(members):
                times[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), len(times))
        yield times[:, code]


def drawn_gains(
    labels: ArrayLike, before: ArrayLike, after: ArrayLike, groups: ArrayLike, *, draws: int = 2000, seed: int = 0
) -> Floats:
    """The gain in each of `draws` samples of whole groups, float64 (draws,).

    Parameters
    ----------
    labels : array_like (n,)
        0 or 1, both present.
    before, after : array_like (n,)
        Log-odds at even odds.
    groups : array_like (n,)
    """
    y = np.asarray(labels)
    weight = even_weights(y, groups)
    fall = log_losses(y, before) - log_losses(y, after)
    out = []
    for times in group_draws(y, groups, draws=draws, seed=seed):
        total = np.zeros(len(times))
        for value in (0, 1):
            own = y == value
            mass = times[:, own] @ weight[own]
            # A draw that holds only groups of both classes may still miss one class of a kind: it counts as no gain.
            total += np.where(mass > 0, times[:, own] @ (weight * fall)[own] / np.where(mass > 0, mass, 1), 0) / 2
        out.append(total)
    return np.concatenate(out) if out else np.zeros(0)


def paired_gain(
    labels: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    groups: ArrayLike,
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Gain:
    """Compare two fusions on the same held-out rows.

    The log loss decides and not the AUC: moving all probabilities of a domain to where they belong leaves every rank
    as it was, and is most of what tuning can do with few pictures; and the log loss is proper, so it cannot be raised
    by claiming more than is known. Pairing takes out how hard the pictures are.

    Parameters
    ----------
    labels : array_like (n,)
        0 or 1, both present.
    before, after : array_like (n,)
        Log-odds at even odds, by models that did not train on the row's group.
    groups : array_like (n,)
        What the bootstrap draws.
    confidence : float
        Of the interval, in (0, 1).
    draws, seed : int

    Returns
    -------
    Gain
        Percentile interval, widened by sqrt(g / (g - 1)) * t / z of Student's t with g - 1 degrees of freedom for the
        g groups of the rarer class: the bootstrap's own spread is too small with few groups.

    Raises
    ------
    ValueError
        Lengths differ, or a class is missing.
    """
    y, old, new = np.asarray(labels), np.asarray(before, np.float64), np.asarray(after, np.float64)
    g = np.asarray(groups).astype(str)
    if not len(y) == len(old) == len(new) == len(g):
        raise ValueError(f"labels, before, after and groups take one length, got {[len(x) for x in (y, old, new, g)]}")
    if set(np.unique(y).tolist()) != {0, 1}:
        raise ValueError(f"labels takes 0 and 1, both present, got {np.unique(y).tolist()[:5]}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence takes a number strictly between 0 and 1, got {confidence!r}")
    weight = even_weights(y, g)
    mean = float(weight @ (log_losses(y, old) - log_losses(y, new)))
    values = drawn_gains(y, old, new, g, draws=draws, seed=seed)
    tail = (1 - confidence) / 2
    low, high = (float(v) for v in np.quantile(values, [tail, 1 - tail]))
    least = min(len(np.unique(g[y == v])) for v in (0, 1))
    wider = _widening(least, tail)
    return Gain(
        mean=mean,
        low=mean - wider * (mean - low),
        high=mean + wider * (high - mean),
        confidence=confidence,
        before=float(weight @ log_losses(y, old)),
        after=float(weight @ log_losses(y, new)),
        groups=len(np.unique(g)),
    )


def _widening(groups: int, tail: float) -> float:
    from scipy import stats

    if groups < 2:
        return math.inf
    return float(math.sqrt(groups / (groups - 1)) * stats.t.ppf(1 - tail, groups - 1) / stats.norm.ppf(1 - tail))


__all__ = ["Gain", "drawn_gains", "even_weights", "group_draws", "log_losses", "paired_gain"]
