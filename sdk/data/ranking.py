"""How well scores rank pictures when topic and source may not help, and whom they accuse."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

LEAST = 3
"""Pictures of each class that a topic needs to count."""


def auc(label: NDArray[np.int64], score: NDArray[np.float64]) -> float:
    """Area under the ROC curve; NaN where a class is missing."""
    from sklearn.metrics import roc_auc_score

    if len(set(label.tolist())) < 2:
        return float("nan")
    return float(roc_auc_score(label, score))


def within_topic(label: NDArray[np.int64], score: NDArray[np.float64], topic: NDArray[np.int64]) -> float:
    """AUC between pictures of one topic, averaged over topics by the size of their smaller class.

    A score that knows only the topic has .5 here.

    Returns
    -------
    float
        NaN where no topic has `LEAST` of each class.
    """
    values, sizes = [], []
    for t in np.unique(topic):
        mine = topic == t
        least = min(int((label[mine] == y).sum()) for y in (0, 1))
        if least >= LEAST:
            values.append(auc(label[mine], score[mine]))
            sizes.append(least)
    return float(np.average(values, weights=sizes)) if values else float("nan")


def by_source(label: NDArray[np.int64], score: NDArray[np.float64], source: NDArray[np.str_]) -> float:
    """Mean AUC over every pair of a real source and a generator: a large source counts no more than a small one."""
    sides = [[score[(label == y) & (source == s)] for s in np.unique(source[label == y])] for y in (0, 1)]
    pairs = [auc(np.repeat([0, 1], [len(r), len(f)]), np.r_[r, f]) for r in sides[0] for f in sides[1]]
    return float(np.mean(pairs)) if pairs else float("nan")


def least_threshold(scores: Mapping[str, NDArray[np.float64]], share: float) -> float:
    """The smallest threshold at which at most `share` of every source's scores lie above it.

    Parameters
    ----------
    scores : mapping from real source to float array
    share : float

    Raises
    ------
    ValueError
        There is no source.
    """
    if not scores:
        raise ValueError("scores takes at least one real source, got none")
    each = []
    for values in scores.values():
        allowed = int(np.floor(share * len(values)))
        each.append(float(np.sort(values)[len(values) - allowed - 1]))
    return max(each)
