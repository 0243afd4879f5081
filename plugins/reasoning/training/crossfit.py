"""Scores of `fit` by heads that saw nothing of a picture's source: the fusion's balance learns from them too.

A shipped model knows the sources of `fit`, so its own scores there would teach the fusion to trust what it remembers.
These come from the same recipes, fitted without the source (stacked generalisation: Wolpert 1992), with one trade:
the tower stays frozen and the label alone is taught. Low-rank updates need the tokens before their block, which are
kept of the training pictures only, and neither they nor texts changed the ranking of held-out families (the ablations
in docs/reasoning.md). A fold's student is taught by that fold's tower head, never by the one that knows everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray

from tellsign.data import scoring
from tellsign.data.balance import FOLDS, folds
from tellsign.data.squares import Squares
from tellsign.towers import ClipTower

from . import small
from .ablation import drawing_weight
from .finish import label_slope, small_scores, soft_targets
from .tokens import TokenStore, sample, topics_of
from .train import Inputs, Lesson, Recipe, apply, train

RECIPE = Recipe(last=10, blocks=0, tuned="frozen", mode="bce", epochs=20, rate=1e-4, texts=1)
"""The tower model's that ships, without its updates and texts."""
STUDENT = small.SmallRecipe(noise=4.0, epochs=60, rate=1e-3, mode="bce")
"""The student's that ships, without its texts."""


def cross_fitted(
    squares: Squares,
    classes: NDArray[np.float16],
    tower: ClipTower,
    pooled: NDArray[np.float16] | None,
    *,
    recipe: Recipe = RECIPE,
    student: small.SmallRecipe = STUDENT,
    count: int = 700,
    seeds: Sequence[int] = (0, 1, 2),
) -> dict[scoring.Key, scoring.Line]:
    """Held-out scores of the pictures of `fit`, the mean over foldings of the sources.

    Parameters
    ----------
    squares : Squares
        What the semantic plugin's `prepare` wrote: both plugins are shown the same.
    classes : float16 array of (n, depth, width)
        Class tokens of the squares' overview version.
    tower : ClipTower
    pooled : float16 array of (pictures of `fit`, 2024), optional
        What the student reads, in the folder's order; None leaves the student out.
    recipe : Recipe
        Of the head on the frozen tower.
    student : SmallRecipe
    count : int
        Pictures that each head learns from, half of each class.
    seeds : sequence of int
        Of the folds, and of each head's start.

    Returns
    -------
    dict of (path, 0) to dict of column to float
        Not calibrated: each column has a scale of its own.

    Raises
    ------
    ValueError
        `recipe` changes the tower, or `pooled` has another number of rows.
    """
    if recipe.blocks or recipe.mode != "bce" or student.mode != "bce":
        raise ValueError("recipe takes a frozen tower and the label alone, got one with updates or texts")
    done = classes[: len(squares), -1].any(axis=1)
    fit, fuse = (np.flatnonzero((squares.split == s) & done) for s in ("fit", "fuse"))
    if pooled is not None and len(pooled) != len(fit):
        raise ValueError(f"pooled takes a row for each of the {len(fit)} pictures of fit, got {len(pooled)}")
    store, unseen_store = (_store(squares, classes, rows) for rows in (fit, fuse))
    inputs, unseen_inputs = (Inputs(s, recipe, tower) for s in (store, unseen_store))
    silent = Lesson(texts=torch.zeros(len(fit), 1, 1), words=[])
    total = {"reasoning.tower": np.zeros(len(fit))}
    total |= {} if pooled is None else {"reasoning.student": np.zeros(len(fit))}
    place = {int(r): i for i, r in enumerate(fit)}
    for seed in seeds:
        fold = folds(store.label, store.source, seed=seed)
        unseen = {column: np.zeros(len(fit)) for column in total}
        for f in range(FOLDS):
            held = np.flatnonzero(fold == f)
            drawn = sample(squares, classes, tower, count=count, seed=seed, among=fit[fold != f])
            rows = np.array([place[r] for r in drawn])
            part = _store(squares, classes, fit[rows])
            weight = drawing_weight(part.label, part.source, topics_of(part, tower)[0])
            started = attrs.evolve(recipe, seed=seed)
            head, _ = train(tower, store, rows, silent, started, weight=weight, inputs=inputs)
            unseen["reasoning.tower"][held] = apply(head, inputs, held)[1].double().numpy()
            if pooled is None:
                continue
            # As the shipped student is taught: on a scale that pictures of families unseen by its teacher give.
            raw = apply(head, unseen_inputs, np.arange(len(fuse)))[1]
            told = apply(head, inputs, rows)[1] * label_slope(raw, unseen_store.label, unseen_store.source)
            target = soft_targets(store.label[rows], told, student)
            taught = attrs.evolve(student, seed=seed)
            model = small.fit_small(pooled[rows], target, silent.texts[rows], weight, taught)
            unseen["reasoning.student"][held] = small_scores(model, pooled[held])[1].double().numpy()
        for column, scores in unseen.items():
            total[column] += scores / scores.std() / len(seeds)
    paths = [str(Path(p).resolve()) for p in squares.path[fit]]
    return {(p, 0): {c: float(v[i]) for c, v in total.items()} for i, p in enumerate(paths)}


def _store(squares: Squares, classes: NDArray[np.float16], rows: NDArray[np.int64]) -> TokenStore:
    """Prepared squares as `tokens` would keep them, without what only updates and texts read."""
    nothing = np.full(len(rows), "")
    return TokenStore(
        folder=Path(),
        label=squares.label[rows],
        source=squares.source[rows],
        content=squares.content[rows],
        group=squares.group[rows],
        split=squares.split[rows],
        kind=nothing,
        region=nothing,
        share=np.zeros(len(rows)),
        path=nothing,
        classes=np.asarray(classes[rows]),
        squares=np.zeros((len(rows), 0, 0, 3), np.uint8),
    )


__all__ = ["RECIPE", "STUDENT", "cross_fitted"]
