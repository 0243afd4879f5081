"""How `regions.own_cut` was chosen: rules for the manipulation map's cut, tried with each source left out.

The cut with the best F1 among those that are quiet on the photographs it is chosen on is loud on a kind of photograph
that was not there. So each rule is chosen on all sources but one, and judged by the one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tellsign.plugins.segmentation.model import CELL
from tellsign.plugins.segmentation.scan import Forward, scan

from .calibrate import MEDIAN
from .data import UNTOUCHED, ForgedRow, load
from .evaluate import CONDITIONS

PLACES = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8)
LEVELS = (-3.0, -2.5, -2.0, -1.75, -1.5, -1.25, -1.0, -0.75)
STEEPS = (1.0, 1.5, 2.0, 3.0)
SHIFTS = tuple(np.round(np.arange(0, 2.21, 0.05), 2).tolist())
LIMITS = (0.1, 0.08, 0.07, 0.06, 0.05, 0.04)
"""Most that the 95th percentile of the marked share may be on the untouched pictures of any source."""
GRID = np.round(np.arange(-1, 12.01, 0.05), 2)
"""Log-odds at which maps are counted."""


class Rule(NamedTuple):
    """A cut in log-odds: `raised`, and `steep` times what the map's quantile `place` is above `level`."""

    raised: float = 0.0
    place: float = 0.5
    level: float = 0.0
    steep: float = 0.0

    def __str__(self) -> str:
        if not self.steep:
            return f"{self.raised:g}"
        return f"{self.steep:g} x (quantile {self.place:g} {-self.level:+g})"


FAMILIES: Mapping[str, Sequence[Rule]] = {
    "one cut": [Rule(raised=x) for x in SHIFTS],
    "own cut": [Rule(0.0, *told) for told in product(PLACES, LEVELS, STEEPS)],
}


@attrs.frozen(kw_only=True)
class Counted:
    """What is kept of one map."""

    condition: str
    source: str
    edited: bool
    quantiles: Mapping[float, float]
    """In log-odds, by place."""
    marked: NDArray[np.float64]
    """Cells at or above each of `GRID`; of an untouched picture their share."""
    right: NDArray[np.float64]
    """Of these, cells that were moved."""
    true: int

    def at(self, rule: Rule) -> int:
        """The index in `GRID` of a rule's cut."""
        cut = rule.raised + rule.steep * max(0.0, self.quantiles[rule.place] - rule.level)
        return int(np.clip(np.rint((cut - GRID[0]) / (GRID[1] - GRID[0])), 0, len(GRID) - 1))


