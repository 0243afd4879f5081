"""Prediction sets of a tuned bundle: from its own pictures where there are enough, else from the base's. numpy only.

With few pictures most classes have too few of their own for the asked error rate: 2 % needs 49 groups. Such a class
would be "not assessed", and every verdict uncertain. It takes the base's scores instead, so that what the base could
not rule out stays in the set; the report and the manifest say which classes that is, for no promise about the new
domain follows from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.schemas import DEFINITE_LABELS, Label, Task, label_probabilities

from .bundle import Bundle, Head
from .calibration import sigmoid
from .conformal import ClassScores, group_weights
from .features import pattern_key
from .logistic import LogisticHead

Floats = NDArray[np.float64]

OWN, MAPPED, CARRIED = "own", "mapped", "carried"
"""Where a class's scores come from: the tuning data; the base's, through the same affine map as its log-odds, so that
the base's promise for pictures like its own stays exactly; the base's as they are, where there is no such map."""


_FLAT = 1e-6
"""A smaller slope has put all pictures in one place: there is no order left to carry over."""


def needed_groups(error_rate: float, minimum: int) -> int:
    """Independent pictures of a class that a set needs to be able to miss a share `error_rate` of it."""
    return max(minimum, math.ceil(1 / error_rate - 1e-9) - 1)


def own_scores(
    kinds: NDArray[np.str_],
    groups: NDArray[np.str_],
    sources: NDArray[np.int32],
    odds: Mapping[str, Floats],
    shares: list[float | None],
    rows: NDArray[np.int64],
) -> dict[Label, ClassScores]:
    """Scores 1 - probability of the true label of the rows, by label.

    Parameters
    ----------
    kinds, groups, sources : arrays (n,)
        True label, group and number of the source.
    odds : mapping of str to float64 array (n,)
        Held-out log-odds at even odds by head; NaN where a head has no answer. "p_ai" is there.
    shares : list of n float or None
        Share of an AI mask.
    rows : int64 array
        Those of one pattern.
    """
    rows = rows[np.isfinite(odds["p_ai"][rows])]
    scores = np.empty(len(rows))
    for place, i in enumerate(rows.tolist()):
        z = odds["p_tampered"][i] if "p_tampered" in odds else math.nan
        p_tampered = None if math.isnan(z) else float(sigmoid(z))
        chances = label_probabilities(float(sigmoid(odds["p_ai"][i])), p_tampered, shares[i])
        scores[place] = min(max(1 - chances[Label(str(kinds[i]))], 0.0), 1.0)
    out = {}
    for label in DEFINITE_LABELS:
        mine = np.flatnonzero(kinds[rows] == str(label))
        if len(mine):
            out[label] = ClassScores(
                scores=np.ascontiguousarray(scores[mine]),
                weights=group_weights(groups[rows[mine]]),
                sources=sources[rows[mine]],
            )
    return out


def affine_between(old: Head, new: Head, key: str) -> tuple[float, float] | None:
    """(c, d), c above 0, such that the new log-odds are c * old + d on every picture of the pattern; None without."""
    before, after = old.calibrators.get(key), new.calibrators.get(key)
    if before is None or after is None or before.slope <= 0:
        return None
    if new.model is old.model:
        c = after.slope / before.slope
        return (c, after.intercept - c * before.intercept) if c > _FLAT else None
    if not (isinstance(old.model, LogisticHead) and isinstance(new.model, LogisticHead)):
        return None
    blocks = set(key.split("+"))
    places = {c.name: j for j, c in enumerate(new.model.columns)}
    ratios = []
    for i, column in enumerate(old.model.columns):
        if column.block not in blocks:
            continue
        j = places.get(column.name)
        if j is None or new.model.centre[j] != old.model.centre[i] or new.model.scale[j] != old.model.scale[i]:
            return None
        if old.model.weights[i] == 0:
            if new.model.weights[j] != 0:
                return None
            continue
        ratios.append(float(new.model.weights[j] / old.model.weights[i]))
    strangers = [c for c in new.model.columns if c.block in blocks and c.name not in {o.name for o in old.columns}]
    if not ratios or strangers or max(ratios) - min(ratios) > 1e-9 * max(1.0, abs(max(ratios))):
        return None
    # z = s (b + m) + i and z' = s' (b' + r m) + i', m the sum over the columns.
    r = ratios[0]
    c = after.slope * r / before.slope
    d = after.slope * (new.model.bias - r * old.model.bias) + after.intercept - c * before.intercept
    return (c, d) if c > _FLAT else None


def inherited(base: Bundle, new: Bundle, key: str) -> tuple[dict[Label, ClassScores], str]:
    """The base's scores of a pattern as the new bundle would give them, and `MAPPED` or `CARRIED`."""
    blocks = frozenset(key.split("+"))
    if key not in base.conformal:
        # A pattern with a block that the base does not know: the thresholds of the part that it does know.
        known = base.covering(blocks & {c.block for c in base.columns})
        return (dict(base.conformal[pattern_key(known)]), CARRIED) if known else ({}, CARRIED)
    scores = base.conformal[key]
    alone = not any(
        pattern_key(blocks & head.blocks) in head.calibrators for n, head in base.heads.items() if n != "p_ai"
    ) and not any(c.task is Task.SEGMENTATION and c.statistic == "share" and c.block in blocks for c in base.columns)
    part = pattern_key(blocks & base.heads["p_ai"].blocks)
    moved = affine_between(base.heads["p_ai"], new.heads["p_ai"], part) if alone else None
    if moved is None:
        return dict(scores), CARRIED
    limit = new.heads["p_ai"].calibrators[part].limit
    out: dict[Label, ClassScores] = {}
    for label, old in scores.items():
        if label not in (Label.AUTHENTIC, Label.AI_GENERATED):
            out[label] = old  # Without a mask and without tamper evidence their probability is 0, whatever p_ai is.
            continue
        sign = 1 if label is Label.AUTHENTIC else -1
        with np.errstate(divide="ignore"):
            z = sign * (np.log(old.scores) - np.log1p(-old.scores))
        z = np.clip(moved[0] * np.clip(z, -30, 30) + moved[1], -limit, limit)
        out[label] = attrs.evolve(old, scores=np.ascontiguousarray(sigmoid(sign * z)))
    return out, MAPPED


__all__ = ["CARRIED", "MAPPED", "OWN", "affine_between", "inherited", "needed_groups", "own_scores"]
