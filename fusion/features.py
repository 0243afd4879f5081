"""The feature row: declared columns, and NaN where nobody answered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.schemas import (
    HEADS,
    STATISTICS,
    Column,
    Declaration,
    Evidence,
    Failed,
    FindingEvidence,
    MapEvidence,
    NotApplicable,
    ScoreEvidence,
    Task,
    Unavailable,
)
from tellsign.schemas.checks import member, one_of, refuse, text

LOGIT_LIMIT = 10.0
"""Scores in log-odds are clipped to this on both sides; beyond it a score says nothing more."""

_COMPONENT_GRID = 512
_SILENT = (NotApplicable, Failed, Unavailable)


def _task(value: Task | str) -> Task:
    return Task(value)


@attrs.frozen
class FeatureColumn:
    """One column of the feature row."""

    name: str = attrs.field(validator=text())
    """"<plugin>.<column>"; rows are ordered by it."""
    direction: int = attrs.field(validator=one_of(-1, 0, 1))
    """+1 where a higher number speaks for the head's question, -1 against it, 0 unordered."""
    block: str = attrs.field(validator=text())
    """Full name of the block that the column comes and goes with: "<plugin>" or "<plugin>.<block>"."""
    task: Task = attrs.field(converter=_task, validator=member(Task))
    plugin: str = attrs.field(validator=text())
    head: str = attrs.field(default="p_ai", validator=one_of(*HEADS))
    statistic: str = attrs.field(default="logit", validator=one_of(*STATISTICS))
    evidence: str = attrs.field(default="", validator=text(empty=True))
    """Name of the score, map or category that the number is taken from."""

    def __attrs_post_init__(self) -> None:
        if not self.name.startswith(f"{self.plugin}."):
            raise refuse(self, "name", f'a name that starts with "{self.plugin}."', self.name)
        if self.block != self.plugin and not self.block.startswith(f"{self.plugin}."):
            raise refuse(self, "block", f'"{self.plugin}" or a name that starts with "{self.plugin}."', self.block)
        if "+" in self.block:
            raise refuse(self, "block", 'a name without "+", which joins the blocks of a pattern', self.block)


def columns(declarations: Mapping[str, Declaration], head: str | None = None) -> tuple[FeatureColumn, ...]:
    """The columns that the plugins declare, ordered by name.

    Parameters
    ----------
    declarations : mapping of str to Declaration
        By plugin name; the mapping's order does not matter.
    head : {"p_ai", "p_tampered"}, optional
        Only the columns of this head; default those of both.
    """
    if head is not None and head not in HEADS:
        raise ValueError(f"head takes one of {HEADS} or None, got {head!r}")
    made = [
        FeatureColumn(
            name=f"{d.name}.{c.name}",
            direction=c.direction,
            block=d.block_of(c),
            task=d.task,
            plugin=d.name,
            head=c.head,
            statistic=c.statistic,
            evidence=c.evidence,
        )
        for d in declarations.values()
        for c in d.columns
        if head in (None, c.head)
    ]
    return tuple(sorted(made, key=lambda c: c.name))


def feature_row(
    evidence: Iterable[Evidence], declarations: Mapping[str, Declaration], head: str | None = None
) -> dict[str, float]:
    """One number per declared column, NaN where its evidence is missing.

    Evidence of plugins that are not declared, and evidence that no column names, is passed over. Where a plugin gives
    the same score, map or category twice, the highest number counts, so that the order of evidence never matters.
    A category without a finding counts as strength 0 where its block answered otherwise, and NaN where it did not.

    Parameters
    ----------
    evidence : iterable of Evidence
        In any order, of any plugins.
    declarations : mapping of str to Declaration
        By plugin name.
    head : {"p_ai", "p_tampered"}, optional
        Only the columns of this head.

    Returns
    -------
    dict of str to float
        By column name, in order of name.
    """
    spoken: dict[str, list[Evidence]] = {}
    for item in evidence:
        if not isinstance(item, _SILENT):
            spoken.setdefault(item.plugin, []).append(item)
    values: dict[str, float] = {}
    for declaration in declarations.values():
        items = spoken.get(declaration.name, [])
        own = {c.name: _number(c, items) for c in declaration.columns}
        for column in declaration.columns:
            if column.statistic == "strength" and math.isnan(own[column.name]):
                mates = (c for c in declaration.columns if c.block == column.block and c.statistic != "strength")
                looked = any(not math.isnan(own[c.name]) for c in mates) or (not column.block and bool(items))
                own[column.name] = 0.0 if looked else math.nan
        values |= {f"{declaration.name}.{c.name}": own[c.name] for c in declaration.columns if head in (None, c.head)}
    return dict(sorted(values.items()))


