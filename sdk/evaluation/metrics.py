"""What is counted: ranking, calibration, abstention and false accusations, each with its interval.

Point values come from scikit-learn where it has them. The bootstrap needs every metric a thousand times, so it uses
weighted forms of the same formulas over a matrix (draws x pictures); the tests hold the two together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score, roc_curve

BINS = 15
"""Equal-mass bins of the expected calibration error."""
MANY_REALS = 300
"""The true-positive rate at 1 % false positives is given with at least so many real pictures."""
CUT = 0.5
"""Probability from which a picture counts as called AI."""
CURVE_POINTS = 101
"""The risk-coverage curve is thinned to at most so many points."""
_CHUNK = 4_000_000  # cells of one block of the draws x pictures matrix

Floats = NDArray[np.float64]
Interval = tuple[float, float]
Statistic = Callable[[Floats], Floats]
"""Weights (d, n) to values (d,)."""


def auc(label: NDArray[np.int_], p: Floats) -> float | None:
    """Area under the ROC curve; None where a class is missing.

    Parameters
    ----------
    label : int array of (n,)
        1 = AI.
    p : float array of (n,)
        Higher speaks for AI.
    """
    return float(roc_auc_score(label, p)) if _both(label) else None


def balanced_accuracy(label: NDArray[np.int_], p: Floats, cut: float = CUT) -> float | None:
    """Mean of the two classes' accuracies where `p >= cut` is called AI; None where a class is missing."""
    return float(balanced_accuracy_score(label, p >= cut)) if _both(label) else None


def brier(label: NDArray[np.int_], p: Floats) -> float | None:
    """Mean squared distance of probability and label; None without pictures."""
    return float(brier_score_loss(label, p, pos_label=1)) if len(label) else None


def tpr_at_fpr(label: NDArray[np.int_], p: Floats, fpr: float) -> float | None:
    """Highest share of fakes found by a cut that accuses at most the share `fpr` of the reals."""
    if not _both(label):
        return None
    false, true, _ = roc_curve(label, p, drop_intermediate=False)
    return float(true[false <= fpr + 1e-12].max())


