"""From a head's margin to log-odds: temperature, Platt and isotonic, all monotone. numpy only."""

from __future__ import annotations

import math
from typing import Protocol

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tellsign.schemas.checks import number, one_of, refuse

Floats = NDArray[np.float64]

LARGEST_LIMIT = 10.0
METHODS = ("auto", "temperature", "platt", "isotonic")
_ISOTONIC_PER_CLASS = 500
_PLATT_PER_CLASS = 20


def sigmoid(x: ArrayLike) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    values = np.asarray(x, np.float64)
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1 / (1 + small), small / (1 + small))


def logit(p: float) -> float:
    """log(p / (1 - p)) of a probability strictly between 0 and 1."""
    if not 0 < p < 1:
        raise ValueError(f"p takes a number strictly between 0 and 1, got {p!r}")
    return math.log(p) - math.log1p(-p)


class Calibrator(Protocol):
    """Maps margins to log-odds."""

    def log_odds(self, margins: ArrayLike) -> Floats:
        """float64 of the margins' shape."""
        ...


@attrs.frozen
class Affine:
    """log-odds = slope * margin + intercept, limited on both sides.

    The limit is log(n + 1) for n calibration pictures (at most 10): n pictures support no probability outside
    [1 / (n + 2), 1 - 1 / (n + 2)].
    """

    slope: float = attrs.field(validator=number(0))
    intercept: float = attrs.field(default=0.0, validator=number())
    limit: float = attrs.field(default=LARGEST_LIMIT, validator=number(0, LARGEST_LIMIT))
    kind: str = attrs.field(default="platt", validator=one_of("temperature", "platt"))

    def __attrs_post_init__(self) -> None:
        if not math.isfinite(self.slope):
            raise refuse(self, "slope", "a finite number", self.slope)

    def log_odds(self, margins: ArrayLike) -> Floats:
        """Calibrated log-odds at even prior odds, float64 of the margins' shape."""
        raw = self.slope * np.asarray(margins, np.float64) + self.intercept
        return np.clip(raw, -self.limit, self.limit)


@attrs.frozen(eq=False)
class Isotonic:
    """Interpolates between PAV's steps. For reports: without a slope it cannot be split into contributions."""

    margins: Floats
    """Sorted, one per distinct margin."""
    probabilities: Floats
    """Not falling, within [1 / (n + 2), 1 - 1 / (n + 2)]."""

    def log_odds(self, margins: ArrayLike) -> Floats:
        """Calibrated log-odds, float64 of the margins' shape; constant outside the margins that were seen."""
        p = np.interp(np.asarray(margins, np.float64), self.margins, self.probabilities)
        return np.asarray(np.log(p) - np.log1p(-p), np.float64)


