"""Perceptual artifact detection (PAD): are the pixels that a map points at the annotated ones.

Counts are pooled over the data set, as the paper does: its columns satisfy F1 = 2 IoU / (1 + IoU), which holds for
pooled counts and not for means over pictures. The means are given beside them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tellsign.evaluation.pixels import Hits, count

from .annotations import CATEGORIES

ANY = "any"
"""Name of the row in which the seven categories are one."""
ROWS = (ANY, *(c.value for c in CATEGORIES))


class Tally:
    """Counts of pixels, picture by picture; no picture stays in memory."""

    def __init__(self) -> None:
        self._hits: list[list[Hits]] = []

    def __len__(self) -> int:
        return len(self._hits)

    def add(self, predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> list[Hits]:
        """Count one picture.

        Parameters
        ----------
        predicted : bool array of (H, W) or (7, H, W)
            A map that knows no categories is held against each of them as it is: recall then says how much of the
            category it finds, while precision counts every other category's pixels against it.
        truth : bool array of (7, H, W)

        Returns
        -------
        list of 8 (found, wrong, missed)
            In the order of `ROWS`.
        """
        seven = len(CATEGORIES)
        if truth.ndim != 3 or truth.shape[0] != seven or predicted.shape not in (truth.shape, truth.shape[1:]):
            raise ValueError(
                f"truth takes a bool array of ({seven}, H, W) and predicted the same or (H, W), got {truth.shape} and "
                f"{predicted.shape}"
            )
        each = predicted if predicted.ndim == 3 else np.broadcast_to(predicted, truth.shape)
        hits = [count(np.asarray(each.any(axis=0)), np.asarray(truth.any(axis=0)))]
        hits += [count(p, t) for p, t in zip(each, truth, strict=True)]
        return self.add_counts(hits)

    def add_counts(self, hits: list[Hits]) -> list[Hits]:
        """Count one picture whose pixels were counted before."""
        if len(hits) != len(ROWS):
            raise ValueError(f"hits takes {len(ROWS)} triples, got {len(hits)}")
        self._hits.append([(int(a), int(b), int(c)) for a, b, c in hits])
        return self._hits[-1]

    def summary(self) -> dict[str, dict[str, Any]]:
        """Metrics of each row of `ROWS`.

        Returns
        -------
        dict of dict
            `n` pictures, `n_empty` of them with neither an annotated nor a predicted pixel; `found`, `wrong`, `missed`
            pixels; iou, precision, recall, f1 (the paper's IoU, PixP, PixR, PixF1), pooled; `per_picture` with the
            means of iou and f1 over the other n - n_empty pictures. NaN where a number cannot be had.
        """
        hits = np.array(self._hits, np.float64).reshape(-1, len(ROWS), 3)
        return {name: _metrics(hits[:, k]) for k, name in enumerate(ROWS)}


def _metrics(hits: NDArray[np.float64]) -> dict[str, Any]:
    union = hits.sum(axis=1)
    found, wrong, missed = hits.sum(axis=0)
    own = hits[union > 0]
    return {
        "n": len(hits),
        "n_empty": int((union == 0).sum()),
        "found": int(found),
        "wrong": int(wrong),
        "missed": int(missed),
        "iou": _ratio(found, found + wrong + missed),
        "precision": _ratio(found, found + wrong),
        "recall": _ratio(found, found + missed),
        "f1": _ratio(2 * found, 2 * found + wrong + missed),
        "per_picture": {
            "iou": _ratio(float((own[:, 0] / own.sum(axis=1)).sum()), len(own)),
            "f1": _ratio(float((2 * own[:, 0] / (own[:, 0] + own.sum(axis=1))).sum()), len(own)),
        },
    }


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below else float("nan")
