"""Thresholds that can be defended: a bound on false alarms that holds at finite samples, and the cheapest cut.

The bound is distribution-free. The threshold is the k-th highest of the real pictures' scores, with k fixed by their
number alone, so the share of new real pictures above it follows a Beta law whatever the scores' distribution (Wilks,
Annals of Mathematical Statistics 12 (1941) 91); its bound is Clopper and Pearson's (Biometrika 26 (1934) 404). No
correction for having looked at many thresholds is needed, since none was chosen by its result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .calibration import logit, sigmoid

CONFIDENCE = 0.95


def upper_bound(alarms: int, groups: int, confidence: float = CONFIDENCE) -> float:
    """Clopper and Pearson's upper bound of a share of which `alarms` of `groups` were seen; 1 where all were.

    Examples
    --------
    >>> round(upper_bound(0, 299), 4)
    0.01
    """
    from scipy import stats

    _check_share("confidence", confidence)
    if not 0 <= alarms <= groups:
        raise ValueError(f"alarms takes an integer from 0 to groups = {groups}, got {alarms!r}")
    return 1.0 if alarms == groups else float(stats.beta.ppf(confidence, alarms + 1, groups - alarms))


def needed_groups(max_rate: float, confidence: float = CONFIDENCE, alarms: int = 0) -> int:
    """The fewest independent pictures, `alarms` of them above the threshold, that bound the rate by `max_rate`.

    Examples
    --------
    >>> needed_groups(0.01)
    299
    """
    _check_share("max_rate", max_rate)
    _check_share("confidence", confidence)
    low = max(alarms, math.ceil(math.log(1 - confidence) / math.log1p(-max_rate)) - 2)
    high = 2 * low + 2
    while upper_bound(alarms, high, confidence) > max_rate:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if upper_bound(alarms, middle, confidence) <= max_rate else (middle, high)
    return high


def allowed_alarms(groups: int, max_rate: float, confidence: float = CONFIDENCE) -> int:
    """How many of `groups` real pictures may lie above the threshold; -1 where they are too few for any promise."""
    _check_share("max_rate", max_rate)
    if groups < 1 or upper_bound(0, groups, confidence) > max_rate:
        return -1
    low, high = 0, groups
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if upper_bound(middle, groups, confidence) <= max_rate else (low, middle)
    return low


@attrs.frozen(kw_only=True)
class OperatingPoint:
    """A cut: a picture raises an alarm where its log-odds at even odds are above `threshold`."""

    threshold: float
    """Log-odds of p_ai at even prior odds."""
    how: str
    """What it was chosen for: "max_fpr" or "cost"."""
    groups_real: int
    """Independent real pictures that it rests on."""
    alarms: int
    """Of them above the threshold."""
    bound: float
    """Upper bound of the share of real pictures that raise an alarm, at `confidence`."""
    confidence: float
    found: float | None = None
    """Share of the AI pictures above the threshold, groups weighing the same; None without any."""
    max_fpr: float | None = None
    cost: tuple[float, float] | None = None
    """Of a false alarm and of a miss."""
    prior: float = 0.5

    def p_ai(self, prior: float | None = None) -> float:
        """The threshold as a probability at a prior (default its own): alarm where `Verdict.p_ai` is above it."""
        at = self.prior if prior is None else prior
        return float(sigmoid(self.threshold + logit(at)))

    def alarm(self, p_ai: float, prior: float = 0.5) -> bool:
        """Whether a verdict's p_ai, stated at `prior`, raises an alarm."""
        if p_ai in (0.0, 1.0):
            return p_ai == 1.0
        return logit(p_ai) - logit(prior) > self.threshold

    def to_json(self) -> dict[str, Any]:
        """What a bundle's manifest keeps."""
        return {**attrs.asdict(self), "cost": list(self.cost) if self.cost else None, "p_ai": self.p_ai()}


@attrs.frozen(kw_only=True)
class TooFew:
    """No threshold can be promised."""

    max_fpr: float
    confidence: float
    groups_real: int
    needed: int
    """Independent real pictures with which the strictest threshold, none of them above it, could be promised."""

    @property
    def missing(self) -> int:
        """How many more."""
        return self.needed - self.groups_real

    def __str__(self) -> str:
        return (
            f"{self.groups_real} independent real pictures cannot promise at most {self.max_fpr:.3%} false alarms at "
            f"{self.confidence:.0%} confidence: that takes {self.needed} with none above the threshold, {self.missing} "
            f"more; what they can promise is {upper_bound(0, max(self.groups_real, 1), self.confidence):.2%}"
        )


def at_max_fpr(
    log_odds: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    max_fpr: float,
    *,
    confidence: float = CONFIDENCE,
    prior: float = 0.5,
) -> OperatingPoint | TooFew:
    """The lowest threshold whose false-alarm rate is at most `max_fpr` with probability `confidence`.

    Real pictures are counted in groups, and a group counts as alarming where any of its rows does, so that ten frames
    of one scene are not ten proofs. The promise is about real pictures exchangeable with those given, and about the
    bundle that gave the log-odds: use log-odds of rows that it did not train on.

    Parameters
    ----------
    log_odds : array_like (n,)
        At even odds.
    labels : array_like (n,)
        1 = AI, 0 = real.
    groups : array_like (n,)
    max_fpr : float
        In (0, 1).
    confidence : float
        That the promise holds, over draws of the real pictures given here.
    prior : float
        At which the threshold is shown as a probability.
    """
    z, y, g = np.asarray(log_odds, np.float64), np.asarray(labels), np.asarray(groups).astype(str)
    _check_share("max_fpr", max_fpr)
    highest = _highest(z[y == 0], g[y == 0])
    n = len(highest)
    k = allowed_alarms(n, max_fpr, confidence)
    if k < 0:
        return TooFew(max_fpr=max_fpr, confidence=confidence, groups_real=n, needed=needed_groups(max_fpr, confidence))
    threshold = float(np.sort(highest)[n - 1 - k])
    return OperatingPoint(
        threshold=threshold,
        how="max_fpr",
        groups_real=n,
        alarms=int((highest > threshold).sum()),
        bound=upper_bound(k, n, confidence),
        confidence=confidence,
        found=_share_above(z[y == 1], g[y == 1], threshold),
        max_fpr=max_fpr,
        prior=prior,
    )


def at_cost(
    log_odds: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    cost: tuple[float, float],
    *,
    prior: float = 0.5,
    confidence: float = CONFIDENCE,
) -> OperatingPoint:
    """The threshold of least expected cost for calibrated probabilities, and what it does on held-out rows.

    Alarm where p * (cost of a miss) is above (1 - p) * (cost of a false alarm), p the probability at `prior`.

    Parameters
    ----------
    log_odds, labels, groups : array_like (n,)
        As `at_max_fpr`; they are only counted, the threshold follows from `cost` and `prior`.
    cost : (float, float)
        Of a false alarm and of a miss, both positive.
    prior : float
        Share of AI pictures where the pictures come from.
    confidence : float
        Of the bound of the false-alarm rate.
    """
    false, miss = cost
    for name, value in (("false alarm", false), ("miss", miss)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"cost takes a positive number for a {name}, got {value!r}")
    z, y, g = np.asarray(log_odds, np.float64), np.asarray(labels), np.asarray(groups).astype(str)
    threshold = math.log(false / miss) - logit(prior)
    highest = _highest(z[y == 0], g[y == 0])
    alarms = int((highest > threshold).sum())
    return OperatingPoint(
        threshold=threshold,
        how="cost",
        groups_real=len(highest),
        alarms=alarms,
        bound=upper_bound(alarms, len(highest), confidence) if len(highest) else 1.0,
        confidence=confidence,
        found=_share_above(z[y == 1], g[y == 1], threshold),
        cost=(float(false), float(miss)),
        prior=prior,
    )


def point_of(training: Mapping[str, Any]) -> OperatingPoint | None:
    """The operating point in a bundle's `training`, None where it has none.

    Raises
    ------
    ValueError
        There is one, and it is not well-formed.
    """
    found = training.get("operating")
    if found is None:
        return None
    try:
        fields = {k: v for k, v in found.items() if k != "p_ai"}
        fields["cost"] = tuple(fields["cost"]) if fields.get("cost") else None
        point = OperatingPoint(**fields)
        point.p_ai()
    except (TypeError, AttributeError, KeyError, OverflowError, ValueError) as error:
        raise ValueError(f"training.operating takes an operating point, got {found!r}") from error
    return point


def _highest(z: NDArray[np.float64], groups: NDArray[np.str_]) -> NDArray[np.float64]:
    """Highest log-odds of each group."""
    if not len(z):
        return np.zeros(0)
    _, code = np.unique(groups, return_inverse=True)
    out = np.full(int(code.max()) + 1, -np.inf)
    np.maximum.at(out, code, z)
    return out


def _share_above(z: NDArray[np.float64], groups: NDArray[np.str_], threshold: float) -> float | None:
    if not len(z):
        return None
    from .conformal import group_weights

    return float(np.average(z > threshold, weights=group_weights(groups)))


def _check_share(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ValueError(f"{name} takes a number strictly between 0 and 1, got {value!r}")


__all__ = [
    "CONFIDENCE",
    "OperatingPoint",
    "TooFew",
    "allowed_alarms",
    "at_cost",
    "at_max_fpr",
    "needed_groups",
    "point_of",
    "upper_bound",
]
