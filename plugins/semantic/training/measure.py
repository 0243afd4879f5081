"""How well scores rank pictures when topic and source may not help; and the baseline that knows topics only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tellsign.data.balance import source_weight
from tellsign.data.ranking import LEAST, auc, by_source, least_threshold, within_topic

__all__ = ["LEAST", "accused", "auc", "by_source", "evenly", "least_threshold", "topic_only", "within_topic"]


def accused(
    label: NDArray[np.int64], score: NDArray[np.float64], source: NDArray[np.str_], threshold: float
) -> dict[str, tuple[int, int]]:
    """False accusations: for each real source, pictures above the threshold and pictures."""
    out = {}
    for name in np.unique(source[label == 0]):
        mine = (label == 0) & (source == name)
        out[str(name)] = (int((score[mine] > threshold).sum()), int(mine.sum()))
    return out


def evenly(rows: NDArray[np.int64], label: NDArray[np.int64], source: NDArray[np.str_], most: int) -> NDArray[np.int64]:
    """Of `rows` at most `most` for each source and class, spread over the order in which they lie."""
    kept: list[int] = []
    for y in (0, 1):
        for name in np.unique(source[label == y]):
            mine = rows[(label == y) & (source == name)]
            kept += mine[np.linspace(0, len(mine) - 1, min(most, len(mine))).astype(int)].tolist()
    return np.sort(np.array(kept, np.int64))


def topic_only(
    topic: NDArray[np.int64], label: NDArray[np.int64], source: NDArray[np.str_], other: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Log-odds of `other` pictures from their topics alone: the baseline that any model of meaning must beat.

    Parameters
    ----------
    topic, label, source : arrays of (n,)
        Training pictures.
    other : int64 array of (m,)
        Topics of the pictures to score.
    """
    weight = source_weight(label, source)
    mass = np.ones((max(int(topic.max()), int(other.max())) + 1, 2))  # one picture of each class in every topic
    np.add.at(mass, (topic, label), weight)
    out: NDArray[np.float64] = np.log(mass[:, 1] / mass[:, 0])[other]
    return out
