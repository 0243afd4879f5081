"""How well heat maps find edited pixels: counts pooled over a data set, and means over its pictures.

The literature on tampering averages over pictures, X-AIGD pools counts; the two are far apart where small regions are
missed, so both are given. They are linked by F1 = 2 IoU / (1 + IoU) when pooled, and not when averaged.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from tellsign.schemas import MapEvidence, Verdict

from . import metrics
from .metrics import Floats
from .truth import Mask

CUT = 0.5
"""Value from which a map's pixel counts as edited."""
Scaling = Literal["own", "min-max"]
"""A map as its plugin gives it, or stretched to [0, 1] first (X-AIGD's rule for explanation maps)."""
Hits = tuple[int, int, int]
"""Pixels found, accused wrongly, missed."""


def chosen_map(verdict: Verdict, name: str | None) -> MapEvidence | None:
    """The verdict's own heat map, or the one that a plugin (`plugin`) or a map (`plugin:map`) names."""
    if name is None:
        return verdict.heat_map
    plugin, _, wanted = name.partition(":")
    maps = [
        e
        for e in verdict.evidence
        if isinstance(e, MapEvidence) and e.plugin == plugin and (not wanted or e.name == wanted)
    ]
    return max(maps, key=lambda e: e.map.size, default=None)


def prediction(evidence: MapEvidence, height: int, width: int, scaling: Scaling = "own") -> Mask:
    """Pixels that a map calls edited.

    Parameters
    ----------
    evidence : MapEvidence
        Its map covers `box` evenly; outside of it nothing is called edited.
    height, width : int
        Of the picture.
    scaling : "own" or "min-max"
        A constant map, stretched, is zero everywhere.

    Returns
    -------
    bool array of (height, width)
        The map resized bilinearly, at least `CUT`.
    """
    box = evidence.box
    flags = binarised(evidence.map, box.height, box.width, scaling)
    out = np.zeros((height, width), bool)
    part = flags[: max(0, height - box.top), : max(0, width - box.left)]
    out[box.top : box.top + part.shape[0], box.left : box.left + part.shape[1]] = part
    return out


def binarised(values: ArrayLike, height: int, width: int, scaling: Scaling = "own") -> Mask:
    """A map of (rows, columns), resized bilinearly to (height, width), where it is at least `CUT`.

    Under "min-max" it is stretched to [0, 1] before, and a constant map is zero everywhere.
    """
    values = np.asarray(values, np.float32)
    if scaling == "min-max":
        low, high = float(values.min()), float(values.max())
        values = (values - low) / (high - low) if high > low else np.zeros_like(values)
    image = Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image) >= CUT


def count(predicted: Mask, truth: Mask) -> Hits:
    """Pixels found, accused wrongly, and missed."""
    both = int((predicted & truth).sum())
    return both, int(predicted.sum()) - both, int(truth.sum()) - both


def summarise(
    hits: NDArray[np.int64], label: NDArray[np.int_], group: NDArray[np.object_], *, draws: int, seed: int
) -> dict[str, Any] | None:
    """Pooled and per-picture metrics.

    Parameters
    ----------
    hits : int array of (n, 3)
        As `count`; rows of -1 are pictures without a mask or without a map.
    label : int array of (n,)
    group : array of n str
    draws, seed : int
        Of the bootstrap.

    Returns
    -------
    dict or None
        None where no picture has both a mask and a map. `pooled` over all of them, `pooled_edited` over those with an
        edited pixel, `per_picture` the means over those; `n_empty` counts pictures whose mask is empty, which have no
        F1 of their own. Each with iou, f1, precision, recall where it can be had.
    """
    known = hits[:, 0] >= 0
    if not known.any():
        return None
    counts, label, group = hits[known].astype(np.float64), label[known], group[known]
    edited = counts[:, 0] + counts[:, 2] > 0
    draw = metrics.Bootstrap(label, group, draws, seed)
    out: dict[str, Any] = {
        "n": len(counts),
        "n_edited": int(edited.sum()),
        "n_empty": int((~edited).sum()),
        "cut": CUT,
        "pooled": _pooled(counts, np.ones(len(counts)), draw),
        "pooled_edited": _pooled(counts, edited.astype(np.float64), draw) if edited.any() else None,
        "per_picture": None,
    }
    if edited.any():
        found, wrong, missed = counts[edited].T
        values = {"iou": found / (found + wrong + missed), "f1": 2 * found / (2 * found + wrong + missed)}
        boot = metrics.Bootstrap(label[edited], group[edited], draws, seed)
        intervals = boot.intervals({name: metrics.weighted_mean(v) for name, v in values.items()})
        out["per_picture"] = {name: float(v.mean()) for name, v in values.items()} | {
            f"{name}_ci": intervals[name] for name in values
        }
    return out


def _pooled(counts: Floats, chosen: Floats, draw: metrics.Bootstrap) -> dict[str, Any]:
    parts = counts * chosen[:, None]

    def iou(weights: Floats) -> Floats:
        found, wrong, missed = (weights @ parts).T
        return _ratio(found, found + wrong + missed)

    def f1(weights: Floats) -> Floats:
        found, wrong, missed = (weights @ parts).T
        return _ratio(2 * found, 2 * found + wrong + missed)

    once = np.ones((1, len(counts)))
    found, wrong, missed = parts.sum(0)
    intervals = draw.intervals({"iou": iou, "f1": f1})
    return {
        "iou": _number(iou(once)),
        "iou_ci": intervals["iou"],
        "f1": _number(f1(once)),
        "f1_ci": intervals["f1"],
        "precision": _number(_ratio(found, found + wrong)),
        "recall": _number(_ratio(found, found + missed)),
    }


def _ratio(above: Any, below: Any) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.divide(above, below), np.float64)


def _number(value: Floats) -> float | None:
    number = float(np.ravel(value)[0])
    return number if np.isfinite(number) else None
