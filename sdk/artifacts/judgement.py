"""Artifact judgement (AJ): is the whole picture generated."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tellsign.evaluation import metrics


def judgement(label: NDArray[np.int_], p: NDArray[np.float64], *, cut: float = metrics.CUT) -> dict[str, Any]:
    """X-AIGD's four numbers; a generated picture is the positive one.

    Parameters
    ----------
    label : int array of (n,)
        1 generated, 0 real.
    p : float array of (n,)
        In [0, 1]; `p >= cut` is called generated.
    cut : float, default .5

    Returns
    -------
    dict
        n_real, n_fake, balanced_accuracy, precision, recall, f1. None where a number cannot be had: balanced accuracy
        and precision need both classes (precision without reals is 1 whatever is called), F1 both classes.
    """
    label, p = np.asarray(label, int), np.asarray(p, np.float64)
    if label.shape != p.shape or label.ndim != 1:
        raise ValueError(f"label and p take one shape (n,), got {label.shape} and {p.shape}")
    called = p >= cut
    hit = int((called & (label == 1)).sum())
    n_fake, n_real = int((label == 1).sum()), int((label == 0).sum())
    both = n_fake > 0 and n_real > 0
    recall = hit / n_fake if n_fake else None
    precision = hit / int(called.sum()) if both and called.any() else None
    f1 = 2 * hit / (int(called.sum()) + n_fake) if both else None
    return {
        "n_real": n_real,
        "n_fake": n_fake,
        "balanced_accuracy": metrics.balanced_accuracy(label, p, cut),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }
