"""Two sets of scores on the same pictures: is one better, or is it the draw of the pictures?

AUC: DeLong's test where every picture stands alone, and a paired bootstrap that draws whole groups, for every metric.
Balanced accuracy also by McNemar's exact test, with the same caveat about groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import metrics
from .items import FAKE, DataError
from .metrics import Floats, Statistic

DRAWS = 2000


def delong(label: NDArray[np.int_], first: Floats, second: Floats) -> dict[str, float | None]:
    """DeLong's test for the difference of two AUCs on the same pictures.

    Parameters
    ----------
    label : int array of (n,)
        1 = AI; both classes with at least two pictures.
    first, second : float array of (n,)
        Scores, higher for AI.

    Returns
    -------
    dict
        `difference` of second less first, its standard error `se`, `z`, and the two-sided `p`, 1 where both rank alike.

    Notes
    -----
    E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44 (1988) 837, by midranks as X. Sun and W. Xu, IEEE
    Signal Processing Letters 21 (2014) 1389.
    """
    fake = label == FAKE
    m, n = int(fake.sum()), int((~fake).sum())
    auc, above, below = [], [], []
    for scores in (first, second):
        x, y = scores[fake], scores[~fake]
        whole, own_x, own_y = _midranks(np.r_[x, y]), _midranks(x), _midranks(y)
        auc.append((whole[:m].sum() / m - (m + 1) / 2) / n)
        above.append((whole[:m] - own_x) / n)
        below.append(1 - (whole[m:] - own_y) / m)
    spread = np.cov(above) / m + np.cov(below) / n
    variance = float(spread[0, 0] + spread[1, 1] - 2 * spread[0, 1])
    difference = float(auc[1] - auc[0])
    if variance <= 1e-18:
        return {"difference": difference, "se": 0.0, "z": None, "p": 1.0 if abs(difference) < 1e-12 else 0.0}
    z = difference / math.sqrt(variance)
    return {"difference": difference, "se": math.sqrt(variance), "z": z, "p": math.erfc(abs(z) / math.sqrt(2))}


def _midranks(values: Floats) -> Floats:
    """Ranks from 1, ties sharing their mean."""
    _, where, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[where], np.float64)


def mcnemar(right_first: NDArray[np.bool_], right_second: NDArray[np.bool_]) -> dict[str, float | int]:
    """McNemar's exact test: of the pictures that only one gets right, is the split even?

    Notes
    -----
    Q. McNemar, Psychometrika 12 (1947) 153; exact binomial form.
    """
    only_first, only_second = int((right_first & ~right_second).sum()), int((~right_first & right_second).sum())
    n, k = only_first + only_second, min(only_first, only_second)
    tail, ways = 0, 1
    for i in range(k + 1):
        tail += ways
        ways = ways * (n - i) // (i + 1)
    # Whole numbers until the one division: 0.5 ** n is nothing from n = 1075 on.
    return {"only_first": only_first, "only_second": only_second, "p": min(1.0, 2 * tail / 2**n)}


def paired(
    label: NDArray[np.int_],
    first: Floats,
    second: Floats,
    group: NDArray[np.object_],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that can be said about second less first.

    Parameters
    ----------
    label : int array of (n,)
    first, second : float array of (n,)
        Probabilities in [0, 1], both there for every picture.
    group : array of n str
        What the bootstrap draws.
    draws, seed : int

    Returns
    -------
    dict
        `n`, `groups`, and per metric (auc, balanced_accuracy, brier, ece) `first`, `second`, `difference` (second less
        first), `ci` (95 %), `p` (two-sided, bootstrap); `delong` and `mcnemar`, None where pictures share groups,
        which both take for independent.
    """
    pair = (first, second)
    both = bool((label == 1).any() and (label == 0).any())
    ones = np.ones(len(label))
    makers: dict[str, list[Statistic]] = {
        "brier": [metrics.weighted_mean((p - label) ** 2) for p in pair],
        "ece": [metrics.weighted_ece(label, p, ones) for p in pair],
    }
    if both:
        makers = {
            "auc": [metrics.weighted_auc(label, p) for p in pair],
            "balanced_accuracy": [metrics.weighted_balanced_accuracy(label, p) for p in pair],
            **makers,
        }
    alone = len(set(group)) == len(group)
    boot = metrics.Bootstrap(label, group, draws, seed)
    out: dict[str, Any] = {"n": len(label), "groups": len(set(group)), "draws": draws}
    values = boot.values({f"{name}/{k}": one for name, two in makers.items() for k, one in enumerate(two)})
    for name, two in makers.items():
        now = [float(one(ones[None])[0]) for one in two]
        gaps = values[f"{name}/1"] - values[f"{name}/0"]
        gaps = gaps[np.isfinite(gaps)]
        low, high = (float(q) for q in np.quantile(gaps, [0.025, 0.975])) if len(gaps) else (math.nan, math.nan)
        out[name] = {
            "first": now[0],
            "second": now[1],
            "difference": now[1] - now[0],
            "ci": (low, high) if len(gaps) else None,
            "p": _two_sided(gaps),
        }
    can = alone and both and min(int(label.sum()), int((1 - label).sum())) > 1
    out["delong"] = delong(label, first, second) if can else None
    right = [(p >= metrics.CUT) == (label == FAKE) for p in pair]
    out["mcnemar"] = mcnemar(right[0], right[1]) if alone else None
    return out


