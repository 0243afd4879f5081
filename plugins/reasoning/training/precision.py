"""How often a statement that is retrieved is true: what decides whether it may speak."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tellsign.data.balance import source_weight
from tellsign.plugins.reasoning.bank import PRECISION, Bank, Entry

from .facts import Facts
from .statements import Statement

TARGET = 0.9
"""Precision that a threshold aims at where it is chosen; above what must then be measured, since it falls elsewhere."""
LEAST = 30
"""Retrievals on which a precision must rest."""


@attrs.frozen(kw_only=True)
class Measured:
    """One statement on held-out pictures."""

    name: str
    text: str
    known: int
    """Pictures of which it is known whether it holds."""
    true: int
    """Of these, how many it holds for."""
    retrieved: int
    precision: float
    """The lower of two: counted by pictures, and with both truths and all sources weighted evenly. NaN where nothing
    was retrieved."""
    threshold: float
    """Infinite where no threshold reaches the target."""

    @property
    def speaks(self) -> bool:
        """Whether it may reach a verdict."""
        return self.retrieved >= LEAST and self.precision >= PRECISION and np.isfinite(self.threshold)


def halves(truth: NDArray[np.bool_], source: NDArray[np.str_]) -> NDArray[np.int64]:
    """Two halves of whole sources, each truth's pictures spread as evenly as they go: 0 or 1 for each picture."""
    out = np.zeros(len(truth), np.int64)
    for y in (False, True):
        names, counts = np.unique(source[truth == y], return_counts=True)
        sizes = [0, 0]
        for i in np.argsort(-counts, kind="stable"):
            side = int(sizes[1] < sizes[0])
            out[(truth == y) & (source == names[i])] = side
            sizes[side] += int(counts[i])
    return out


def precision_at(
    near: NDArray[np.float64], truth: NDArray[np.bool_], source: NDArray[np.str_], threshold: float
) -> tuple[int, float]:
    """Retrievals at a threshold, and the lower of the two precisions; NaN without retrievals."""
    found = near >= threshold
    if not found.any():
        return 0, float("nan")
    weight = source_weight(truth.astype(np.int64), source)
    even = float(weight[found & truth].sum() / weight[found].sum())
    return int(found.sum()), min(float(truth[found].mean()), even)


def least_threshold_for(
    near: NDArray[np.float64], truth: NDArray[np.bool_], source: NDArray[np.str_], *, target: float = TARGET
) -> float:
    """The smallest similarity from which on every precision is at least `target`, with ten retrievals or more.

    Infinite where there is none.
    """
    best = float("inf")
    for value in sorted(set(near.tolist()), reverse=True):
        count, precision = precision_at(near, truth, source, value)
        if count < LEAST // 3:
            continue
        if precision < target:
            break
        best = value
    return best


def measure(
    statement: Statement, near: NDArray[np.float64], facts: Sequence[Facts], source: NDArray[np.str_]
) -> Measured:
    """Choose a threshold on one half of the sources, measure on the other, and the other way round.

    Parameters
    ----------
    statement : Statement
    near : float64 array of (n,)
        Similarity of each picture to the statement.
    facts : sequence of Facts
    source : str array of (n,)
    """
    held = [statement.holds(f) for f in facts]
    known = np.array([h is not None for h in held], bool)
    truth = np.array([bool(h) for h in held], bool)[known]
    score, origin = near[known], source[known]
    thresholds, right, total, lower = [], 0.0, 0, 1.0
    if truth.any() and not truth.all():
        half = halves(truth, origin)
        for side in (0, 1):
            here, there = half == side, half != side
            threshold = least_threshold_for(score[there], truth[there], origin[there])
            thresholds.append(threshold)
            count, precision = precision_at(score[here], truth[here], origin[here], threshold)
            if count:
                total += count
                right += precision * count
    threshold = max(thresholds, default=float("inf"))
    if np.isfinite(threshold):
        # What ships is the stricter threshold; it must hold on all sources together as well.
        lower = precision_at(score, truth, origin, threshold)[1]
    return Measured(
        name=statement.name,
        text=statement.text,
        known=int(known.sum()),
        true=int(truth.sum()),
        retrieved=total,
        precision=min(right / total, lower) if total else float("nan"),
        threshold=threshold,
    )


def make_bank(
    statements: Sequence[Statement],
    vectors: Tensor,
    images: Tensor,
    facts: Sequence[Facts],
    source: NDArray[np.str_],
) -> tuple[Bank, list[Measured]]:
    """Measure every statement and keep those that may speak.

    Parameters
    ----------
    statements : sequence of Statement
    vectors : float tensor of (S, dim)
        Their unit vectors in the image's space.
    images : float tensor of (n, dim)
        Unit vectors of held-out pictures.
    facts : sequence of Facts
    source : str array of (n,)
    """
    near = (images.float() @ vectors.float().T).double().numpy()
    found = [measure(s, near[:, i], facts, source) for i, s in enumerate(statements)]
    kept = [i for i, m in enumerate(found) if m.speaks]
    entries = [
        Entry(
            text=statements[i].text,
            threshold=round(found[i].threshold, 6),
            precision=round(found[i].precision, 4),
            retrieved=found[i].retrieved,
            category=statements[i].category,
        )
        for i in kept
    ]
    return Bank(entries, vectors[kept] if kept else torch.zeros(0, vectors.shape[1])), found
