"""The gate before training on pairs: if a ruler can tell the members apart, a network will learn the ruler."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tellsign.data.trivial import blockiness, radial_spectrum

LIMIT = 0.60
"""Largest AUC that a probe may have."""


class LeakyPairsError(ValueError):
    """The members of the pairs differ in something that is not the trace.

    Attributes
    ----------
    auc : dict from probe to AUC
    """

    def __init__(self, auc: dict[str, float]) -> None:
        self.auc = auc
        told = ", ".join(f"{name} {value:.2f}" for name, value in auc.items())
        super().__init__(f"pairs must not be told apart above AUC {LIMIT:.2f} by a linear probe, got {told}")


def probe_auc(features: NDArray[np.float64], labels: NDArray[np.int64], pair: NDArray[np.int64]) -> float:
    """Cross-validated AUC of a standardised logistic regression; the members of a pair share a fold.

    Parameters
    ----------
    features : float array of (n, k)
    labels, pair : int arrays of (n,)
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    scores = cross_val_predict(model, features, labels, groups=pair, cv=GroupKFold(5), method="decision_function")
    return float(roc_auc_score(labels, scores))


def check_pairs(reals: Sequence[NDArray[np.uint8]], fakes: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
    """Probe pairs for blockiness and radial spectrum.

    Parameters
    ----------
    reals, fakes : sequences of uint8 arrays of (s, s, 3)
        Member i of one belongs to member i of the other; at least 20 pairs.

    Returns
    -------
    dict from probe to AUC

    Raises
    ------
    LeakyPairsError
        A probe is above `LIMIT`.
    """
    if len(reals) != len(fakes) or len(reals) < 20:
        raise ValueError(f"reals and fakes take at least 20 members each, equally many, got {len(reals)}, {len(fakes)}")
    pictures = [*reals, *fakes]
    labels = np.repeat([0, 1], len(reals))
    pair = np.tile(np.arange(len(reals)), 2)
    auc = {
        "blockiness": probe_auc(np.array([[blockiness(p)] for p in pictures]), labels, pair),
        "radial spectrum": probe_auc(np.array([radial_spectrum(p) for p in pictures], np.float64), labels, pair),
    }
    if max(auc.values()) > LIMIT:
        raise LeakyPairsError(auc)
    return auc
