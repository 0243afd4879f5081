"""Whether incoming scores still look like the calibration's, with an alarm whose false-alarm rate is known.

Two answers. *The martingale* watches a stream: conformal p-values of each score among the calibration's and those that
came before are independent and uniform as long as all are exchangeable, and a bet on them gains only by luck; its
capital ever reaches 1 / a with probability at most a (Ville's inequality), however long one watches. *The two-sample
test* looks once at everything that came.

The share of AI pictures in the stream is not known and may differ from the calibration's; that alone is no drift. So
the null hypothesis is "some mixture of the calibration's real and AI pictures": the alarm needs the capital against
every mixture, and the test its largest p-value. For the true mixture both are valid, so their minimum (maximum) is.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

RATE = 0.01
"""False-alarm rate."""
SHARES = tuple(np.linspace(0, 1, 41).round(3).tolist())
"""Shares of AI pictures that the mixtures have."""
JUMP = 0.01
LEAST_REFERENCE = 20
"""Calibration pictures of a class without which no mixture can be made."""


@attrs.frozen(kw_only=True)
class Drift:
    """What became of one stream."""

    count: int
    """Scores, one per group."""
    alarm_at: int | None
    """Number of the score (from 1) at which the capital first reached 1 / rate, None where it never did."""
    capital: float
    """The highest that the martingale reached; 1 is where it starts, and 1 / rate where it alarms."""
    p_value: float
    """Of the two-sample test over everything."""
    distance: float
    """Largest difference of the distribution functions under the mixture that fits best."""
    share: float
    """Of AI pictures in that mixture."""
    rate: float

    @property
    def alarm(self) -> bool:
        """Whether the stream no longer looks like the calibration, at the rate that was asked."""
        return self.alarm_at is not None


def simple_jumper(p_values: ArrayLike, jump: float = JUMP) -> Floats:
    """Log-capital of the Simple Jumper after each p-value.

    A third of the capital each bets that p-values are small, bets nothing, and bets that they are large; a share
    `jump` is spread anew before each bet (Vovk et al., "Retrain or not retrain", COPA 2021).

    Parameters
    ----------
    p_values : array_like (..., t)
        In [0, 1].
    jump : float

    Returns
    -------
    float64 array (..., t)
    """
    p = np.asarray(p_values, np.float64)
    bets = np.array([-1.0, 0.0, 1.0])
    parts = np.full((*p.shape[:-1], 3), 1 / 3)
    log_total = np.zeros(p.shape[:-1])
    out = np.empty(p.shape)
    for t in range(p.shape[-1]):
        parts = (1 - jump) * parts + jump / 3  # They sum to 1: the capital itself is kept as a logarithm.
        parts = parts * (1 + bets * (p[..., t, None] - 0.5))
        total = parts.sum(-1)
        log_total = log_total + np.log(total)
        parts = parts / total[..., None]
        out[..., t] = log_total
    return out


def online_p_values(reference: Floats, stream: Floats, ties: Floats) -> Floats:
    """Conformal p-value of each score among the reference, those before it and itself; ties are split at random.

    Parameters
    ----------
    reference : float64 array (n,)
    stream : float64 array (t,)
    ties : float64 array (t,)
        Uniform draws in [0, 1].

    Returns
    -------
    float64 array (t,)
        Independent and uniform where reference and stream are exchangeable (Vovk, Gammerman and Shafer, "Algorithmic
        Learning in a Random World", theorem 8.1).
    """
    ordered = np.sort(reference)
    low = np.searchsorted(ordered, stream, "left")
    high = np.searchsorted(ordered, stream, "right")
    above, equal = len(ordered) - high, high - low
    past: list[float] = []
    out = np.empty(len(stream))
    for t, value in enumerate(stream.tolist()):
        left, right = bisect.bisect_left(past, value), bisect.bisect_right(past, value)
        more, same = above[t] + len(past) - right, equal[t] + right - left + 1
        out[t] = (more + ties[t] * same) / (len(ordered) + t + 1)
        past.insert(right, value)
    return out


def mixture(
    real: Floats, ai: Floats, share: float, draw: NDArray[np.float64], order: tuple[NDArray[np.int64], ...]
) -> Floats:
    """A sample of real and AI scores mixed at `share`, as large as can be without repeating one.

    The number of AI scores is binomial, so that the sample is what independent draws from the mixture would be.

    Parameters
    ----------
    real, ai : float64 arrays
    share : float
    draw : float64 array
        Uniform, one per member of the sample at most.
    order : (int64 array, int64 array)
        In which real and AI scores are taken.
    """
    from_ai = draw < share
    used_ai, used_real = np.cumsum(from_ai), np.cumsum(~from_ai)
    # Stopping when one side runs out depends on the numbers of draws, never on the scores.
    fits = (used_ai <= len(ai)) & (used_real <= len(real))
    size = int(np.argmin(fits)) if not fits.all() else len(fits)
    return np.concatenate([real[order[0][: int((~from_ai[:size]).sum())]], ai[order[1][: int(from_ai[:size].sum())]]])


def watch(
    real: ArrayLike,
    ai: ArrayLike,
    stream: ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    rate: float = RATE,
    share: float | None = None,
    seed: int = 0,
) -> Drift:
    """Compare a stream of scores with the calibration's.

    Parameters
    ----------
    real, ai : array_like
        Calibration scores of real and of AI pictures (log-odds or probabilities), one per independent picture.
    stream : array_like (t,)
        Scores in the order in which they came.
    groups : sequence of t str, optional
        Scores of one group become their mean, at the place of the first: they are not independent.
    rate : float
        Of false alarms, in (0, 1): over the whole stream for the martingale.
    share : float, optional
        Of AI pictures in the stream, in [0, 1], where it is known; default any.
    seed : int
        Of the mixtures and of ties; the same input and seed give the same answer.

    Returns
    -------
    Drift

    Raises
    ------
    ValueError
        A setting outside its range, fewer than 20 calibration scores of a class that is needed, an empty stream, or a
        score that is not finite.
    """
    from scipy import stats

    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1:
        raise ValueError(f"rate takes a number strictly between 0 and 1, got {rate!r}")
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"share takes a number from 0 to 1, got {share!r}")
    zero, one, incoming = (np.asarray(x, np.float64) for x in (real, ai, stream))
    for name, values in (("real", zero), ("ai", one), ("stream", incoming)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} takes finite scores, got {int((~np.isfinite(values)).sum())} that are not")
    if groups is not None:
        incoming = one_per_group(incoming, groups)
    if not len(incoming):
        raise ValueError("stream takes at least one score, got none")
    shares = SHARES if share is None else (share,)
    # A class that is too small to mix in is left out of the mixtures, and the rest is said about what is left.
    shares = tuple(
        s for s in shares if (s == 1 or len(zero) >= LEAST_REFERENCE) and (s == 0 or len(one) >= LEAST_REFERENCE)
    )
    if not shares:
        raise ValueError(
            f"real and ai take at least {LEAST_REFERENCE} calibration scores of each class that the stream may hold, "
            f"got {len(zero)} and {len(one)}"
        )
    rng = np.random.default_rng(seed)
    order = (rng.permutation(len(zero)), rng.permutation(len(one)))
    draw, ties = rng.random(len(zero) + len(one)), rng.random((2, len(incoming)))
    logs, tests = [], []
    for s in shares:
        sample = mixture(zero, one, s, draw, order)
        # Two bets, halves of the capital: that the place of the scores moves, and that their spread does. The middle
        # is that of all calibration scores, and so the same for every score.
        middle = float(np.median(np.concatenate([zero, one])))
        p_place = online_p_values(sample, incoming, ties[0])
        p_spread = online_p_values(np.abs(sample - middle), np.abs(incoming - middle), ties[1])
        both = simple_jumper(np.stack([p_place, p_spread]))
        logs.append(np.logaddexp(both[0], both[1]) - math.log(2))
        found = stats.ks_2samp(sample, incoming, method="auto" if len(sample) * len(incoming) < 1e5 else "asymp")
        tests.append((float(found.pvalue), float(found.statistic), float(s)))
    capital = np.min(logs, axis=0)
    over = np.flatnonzero(capital >= -math.log(rate) - 1e-12)
    p_value, distance, fitting = max(tests, key=lambda t: (t[0], -t[1]))
    return Drift(
        count=len(incoming),
        alarm_at=int(over[0]) + 1 if len(over) else None,
        capital=float(np.exp(min(float(capital.max(initial=0.0)), 700.0))),
        p_value=p_value,
        distance=distance,
        share=fitting,
        rate=float(rate),
    )


def one_per_group(values: Floats, groups: Sequence[str]) -> Floats:
    """Mean of each group, in order of first appearance.

    Parameters
    ----------
    values : float64 array (n,)
    groups : sequence of n str
    """
    if len(groups) != len(values):
        raise ValueError(f"groups takes as many names as there are scores ({len(values)}), got {len(groups)}")
    at: dict[str, list[float]] = {}
    for group, value in zip(groups, values.tolist(), strict=True):
        at.setdefault(group, []).append(value)
    return np.array([float(np.mean(v)) for v in at.values()])


__all__ = [
    "LEAST_REFERENCE",
    "RATE",
    "SHARES",
    "Drift",
    "mixture",
    "one_per_group",
    "online_p_values",
    "simple_jumper",
    "watch",
]
