"""The non-negative logistic stack: the head for few rows, and the yardstick for the booster. numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .calibration import fit_platt, sigmoid
from .features import FeatureColumn

Floats = NDArray[np.float64]


@attrs.frozen(eq=False)
class LogisticHead:
    """margin = bias + sum of weight * (value - centre) / scale; a missing value counts as the centre.

    Weights of ordered columns never point against their direction, so the margin is monotone by construction.
    """

    columns: tuple[FeatureColumn, ...]
    centre: Floats
    scale: Floats
    """Positive."""
    weights: Floats
    """Per standard deviation of the column."""
    bias: float

    kind = "logistic"

    def contributions(self, values: Floats) -> tuple[Floats, Floats]:
        """Per column float64 (n, columns), and the bias float64 (n,); `values` is float64 (n, columns) with NaN."""
        parts = self.weights * (np.asarray(values, np.float64) - self.centre) / self.scale
        return np.where(np.isnan(parts), 0.0, parts), np.full(len(parts), self.bias)

    def margin(self, values: Floats) -> Floats:
        """float64 (n,)."""
        parts, bias = self.contributions(values)
        # A fixed order of summation: one row gives the same bits alone and in a batch.
        total = bias.copy()
        for j in range(parts.shape[1]):
            total += parts[:, j]
        return total


def fit_ridge(
    design: Floats,
    labels: Floats,
    weights: Floats,
    *,
    prior: Floats,
    precision: Floats,
    low: Floats,
    high: Floats,
    offset: Floats | None = None,
    steps: int = 200,
) -> Floats:
    """Logistic regression with a ridge towards `prior` and bounds.

    Parameters
    ----------
    design : float64 array (n, k)
    labels : float64 array (n,)
        0 or 1.
    weights : float64 array (n,)
        Sum to 1.
    prior, precision, low, high : float64 arrays (k,)
        The penalty is the sum of precision / 2 * (theta - prior)^2, beside the mean log loss.
    offset : float64 array (n,), optional
        Added to every margin.
    steps : int
        At most so many Newton steps.

    Returns
    -------
    float64 array (k,)

    Notes
    -----
    Projected Newton (Bertsekas 1982): weights that sit on their bound and are pushed outwards step by gradient and
    stay; the others take a Newton step, halved along the projection arc until the loss falls.
    """
    theta = np.clip(np.array(prior, np.float64), low, high)

    def margin(t: Floats) -> Floats:
        return np.asarray(design @ t if offset is None else design @ t + offset, np.float64)

    def loss(t: Floats) -> float:
        m = margin(t)
        return float((weights * (np.logaddexp(0, m) - labels * m)).sum() + 0.5 * (precision * (t - prior) ** 2).sum())

    now = loss(theta)
    for _ in range(steps):
        p = sigmoid(margin(theta))
        gradient = design.T @ (weights * (p - labels)) + precision * (theta - prior)
        stuck = ((theta <= low) & (gradient > 0)) | ((theta >= high) & (gradient < 0))
        free = np.flatnonzero(~stuck)
        if np.abs(gradient[free]).max(initial=0.0) < 1e-9:
            break
        part = design[:, free]
        hessian = (part * (weights * p * (1 - p))[:, None]).T @ part + np.diag(precision[free] + 1e-10)
        step = np.zeros(len(theta))
        step[free] = np.linalg.solve(hessian, gradient[free])
        size, then, moved = 1.0, now, theta
        while size > 1e-10:
            moved = np.clip(theta - size * step, low, high)
            then = loss(moved)
            if then < now:
                break
            size /= 2
        else:
            break
        gain, theta, now = now - then, moved, then
        if gain < 1e-14:
            break
    return theta


def fit_logistic(
    values: Floats,
    labels: ArrayLike,
    columns: Sequence[FeatureColumn],
    *,
    weights: ArrayLike | None = None,
    l2: float = 0.03,
    towards: ArrayLike | None = None,
    steps: int = 200,
) -> LogisticHead:
    """Logistic regression with weights kept on their direction's side, on standardised columns.

    Parameters
    ----------
    values : float64 array (n, columns)
        NaN where missing; a column that is missing everywhere gets weight 0.
    labels : array_like (n,)
        0 or 1, both present.
    columns : sequence of FeatureColumn
    weights : array_like (n,), optional
        Positive; default 1.
    l2 : float
        Penalty l2 / 2 * sum of squared weights beside the mean log loss; the bias is free. It chooses the balance
        between columns: the common scale is fitted afterwards without it. May be infinite with `towards`.
    towards : array_like (columns,), optional
        The balance that the penalty draws the weights to (`plugin_shares`), at the scale that fits best; default 0 for
        every column. With an infinite penalty it is the balance.
    steps : int
        At most so many Newton steps.

    """
    x = np.asarray(values, np.float64)
    y = np.asarray(labels, np.float64)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    if x.ndim != 2 or x.shape != (len(y), len(columns)) or w.shape != y.shape:
        raise ValueError(f"values takes an array ({len(y)}, {len(columns)}), got {x.shape} and weights {w.shape}")
    if not l2 > 0 or (math.isinf(l2) and towards is None):
        raise ValueError(f"l2 takes a positive number, finite without towards, got {l2!r}")
    w = w / w.sum()
    seen = ~np.isnan(x)
    mass = np.maximum((w[:, None] * seen).sum(0), 1e-300)
    centre = np.where(seen.any(0), (w[:, None] * np.where(seen, x, 0)).sum(0) / mass, 0.0)
    z = np.where(seen, x - centre, 0.0)
    scale = np.sqrt((w[:, None] * z**2).sum(0) / mass)
    dead = ~seen.any(0) | (scale < 1e-9)
    scale = np.where(dead, 1.0, scale)
    z = np.where(dead, 0.0, z / scale)

    k = len(columns)
    low = np.array([0.0 if c.direction > 0 else -np.inf for c in columns] + [-np.inf])
    high = np.array([0.0 if c.direction < 0 else np.inf for c in columns] + [np.inf])
    design = np.column_stack([z, np.ones(len(z))])
    ridge = np.append(np.full(k, l2), 0.0)
    prior = np.zeros(k + 1)
    if towards is not None:
        balance = np.where(dead, 0.0, np.asarray(towards, np.float64))
        start = fit_platt(z @ balance, y, weights=w)
        prior = np.append(start.slope * balance, start.intercept)
    theta = np.clip(prior, low, high)
    if math.isfinite(l2):
        theta = fit_ridge(design, y, w, prior=prior, precision=ridge, low=low, high=high, steps=steps)
    # The penalty shrinks the margin as a whole too; one slope and one bias bring it back to log-odds, so that margins
    # of models fitted on different parts of the data have one scale and a calibrator finds a slope near 1.
    scaler = fit_platt(design[:, :k] @ theta[:k], y, weights=w)
    return LogisticHead(tuple(columns), centre, scale, scaler.slope * theta[:k], scaler.intercept)


def plugin_shares(values: Floats, columns: Sequence[FeatureColumn]) -> Floats:
    """Weights under which every plugin counts the same, float64 (columns,): one over the columns that speak with it.

    Parameters
    ----------
    values : float64 array (n, columns)
        NaN where missing. A plugin's columns that never speak in one row, as those of two strengths, do not share.
    columns : sequence of FeatureColumn
        An unordered column has 0: nothing says which way it points.

    Examples
    --------
    >>> from tellsign.schemas import Task
    >>> names = ("p.strong", "p.weak", "p.other", "s.one")
    >>> of = [FeatureColumn(n, 1, n.partition(".")[0], Task.PIXEL, n.partition(".")[0]) for n in names]
    >>> rows = [[0.1, math.nan, 0.3, 0.4], [math.nan, 0.2, 0.3, 0.4]]
    >>> plugin_shares(np.array(rows), of).tolist()
    [0.5, 0.5, 0.5, 1.0]
    """
    seen = ~np.isnan(values)
    out = np.zeros(len(columns))
    for plugin in {c.plugin for c in columns}:
        mine = [j for j, c in enumerate(columns) if c.plugin == plugin]
        count = seen[:, mine].sum(1)
        for j in mine:
            if seen[:, j].any():
                out[j] = columns[j].direction / count[seen[:, j]].max()
    return out


__all__ = ["LogisticHead", "fit_logistic", "fit_ridge", "plugin_shares"]
