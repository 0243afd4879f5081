"""Looks into a bundle, compares two, compares one with the installed plugins, and sets weights by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.schemas import DEFINITE_LABELS, Declaration, Label

from .booster import BoosterHead
from .bundle import Bundle, Head
from .features import columns
from .logistic import LogisticHead

Floats = NDArray[np.float64]

_FAR = 1e6
"""Beyond every split of a booster."""


def task_weights(bundle: Bundle) -> dict[str, dict[str, float]]:
    """How much each task can move the log-odds, by head.

    Heads are sums of one function per task, so this is exact for each task by itself. For a logistic head it is the
    change from two standard deviations below to two above the centre in all of the task's columns at once, for a
    booster the change from its lowest to its highest leaves (in the direction of its ordered columns). The slope is
    that of the calibrator of the largest pattern with the task.
    """
    out: dict[str, dict[str, float]] = {}
    for name, head in sorted(bundle.heads.items()):
        out[name] = {}
        for task in sorted({str(c.task) for c in head.columns}):
            mine = [j for j, c in enumerate(head.columns) if str(c.task) == task]
            out[name][task] = _slope(head, {head.columns[j].block for j in mine}) * _swing(head, mine)
    return out


def _swing(head: Head, places: Sequence[int]) -> float:
    model = head.model
    if isinstance(model, LogisticHead):
        return float(4 * np.abs(model.weights[list(places)]).sum())
    rows = np.full((2, len(head.columns)), np.nan)
    for j in places:
        sign = head.columns[j].direction or 1
        rows[:, j] = (-_FAR * sign, _FAR * sign)
    low, high = model.margin(rows).tolist()
    return float(abs(high - low))


def _slope(head: Head, blocks: set[str]) -> float:
    fitting = [(len(k.split("+")), k) for k in head.calibrators if blocks & set(k.split("+"))]
    return head.calibrators[max(fitting)[1]].slope if fitting else 0.0


def scaled(bundle: Bundle, factors: Mapping[str, float]) -> Bundle:
    """The bundle with the part of each named task multiplied.

    Calibrators and prediction sets stay those of the old weights: recalibrate before you use it.

    Parameters
    ----------
    bundle : Bundle
    factors : mapping of str to float
        By task; at least 0, so that no column turns against its direction. Tasks that are not named keep their weight.

    Raises
    ------
    ValueError
        A task that the bundle has no columns of, a negative factor, or all of them 0.
    """
    have = sorted({str(c.task) for c in bundle.columns})
    strangers = sorted(set(factors) - set(have))
    if strangers:
        raise ValueError(f"weights takes the bundle's tasks {', '.join(have)}, got {', '.join(strangers)}")
    for task, value in factors.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"weights takes numbers of at least 0, got {value!r} for {task}")
    if all(factors.get(t, 1.0) == 0 for t in have):
        raise ValueError("weights takes at least one task above 0, got none")
    heads = {name: attrs.evolve(h, model=_scaled(h, factors)) for name, h in bundle.heads.items()}
    return attrs.evolve(bundle, heads=heads)


def _scaled(head: Head, factors: Mapping[str, float]) -> LogisticHead | BoosterHead:
    by = np.array([float(factors.get(str(c.task), 1.0)) for c in head.columns])
    model = head.model
    if isinstance(model, LogisticHead):
        return attrs.evolve(model, weights=model.weights * by)
    import xgboost

    found = json.loads(bytes(model.booster.save_raw("json")))
    for tree in found["learner"]["gradient_booster"]["model"]["trees"]:
        left = tree["left_children"]
        used = {int(tree["split_indices"][i]) for i, child in enumerate(left) if child != -1}
        if not used:
            continue
        # The trainer lets trees mix columns within one task only.
        scale = {by[j] for j in used}
        if len(scale) > 1:
            raise ValueError("weights takes a booster whose trees keep to one task, got one whose trees mix tasks")
        factor = scale.pop()
        leaves = [i for i, child in enumerate(left) if child == -1]
        for i in leaves:
            tree["split_conditions"][i] *= factor
        tree["base_weights"] = [w * factor for w in tree["base_weights"]]
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(json.dumps(found).encode()))
    booster.set_param({"nthread": 1})
    return BoosterHead(head.columns, booster)


def described(bundle: Bundle) -> dict[str, Any]:
    """What a person wants to know of a bundle, JSON-able: heads, columns with weights, tasks, sets, training."""
    weights = task_weights(bundle)
    heads: dict[str, Any] = {}
    for name, head in sorted(bundle.heads.items()):
        lines = []
        for j, c in enumerate(head.columns):
            own = float(head.model.weights[j]) if isinstance(head.model, LogisticHead) else None
            lines.append(
                {
                    "column": c.name,
                    "task": str(c.task),
                    "block": c.block,
                    "direction": c.direction,
                    "weight_per_sd": None if own is None else own * _slope(head, {c.block}),
                }
            )
        heads[name] = {
            "kind": head.model.kind,
            "columns": lines,
            "tasks": weights[name],
            "calibrators": {k: attrs.asdict(c) for k, c in sorted(head.calibrators.items())},
        }
    sets: dict[str, dict[str, Any]] = {}
    for key in sorted(bundle.conformal):
        sets[key] = {}
        for label in DEFINITE_LABELS:
            scores = bundle.conformal[key].get(label)
            rate = bundle.error_rates[label]
            value = bundle.quantile(key, label, rate, bundle.worst_source and label is Label.AUTHENTIC)
            sets[key][str(label)] = {
                "groups": scores.groups if scores else 0,
                "error_rate": rate,
                "ruled_out_below": None if math.isinf(value) else 1 - value,
                "from": bundle.training.get("sets", {}).get(key, {}).get(str(label), "own" if scores else "none"),
            }
    return {
        "version": bundle.version,
        "sha256": bundle.sha256,
        "heads": heads,
        "sets": sets,
        "plausible": bundle.plausible,
        "minimum_tasks": bundle.minimum_tasks,
        "worst_source": bundle.worst_source,
        "training": bundle.training,
    }


@attrs.frozen
class Difference:
    """One thing that differs between two bundles."""

    what: str
    before: str
    after: str


def differences(old: Bundle, new: Bundle) -> tuple[Difference, ...]:
    """What differs, from the coarse to the fine; empty for bundles of one hash."""
    if old.sha256 == new.sha256:
        return ()
    out: list[Difference] = []
    a, b = described(old), described(new)

    def note(what: str, before: object, after: object) -> None:
        if not _same(before, after):
            out.append(Difference(what, _told(before), _told(after)))

    for name in sorted({*a["heads"], *b["heads"]}):
        x, y = a["heads"].get(name), b["heads"].get(name)
        if x is None or y is None:
            note(f"head {name}", x and x["kind"], y and y["kind"])
            continue
        note(f"{name}: kind", x["kind"], y["kind"])
        for task in sorted({*x["tasks"], *y["tasks"]}):
            note(f"{name}: weight of {task}, log-odds", x["tasks"].get(task), y["tasks"].get(task))
        p, q = ({c["column"]: c["weight_per_sd"] for c in h["columns"]} for h in (x, y))
        for column in sorted({*p, *q}):
            if column not in p or column not in q:
                note(f"{name}: column {column}", "known" if column in p else None, "known" if column in q else None)
            else:
                note(f"{name}: {column}, log-odds per standard deviation", p[column], q[column])
        for key in sorted({*x["calibrators"], *y["calibrators"]}):
            r, s = (h["calibrators"].get(key) for h in (x, y))
            for part in ("slope", "intercept"):
                note(f"{name}: {key}: {part}", r and r[part], s and s[part])
    for key in sorted({*a["sets"], *b["sets"]}):
        for label in DEFINITE_LABELS:
            r, s = ((d["sets"].get(key) or {}).get(str(label)) or {} for d in (a, b))
            for part in ("ruled_out_below", "groups", "error_rate", "from"):
                note(f"sets: {key}: {label}: {part}", r.get(part), s.get(part))
    for field in ("plausible", "minimum_tasks", "worst_source"):
        note(field, a[field], b[field])
    x, y = (d["training"] for d in (a, b))
    for name in sorted({*x.get("plugins", {}), *y.get("plugins", {})}):
        p, q = (t.get("plugins", {}).get(name, {}) for t in (x, y))
        note(f"calibrated with {name}", p.get("version"), q.get("version"))
        note(f"weights of {name}", p.get("weights"), q.get("weights"))
    for field in ("data_sha256", "rows", "groups", "base", "operating"):
        note(f"training: {field}", x.get(field), y.get(field))
    return tuple(out)


@attrs.frozen
class Finding:
    """What stands between a bundle and the installed plugins."""

    serious: bool
    """Whether verdicts suffer; otherwise they come with a notice."""
    text: str


def check(bundle: Bundle, declarations: Mapping[str, Declaration]) -> tuple[Finding, ...]:
    """Compare a loaded bundle with the plugins that are installed.

    Parameters
    ----------
    bundle : Bundle
        From `Bundle.load`, which has checked every file against its hash.
    declarations : mapping of str to Declaration
        Of the plugins that would run.
    """
    out: list[Finding] = []
    trained = bundle.training.get("plugins", {})
    plugins = sorted({c.plugin for c in bundle.columns})
    present = [p for p in plugins if p in declarations]
    if not present:
        out.append(Finding(True, f"none of its plugins ({', '.join(plugins)}) is installed: no verdict is possible"))
    for name in plugins:
        if name not in declarations:
            if present:
                out.append(Finding(False, f"{name} is not installed; its part of the evidence will be missing"))
            continue
        declaration = declarations[name]
        was = trained.get(name, {})
        if was.get("version", declaration.version) != declaration.version:
            text = f"it was calibrated with {name} {was['version']}, and {declaration.version} is installed"
            out.append(Finding(True, text))
        hashes = {w.file: w.sha256 for w in declaration.weights}
        if was.get("weights", hashes) != hashes:
            out.append(Finding(True, f"it was calibrated with other weights of {name} than those installed"))
        have = {c.name: c for c in columns({name: declaration})}
        for c in (c for c in bundle.columns if c.plugin == name):
            if c.name not in have:
                out.append(Finding(True, f"it asks for the column {c.name}, which {name} does not declare"))
            elif have[c.name] != c:
                out.append(Finding(True, f"the column {c.name} means something else in {name} than in the bundle"))
    for name, declaration in sorted(declarations.items()):
        if name not in plugins and declaration.columns:
            out.append(Finding(False, f"it was not trained with {name}, whose evidence will not change probabilities"))
    blocks = {d.block_of(c) for d in declarations.values() for c in d.columns}
    usable = [k for k in bundle.conformal if set(k.split("+")) <= blocks]
    if present and not usable:
        out.append(Finding(True, "no availability pattern that it calibrates can occur with the installed plugins"))
    found = bundle.training.get("sets", {})
    carried = sorted(
        f"{label} ({key})" for key, by in found.items() for label, how in by.items() if how in ("mapped", "carried")
    )
    if carried:
        text = f"its sets rest on the base bundle's pictures for {', '.join(carried)}: no error rate is promised there"
        out.append(Finding(False, text))
    return tuple(out)


def _same(a: object, b: object) -> bool:
    # A booster computes in 32 bits.
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9)
    return a == b


def _told(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


__all__ = ["Difference", "Finding", "check", "described", "differences", "scaled", "task_weights"]
