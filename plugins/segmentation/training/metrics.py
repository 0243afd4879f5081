"""Pixel metrics: pooled over all pictures, and per picture."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

CUT = 0.5
"""A pixel with at least this probability is marked."""


@attrs.define
class Counts:
    """True and false positives and false negatives, in pixels."""

    tp: float = 0.0
    fp: float = 0.0
    fn: float = 0.0

    @classmethod
    def of(cls, marked: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Counts:
        """Of one picture: bool arrays of one shape."""
        tp = float((marked & truth).sum())
        return cls(tp, float(marked.sum()) - tp, float(truth.sum()) - tp)

    def add(self, other: Counts) -> None:
        """Pool: sums before ratios."""
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn

    @property
    def f1(self) -> float | None:
        """2 TP / (2 TP + FP + FN), None where nothing is marked and nothing is true."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else None

    @property
    def iou(self) -> float | None:
        """TP / (TP + FP + FN); F1 = 2 IoU / (1 + IoU)."""
        total = self.tp + self.fp + self.fn
        return self.tp / total if total else None


def pool(counts: list[Counts]) -> Counts:
    """The sum."""
    out = Counts()
    for c in counts:
        out.add(c)
    return out