def _two_sided(gaps: Floats) -> float | None:
    """Share of draws on the far side of zero, doubled; one more of each so that no p is zero."""
    n = len(gaps)
    if n == 0:
        return None
    below, above = (int((gaps <= 0).sum()) + 1) / (n + 1), (int((gaps >= 0).sum()) + 1) / (n + 1)
    return min(1.0, 2 * min(below, above))


def reports(
    first: Mapping[str, Any], second: Mapping[str, Any], *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Compare two reports of `tellsign eval` on the pictures that both hold, by content.

    Parameters
    ----------
    first, second : mapping
        As written by `--json`.
    draws, seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        `by_condition`: name to `paired`; `only_first` and `only_second`: how many pictures the other lacks; `notes`.

    Raises
    ------
    DataError
        A report holds no scores, they ask different questions, or no picture is in both.
    """
    for name, report in (("first", first), ("second", second)):
        if not isinstance(report.get("pictures"), Mapping):
            raise DataError(
                f"The {name} report holds no scores per picture; run tellsign eval again without --no-scores."
            )
    asks = [r["settings"].get("asks", "ai") for r in (first, second)]
    if asks[0] != asks[1]:
        raise DataError(f"The reports ask different questions: label 1 is {asks[0]} in one and {asks[1]} in the other.")
    one, two = first["pictures"], second["pictures"]
    notes = []
    if first["settings"]["pipeline"] != second["settings"]["pipeline"]:
        notes.append("One report judged files as they are and the other normalised ones.")
    places = [{(c, y): i for i, (c, y) in enumerate(zip(t["content"], t["label"], strict=True))} for t in (one, two)]
    shared = [k for k in places[0] if k in places[1]]
    if not shared:
        raise DataError("No picture is in both reports (compared by content and label).")
    at = [np.array([p[k] for k in shared]) for p in places]
    label = np.array([k[1] for k in shared], int)
    group = np.empty(len(shared), dtype=object)
    group[:] = [one["group"][i] for i in at[0]]
    out: dict[str, Any] = {}
    for condition in one["p"]:
        if condition not in two["p"]:
            continue
        p = [
            np.array([np.nan if t["p"][condition][i] is None else t["p"][condition][i] for i in where], np.float64)
            for t, where in zip((one, two), at, strict=True)
        ]
        known = np.isfinite(p[0]) & np.isfinite(p[1])
        if not known.all():
            notes.append(f"{condition}: {int((~known).sum())} pictures lack a probability in one report.")
        if known.any():
            out[condition] = paired(label[known], p[0][known], p[1][known], group[known], draws=draws, seed=seed)
    if not out:
        raise DataError("The reports have no condition in common that was scored in both.")
    return {
        "by_condition": out,
        "only_first": len(places[0]) - len(shared),
        "only_second": len(places[1]) - len(shared),
        "notes": notes,
    }


def load(path: Path) -> dict[str, Any]:
    """A report.

    Raises
    ------
    DataError
        The file is not there or is no report.
    """
    from .layouts.forgery import load_json

    if not path.is_file():
        raise DataError(f"{path} is not there.")
    report = load_json(path)
    if not isinstance(report, dict) or "overall" not in report or "settings" not in report:
        raise DataError(f"{path} is no report of tellsign eval.")
    return report
