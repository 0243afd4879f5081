"""Where to cut: shifts both masks so that .5 marks as much as false alarms on untouched pictures allow.

A network that was trained with equation 6 gives probabilities, and most pixels of most pictures are untouched, so that
the cut with the best F1 lies lower than .5. The shift goes into the mask layers' biases, so that a map's .5 means the
same to findings, to the fusion's columns and to whoever looks at it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tellsign.plugins.segmentation.model import CELL, MASKS
from tellsign.plugins.segmentation.scan import Forward, scan

from .data import UNTOUCHED, ForgedRow, load
from .evaluate import CONDITIONS
from .metrics import Counts, pool

FILE = "shift.json"
LOGITS = tuple(np.round(np.arange(-4, 4.01, 0.25), 2).tolist())
"""Cuts that are tried, in log-odds."""
DEAF, SILENCE = 0.1, -30.0
"""A path whose F1 is lower than this at its cut would spend false alarms for nothing; log-odds that silence it."""
MEDIAN, P95 = 0.005, 0.08
"""Most of an untouched picture that may be marked: half, and four fifths, of what the plugin is held to."""


def choose(
    rows: Sequence[ForgedRow], forward: Forward, conditions: Sequence[str] = ("native", "jpeg90")
) -> dict[str, dict[str, Any]]:
    """The shift of each mask.

    Parameters
    ----------
    rows : sequence of ForgedRow
        That the network was not trained on, untouched ones among them.
    forward : callable
    conditions : sequence of str
        All count alike.

    Returns
    -------
    dict
        By mask: "shift" (to add to the mask's logits), and at that cut "f1" pooled over edited pictures, "median" and
        "p95" of the marked share of untouched ones.
    """
    counts: dict[str, list[list[Counts]]] = {name: [] for name in MASKS}
    areas: dict[str, list[list[float]]] = {name: [] for name in MASKS}
    for condition in conditions:
        for row in tqdm(rows, desc=condition):
            sample = CONDITIONS[condition](load(row))
            maps = scan(sample.pixels, forward).maps
            for name, truth, known in (
                ("ai", sample.ai, row.ai_counts),
                ("manipulation", sample.manipulation, row.ma_counts),
            ):
                marks = at_cuts(maps[name])
                coarse = truth[CELL // 2 :: CELL, CELL // 2 :: CELL] > 0
                marks = [m[: coarse.shape[0], : coarse.shape[1]] for m in marks]
                if row.kind == UNTOUCHED:
                    areas[name].append([float(m.mean()) for m in marks])
                elif known and 0 < truth.mean() < 1:
                    counts[name].append([Counts.of(m, coarse) for m in marks])
    return {name: best(counts[name], np.array(areas[name])) for name in MASKS}


def at_cuts(heat: NDArray[np.float32]) -> list[NDArray[np.bool_]]:
    """What a map marks at each of `LOGITS`."""
    return [heat >= 1 / (1 + np.exp(-x)) for x in LOGITS]


def best(counts: Sequence[Sequence[Counts]], areas: NDArray[np.float64]) -> dict[str, Any]:
    """The cut with the best pooled F1 among those that mark little of untouched pictures (areas: pictures x cuts)."""
    median, p95 = np.median(areas, axis=0), np.percentile(areas, 95, axis=0)
    f1 = [pool([c[i] for c in counts]).f1 or 0.0 for i in range(len(LOGITS))]
    quiet = [i for i in range(len(LOGITS)) if median[i] <= MEDIAN and p95[i] <= P95]
    # Where even the highest cut is too loud, it is the least loud.
    i = max(quiet, key=lambda k: f1[k]) if quiet else len(LOGITS) - 1
    return {"shift": -LOGITS[i], "f1": f1[i], "median": float(median[i]), "p95": float(p95[i])}


def heard(chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The shifts of `choose` for one of two paths: `SILENCE` where its F1 is below `DEAF`."""
    return {name: SILENCE if c["f1"] < DEAF else float(c["shift"]) for name, c in chosen.items()}


def read_shift(run: Path) -> dict[str, float]:
    """What `choose` found for a run, 0 where nobody asked."""
    file = run / FILE
    told = json.loads(file.read_text()) if file.is_file() else {}
    return {name: float(told.get(name, {}).get("shift", 0.0)) for name in MASKS}
