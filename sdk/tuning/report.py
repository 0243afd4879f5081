"""The numbers of a tuning: before against after on rows that were held out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.evaluation import metrics
from tellsign.fusion.adapt import Tuned, bundle_odds
from tellsign.fusion.bundle import Bundle
from tellsign.fusion.calibration import sigmoid
from tellsign.fusion.edit import task_weights
from tellsign.fusion.gain import even_weights, log_losses
from tellsign.fusion.operating import OperatingPoint, TooFew
from tellsign.fusion.table import ScoreTable

from .checks import Finding
from .scoring import Trouble

SCHEMA_VERSION = 1
BINS = 10
BOOTSTRAP = 1000
_SHOWN = 50
"""Troubles that are listed."""

Floats = NDArray[np.float64]


def build(
    *,
    tuned: Tuned,
    base: Bundle,
    start: Bundle,
    chosen: Bundle,
    table: ScoreTable,
    findings: Sequence[Finding],
    left_out: Mapping[str, int],
    troubles: Sequence[Trouble],
    shortcuts: Mapping[str, float],
    operating: OperatingPoint | TooFew | None,
    rows: int,
    settings: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """What report.json holds; JSON's own types, None for what cannot be had.

    Parameters
    ----------
    tuned : Tuned
    base : Bundle
        What there was before.
    start : Bundle
        What was moved: the base, or the base with a person's weights.
    chosen : Bundle
        What is used from now on.
    table : ScoreTable
        The rows that were judged.
    findings, left_out, troubles, shortcuts
        About the data.
    operating : OperatingPoint or TooFew, optional
    rows : int
        Of the whole table.
    settings : mapping
    seed : int
    """
    held = tuned.held_out.get("p_ai")
    report: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "written": tuned.improved,
        "bundle": chosen.version,
        "base": base.version,
        "reasons": list(tuned.reasons),
        "findings": [attrs.asdict(f) for f in findings],
        "data": {
            "rows": rows,
            "judged": len(table),
            "groups": len(np.unique(table.group)),
            "real": int((table.label == 0).sum()),
            "ai": int((table.label == 1).sum()),
            "sources": {
                side: dict(sorted(Counter(table.source[table.label == v].tolist()).items()))
                for side, v in (("real", 0), ("ai", 1))
            },
            "left_out_trained_on": dict(left_out),
            "unreadable": [attrs.asdict(t) for t in troubles[:_SHOWN]],
            "unreadable_count": len(troubles),
            "trivial_rules": dict(shortcuts),
        },
        "gain": {h: {k: attrs.asdict(g) for k, g in v.items()} for h, v in tuned.gains.items()},
        "choices": {h: c.title for h, c in tuned.choices.items()},
        "sets": tuned.sets,
        "learning_curve": list(tuned.curve),
        "operating": _point(operating),
        "tasks": {"before": task_weights(base), "after": task_weights(chosen)},
        "settings": dict(settings),
        "held_out": None,
        "reliability": None,
        "by_generator": [],
        "plugins": [],
    }
    if weights := settings.get("weights"):
        report["tasks"]["asked"] = {"factors": dict(weights), "start": task_weights(start)}
    if held is not None:
        y, g = held.labels[held.rows], table.group[held.rows]
        before, after = held.before[held.rows], held.after[held.rows]
        report["held_out"] = {
            name: _plain(metrics.summarise(y, sigmoid(z), g.tolist(), draws=BOOTSTRAP, seed=seed))
            | {"log_loss": float(even_weights(y, g) @ log_losses(y, z))}
            for name, z in (("before", before), ("after", after))
        }
        report["reliability"] = {n: reliability(y, z, g) for n, z in (("before", before), ("after", after))}
        report["by_generator"] = by_generator(table, held.rows, before, after, seed=seed)
    report["plugins"] = by_plugin(chosen, table)
    out: dict[str, Any] = _plain(report)
    return out


def reliability(labels: NDArray[np.int64], log_odds: Floats, groups: NDArray[np.str_]) -> list[dict[str, Any]]:
    """Mean probability, share of AI and Wilson interval in bins of equal mass, both classes weighing the same."""
    p = np.asarray(sigmoid(log_odds), np.float64)
    weight = even_weights(labels, groups)
    where = metrics.mass_bins(p, min(BINS, max(1, len(p) // 10)))
    out = []
    for b in np.unique(where):
        own = where == b
        mass = weight[own]
        share = float(mass @ labels[own] / mass.sum())
        # Weights make rows count unequally: the interval is that of as many equal ones.
        size = float(mass.sum() ** 2 / (mass**2).sum())
        interval = metrics.wilson(round(share * size), max(1, round(size)))
        out.append(
            {
                "p": float(mass @ p[own] / mass.sum()),
                "share": share,
                "low": interval[0] if interval else None,
                "high": interval[1] if interval else None,
                "rows": int(own.sum()),
            }
        )
    return out


def by_generator(
    table: ScoreTable, rows: NDArray[np.int64], before: Floats, after: Floats, *, seed: int
) -> list[dict[str, Any]]:
    """Each generator's pictures against all real ones: AUC, and log loss on the generator's own pictures."""
    label, source, group = table.label[rows], table.source[rows], table.group[rows]
    out = []
    for name in sorted(set(source[label == 1].tolist())):
        own = (label == 1) & (source == name)
        both = own | (label == 0)
        entry: dict[str, Any] = {"generator": name, "rows": int(own.sum())}
        for word, z in (("before", before), ("after", after)):
            y = label[both]
            statistic = {"auc": metrics.weighted_auc(y, z[both])}
            ci = metrics.Bootstrap(y, group[both].tolist(), BOOTSTRAP, seed).intervals(statistic)["auc"]
            entry[word] = {
                "auc": metrics.auc(y, z[both]),
                "auc_ci": ci,
                "log_loss": float(log_losses(label[own], z[own]).mean()),
            }
        out.append(entry)
    return out


def by_plugin(bundle: Bundle, table: ScoreTable) -> list[dict[str, Any]]:
    """How often each plugin answered, and what the bundle loses without it on these rows (in sample)."""
    out = []
    known = np.flatnonzero(table.label >= 0)
    part = table.take(known)
    full = np.nan_to_num(bundle_odds(bundle, part))
    weight = even_weights(part.label, part.group)
    loss = float(weight @ log_losses(part.label, full))
    plugins = sorted({c.plugin for c in part.columns})
    for plugin in plugins:
        mine = np.array([c.plugin == plugin for c in part.columns])
        answered = ~np.isnan(part.rows[:, mine]).all(1)
        used = sorted(c.name for c in bundle.columns if c.plugin == plugin)
        entry: dict[str, Any] = {
            "plugin": plugin,
            "answered": float(answered.mean()),
            "columns": used,
            "log_loss": loss,
            "log_loss_without": None,
            "auc": metrics.auc(part.label, full),
            "auc_without": None,
        }
        if len(plugins) > 1 and used:
            values = part.rows.copy()
            values[:, mine] = np.nan
            less = np.nan_to_num(bundle_odds(bundle, attrs.evolve(part, rows=values)))
            entry["log_loss_without"] = float(weight @ log_losses(part.label, less))
            entry["auc_without"] = metrics.auc(part.label, less)
        out.append(entry)
    return out


def curve_in_words(curve: Sequence[Mapping[str, Any]]) -> str:
    """What more data would give, judged by the last doubling of the learning curve."""
    if len(curve) < 2:
        return ""
    half = min(curve, key=lambda e: abs(e["share"] - 0.5))
    last = curve[-1]
    fall = half["log_loss"] - last["log_loss"]
    start = f"From {half['groups']:.0f} to {last['groups']:.0f} groups the held-out log loss went"
    went = f"{start} from {half['log_loss']:.4f} to {last['log_loss']:.4f}"
    if fall > 0.005:
        return f"{went}: twice as many pictures would bring it down further, by less than the same again."
    if fall > 0:
        return f"{went}: more pictures of the same kind would bring little."
    return f"{went}: more pictures of the same kind bring nothing that these plugins could use."


def _point(point: OperatingPoint | TooFew | None) -> dict[str, Any] | None:
    if point is None:
        return None
    if isinstance(point, TooFew):
        return {**attrs.asdict(point), "missing": point.missing, "promised": False, "text": str(point)}
    what = f"alarm where p_ai (at prior {point.prior:g}) is above {point.p_ai():.4f}"
    found = "" if point.found is None else f"; finds {point.found:.1%} of the AI pictures"
    text = (
        f"{what}: {point.alarms} of {point.groups_real} independent real pictures lie above it, so at most "
        f"{point.bound:.2%} of such pictures do, at {point.confidence:.0%} confidence{found}"
    )
    return {**point.to_json(), "promised": True, "text": text}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


__all__ = ["build", "by_generator", "by_plugin", "curve_in_words", "reliability"]
