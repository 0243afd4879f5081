"""From log-odds before and after to numbers: sensitivities, blind spots, and OR against the learned fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tellsign.evaluation.metrics import auc, balanced_accuracy
from tellsign.fusion.baselines import or_rule

Floats = NDArray[np.float64]
Labels = NDArray[np.int_]

FPR = 0.10
"""False accusations at which detectors are compared in the blind-spot matrix."""
SMALL = 5
"""Generators with fewer pictures are pooled in the blind-spot matrix."""
POOLED = f"others, n < {SMALL} each"


def probability(log_odds: Floats) -> Floats:
    """The logistic function; NaN stays NaN."""
    out: Floats = 1 / (1 + np.exp(-np.clip(log_odds, -30, 30)))
    return out


def accuracy(label: Labels, log_odds: Floats) -> dict[str, float | int | None]:
    """AUC and balanced accuracy at the detector's own threshold, over the pictures that it answered.

    Parameters
    ----------
    label : int array of (n,)
    log_odds : float array of (n,)
        NaN where the detector said nothing.
    """
    seen = ~np.isnan(log_odds)
    y, p = label[seen], probability(log_odds[seen])
    return {"n": int(seen.sum()), "auc": auc(y, p), "balanced_accuracy": balanced_accuracy(y, p)}


def sensitivity(before: Floats, after: Floats) -> float | None:
    """Mean absolute change of the log-odds over the standard deviation among unchanged pictures.

    0 means blind to the change. Two unrelated pictures of a normal distribution differ by 1.13.

    Parameters
    ----------
    before, after : float arrays of (n,)
        NaN where the detector said nothing; such pictures do not count.

    Returns
    -------
    float or None
        None with fewer than two pictures, or where the detector says the same of all.
    """
    seen = ~np.isnan(before) & ~np.isnan(after)
    spread = float(before[seen].std()) if seen.sum() > 1 else 0.0
    return float(np.abs(after[seen] - before[seen]).mean() / spread) if spread else None


def drift(label: Labels, before: Floats, after: Floats, of: int) -> float | None:
    """Mean signed change of one class's log-odds, in the same unit; positive is towards "made by AI"."""
    seen = ~np.isnan(before) & ~np.isnan(after)
    spread = float(before[seen].std()) if seen.sum() > 1 else 0.0
    mine = seen & (label == of)
    return float((after[mine] - before[mine]).mean() / spread) if spread and mine.any() else None


def alignment(kinds: Mapping[str, str], sensitivities: Mapping[str, float | None]) -> dict[str, float | None]:
    """Mean sensitivity to pixel changes, to semantic changes, and the share of the whole that is semantic.

    Parameters
    ----------
    kinds : mapping from change to "pixel" or "semantic"
    sensitivities : mapping from change to `sensitivity`
    """

    def mean(kind: str) -> float | None:
        found = [s for c, s in sensitivities.items() if kinds[c] == kind and s is not None]
        return float(np.mean(found)) if found else None

    pixel, semantic = mean("pixel"), mean("semantic")
    both = pixel is not None and semantic is not None and pixel + semantic > 0
    share = semantic / (pixel + semantic) if both and semantic is not None and pixel is not None else None
    return {"pixel": pixel, "semantic": semantic, "semantic_share": share}


def threshold(label: Labels, log_odds: Floats, fpr: float = FPR) -> float | None:
    """The log-odds above which at most `fpr` of the real pictures lie; None without real pictures."""
    reals = np.sort(log_odds[(label == 0) & ~np.isnan(log_odds)])
    return float(reals[len(reals) - int(np.floor(fpr * len(reals))) - 1]) if len(reals) else None


def blind_spots(
    label: Labels, source: Sequence[str], scores: Mapping[str, Floats], *, fpr: float = FPR
) -> dict[str, Any]:
    """Who catches what, every detector at `fpr` false accusations on these reals.

    Parameters
    ----------
    label : int array of (n,)
    source : sequence of str
        Generators of the fakes.
    scores : mapping from detector to log-odds (n,)
        NaN counts as not caught.
    fpr : float

    Returns
    -------
    dict
        `caught`: generator -> detector -> share caught, with the number under "n". `rescued`: first detector ->
        second -> share of the fakes that the first missed and the second caught, None where the first missed none.
    """
    fake = label == 1
    names = np.array(source)
    hit: dict[str, NDArray[np.bool_]] = {}
    for name, values in scores.items():
        cut = threshold(label, values, fpr)
        hit[name] = np.zeros(len(label), bool) if cut is None else np.nan_to_num(values, nan=-np.inf) > cut
    groups: dict[str, NDArray[np.bool_]] = {}
    for name in sorted(set(names[fake].tolist())):
        mine = fake & (names == name)
        key = name if mine.sum() >= SMALL else POOLED
        groups[key] = groups.get(key, np.zeros(len(label), bool)) | mine
    caught = {
        g: {"n": int(mine.sum()), **{d: float(h[mine].mean()) for d, h in hit.items()}} for g, mine in groups.items()
    }
    rescued = {
        a: {b: (float(hit[b][fake & ~hit[a]].mean()) if (fake & ~hit[a]).any() else None) for b in hit if b != a}
        for a in hit
    }
    return {"fpr": fpr, "caught": caught, "rescued": rescued}


def or_against_fusion(label: Labels, scores: Mapping[str, Floats], fused: Floats) -> dict[str, dict[str, Any]]:
    """AlignGemini's OR of the detectors at their own thresholds, and the learned fusion, on the same pictures.

    Parameters
    ----------
    label : int array of (n,)
    scores : mapping from detector to log-odds (n,), NaN where it said nothing
    fused : float array of (n,)
        The fusion's probability that the picture is made by AI; NaN where it has none.

    Returns
    -------
    dict
        "or" and "fusion": n, auc, balanced_accuracy, tpr, fpr. The OR's AUC is that of the highest log-odds.
    """
    out: dict[str, dict[str, Any]] = {}
    if scores:
        every = np.stack(list(scores.values()))
        shares = probability(every)
        said = [
            or_rule({name: None if np.isnan(p) else float(p) for name, p in zip(scores, row, strict=True)})
            for row in shares.T
        ]
        seen = np.array([s is not None for s in said])
        called = np.array([bool(s) for s in said])
        highest = np.fmax.reduce(every, axis=0)
        out["or"] = _rates(label[seen], probability(highest[seen]), called[seen])
    seen = ~np.isnan(fused)
    out["fusion"] = _rates(label[seen], fused[seen], fused[seen] > 0.5)
    return out


def _rates(label: Labels, p: Floats, called: NDArray[np.bool_]) -> dict[str, Any]:
    tpr, fpr = ((float(called[label == y].mean()) if (label == y).any() else None) for y in (1, 0))
    both = tpr is not None and fpr is not None
    return {
        "n": len(label),
        "auc": auc(label, p),
        "balanced_accuracy": (tpr + 1 - fpr) / 2 if both and tpr is not None and fpr is not None else None,
        "tpr": tpr,
        "fpr": fpr,
    }
