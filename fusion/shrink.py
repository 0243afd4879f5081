"""A head for few rows: the shipped one, moved by as much as the rows can show. numpy only.

Two ways, both with a Gaussian prior around "change nothing" (`SPREAD`), so that no rows give the base back:

`recalibrated`
    log-odds = slope * base's log-odds + shift. Keeps every rank; fits any base, a booster too.
`reweighted`
    A logistic base's weights and bias move, never to the wrong side of their column's direction; columns that the base
    does not know enter from weight 0. The base's calibrators stay, so every pattern that it knew stays usable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bundle import Bundle, Head
from .calibration import LARGEST_LIMIT, Affine
from .features import FeatureColumn, keep_blocks, pattern_key, present_blocks
from .logistic import LogisticHead, fit_ridge
from .table import ScoreTable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

METHODS = ("recalibrated", "reweighted")

SPREAD = 0.35
"""How far a domain moves a number of the base before it is unusual, as the standard deviation of a prior around "no
change": the slope of the log-odds, their shift, a column's weight per standard deviation of the column (log-odds). It
was chosen on four domains taken out of the shipped fusion's own training data (docs/tuning.md)."""


@attrs.frozen(kw_only=True, eq=False)
class BaseView:
    """A table as a base bundle sees it, for one head."""

    head: str
    columns: tuple[FeatureColumn, ...]
    """The head's: the base's and those that are new, ordered by name."""
    values: Floats
    """(n, columns), NaN where missing and where the base would not look."""
    keys: tuple[str, ...]
    """Per row the calibrated pattern of the base's head, "" where it has none."""
    odds: Floats
    """(n,) The base's calibrated log-odds without the limit, 0 where it has no answer."""
    answered: NDArray[np.bool_]
    """(n,) Whether the base has an answer."""


def base_view(base: Bundle, table: ScoreTable, head: str) -> BaseView:
    """What the base says of each row.

    Columns are matched by name; a column of the base that the table lacks is missing in every row. A column that both
    have and that means something else in each is refused.

    Raises
    ------
    ValueError
        Naming the columns whose meaning differs.
    """
    known = {c.name: c for c in base.columns}
    differing = [c.name for c in table.columns if c.name in known and known[c.name] != c]
    if differing:
        raise ValueError(f"columns take the base's meaning (direction, block, head), got others for {differing}")
    place = {c.name: i for i, c in enumerate(table.columns)}

    def pick(columns: Sequence[FeatureColumn]) -> Floats:
        out = np.full((len(table), len(columns)), np.nan)
        for j, c in enumerate(columns):
            if c.name in place:
                out[:, j] = table.rows[:, place[c.name]]
        return out

    mine = tuple(sorted({c.name: c for c in (*base.columns, *table.columns) if c.head == head}.values(), key=_name))
    seen = pick(base.columns)
    values = pick(mine)
    new = {c.block for c in table.columns} - {c.block for c in base.columns}
    part = base.heads.get(head)
    keys = [""] * len(table)
    odds, answered = np.zeros(len(table)), np.zeros(len(table), bool)
    patterns = [present_blocks(row, base.columns) for row in seen]
    for pattern in sorted(set(patterns), key=pattern_key):
        rows = np.flatnonzero([p == pattern for p in patterns])
        used = base.covering(pattern) if pattern else None
        allowed = (used or frozenset()) | new
        values[rows] = keep_blocks(values[rows], mine, allowed)
        if used is None or part is None:
            continue
        # A block may have answered the other head's question only.
        place_of = [i for i, c in enumerate(base.columns) if c.head == head]
        inside = present_blocks_of(seen[rows][:, place_of], part.columns, used)
        for i, blocks in zip(rows.tolist(), inside, strict=True):
            keys[i] = pattern_key(blocks) if pattern_key(blocks) in part.calibrators else ""
    if part is not None:
        base_values = pick(part.columns)
        for key in sorted({k for k in keys if k}):
            rows = np.flatnonzero([k == key for k in keys])
            kept = keep_blocks(base_values[rows], part.columns, key.split("+"))
            calibrator = part.calibrators[key]
            odds[rows] = calibrator.slope * part.model.margin(kept) + calibrator.intercept
            answered[rows] = True
    return BaseView(head=head, columns=mine, values=values, keys=tuple(keys), odds=odds, answered=answered)


def present_blocks_of(
    values: Floats, columns: Sequence[FeatureColumn], within: frozenset[str]
) -> tuple[frozenset[str], ...]:
    """Blocks among `within` that each row of float64 `values` (n, columns) has a number of."""
    return tuple(present_blocks(row, columns) & within for row in values)


def recalibrated(
    base: Bundle, view: BaseView, labels: ArrayLike, weights: ArrayLike, rows: Ints, strength: float
) -> Head:
    """The base's head with one slope and one shift over all patterns.

    Parameters
    ----------
    base : Bundle
    view : BaseView
    labels : array_like (n,)
        0 or 1 on `rows`.
    weights : array_like (n,)
        Positive on `rows`.
    rows : int64 array
        What may be looked at; rows without an answer of the base are passed over.
    strength : float
        Of the prior beside the mean log loss, above 0: 1 / n for n independent pictures.
    """
    part = base.heads[view.head]
    rows = rows[view.answered[rows]]
    y, w = np.asarray(labels, np.float64)[rows], np.asarray(weights, np.float64)[rows]
    slope, shift = 1.0, 0.0
    if len(rows):
        design = np.column_stack([view.odds[rows], np.ones(len(rows))])
        slope, shift = fit_ridge(
            design,
            y,
            w / w.sum(),
            prior=np.array([1.0, 0.0]),
            precision=np.full(2, strength / SPREAD**2),
            low=np.array([0.0, -np.inf]),
            high=np.array([np.inf, np.inf]),
        ).tolist()
    return Head(model=part.model, calibrators=moved_calibrators(part.calibrators, slope, shift))