def pav(values: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Pool adjacent violators: the closest sequence (weighted squares) that never falls.

    Parameters
    ----------
    values, weights : array_like (n,)
        Weights are positive, default 1.

    Returns
    -------
    float64 array (n,)

    Examples
    --------
    >>> pav([0, 1, 0, 1, 1, 0, 1]).round(4).tolist()
    [0.0, 0.5, 0.5, 0.6667, 0.6667, 0.6667, 1.0]
    """
    y = np.asarray(values, np.float64)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for mean, weight in zip(y.tolist(), w.tolist(), strict=True):
        length = 1
        while blocks and blocks[-1][0] > mean:
            other, more, n = blocks.pop()
            mean, weight, length = (mean * weight + other * more) / (weight + more), weight + more, length + n
        blocks.append((mean, weight, length))
    return np.repeat([b[0] for b in blocks], [b[2] for b in blocks]).astype(np.float64)


def fit_calibrator(
    margins: ArrayLike,
    labels: ArrayLike,
    method: str = "auto",
    *,
    weights: ArrayLike | None = None,
    counts: tuple[float, float] | None = None,
    additive: bool = True,
) -> Affine | Isotonic:
    """Fit a calibrator on margins that their model did not train on.

    Parameters
    ----------
    margins : array_like (n,)
        Finite.
    labels : array_like (n,)
        0 or 1, both present.
    method : {"auto", "temperature", "platt", "isotonic"}
        "auto" is isotonic from 500 per class where `additive` is off, else Platt from 20 per class, else temperature,
        whose one number needs the least data.
    weights : array_like (n,), optional
        Positive. Classes of equal total weight give probabilities at even prior odds.
    counts : (float, float), optional
        Independent pictures (groups) with label 0 and 1; default the rows.
    additive : bool
        Whether the result must split into contributions, which isotonic does not.
    """
    m, y, w = _checked(margins, labels, weights)
    if method not in METHODS:
        raise ValueError(f"method takes one of {METHODS}, got {method!r}")
    n0, n1 = counts if counts is not None else (float((y == 0).sum()), float((y == 1).sum()))
    if method == "auto":
        least = min(n0, n1)
        method = "platt" if least >= _PLATT_PER_CLASS else "temperature"
        if not additive and least >= _ISOTONIC_PER_CLASS:
            method = "isotonic"
    if method == "isotonic":
        if additive:
            raise ValueError(
                'method takes "auto", "temperature" or "platt" where contributions are asked for, got "isotonic"'
            )
        return fit_isotonic(m, y, weights=w)
    limit = min(LARGEST_LIMIT, math.log(n0 + n1 + 1))
    if method == "temperature":
        return attrs.evolve(fit_temperature(m, y, weights=w), limit=limit)
    return attrs.evolve(fit_platt(m, y, weights=w, counts=(n0, n1)), limit=limit)


def fit_temperature(margins: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None) -> Affine:
    """Min over T > 0 of the log loss of sigmoid(margin / T), by golden search on log T in [-5, 5]."""
    m, y, w = _checked(margins, labels, weights)

    def loss(log_t: float) -> float:
        return _log_loss(m / math.exp(log_t), y, w)

    ratio = (math.sqrt(5) - 1) / 2
    low, high = -5.0, 5.0
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    at_a, at_b = loss(a), loss(b)
    while high - low > 1e-7:
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - ratio * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + ratio * (high - low)
            at_b = loss(b)
    return Affine(slope=math.exp(-(low + high) / 2), kind="temperature")


def fit_platt(
    margins: ArrayLike,
    labels: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    counts: tuple[float, float] | None = None,
) -> Affine:
    """sigmoid(a * margin + b) with a >= 0 and Platt's targets (n1 + 1) / (n1 + 2) and 1 / (n0 + 2).

    Newton's method with halving; the loss is convex, so a fit that wants a < 0 ends on the edge a = 0.
    """
    m, y, w = _checked(margins, labels, weights)
    n0, n1 = counts if counts is not None else (float((y == 0).sum()), float((y == 1).sum()))
    target = np.where(y == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    total = w.sum()
    # On standardised margins the two parameters have the same size, whatever the margin's unit.
    centre = float((w * m).sum() / total)
    spread = float(np.sqrt((w * (m - centre) ** 2).sum() / total))
    mean = float((w * target).sum() / total)
    flat = Affine(slope=0.0, intercept=math.log(mean / (1 - mean)))
    if spread < 1e-12:
        return flat
    design = np.column_stack([(m - centre) / spread, np.ones_like(m)])
    theta = np.array([0.0, flat.intercept])
    now = _log_loss(design @ theta, target, w)
    for _ in range(100):
        p = sigmoid(design @ theta)
        gradient = design.T @ (w * (p - target))
        hessian = (design * (w * p * (1 - p))[:, None]).T @ design + 1e-10 * total * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        scale = 1.0
        while scale > 1e-8:
            then = _log_loss(design @ (theta - scale * step), target, w)
            if then <= now:
                break
            scale /= 2
        else:
            break
        theta = theta - scale * step
        done, now = now - then < 1e-13, then
        if done:
            break
    slope = float(theta[0]) / spread
    if slope <= 0:
        return flat
    return Affine(slope=slope, intercept=float(theta[1]) - slope * centre)


def fit_isotonic(margins: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None) -> Isotonic:
    """PAV over the margins, ties pooled, clipped to [1 / (n + 2), 1 - 1 / (n + 2)]."""
    m, y, w = _checked(margins, labels, weights)
    points, where = np.unique(m, return_inverse=True)
    mass = np.bincount(where, w)
    means = np.bincount(where, w * y) / mass
    edge = 1 / (len(m) + 2)
    return Isotonic(points, np.clip(pav(means, mass), edge, 1 - edge))


def _checked(margins: ArrayLike, labels: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    m = np.asarray(margins, np.float64)
    y = np.asarray(labels, np.float64)
    w = np.ones(len(m)) if weights is None else np.asarray(weights, np.float64)
    if m.ndim != 1 or y.shape != m.shape or w.shape != m.shape:
        raise ValueError(
            f"margins, labels and weights take three arrays (n,), got shapes {m.shape}, {y.shape} and {w.shape}"
        )
    if not np.isfinite(m).all():
        raise ValueError(f"margins takes finite numbers, got {int((~np.isfinite(m)).sum())} that are not")
    if set(np.unique(y)) != {0.0, 1.0}:
        raise ValueError(f"labels takes 0 and 1, both present, got {np.unique(y).tolist()[:5]}")
    if not (w > 0).all() or not np.isfinite(w).all():
        raise ValueError("weights takes positive finite numbers, got others")
    return m, y, w


def _log_loss(z: Floats, target: Floats, w: Floats) -> float:
    return float((w * (np.logaddexp(0, z) - target * z)).sum() / w.sum())


__all__ = [
    "METHODS",
    "Affine",
    "Calibrator",
    "Isotonic",
    "fit_calibrator",
    "fit_isotonic",
    "fit_platt",
    "fit_temperature",
    "logit",
    "pav",
    "sigmoid",
]