def counted(rows: Iterable[ForgedRow], forward: Forward, conditions: Sequence[str]) -> list[Counted]:
    """Look at pictures under each condition; edited ones of which nothing is known to be moved are passed over."""
    out: list[Counted] = []
    for condition in conditions:
        for row in tqdm(list(rows), desc=condition):
            sample = CONDITIONS[condition](load(row))
            heat = scan(sample.pixels, forward).maps["manipulation"].astype(np.float64).clip(1e-6, 1 - 1e-6)
            truth = sample.manipulation[CELL // 2 :: CELL, CELL // 2 :: CELL] > 0
            heat = np.log(heat / (1 - heat))[: truth.shape[0], : truth.shape[1]]
            if row.kind == UNTOUCHED or (row.ma_counts and 0 < truth.mean() < 1):
                out.append(count(heat, truth, condition=condition, source=row.source, edited=row.kind != UNTOUCHED))
    return out


def count(heat: NDArray[np.float64], truth: NDArray[np.bool_], *, condition: str, source: str, edited: bool) -> Counted:
    """Of a map in log-odds and its truth, both (rows, columns)."""

    def above(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(values.size - np.searchsorted(np.sort(values), GRID), np.float64)

    return Counted(
        condition=condition,
        source=source,
        edited=edited,
        quantiles={p: float(np.quantile(heat, p)) for p in PLACES},
        marked=above(heat.ravel()) / (1 if edited else heat.size),
        right=above(heat[truth]),
        true=int(truth.sum()),
    )


class Judged(NamedTuple):
    """What a rule gives."""

    p95: dict[tuple[str, str], float]
    """By condition and source, of the marked share of untouched pictures."""
    median: float
    """The highest of any condition, over all sources."""
    counts: dict[tuple[str, str], NDArray[np.float64]]
    """By condition and source: cells right, marked and true, of edited pictures."""

    def f1(self, condition: str, sources: Iterable[str]) -> float:
        """Pooled, of one condition."""
        right, marked, true = sum(
            (self.counts.get((condition, s), np.zeros(3)) for s in sources), start=np.zeros(3)
        ).tolist()
        return 2 * right / (marked + true) if marked + true else 0.0

    def loudest(self, condition: str, sources: Iterable[str]) -> float:
        """The highest 95th percentile of the sources."""
        return max(self.p95[condition, s] for s in sources)


def judge(rule: Rule, maps: Sequence[Counted]) -> Judged:
    """What a rule gives on maps."""
    areas: dict[tuple[str, str], list[float]] = {}
    counts: dict[tuple[str, str], NDArray[np.float64]] = {}
    for m in maps:
        i, key = m.at(rule), (m.condition, m.source)
        if m.edited:
            counts[key] = counts.get(key, np.zeros(3)) + np.array([m.right[i], m.marked[i], m.true])
        else:
            areas.setdefault(key, []).append(float(m.marked[i]))
    medians = [np.median([a for (c, _), v in areas.items() if c == one for a in v]) for one in {c for c, _ in areas}]
    return Judged({k: float(np.percentile(v, 95)) for k, v in areas.items()}, float(max(medians)), counts)


def pick(judged: Mapping[Rule, Judged], sources: Sequence[str], conditions: Sequence[str], limit: float) -> Rule | None:
    """The rule with the best mean F1 of the conditions, of those that are quiet on each source under each."""
    quiet = [
        rule
        for rule, j in judged.items()
        if j.median <= MEDIAN and max(j.loudest(c, sources) for c in conditions) <= limit
    ]
    return max(quiet, key=lambda r: sum(judged[r].f1(c, sources) for c in conditions), default=None)


def compared(maps: Sequence[Counted], conditions: Sequence[str]) -> str:
    """The table of docs/segmentation.md.

    Parameters
    ----------
    maps : sequence of Counted
        Untouched pictures of two or more sources among them.
    conditions : sequence of str
    """
    sources = sorted({m.source for m in maps if not m.edited})
    lines = [
        "| rule | limit | chosen | F1 " + ", ".join(conditions) + " | loudest source | a source that was left out |",
        "|---|---|---|---|---|---|",
    ]
    for name, rules in FAMILIES.items():
        judged = {rule: judge(rule, maps) for rule in rules}
        if name == "one cut":
            lines.append(_line("as it was", "-", rules[0], judged[rules[0]], sources, conditions, None))
        for limit in LIMITS:
            rule = pick(judged, sources, conditions, limit)
            if rule is None:
                continue
            left: list[float] = []
            for source in sources:
                other = pick(judged, [s for s in sources if s != source], conditions, limit)
                if other is not None:
                    left.append(max(judged[other].p95[c, source] for c in conditions))
            lines.append(_line(name, f"{100 * limit:g} %", rule, judged[rule], sources, conditions, max(left)))
    return "\n".join(lines)


def _line(
    name: str,
    limit: str,
    rule: Rule,
    judged: Judged,
    sources: Sequence[str],
    conditions: Sequence[str],
    left: float | None,
) -> str:
    f1 = ", ".join(f"{judged.f1(c, sources):.3f}" for c in conditions)
    loudest = ", ".join(f"{100 * judged.loudest(c, sources):.1f} %" for c in conditions)
    worst = "-" if left is None else f"{100 * left:.1f} %"
    return f"| {name} | {limit} | {rule} | {f1} | {loudest} | {worst} |"


__all__ = ["FAMILIES", "Counted", "Judged", "Rule", "compared", "count", "counted", "judge", "pick"]
