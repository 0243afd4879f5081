"""Scores of `fit` by heads that saw nothing of a picture's source: the fusion's balance learns from them too.

A shipped head knows the sources of `fit`, so its own scores there would teach the fusion to trust what it remembers.
These come from the same recipe, fitted without the source (stacked generalisation: Wolpert 1992).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tellsign.data import scoring

from .balance import Balance
from .probe import HeadFit, Probe, read_features, read_rows, unseen_scores
from .train import Windows

RESIDUALS = "residuals"


def cross_fitted(
    windows: Windows,
    folder: Path,
    heads: Mapping[str, HeadFit],
    *,
    residual: float,
    seeds: Sequence[int] = (0, 1, 2),
) -> dict[scoring.Key, scoring.Line]:
    """Held-out scores of the pictures of `fit`, the mean over their windows and over foldings of the sources.

    Parameters
    ----------
    windows, folder
        As for `yardstick`.
    heads : mapping from strength ("tower", "bundled") to HeadFit
    residual : float
        Inverse penalty of the probe on residuals.
    seeds : sequence of int
        Of the folds.

    Returns
    -------
    dict of (path, 0) to dict of column to float
        Not calibrated: each column has a scale of its own.
    """
    found: dict[scoring.Key, dict[str, list[float]]] = {}
    asked = [(f"pixel.{name}", h.features, h.blocks, h.strength, h.balance) for name, h in heads.items()]
    for column, features, blocks, strength, balance in [*asked, ("pixel.residual", RESIDUALS, (), residual, Balance())]:
        x, index, condition = read_features(folder, features)
        rows = [windows.rows[i] for i in index]
        inside = np.flatnonzero(np.array([r["split"] == "fit" for r in rows]) & (condition == "native"))
        known = read_rows(windows, index[inside])
        parts = [np.asarray(x[inside][:, b - 1, 0], np.float32) for b in blocks] or [np.asarray(x[inside], np.float32)]
        total: NDArray[np.float64] = np.zeros(len(inside))
        for part in parts:
            for seed in seeds:
                unseen = unseen_scores(part, known, Probe(strength, seed, balance), seed=seed)
                total += unseen / unseen.std()
        for i, score in zip(inside, (total / len(parts) / len(seeds)).tolist(), strict=True):
            key = (str(Path(rows[i]["path"]).resolve()), 0)
            found.setdefault(key, {}).setdefault(column, []).append(score)
    return {key: {c: float(np.mean(v)) for c, v in line.items()} for key, line in found.items()}


__all__ = ["cross_fitted"]
