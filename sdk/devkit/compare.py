"""Two answers about one picture, number by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tellsign.schemas import Evidence, FindingEvidence, MapEvidence, ScoreEvidence, StatementEvidence

from .report import CheckFailedError

Numbers = Mapping[tuple[object, ...], NDArray[np.float64]]


def numbers(answer: Sequence[Evidence]) -> dict[tuple[object, ...], NDArray[np.float64]]:
    """The numbers of an answer by what they belong to; what has none is there by its text."""
    out: dict[tuple[object, ...], NDArray[np.float64]] = {}
    for e in answer:
        if isinstance(e, ScoreEvidence):
            out["score", e.name] = np.array([e.score])
            if e.logit is not None:
                out["logit", e.name] = np.array([e.logit])
        elif isinstance(e, MapEvidence):
            out["map", e.name] = e.map.astype(np.float64)
        elif isinstance(e, FindingEvidence):
            out["finding", e.category, e.region] = np.array([e.strength])
        elif isinstance(e, StatementEvidence):
            out["statement", e.statement] = np.array([e.support])
        else:
            out[e.kind, repr(e)] = np.zeros(1)
    return out


def apart(one: Sequence[Evidence], other: Sequence[Evidence], kinds: tuple[str, ...] | None = None) -> float:
    """The largest difference between two answers' numbers, a logit's relative to its size where that is above 1.

    Parameters
    ----------
    one, other : sequence of Evidence
    kinds : tuple of str, optional
        Only these: "score", "logit", "map", "finding", "statement".

    Returns
    -------
    float
        Infinite where they do not say the same things.
    """
    return max(_differences(one, other, kinds).values(), default=0.0)


def _differences(
    one: Sequence[Evidence], other: Sequence[Evidence], kinds: tuple[str, ...] | None = None
) -> dict[str, float]:
    """The largest difference of each piece of evidence that both give."""
    first, second = ({k: v for k, v in numbers(a).items() if kinds is None or k[0] in kinds} for a in (one, other))
    if first.keys() != second.keys() or any(first[k].shape != second[k].shape for k in first):
        return {"": float("inf")}
    out = {}
    for key, value in first.items():
        scale = np.maximum(1.0, np.abs(value)) if key[0] == "logit" else 1.0
        out[" ".join(str(part) for part in key[:2])[:60]] = float(np.max(np.abs(value - second[key]) / scale))
    return out


def same(one: Sequence[Evidence], other: Sequence[Evidence], tolerance: float, what: str) -> float:
    """The largest difference, or `CheckFailedError` where it is above `tolerance`."""
    differences = _differences(one, other)
    name = max(differences, key=lambda key: differences[key], default="")
    difference = differences.get(name, 0.0)
    if difference > tolerance:
        if np.isinf(difference):
            words = f"{_things(one)} here, {_things(other)} there"
        else:
            words = f"{name} differs by {difference:.3g} (allowed {tolerance:g})"
        raise CheckFailedError(f"{what}: {words}")
    return difference


def _things(answer: Sequence[Evidence]) -> str:
    return ", ".join(" ".join(str(part) for part in key[:2])[:60] for key in numbers(answer)) or "nothing"


__all__ = ["apart", "numbers", "same"]
