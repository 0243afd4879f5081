"""Which of a classifier's labels mean AI."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

SUSPICIOUS = {
    "fake",
    "ai",
    "artificial",
    "generated",
    "synthetic",
    "deepfake",
    "gan",
    "diffusion",
    "aigenerated",
    "aigc",
}
HARMLESS = {"real", "human", "hum", "authentic", "natural", "nature", "photo", "photograph", "camera", "photography"}
NOT = {"not", "non", "no", "un"}


def split(labels: Mapping[int, str], suspicious: Collection[str] | None = None) -> tuple[list[int], list[int]]:
    """Indices of the labels that mean AI, and of the others.

    Parameters
    ----------
    labels : mapping of int to str
        A model's `config.id2label`.
    suspicious : collection of str, optional
        Labels that mean AI, whatever their words say; all others then do not.

    Raises
    ------
    ValueError
        A label's words say nothing or two things, one is unknown, or all labels are on one side.
    """
    named = ", ".join(repr(label) for label in labels.values())
    if suspicious is not None:
        unknown = sorted(set(suspicious) - set(labels.values()))
        if unknown:
            raise ValueError(f"the model has no label {unknown[0]!r}; it has {named}")
        sides = {index: label in suspicious for index, label in labels.items()}
    else:
        sides = {index: _means_ai(label, named) for index, label in labels.items()}
    ai = [index for index, side in sorted(sides.items()) if side]
    rest = [index for index, side in sorted(sides.items()) if not side]
    if not ai or (not rest and len(labels) > 1):
        raise ValueError(f"all labels are on one side: {named}")
    return ai, rest


def _means_ai(label: str, named: str) -> bool:
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", label).lower())
    ai, rest = SUSPICIOUS & set(words), HARMLESS & set(words)
    # "AI-generated human" or "not real" would take more than words to read.
    if bool(ai) == bool(rest) or NOT & set(words):
        raise ValueError(f"the label {label!r} does not say on which side it is; set `suspicious` to those of {named}")
    return bool(ai)


def log_odds(logits: Sequence[float], ai: Sequence[int], rest: Sequence[int]) -> float:
    """Log-odds of the labels that mean AI against the others; of a model with one output, that output."""
    import numpy as np

    values = np.asarray(logits, np.float64)
    if not rest:
        return float(values[ai[0]])
    return float(np.logaddexp.reduce(values[list(ai)]) - np.logaddexp.reduce(values[list(rest)]))


__all__ = ["log_odds", "split"]
