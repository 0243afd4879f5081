"""Class-conditional conformal quantiles, counted by group, with a guard for the worst source. numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tellsign.schemas import DEFINITE_LABELS, Label
from tellsign.schemas.checks import array

DEFAULT_ERROR_RATES: dict[Label, float] = {
    Label.AUTHENTIC: 0.02,
    Label.AI_GENERATED: 0.05,
    Label.AI_EDITED: 0.05,
    Label.TAMPERED: 0.05,
}
"""Share of the pictures of each label whose set may miss it. Missing `authentic` is a false accusation."""

HARD = 0.25
"""A label with a larger default rate is not reached by one rate for all."""

SOURCE_GROUPS = 20
"""A source with fewer groups has no quantile of its own."""


def group_weights(groups: ArrayLike) -> NDArray[np.float64]:
    """One over the number of rows of the row's group, so that every group weighs one."""
    _, where, count = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    return np.asarray(1.0 / count[where], np.float64)


def conformal_quantile(scores: ArrayLike, error_rate: float, weights: ArrayLike | None = None) -> float:
    """The threshold that a new picture's score stays at or below with probability 1 - `error_rate`.

    With one row per group it is the ceil((n + 1) (1 - a))-th smallest of n scores, infinite where that rank is above
    n. With more rows per group each row weighs one over its group's rows (hierarchical conformal prediction: Lee,
    Barber, Willett, arXiv 2306.06342), so that many versions of one picture count as one.

    Parameters
    ----------
    scores : array_like (n,)
        Higher is stranger for the class.
    error_rate : float
        In (0, 1).
    weights : array_like (n,), optional
        Those of `group_weights`; default 1 each.

    Examples
    --------
    >>> conformal_quantile(range(1, 20), 0.05)
    19.0
    >>> conformal_quantile(range(1, 19), 0.05)
    inf
    """
    if not 0 < error_rate < 1:
        raise ValueError(f"error_rate takes a number strictly between 0 and 1, got {error_rate!r}")
    s = np.asarray(scores, np.float64)
    w = np.ones(len(s)) if weights is None else np.asarray(weights, np.float64)
    order = np.argsort(s, kind="stable")
    reached = np.cumsum(w[order])
    need = (round(float(w.sum()), 6) + 1) * (1 - error_rate)
    # The tolerance lets 20 * .95 be 19 in binary fractions, and a sum of thirds be one.
    fit = np.flatnonzero(reached >= need - 1e-6)
    return float(s[order][fit[0]]) if len(fit) else math.inf


@attrs.frozen(kw_only=True)
class ClassScores:
    """The calibration scores (1 - probability of the true label) of one class under one availability pattern."""

    scores: NDArray[np.float64] = attrs.field(eq=attrs.cmp_using(np.array_equal), validator=array((None,), np.float64))
    weights: NDArray[np.float64] = attrs.field(eq=attrs.cmp_using(np.array_equal), validator=array((None,), np.float64))
    """One over the number of rows of the row's group."""
    sources: NDArray[np.int32] = attrs.field(eq=attrs.cmp_using(np.array_equal), validator=array((None,), np.int32))
    """Number of the row's source in the bundle's list of sources."""

    @property
    def groups(self) -> int:
        """How many independent pictures there are."""
        return round(float(self.weights.sum()))

    def quantile(self, error_rate: float, *, worst_source: bool = False) -> float:
        """The class's quantile.

        With `worst_source` it is raised to the highest among the sources of at least 20 groups, each taken alone. A
        source too small for its own rank gives its largest score: the guard only ever raises the pooled quantile, so
        the promised coverage over all sources stays.
        """
        pooled = conformal_quantile(self.scores, error_rate, self.weights)
        if not worst_source or math.isinf(pooled):
            return pooled
        worst = pooled
        for source in np.unique(self.sources):
            own = self.sources == source
            if self.weights[own].sum() < SOURCE_GROUPS - 1e-6:
                continue
            value = conformal_quantile(self.scores[own], error_rate, self.weights[own])
            worst = max(worst, float(self.scores[own].max()) if math.isinf(value) else value)
        return worst


def resolve_error_rates(
    asked: float | Mapping[Label, float] | Mapping[str, float] | None, default: Mapping[Label, float]
) -> dict[Label, float]:
    """One error rate per definite label.

    Parameters
    ----------
    asked : float or mapping, optional
        One rate for every label, or rates by label (`Label` or its text); labels that are left out, and None, take
        `default`. One rate leaves a label alone whose default is above .25: its detector can hardly rule it out, and at
        a usual rate it would stand in every set. By name it takes what is asked.
    default : mapping of Label to float
        A rate for every definite label.

    Raises
    ------
    ValueError
        A rate outside (0, 1), or a name that is no definite label.
    """
    if asked is None:
        given: dict[Label, float] = {}
    elif isinstance(asked, Mapping):
        known = {str(x): x for x in DEFINITE_LABELS}
        unknown = [str(k) for k in asked if str(k) not in known]
        if unknown:
            raise ValueError(f"error_rate takes rates for {', '.join(known)}, got {unknown}")
        given = {known[str(k)]: v for k, v in asked.items()}
    else:
        given = {x: asked for x in DEFINITE_LABELS if default[x] <= HARD}
    rates = {x: given.get(x, default[x]) for x in DEFINITE_LABELS}
    for label, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1:
            raise ValueError(f"error_rate takes numbers strictly between 0 and 1, got {rate!r} for {label}")
    return {x: float(r) for x, r in rates.items()}


__all__ = [
    "DEFAULT_ERROR_RATES",
    "SOURCE_GROUPS",
    "ClassScores",
    "conformal_quantile",
    "group_weights",
    "resolve_error_rates",
]
