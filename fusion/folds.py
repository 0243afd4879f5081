"""Who may train on what: folds by group, and folds that leave out whole families."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]


@attrs.frozen(eq=False)
class Fold:
    """Row numbers of one split."""

    train: Ints
    test: Ints
    held: tuple[str, ...] = ()
    """Families that no training row has."""


def group_folds(labels: ArrayLike, groups: ArrayLike, count: int, seed: int) -> tuple[Fold, ...]:
    """Folds in which no group is on both sides and both labels are spread evenly.

    Fewer than `count` where a label has fewer groups.

    Raises
    ------
    ValueError
        A label has fewer than two groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    y, g = np.asarray(labels), np.asarray(groups)
    least = min(len(np.unique(g[y == v])) for v in np.unique(y))
    if len(np.unique(y)) < 2 or least < 2:
        raise ValueError(f"groups takes at least two groups of each label, got labels {np.unique(y)}, least {least}")
    splitter = StratifiedGroupKFold(min(count, least), shuffle=True, random_state=seed)
    return tuple(Fold(a.astype(np.int64), b.astype(np.int64)) for a, b in splitter.split(g, y, g))


def family_folds(
    labels: ArrayLike, families: ArrayLike, groups: ArrayLike, *, seed: int = 0, most: int = 40
) -> tuple[Fold, ...]:
    """Leave one generator family out, and a real source with it.

    Fold i holds one family of label 1 and one of label 0 out of training, together with every row that shares a group
    with them. There are as many folds as the label with more families has; the other label's families come round
    again. A label with a single family is split by group instead: leaving it out would leave nothing.

    Parameters
    ----------
    labels : array_like (n,)
        0 or 1.
    families : array_like of str (n,)
        Generator family of label 1, source of label 0.
    groups : array_like of str (n,)
    seed : int
        Of the split by group.
    most : int
        Above so many families several are held out together.

    Returns
    -------
    tuple of Fold
        Folds whose training rows would lack a label are left out.
    """
    y, f, g = np.asarray(labels), np.asarray(families).astype(str), np.asarray(groups).astype(str)
    parts = {v: _units(f[y == v], g[y == v], seed, most) for v in (0, 1)}
    count = max(len(p) for p in parts.values())
    folds = []
    for i in range(count):
        held: list[str] = []
        test = np.zeros(len(y), bool)
        for v in (0, 1):
            names, members = parts[v][i % len(parts[v])]
            mine = (y == v) & (np.isin(f, names) if names else np.isin(g, members))
            held += names
            test |= mine
        shared = np.isin(g, np.unique(g[test])) | (np.isin(f, held) if held else np.zeros(len(y), bool))
        train = ~test & ~shared
        if len(np.unique(y[train])) == 2 and len(np.unique(y[test])) == 2:
            folds.append(Fold(np.flatnonzero(train), np.flatnonzero(test), tuple(held)))
    return tuple(folds)


def _units(
    families: NDArray[np.str_], groups: NDArray[np.str_], seed: int, most: int
) -> list[tuple[list[str], list[str]]]:
    names = sorted(set(families.tolist()))
    if len(names) == 1:
        shuffled = np.random.default_rng(seed).permutation(np.unique(groups))
        return [([], part.tolist()) for part in np.array_split(shuffled, min(5, len(shuffled)))]
    return [(part.tolist(), []) for part in np.array_split(np.array(names), min(most, len(names)))]


def out_of_fold(
    fit: Callable[[Ints], Callable[[Ints], NDArray[np.float64]]], rows: int, folds: tuple[Fold, ...]
) -> NDArray[np.float64]:
    """Scores of rows by models that did not train on them.

    For a base detector that was trained on the data that the fusion trains on: its own in-sample scores would teach
    the fusion to trust what it remembers.

    Parameters
    ----------
    fit : callable
        Takes training row numbers, returns a function from row numbers to scores float64 (n,).
    rows : int
    folds : tuple of Fold

    Returns
    -------
    float64 array (rows,)
        The mean over the folds that hold a row out, NaN for rows that none does.
    """
    total, count = np.zeros(rows), np.zeros(rows)
    for fold in folds:
        total[fold.test] += fit(fold.train)(fold.test)
        count[fold.test] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


__all__ = ["Fold", "family_folds", "group_folds", "out_of_fold"]
