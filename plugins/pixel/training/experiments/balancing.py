"""Rows of the table on weights: sources, art, topics, offsets, and GroupDRO, on frozen class tokens."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from tellsign.plugins.pixel.training.balance import Balance, Rows
from tellsign.plugins.pixel.training.probe import Probe

from .study import Fitter, Floats, Scorer

EVEN = Balance(power=0.0, by_content=True)
"""Every source counts alike, and a source's kinds of content are sources."""


def balanced(strength: float, balance: Balance) -> Fitter:
    """A probe with a balance."""

    def fit(x: NDArray[np.float32], rows: Rows, seed: int) -> Scorer:
        return Probe(strength, seed, balance).fit_rows(x, rows).score

    return fit


def group_dro(strength: float, *, rate: float, rounds: int = 8, balance: Balance | None = None) -> Fitter:
    """GroupDRO (arXiv 1911.08731, algorithm 1) over sources, with whole fits as steps and the mean of their weights.

    Parameters
    ----------
    strength : float
        Inverse of the L2 penalty.
    rate : float
        A source's share is multiplied by exp(rate * loss) after each fit; classes keep equal totals.
    rounds : int
    balance : Balance, optional
        Where the shares start.
    """
    start = balance or Balance()

    def fit(x: NDArray[np.float32], rows: Rows, seed: int) -> Scorer:
        mean, std = x.mean(axis=0), x.std(axis=0) + 1e-6
        z = (x - mean) / std
        keys = [f"{y}/{s}" for y, s in zip(rows.labels, start.sources(rows), strict=True)]
        names, where = np.unique(keys, return_inverse=True)
        label = np.array([int(n[0]) for n in names])
        count = np.bincount(where)
        share = np.bincount(where, start.weights(rows))
        model = LogisticRegression(C=strength, max_iter=100, warm_start=True, random_state=seed)
        total = np.zeros(x.shape[1])
        for _ in range(rounds):
            for y in (0, 1):
                share[label == y] /= share[label == y].sum()
            model.fit(z, rows.labels, sample_weight=(share / count)[where] * len(x) / 2)
            loss = np.logaddexp(0, -(2 * rows.labels - 1) * model.decision_function(z))
            share = share * np.exp(rate * np.bincount(where, loss) / count)
            total += model.coef_[0]

        def score(new: NDArray[np.float32]) -> Floats:
            out: Floats = ((new - mean) / std) @ total / rounds
            return out

        return score

    return fit


ROWS: Mapping[str, Fitter] = {
    "0.2.0: root of the size, C = .001": balanced(1e-3, Balance()),
    "sources alike, C = .003": balanced(3e-3, EVEN),
    "sources alike, C = .01": balanced(1e-2, EVEN),
    "art a quarter of the real side, C = .003": balanced(3e-3, attrs.evolve(EVEN, art=0.25)),
    "GroupDRO over sources, rate .3, C = .003": group_dro(3e-3, rate=0.3),
    "GroupDRO from sources alike, rate .3, C = .003": group_dro(3e-3, rate=0.3, balance=EVEN),
    **{
        f"sources alike, offset of scale {scale:g}, C = .03": balanced(3e-2, attrs.evolve(EVEN, offset=scale))
        for scale in (3.0, 4.0, 5.0, 20.0)
    },
    "sources alike, offset of scale 4, art a quarter, C = .03": balanced(
        3e-2, attrs.evolve(EVEN, offset=4.0, art=0.25)
    ),
}
"""Title to fitter. The first is what the others are compared with."""
