"""Alternating measurements and what may be said of them.

The whole and its parts run by turns (parts, whole, parts, whole, ..., parts), so that a machine that grows slower or
faster hits both. Each whole is held against the mean of the parts just before and after it. The same is done with the
parts alone: a parts run against the mean of its neighbours, which should give zero. That is the A/A line; where it is
wider than the limit, the machine is too restless to say anything.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.errors import SettingError

Floats = NDArray[np.float64]
Judgement = Literal["pass", "fail", "inconclusive", "info"]
DRAWS = 2000


@attrs.frozen(kw_only=True)
class Estimate:
    """A median with its bootstrap interval (95 %)."""

    median: float
    low: float
    high: float

    @property
    def reach(self) -> float:
        """How far from zero the interval reaches."""
        return max(abs(self.low), abs(self.high))


@attrs.frozen(kw_only=True)
class Samples:
    """What `alternate` measured, in seconds."""

    whole: Floats
    """(n,)"""
    parts: dict[str, Floats]
    """(n + 1,) for each part: one run before every whole and one after the last."""

    @property
    def total(self) -> Floats:
        """The parts' sum (n + 1,)."""
        return np.asarray(np.sum(list(self.parts.values()), axis=0))


def estimate(values: Floats, *, seed: int = 0) -> Estimate:
    """Median of (n,) values with a percentile bootstrap interval.

    Raises
    ------
    SettingError
        There are no values.
    """
    if not len(values):
        raise SettingError("values", "at least one measurement", "none")
    draws = np.random.default_rng(seed).integers(0, len(values), (DRAWS, len(values)))
    low, high = np.quantile(np.median(values[draws], axis=1), [0.025, 0.975])
    return Estimate(median=float(np.median(values)), low=float(low), high=float(high))


def judge(value: Estimate, aa: Estimate | None, limit: float | None) -> Judgement:
    """What may be said of a value that should be at most `limit`.

    Parameters
    ----------
    value : Estimate
    aa : Estimate or None
        Of the same quantity where it should be zero; None for values that have no such line.
    limit : float or None
        None makes it information only.

    Returns
    -------
    str
        "inconclusive" where the A/A line reaches beyond the limit or the interval lies on both sides of it.
    """
    if limit is None:
        return "info"
    if aa is not None and aa.reach > limit:
        return "inconclusive"
    if value.high <= limit:
        return "pass"
    return "fail" if value.low > limit else "inconclusive"


def alternate(
    whole: Callable[[], object],
    parts: Mapping[str, Callable[[], object]],
    *,
    pairs: int = 60,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
    settle: Callable[[], object] = lambda: None,
    tick: Callable[[], object] = lambda: None,
) -> Samples:
    """Run the whole and its parts by turns.

    Parameters
    ----------
    whole, parts : callables
        `parts` run in the mapping's order, each with a clock of its own.
    pairs : int, default 60
        At least 2.
    warmup : int, default 3
        Turns that are not counted.
    clock : callable, default time.perf_counter
        Seconds; `time.process_time` counts the CPU time of all threads.
    settle : callable
        Called before each reading of the clock; waits for an accelerator.
    tick : callable
        Called after each turn.
    """
    if pairs < 2:
        raise SettingError("pairs", "an integer of at least 2", pairs)

    def seconds(work: Callable[[], object]) -> float:
        settle()
        began = clock()
        work()
        settle()
        return clock() - began

    def turn() -> list[float]:
        return [seconds(work) for work in parts.values()]

    for _ in range(warmup):
        turn()
        whole()
        tick()
    # A collection in the middle of one turn would be charged to that turn alone.
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        apart, together = [turn()], []
        for _ in range(pairs):
            together.append(seconds(whole))
            apart.append(turn())
            tick()
    finally:
        if collecting:
            gc.enable()
    columns = np.array(apart)
    return Samples(whole=np.array(together), parts={name: columns[:, i] for i, name in enumerate(parts)})


def neighbours(values: Floats) -> Floats:
    """Mean of each value and the next: (n + 1,) to (n,)."""
    return np.asarray((values[:-1] + values[1:]) / 2)


def overhead(samples: Samples, over: Floats) -> tuple[Estimate, Estimate]:
    """(whole - parts) / over, and the A/A line of it.

    Parameters
    ----------
    samples : Samples
    over : float array of (n + 1,)
        What the difference is a share of: one part's seconds, or the sum.

    Returns
    -------
    value, aa : Estimate
    """
    total = samples.total
    value = (samples.whole - neighbours(total)) / neighbours(over)
    aa = (total[1:-1] - (total[:-2] + total[2:]) / 2) / over[1:-1]
    return estimate(value), estimate(aa)