def moved_calibrators(calibrators: Mapping[str, Affine], slope: float, shift: float) -> dict[str, Affine]:
    """Calibrators whose log-odds are slope * what they were + shift, with the limits that they had."""
    return {
        key: attrs.evolve(c, slope=slope * c.slope, intercept=slope * c.intercept + shift, kind="platt")
        for key, c in calibrators.items()
    }


def can_reweight(base: Bundle, view: BaseView) -> bool:
    """Whether the head is one whose weights can move, and moving them is more than `recalibrated` does."""
    part = base.heads.get(view.head)
    used = int((~np.isnan(view.values)).any(0).sum())
    return part is not None and isinstance(part.model, LogisticHead) and used > 1


def reweighted(
    base: Bundle, view: BaseView, labels: ArrayLike, weights: ArrayLike, rows: Ints, strength: float
) -> Head:
    """The base's logistic head with weights and bias moved; parameters as `recalibrated`.

    Raises
    ------
    ValueError
        The base's head is a booster.
    """
    part = base.heads[view.head]
    if not isinstance(part.model, LogisticHead):
        raise ValueError("base takes a logistic head to reweight, got a booster: recalibrate it")
    y, w = np.asarray(labels, np.float64)[rows], np.asarray(weights, np.float64)[rows]
    w = w / w.sum()
    old = {c.name: j for j, c in enumerate(part.model.columns)}
    k = len(view.columns)
    centre, scale, start = np.zeros(k), np.ones(k), np.zeros(k)
    x = view.values[rows]
    for j, c in enumerate(view.columns):
        if c.name in old:
            i = old[c.name]
            centre[j], scale[j], start[j] = part.model.centre[i], part.model.scale[i], part.model.weights[i]
            continue
        seen = ~np.isnan(x[:, j])
        if seen.any():
            mass = w[seen] / w[seen].sum()
            centre[j] = float(mass @ x[seen, j])
            spread = math.sqrt(float(mass @ (x[seen, j] - centre[j]) ** 2))
            scale[j] = spread if spread > 1e-9 else 1.0
    z = np.where(np.isnan(x), 0.0, (x - centre) / scale)
    slope = np.array([part.calibrators[key].slope if key else 1.0 for key in view.keys])[rows]
    offset = np.array([part.calibrators[key].intercept if key else 0.0 for key in view.keys])[rows]
    design = np.column_stack([z, np.ones(len(rows))]) * slope[:, None]
    theta = fit_ridge(
        design,
        y,
        w,
        prior=np.append(start, part.model.bias),
        precision=np.full(k + 1, strength / SPREAD**2),
        low=np.array([0.0 if c.direction > 0 else -np.inf for c in view.columns] + [-np.inf]),
        high=np.array([0.0 if c.direction < 0 else np.inf for c in view.columns] + [np.inf]),
        offset=offset,
    )
    model = LogisticHead(view.columns, centre, scale, theta[:k], float(theta[k]))
    return Head(model=model, calibrators=dict(part.calibrators))


def with_new_patterns(head: Head, base: Head | None, patterns: Sequence[frozenset[str]]) -> Head:
    """The head with a calibrator for each of `patterns` (its own blocks): that of the base's part of it.

    A pattern of which the base knows no part has the identity: the margin is in log-odds already.
    """
    made = dict(head.calibrators)
    known = base.blocks if base is not None else frozenset()
    for pattern in patterns:
        key = pattern_key(pattern & head.blocks)
        if key and key not in made:
            part = pattern_key(pattern & known)
            made[key] = made.get(part, Affine(1.0, 0.0, LARGEST_LIMIT))
    return Head(model=head.model, calibrators=made)


def head_odds(head: Head, view: BaseView, *, limited: bool = True) -> Floats:
    """Calibrated log-odds of each row of the view, float64 (n,); NaN where the head has no calibrator for it."""
    out = np.full(len(view.values), np.nan)
    place = {c.name: j for j, c in enumerate(view.columns)}
    values = view.values[:, [place[c.name] for c in head.columns]]
    patterns = present_blocks_of(values, head.columns, head.blocks)
    for pattern in sorted({p for p in patterns if p}, key=pattern_key):
        calibrator = head.calibrators.get(pattern_key(pattern))
        if calibrator is None:
            continue
        rows = np.flatnonzero([p == pattern for p in patterns])
        margin = head.model.margin(values[rows])
        out[rows] = calibrator.log_odds(margin) if limited else calibrator.slope * margin + calibrator.intercept
    return out


def _name(column: FeatureColumn) -> str:
    return column.name


__all__ = [
    "METHODS",
    "SPREAD",
    "BaseView",
    "base_view",
    "can_reweight",
    "head_odds",
    "moved_calibrators",
    "recalibrated",
    "reweighted",
    "with_new_patterns",
]
