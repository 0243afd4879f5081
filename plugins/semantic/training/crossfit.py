"""Scores of `fit` by heads that saw nothing of a picture's source: the fusion's balance learns from them too.

A shipped head knows the sources of `fit`, so its own scores there would teach the fusion to trust what it remembers.
These come from the same recipes, fitted without the source (stacked generalisation: Wolpert 1992); a fold's student is
taught by that fold's tower head, never by the one that knows everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tellsign.data import scoring
from tellsign.data.balance import TOPICS
from tellsign.data.squares import Squares

from . import lite
from .probe import FOLDS, Data, Probe, Recipe, folds


def cross_fitted(
    squares: Squares,
    data: Data,
    trunk: NDArray[np.float32] | None,
    *,
    recipe: Recipe,
    student: lite.Recipe,
    seeds: Sequence[int] = (0, 1, 2),
) -> dict[scoring.Key, scoring.Line]:
    """Held-out scores of the pictures of `fit`, the mean over foldings of the sources.

    Parameters
    ----------
    squares, data
        Of one prepared folder.
    trunk : float32 array of (pictures of `fit`, 2024), optional
        What the student's head reads, in the folder's order; None leaves the student out.
    recipe : Recipe
        Of the head on the tower.
    student : lite.Recipe
    seeds : sequence of int
        Of the folds.

    Returns
    -------
    dict of (path, 0) to dict of column to float
        Not calibrated: each column has a scale of its own.
    """
    fit = np.flatnonzero(data.split == "fit")
    if trunk is not None and len(trunk) != len(fit):
        raise ValueError(f"trunk takes a row for each of the {len(fit)} pictures of fit, got {len(trunk)}")
    total = {"semantic.tower": np.zeros(len(fit))} | ({} if trunk is None else {"semantic.student": np.zeros(len(fit))})
    for seed in seeds:
        fold = folds(data.label[fit], data.source[fit], seed=seed)
        unseen = {column: np.zeros(len(fit)) for column in total}
        for f in range(FOLDS):
            inside, held = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
            head = Probe.fit(data, recipe, fit[inside])
            unseen["semantic.tower"][held] = head.score(data, "overview", fit[held])
            if trunk is not None:
                chosen = data.semantic_set(fit[inside], topics=TOPICS, seed=student.seed)
                taught = head.score(data, "overview", fit[inside])
                weight = np.zeros(len(inside))
                weight[chosen.rows] = chosen.weight
                taught -= np.median(taught[chosen.rows])
                w, b = lite.head_on_frozen(
                    student, {"overview": trunk[inside]}, data.label[fit[inside]], weight, taught
                )
                unseen["semantic.student"][held] = trunk[held] @ w + b
        for column, scores in unseen.items():
            total[column] += scores / scores.std() / len(seeds)
    paths = [str(Path(p).resolve()) for p in squares.path[data.rows[fit]]]
    return {(p, 0): {c: float(v[i]) for c, v in total.items()} for i, p in enumerate(paths)}


__all__ = ["cross_fitted"]
