"""All numbers of one condition, out of the columns that scoring left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tellsign.schemas import Label

from . import metrics
from .items import AI, FAKE, REAL
from .outcomes import Columns, Row, columns
from .shortcuts import rules

SMALL = 30
"""Generators with fewer pictures than this are pooled."""
POOLED = f"(others, n < {SMALL} each)"
AI_LABELS = (Label.AI_GENERATED.value, Label.AI_EDITED.value)
TAMPERED_LABELS = (Label.TAMPERED.value, Label.AI_EDITED.value)


def summary(rows: Sequence[Row] | Columns, *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """All numbers of one condition.

    Parameters
    ----------
    rows : sequence of Row, or Columns
    draws, seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        overall, by_generator, by_real_source, worst_generator, worst_real_source, trivial_rules, risk_coverage.
    """
    table = rows if isinstance(rows, Columns) else columns(rows)
    # A picture that no plugin could judge has no probability. It counts as uncertain and has no rank among the others.
    scored = table.take(table.scored)
    everything = table.label
    uncertain = (table.verdict == Label.UNCERTAIN.value).astype(np.float64)
    definite = uncertain == 0
    bad = np.where(everything == REAL, accused(table), ~called(table)) & definite
    wrong, answers = int(bad.sum()), int(definite.sum())
    sources = _by_real_source(table)
    blamed, answered = (sum(s[k] for s in sources.values()) for k in ("accused", "definite"))
    share = metrics.Bootstrap(everything, table.group, draws, seed).intervals(
        {"uncertain": metrics.weighted_mean(uncertain)}
    )
    overall: dict[str, Any] = {
        "n": len(table),
        "n_real": int((everything == REAL).sum()),
        "n_ai": int((everything == FAKE).sum()),
        "n_without_probability": len(table) - len(scored),
        "groups": len(set(scored.group)),
        **metrics.summarise(scored.label, scored.p, scored.group, draws=draws, seed=seed),
        "uncertain": float(uncertain.mean()) if len(table) else None,
        "uncertain_ci": share["uncertain"],
        "uncertain_real": _share(uncertain[everything == REAL]),
        "uncertain_ai": _share(uncertain[everything == FAKE]),
        "definite_error_rate": wrong / answers if answers else None,
        "definite_error_rate_ci": metrics.wilson(wrong, answers),
        "false_accusation_rate": blamed / answered if answered else None,
        "false_accusation_rate_ci": metrics.wilson(blamed, answered),
    }
    generators = _by_generator(scored, draws, seed)
    own = {name: g for name, g in generators.items() if name != POOLED and g["auc"] is not None}
    rated = {name: s for name, s in sources.items() if s["rate"] is not None}
    worst_generator = min(own, key=lambda name: (own[name]["auc"], name), default=None)
    worst_source = max(rated, key=lambda name: (rated[name]["rate"], rated[name]["definite"]), default=None)
    curve = metrics.risk_coverage(scored.label, scored.p)
    curve["verdicts"] = {
        "coverage": answers / len(table) if len(table) else None,
        "risk": overall["definite_error_rate"],
    }
    return {
        "overall": overall,
        "by_generator": generators,
        "worst_generator": None if worst_generator is None else {"name": worst_generator, **own[worst_generator]},
        "by_real_source": sources,
        "worst_real_source": None if worst_source is None else {"name": worst_source, **rated[worst_source]},
        "trivial_rules": rules(table.traits, everything, seed),
        "risk_coverage": curve,
    }


def called(table: Columns) -> NDArray[np.bool_]:
    """Which verdicts say what label 1 says: AI, or tampered with where the data set asks that; bool (n,)."""
    return np.asarray(np.isin(table.verdict.astype(str), AI_LABELS if table.asks == AI else TAMPERED_LABELS), bool)


def accused(table: Columns) -> NDArray[np.bool_]:
    """Which definite verdicts wrong a picture with label 0; "tampered" does not where DATA names a mask."""
    verdict = table.verdict.astype(str)
    if table.asks != AI:
        return np.asarray(~np.isin(verdict, (Label.AUTHENTIC.value, Label.UNCERTAIN.value)), bool)
    tampered = (verdict == Label.TAMPERED.value) & ~table.masked
    return np.asarray(np.isin(verdict, AI_LABELS) | tampered, bool)


def _by_generator(scored: Columns, draws: int, seed: int) -> dict[str, dict[str, Any]]:
    """Each generator's fakes against all reals."""
    real = scored.label == REAL
    names, counts = np.unique(scored.source[~real].astype(str), return_counts=True)
    small = {str(n): int(c) for n, c in zip(names, counts, strict=True) if c < SMALL}
    chosen = {str(n): (scored.source == n) & ~real for n, c in zip(names, counts, strict=True) if c >= SMALL}
    if small:
        chosen[POOLED] = np.isin(scored.source.astype(str), list(small)) & ~real
    hit, open_ = called(scored), scored.verdict == Label.UNCERTAIN.value
    out: dict[str, dict[str, Any]] = {}
    for name, of in chosen.items():
        # Reals first: an order that does not depend on where the data set lists its fakes.
        both = np.r_[np.flatnonzero(real), np.flatnonzero(of)]
        label, p = scored.label[both], scored.p[both]
        value = metrics.auc(label, p)
        statistics = {} if value is None else {"auc": metrics.weighted_auc(label, p)}
        boot = metrics.Bootstrap(label, scored.group[both], draws, seed).intervals(statistics)
        out[name] = {
            "n": int(of.sum()),
            "auc": value,
            "auc_ci": boot.get("auc"),
            "called_ai": float(hit[of].mean()),
            "uncertain": float(open_[of].mean()),
        }
    if small:
        out[POOLED]["generators"] = small
    return out


def _by_real_source(table: Columns) -> dict[str, dict[str, Any]]:
    """False accusations among the definite verdicts on each source's real pictures."""
    real, definite, blamed = table.label == REAL, table.verdict != Label.UNCERTAIN.value, accused(table)
    out: dict[str, dict[str, Any]] = {}
    for name in sorted({str(s) for s in table.source[real]}):
        of = real & (table.source == name)
        answered, wronged = int((of & definite).sum()), int((of & definite & blamed).sum())
        out[name] = {
            "n": int(of.sum()),
            "definite": answered,
            "accused": wronged,
            "rate": wronged / answered if answered else None,
            "rate_ci": metrics.wilson(wronged, answered),
            "uncertain": 1 - answered / int(of.sum()),
        }
    return out


def _share(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
