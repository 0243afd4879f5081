"""The trivial rules of `tellsign.data.trivial`, on pictures as they were scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.data import trivial
from tellsign.schemas import Picture

SIDE = 1024
"""Blockiness, sharpness and spectrum are read off a central window of at most so many pixels a side."""
NO_TABLES = 101.0
"""Stands for the quality of a file without quantisation tables: one better than the best JPEG."""
FOLDS = 5
PRIOR = 2.0  # a kind of file counts as this many pictures of the average kind, so that rare kinds say little


@attrs.frozen(kw_only=True)
class Traits:
    """What a rule that looks at nothing could use of one picture."""

    format: str
    tables: str
    quality: float
    size: float
    blockiness: float
    sharpness: float
    spectrum: float


def traits(picture: Picture) -> Traits:
    """Read them off a decoded picture; one that came as an array has no format and no tables."""
    facts, pixels = picture.facts, picture.pixels
    top, left = (max(0, (side - SIDE) // 2) for side in pixels.shape[:2])
    window = pixels[top : top + SIDE, left : left + SIDE]
    readable = min(window.shape[:2]) >= 16
    return Traits(
        format=facts.container if facts else "array",
        tables=repr(facts.quantization) if facts and facts.quantization else "none",
        quality=NO_TABLES if facts is None or facts.quality is None else float(facts.quality),
        size=float(picture.width * picture.height),
        blockiness=trivial.blockiness(window) if readable else 1.0,
        sharpness=trivial.sharpness(window) if readable else 0.0,
        spectrum=trivial.spectrum_tail(window) if readable else 0.0,
    )


def kind_scores(kinds: Sequence[str], label: NDArray[np.int_], seed: int = 0) -> NDArray[np.float64]:
    """How much more often than average each picture's kind is AI, learnt on the other folds.

    Rating a kind by the very pictures that are then rated would make rare kinds look telling whatever they are.

    Parameters
    ----------
    kinds : sequence of n str
    label : int array of (n,)
    seed : int, default 0
        Of the folds.

    Returns
    -------
    float array of (n,)
        0 for a kind that says nothing or that the other folds do not hold.
    """
    _, code = np.unique(np.asarray(kinds, dtype=object).astype(str), return_inverse=True)
    fold = np.zeros(len(label), int)
    rng = np.random.default_rng(seed)
    for y in (0, 1):
        members = rng.permutation(np.flatnonzero(label == y))
        fold[members] = np.arange(len(members)) % FOLDS
    scores = np.zeros(len(label))
    for k in range(FOLDS):
        train = fold != k
        if not train.any():
            continue
        base = label[train].mean()
        n = np.bincount(code[train], minlength=code.max() + 1)
        fakes = np.bincount(code[train], label[train], minlength=code.max() + 1)
        lift = (fakes + PRIOR * base) / (n + PRIOR) - base
        # Rounding must not rank two kinds that both say nothing.
        scores[~train] = np.round(lift, 9)[code[~train]]
    return scores


def rules(traits: Mapping[str, Sequence[Any]], label: NDArray[np.int_], seed: int = 0) -> dict[str, float]:
    """AUC of each rule in its better direction, .5 to 1.

    Parameters
    ----------
    traits : mapping from str to sequence of n
        Columns by the names of `Traits`.
    label : int array of (n,)
    seed : int, default 0
    """
    columns: dict[str, list[float]] = {
        name: kind_scores(traits[name], label, seed).tolist() if len(label) else [] for name in ("format", "tables")
    }
    for name in ("quality", "size", "blockiness", "sharpness", "spectrum"):
        columns[name] = [float(v) for v in traits[name]]
    return trivial.trivial_rules(columns, label.tolist())


def audit(traits: Mapping[str, Sequence[Any]], label: NDArray[np.int_]) -> dict[str, Any]:
    """What the files of either class look like, so that a shortcut can be seen and not only suspected.

    Returns
    -------
    dict
        `real` and `fake`, each with `formats` (name to share), `quality` (share without tables, quartiles of the rest)
        and `megapixels` (quartiles); `png_means_fake`, the balanced accuracy of that rule.
    """
    out: dict[str, Any] = {}
    for y, name in ((0, "real"), (1, "fake")):
        of = [int(i) for i in np.flatnonzero(label == y)]
        formats = Counter(traits["format"][i] for i in of)
        quality = np.array([float(traits["quality"][i]) for i in of])
        with_tables = quality[quality < NO_TABLES]
        out[name] = {
            "formats": {k: v / len(of) for k, v in formats.most_common()},
            "quality": {
                "without_tables": float((quality >= NO_TABLES).mean()) if len(of) else None,
                "quartiles": _quartiles(with_tables),
            },
            "megapixels": _quartiles(np.array([float(traits["size"][i]) / 1e6 for i in of])),
        }
    png = np.array([v == "PNG" for v in traits["format"]], bool)
    both = bool((label == 1).any() and (label == 0).any())
    out["png_means_fake"] = float((png[label == 1].mean() + (~png[label == 0]).mean()) / 2) if both else None
    return out


def _quartiles(values: NDArray[np.float64]) -> list[float] | None:
    return [float(v) for v in np.quantile(values, [0.25, 0.5, 0.75])] if len(values) else None