def _number(column: Column, items: Sequence[Evidence]) -> float:
    found: list[float] = []
    for item in items:
        if column.statistic == "logit" and isinstance(item, ScoreEvidence) and item.name == column.evidence:
            found.append(_log_odds(item))
        elif column.statistic == "strength" and isinstance(item, FindingEvidence):
            if item.category == column.evidence:
                found.append(float(item.strength))
        elif isinstance(item, MapEvidence) and item.name == column.evidence:
            found.append(map_statistic(item.map, column.statistic))
    return max(found, default=math.nan)


def _log_odds(item: ScoreEvidence) -> float:
    if item.logit is not None:
        value = float(item.logit)
    else:
        low = 1 / (1 + math.exp(LOGIT_LIMIT))
        p = min(max(float(item.score), low), 1 - low)
        value = math.log(p / (1 - p))
    return min(max(value, -LOGIT_LIMIT), LOGIT_LIMIT)


def map_statistic(values: NDArray[np.float32], statistic: str) -> float:
    """One number of a map.

    Parameters
    ----------
    values : float32 array (rows, columns) in [0, 1]
    statistic : {"share", "max", "top", "largest"}
        As `tellsign.schemas.STATISTICS` says. "largest" looks at cells that touch along a side; maps above 512 cells
        a side are averaged down to that first, which keeps a full-size map within a tenth of a second.

    Returns
    -------
    float
        In [0, 1]; NaN for a statistic that maps do not have.
    """
    if statistic == "share":
        return float((values > 0.5).mean())
    if statistic == "max":
        return float(values.max())
    if statistic == "top":
        count = math.ceil(values.size / 100)
        return float(np.partition(values, values.size - count, axis=None)[-count:].mean(dtype=np.float64))
    if statistic == "largest":
        step = math.ceil(max(values.shape) / _COMPONENT_GRID)
        return largest_component(_average_down(values, step) > 0.5)
    return math.nan


def _average_down(values: NDArray[np.float32], step: int) -> NDArray[np.float64]:
    if step == 1:
        return values.astype(np.float64)
    starts = [np.arange(0, n, step) for n in values.shape]
    sums = np.add.reduceat(np.add.reduceat(values, starts[0], axis=0, dtype=np.float64), starts[1], axis=1)
    sizes = [np.diff(np.append(s, n)) for s, n in zip(starts, values.shape, strict=True)]
    return np.asarray(sums / np.outer(*sizes), np.float64)


def largest_component(mask: NDArray[np.bool_]) -> float:
    """Share of all cells that the largest group of True cells covers; cells touch along a side.

    Parameters
    ----------
    mask : bool array (rows, columns)
    """
    # Union-find over runs of a row, so that the Python loop is over runs and not over cells.
    parent: list[int] = []
    size: list[int] = []

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    above: list[tuple[int, int, int]] = []
    for row in mask:
        edges = np.flatnonzero(np.diff(np.concatenate(([False], row, [False])).astype(np.int8)))
        here: list[tuple[int, int, int]] = []
        k = 0
        for left, right in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            me = len(parent)
            parent.append(me)
            size.append(right - left)
            while k < len(above) and above[k][1] <= left:
                k += 1
            j = k
            while j < len(above) and above[j][0] < right:
                a, b = root(above[j][2]), root(me)
                if a != b:
                    parent[b] = a
                    size[a] += size[b]
                j += 1
            here.append((left, right, me))
        above = here
    return max((size[i] for i in range(len(parent)) if parent[i] == i), default=0) / mask.size


def matrix(rows: Sequence[Mapping[str, float]], of: Sequence[FeatureColumn]) -> NDArray[np.float64]:
    """Feature rows as float64 (rows, columns); a name that a row lacks is NaN, a name that `of` lacks is dropped."""
    return np.array([[float(r.get(c.name, math.nan)) for c in of] for r in rows], np.float64).reshape(
        len(rows), len(of)
    )


def present_blocks(values: NDArray[np.float64], of: Sequence[FeatureColumn]) -> frozenset[str]:
    """Blocks with at least one number in the row `values` (float64, one per column of `of`)."""
    return frozenset(c.block for c, v in zip(of, values.tolist(), strict=True) if not math.isnan(v))


def pattern_key(blocks: Iterable[str]) -> str:
    """Name of an availability pattern: its blocks in order, joined by "+"."""
    return "+".join(sorted(blocks))


def keep_blocks(values: NDArray[np.float64], of: Sequence[FeatureColumn], blocks: Iterable[str]) -> NDArray[np.float64]:
    """A copy of `values` (float64, (..., columns)) with the columns outside `blocks` set to NaN."""
    wanted = set(blocks)
    out = np.array(values, np.float64)
    out[..., [c.block not in wanted for c in of]] = math.nan
    return out


__all__ = [
    "LOGIT_LIMIT",
    "FeatureColumn",
    "columns",
    "feature_row",
    "keep_blocks",
    "largest_component",
    "map_statistic",
    "matrix",
    "pattern_key",
    "present_blocks",
]