def mass_bins(p: Floats, bins: int = BINS) -> NDArray[np.int_]:
    """Bin of each value: `bins` bins of equally many values, equal values in one bin.

    Ties share the mean of their ranks, so the result does not depend on the order of the pictures.
    """
    _, where, count = np.unique(p, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(count) - (count + 1) / 2
    return np.asarray((mean_rank[where] * bins / max(len(p), 1)).astype(int))


def expected_calibration_error(label: NDArray[np.int_], p: Floats, bins: int = BINS) -> float | None:
    """Mean distance, over equal-mass bins, of mean probability and share of AI; None without pictures."""
    if not len(label):
        return None
    gap = np.bincount(mass_bins(p, bins), p - label)
    return float(np.abs(gap).sum() / len(label))


def class_balanced(label: NDArray[np.int_]) -> Floats:
    """Weights (n,) that sum to 1 and give each class one half.

    A probability stated at prior .5 can only be calibrated on data where half of the pictures are AI; with these
    weights any data are such data.
    """
    count = np.bincount(label, minlength=2)
    return np.asarray(0.5 / np.maximum(count, 1)[label], np.float64)


def wilson(k: int, n: int, z: float = 1.959963984540054) -> Interval | None:
    """Wilson's score interval of a share; None where n is 0.

    Source: E. B. Wilson, JASA 22 (1927) 209.

    Parameters
    ----------
    k, n : int
        k of n.
    z : float
        Normal quantile; the default gives 95 %.
    """
    if n == 0:
        return None
    share, z2 = k / n, z * z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def risk_coverage(label: NDArray[np.int_], p: Floats, points: int = CURVE_POINTS) -> dict[str, Any]:
    """Error rate among the most confident pictures, as ever more of them are answered.

    Confidence is the distance of `p` from .5; pictures of equal confidence enter together.

    Returns
    -------
    dict
        `coverage` (rising, ends at 1), `risk` and `confidence` (falling, 0 to .5), lists of one length; `aurc`, the
        area under the whole curve (None without pictures).

    Notes
    -----
    El-Yaniv and Wiener, JMLR 11 (2010) 1605.
    """
    n = len(label)
    if n == 0:
        return {"coverage": [], "risk": [], "confidence": [], "aurc": None}
    confidence = np.abs(p - CUT)
    wrong = (p >= CUT) != (label == 1)
    values, where = np.unique(-confidence, return_inverse=True)
    covered = np.cumsum(np.bincount(where))
    errors = np.cumsum(np.bincount(where, wrong))
    coverage, risk = covered / n, errors / covered
    area = float(np.sum(risk * np.diff(coverage, prepend=0.0)))
    keep = np.unique(np.linspace(0, len(values) - 1, min(points, len(values))).round().astype(int))
    return {
        "coverage": coverage[keep].tolist(),
        "risk": risk[keep].tolist(),
        "confidence": (-values[keep]).tolist(),
        "aurc": area,
    }


@attrs.frozen
class Bootstrap:
    """Cluster bootstrap: groups are drawn with replacement, all pictures of a group together.

    Groups that hold only real pictures, only fakes, or both are drawn apart, each as often as there are of its kind,
    so that no draw lacks a class. All draws of one value are one matrix product or one cumulative sum.

    Attributes
    ----------
    label : int array of (n,)
    group : sequence of n hashables
    draws : int
    seed : int
    """

    label: NDArray[np.int_]
    group: Sequence[str] | NDArray[np.object_]
    draws: int = 1000
    seed: int = 0

    def blocks(self) -> Iterator[Floats]:
        """How often each draw holds each picture: float (d, n) blocks, `draws` rows in all."""
        _, code = np.unique(np.asarray(self.group, dtype=object).astype(str), return_inverse=True)
        groups = int(code.max()) + 1
        fakes, size = np.bincount(code, self.label, minlength=groups), np.bincount(code, minlength=groups)
        kind = np.where(fakes == 0, 0, np.where(fakes == size, 1, 2))
        members = [m for m in (np.flatnonzero(kind == k) for k in range(3)) if len(m)]
        rng = np.random.default_rng(self.seed)
        rows = max(1, _CHUNK // len(code))
        for start in range(0, self.draws, rows):
            times = np.zeros((min(rows, self.draws - start), groups))
            for m in members:
                times[:, m] = rng.multinomial(len(m), np.full(len(m), 1 / len(m)), len(times))
            yield times[:, code]

    def intervals(self, statistics: Mapping[str, Statistic], share: float = 0.95) -> dict[str, Interval | None]:
        """Percentile intervals of statistics, all from the same draws.

        Parameters
        ----------
        statistics : mapping from str to callable
            Each takes weights (d, n) to values (d,); NaN where a draw has no value.
        share : float, default .95

        Returns
        -------
        dict from str to (float, float) or None
            None where no draw has a value.
        """
        return {name: _percentiles(values, share) for name, values in self.values(statistics).items()}

    def values(self, statistics: Mapping[str, Statistic]) -> dict[str, Floats]:
        """Statistics of every draw, all from the same draws; float (draws,) each, empty without draws or pictures."""
        if self.draws == 0 or len(self.label) == 0 or not statistics:
            return {name: np.empty(0) for name in statistics}
        values: dict[str, list[Floats]] = {name: [] for name in statistics}
        for weights in self.blocks():
            for name, statistic in statistics.items():
                values[name].append(statistic(weights))
        return {name: np.concatenate(parts) for name, parts in values.items()}


def _percentiles(values: Floats, share: float) -> Interval | None:
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def weighted_auc(label: NDArray[np.int_], p: Floats) -> Statistic:
    """The AUC as a function of weights (d, n)."""
    order, starts, fake = _sorted(label, p)

    def statistic(weights: Floats) -> Floats:
        weights = weights[:, order]
        true = np.add.reduceat(weights * fake, starts, axis=1)
        false = np.add.reduceat(weights * ~fake, starts, axis=1)
        below = np.cumsum(false, axis=1) - false / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((true * below).sum(1) / (true.sum(1) * false.sum(1)))

    return statistic


def weighted_tpr(label: NDArray[np.int_], p: Floats, fpr: float) -> Statistic:
    """`tpr_at_fpr` as a function of weights (d, n)."""
    order, starts, fake = _sorted(label, p)

    def statistic(weights: Floats) -> Floats:
        weights = weights[:, order]
        true = np.add.reduceat(weights * fake, starts, axis=1)
        false = np.add.reduceat(weights * ~fake, starts, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.cumsum(true[:, ::-1], axis=1) / true.sum(1, keepdims=True)
            accused = np.cumsum(false[:, ::-1], axis=1) / false.sum(1, keepdims=True)
        best = np.where(accused <= fpr + 1e-12, found, 0.0).max(axis=1)
        return np.asarray(np.where((true.sum(1) > 0) & (false.sum(1) > 0), best, np.nan))

    return statistic


def weighted_balanced_accuracy(label: NDArray[np.int_], p: Floats) -> Statistic:
    """`balanced_accuracy` as a function of weights (d, n)."""
    right = ((p >= CUT) == (label == 1)).astype(np.float64)
    return lambda weights: (_mean(weights, right, label == 1) + _mean(weights, right, label == 0)) / 2


def weighted_mean(values: Floats) -> Statistic:
    """The mean of (n,) values as a function of weights (d, n)."""
    return lambda weights: _mean(weights, np.asarray(values, np.float64), np.ones(len(values), bool))


def weighted_ece(label: NDArray[np.int_], p: Floats, base: Floats, bins: int = BINS) -> Statistic:
    """Calibration error as a function of weights (d, n), in the bins of the whole sample.

    Parameters
    ----------
    base : float array of (n,)
        Weight of each picture before the draw: ones, or `class_balanced`.
    """
    gaps = np.eye(bins)[mass_bins(p, bins)] * ((p - label) * base)[:, None]

    def statistic(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.abs(weights @ gaps).sum(1) / (weights @ base))

    return statistic


def summarise(
    label: NDArray[np.int_],
    p: Floats,
    group: Sequence[str] | NDArray[np.object_],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, float | Interval | None]:
    """Every metric that needs only labels and probabilities, with `<name>_ci` beside each.

    Parameters
    ----------
    label : int array of (n,)
        1 = AI, 0 = real.
    p : float array of (n,)
        Calibrated probability of AI, in [0, 1].
    group : sequence of n str
        What the bootstrap draws.
    draws : int, default 1000
        0 gives no intervals.
    seed : int, default 0

    Returns
    -------
    dict
        auc, balanced_accuracy, ece, brier, ece_balanced, brier_balanced, tpr_at_5_fpr, tpr_at_1_fpr; None where a
        metric cannot be had. `ece` and `brier` are of the data as they are; the balanced ones weigh both classes
        alike, which is what a prior of .5 promises. The interval of a calibration error leans upwards: a draw's bins
        are rougher than the sample's, and roughness counts as error.
    """
    label, p = np.asarray(label, int), np.asarray(p, np.float64)
    both, many = _both(label), int((label == 0).sum()) >= MANY_REALS
    ones, halves, square = np.ones(len(label)), class_balanced(label), (p - label) ** 2

    def balanced_square(weights: Floats) -> Floats:
        return (_mean(weights, square, label == 1) + _mean(weights, square, label == 0)) / 2

    balanced_gap = weighted_ece(label, p, halves)
    values: dict[str, tuple[float | None, Statistic]] = {
        "auc": (auc(label, p), weighted_auc(label, p)),
        "balanced_accuracy": (balanced_accuracy(label, p), weighted_balanced_accuracy(label, p)),
        "ece": (expected_calibration_error(label, p), weighted_ece(label, p, ones)),
        "brier": (brier(label, p), weighted_mean(square)),
        "ece_balanced": (float(balanced_gap(ones[None])[0]) if both else None, balanced_gap),
        "brier_balanced": (float(halves @ square) if both else None, balanced_square),
        "tpr_at_5_fpr": (tpr_at_fpr(label, p, 0.05), weighted_tpr(label, p, 0.05)),
        "tpr_at_1_fpr": (tpr_at_fpr(label, p, 0.01) if many else None, weighted_tpr(label, p, 0.01)),
    }
    known = {name: statistic for name, (value, statistic) in values.items() if value is not None}
    intervals = Bootstrap(label, group, draws, seed).intervals(known)
    out: dict[str, float | Interval | None] = {}
    for name, (value, _) in values.items():
        out[name], out[f"{name}_ci"] = value, intervals.get(name)
    return out


def _both(label: NDArray[np.int_]) -> bool:
    return bool((label == 1).any() and (label == 0).any())


def _sorted(label: NDArray[np.int_], p: Floats) -> tuple[NDArray[np.int_], NDArray[np.int_], NDArray[np.bool_]]:
    """Rising order, where each distinct value starts in it, and which of the ordered are fakes."""
    order = np.argsort(p, kind="stable")
    ordered = p[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    return order, starts, label[order] == 1


def _mean(weights: Floats, values: Floats, of: NDArray[np.bool_]) -> Floats:
    chosen = of.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weights @ (values * chosen)) / (weights @ chosen), np.float64)
