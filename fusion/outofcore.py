"""Tunes on a table that does not fit in memory: batches in, a bundle out.

What is out of core and what is not:

- The booster is trained on every training row, from XGBoost's external memory: batches are quantised and cached on
  disk, and no more than a few are in memory at once.
- The moved base (`tellsign.fusion.adapt`) has a few dozen numbers at most; it is fitted in memory on a sample of whole
  groups (`SAMPLE` rows), beyond which more rows do not move it by anything that matters.
- Calibrators, prediction sets and the verdict on which is better rest on held-out samples of whole groups (`HELD` rows
  each), in memory.

A row's part is decided by a hash of its group and the seed, so that no list of groups is kept and no group is split.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.schemas import DEFINITE_LABELS, Declaration, Label

from . import metrics
from .adapt import HeldOut, Tuned, because, bundle_odds, training_of, tune_bundle
from .booster import LADDER, BoosterConfig, BoosterHead, parameters
from .bundle import Bundle, Head
from .calibration import Affine, fit_calibrator
from .conformal import resolve_error_rates
from .features import FeatureColumn, keep_blocks, pattern_key, present_blocks
from .gain import paired_gain
from .inherit import OWN, needed_groups, own_scores
from .table import FIELDS, ScoreTable
from .train import drop_blocks, subsets

if TYPE_CHECKING:
    import xgboost

Floats = NDArray[np.float64]
Batches = Callable[[], Iterator[ScoreTable]]

SAMPLE = 100_000
"""Rows that the moved base is fitted on."""
HELD = 50_000
"""Rows each that calibrate and that judge."""
MOST_PATTERNS = 16
_TRAIN, _STOP, _CALIBRATE, _JUDGE = 0.7, 0.8, 0.9, 1.0
_LEAST_GROUPS = 10


def places(groups: NDArray[np.str_], seed: int) -> Floats:
    """A number in [0, 1) per row, the same for all rows of a group, float64 (n,)."""
    names, where = np.unique(groups, return_inverse=True)
    made = [int.from_bytes(hashlib.blake2b(f"{seed}/{g}".encode(), digest_size=7).digest()) for g in names.tolist()]
    return np.asarray(np.array(made, np.float64)[where] / 2**56, np.float64)


@attrs.frozen(kw_only=True)
class Census:
    """What one look over all batches counts."""

    rows: int
    by_label: tuple[int, int]
    patterns: tuple[frozenset[str], ...]
    sha256: str
    """Of the batches in their order, whatever their size."""


def census(batches: Batches, head: Sequence[FeatureColumn]) -> Census:
    """Count rows, labels and patterns, and hash everything, in one pass."""
    rows, ones = 0, 0
    patterns: set[frozenset[str]] = set()
    digests = [hashlib.sha256() for _ in range(1 + len(FIELDS))]
    for part in batches():
        rows += len(part)
        ones += int((part.label == 1).sum())
        seen = {tuple(r) for r in np.unique(~np.isnan(part.rows), axis=0).tolist()}
        patterns |= {frozenset(c.block for c, yes in zip(head, r, strict=True) if yes) for r in seen}
        digests[0].update(np.nan_to_num(part.rows, nan=np.inf).tobytes())
        for digest, name in zip(digests[1:], FIELDS, strict=True):
            digest.update("\0".join(map(str, getattr(part, name).tolist())).encode() + b"\0")
    whole = hashlib.sha256(b"".join(d.digest() for d in digests) + repr([attrs.astuple(c) for c in head]).encode())
    return Census(
        rows=rows,
        by_label=(rows - ones, ones),
        patterns=tuple(sorted(patterns - {frozenset()}, key=pattern_key)),
        sha256=whole.hexdigest(),
    )


def sampled(batches: Batches, *, seed: int, span: tuple[float, float], share: float) -> ScoreTable | None:
    """The rows of whole groups whose place lies in the first `share` of `span`; None where there are none."""
    from_, to = span
    end = from_ + (to - from_) * min(share, 1.0)
    parts = []
    for part in batches():
        at = places(part.group, seed)
        rows = np.flatnonzero((at >= from_) & (at < end))
        if len(rows):
            parts.append(part.take(rows))
    if not parts:
        return None
    fields = {f: np.concatenate([getattr(p, f) for p in parts]) for f in FIELDS}
    return ScoreTable(rows=np.concatenate([p.rows for p in parts]), columns=parts[0].columns, **fields)


def fit_external(
    batches: Batches,
    columns: Sequence[FeatureColumn],
    *,
    seed: int,
    weights: tuple[float, float],
    config: BoosterConfig = LADDER[0],
    dropout: float = 0.3,
    copies: int = 2,
) -> BoosterHead:
    """A monotone booster on every training row, from external memory.

    Parameters
    ----------
    batches : callable
        Gives the batches anew at each call; XGBoost reads them several times.
    columns : sequence of FeatureColumn
        Of the head p_ai.
    seed : int
    weights : (float, float)
        Of a row of label 0 and of label 1.
    config : BoosterConfig
        At most so many rounds; the held rows stop it.
    dropout, copies : float, int
        See `drop_blocks`.
    """
    import xgboost

    with tempfile.TemporaryDirectory(prefix="tellsign-tune-") as folder:
        names = [c.name for c in columns]

        class Pages(xgboost.DataIter):
            """Batches as XGBoost wants them."""

            def __init__(self, span: tuple[float, float], where: str, drop: bool) -> None:
                self.span, self.drop = span, drop
                self.left: Iterator[ScoreTable] = iter(())
                self.number = 0
                super().__init__(cache_prefix=str(Path(folder) / where))

            def reset(self) -> None:
                self.left, self.number = batches(), 0

            def next(self, input_data: Callable[..., Any]) -> bool:
                for part in self.left:
                    self.number += 1
                    at = places(part.group, seed)
                    rows = np.flatnonzero((at >= self.span[0]) & (at < self.span[1]))
                    place = {c.name: i for i, c in enumerate(part.columns)}
                    values = part.rows[rows][:, [place[n] for n in names]]
                    rows = rows[~np.isnan(values).all(1)]
                    if not len(rows):
                        continue
                    values = part.rows[rows][:, [place[n] for n in names]]
                    times = 1
                    if self.drop:
                        values, where = drop_blocks(
                            values, columns, rate=dropout, copies=copies, seed=seed + self.number
                        )
                        rows, times = rows[where], copies
                    label = part.label[rows]
                    input_data(
                        data=np.ascontiguousarray(values, np.float32),
                        label=label.astype(np.float32),
                        weight=(np.where(label == 1, weights[1], weights[0]) / times).astype(np.float32),
                        feature_names=names,
                    )
                    return True
                return False

        options = {"missing": np.nan, "nthread": 1, "max_bin": 256}
        train = xgboost.ExtMemQuantileDMatrix(Pages((0.0, _TRAIN), "train", True), **options)
        held = xgboost.ExtMemQuantileDMatrix(Pages((_TRAIN, _STOP), "stop", False), ref=train, **options)
        settings = parameters(columns, config, seed) | {"eval_metric": "logloss"}
        booster = xgboost.train(
            settings,
            train,
            num_boost_round=config.rounds,
            evals=[(held, "held")],
            early_stopping_rounds=30,
            verbose_eval=False,
        )
        best: xgboost.Booster = booster[: int(booster.best_iteration) + 1]
        # Through bytes: what early stopping left in the booster's attributes must not reach the bundle.
        plain = xgboost.Booster({"nthread": 1})
        best.set_attr(best_iteration=None, best_score=None)
        plain.load_model(bytearray(best.save_raw("ubj")))
        plain.set_param({"nthread": 1})
    return BoosterHead(tuple(columns), plain)


def tune_batches(
    batches: Batches,
    columns: Sequence[FeatureColumn],
    base: Bundle,
    *,
    declarations: Mapping[str, Declaration] | None = None,
    seed: int = 0,
    folds: int = 5,
    split: str = "group",
    error_rate: float | Mapping[Label, float] | Mapping[str, float] | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    sample: int = SAMPLE,
    held: int = HELD,
    config: BoosterConfig = LADDER[0],
    extra: Mapping[str, Any] | None = None,
) -> Tuned:
    """Tune on batches; what `tune_bundle` is for a table in memory.

    Parameters
    ----------
    batches : callable
        Gives the batches of the table, in order, anew at each call.
    columns : sequence of FeatureColumn
        Of every batch.
    base : Bundle
        What is moved, and what must be beaten.
    declarations, seed, folds, split, error_rate, confidence, draws, extra
        As `tune_bundle`.
    sample, held : int
        Rows in memory, at most about so many.
    config : BoosterConfig

    Returns
    -------
    Tuned
        `held_out` and the gains are of the judging rows, which nothing was trained or chosen on.
    """
    counted = census(batches, columns)
    if min(counted.by_label) == 0:
        raise ValueError(f"table takes rows of both labels, got {counted.by_label[0]} and {counted.by_label[1]}")
    rates = resolve_error_rates(error_rate, base.error_rates)
    in_span = counted.rows * 0.1
    mixed = sampled(batches, seed=seed, span=(0.0, _CALIBRATE), share=sample / (counted.rows * 0.9))
    calibrating = sampled(batches, seed=seed, span=(_STOP, _CALIBRATE), share=held / in_span)
    judging = sampled(batches, seed=seed, span=(_CALIBRATE, _JUDGE), share=held / in_span)
    if mixed is None or calibrating is None or judging is None:
        raise ValueError("table takes more groups than fit one part, got too few for a table that is read in batches")
    moved = tune_bundle(
        mixed,
        base,
        declarations=declarations,
        seed=seed,
        folds=folds,
        split=split,
        anew="never",
        error_rate=error_rate,
        confidence=confidence,
        draws=draws,
        extra={**dict(extra or {}), "data_sha256": counted.sha256, "table_rows": counted.rows},
    )
    total = counted.rows / 2
    weights = (total / counted.by_label[0], total / counted.by_label[1])
    mine = tuple(sorted((c for c in columns if c.head == "p_ai"), key=lambda c: c.name))
    if not mine:
        raise ValueError("table takes columns of p_ai, got none")
    booster = fit_external(batches, mine, seed=seed, weights=weights, config=config)
    anew = _with_sets(booster, calibrating, base, counted, rates)

    labels = judging.label
    odds = {
        name: np.nan_to_num(bundle_odds(b, judging))
        for name, b in (("base", base), ("moved", moved.bundle), ("anew", anew))
        if b is not None
    }
    sure = 1 - (1 - confidence) / 2

    def gain(before: str, after: str) -> Any:
        return paired_gain(labels, odds[before], odds[after], judging.group, confidence=sure, draws=draws, seed=seed)

    gains = {"moved": gain("base", "moved")} | ({"anew": gain("base", "anew")} if anew is not None else {})
    rows = np.arange(len(labels))

    def held_out(after: str) -> dict[str, HeldOut]:
        return {"p_ai": HeldOut(labels=labels, rows=rows, before=odds["base"], after=odds[after])}

    if anew is not None and gains["anew"].proven and gain("moved", "anew").proven:
        made = training_of(
            judging, base, anew, declarations, seed=seed, folds=folds, split=split, gains={"p_ai": gains}, extra=extra
        )
        training = made | {
            "data_sha256": counted.sha256,
            "rows": counted.rows,
            "choices": {"p_ai": f"{config.title}, external memory"},
        }
        return Tuned(
            bundle=attrs.evolve(anew, training=training),
            improved=True,
            reasons=(because("p_ai", f"trained anew on {counted.rows} rows", gains["anew"]),),
            held_out=held_out("anew"),
            gains={"p_ai": gains},
            choices={},
            sets=_described(anew, rates),
            curve=(),
            training=training,
            judged=judging,
        )
    if moved.improved and gains["moved"].proven:
        return attrs.evolve(
            moved,
            reasons=(*moved.reasons, because("p_ai", "on rows that it never saw", gains["moved"])),
            held_out=held_out("moved"),
            gains={"p_ai": gains},
            judged=judging,
        )
    best = max(gains.values(), key=lambda g: g.mean)
    return attrs.evolve(
        moved,
        bundle=base,
        improved=False,
        reasons=(because("p_ai", None, best),),
        held_out=held_out("moved"),
        gains={"p_ai": gains},
        sets={},
        training={},
        judged=judging,
    )


def _with_sets(
    model: BoosterHead, table: ScoreTable, base: Bundle, counted: Census, rates: Mapping[Label, float]
) -> Bundle | None:
    """Calibrators and prediction sets from rows that the booster never saw; None where they are too few."""
    own = {c.block for c in model.columns}
    patterns = [p & own for p in counted.patterns if p & own]
    parts = subsets(patterns)
    if len(parts) > MOST_PATTERNS:
        parts = tuple(sorted(set(patterns), key=lambda p: (len(p), pattern_key(p))))[:MOST_PATTERNS]
    place = {c.name: i for i, c in enumerate(table.columns)}
    values = table.rows[:, [place[c.name] for c in model.columns]]
    has = np.array([present_blocks(row, model.columns) for row in values], dtype=object)
    calibrators: dict[str, Affine] = {}
    auc: dict[str, float] = {}
    odds_of: dict[str, Floats] = {}
    for part in parts:
        rows = np.flatnonzero([part <= p for p in has])
        y = table.label[rows]
        counts = tuple(float(len(np.unique(table.group[rows][y == v]))) for v in (0, 1))
        if min(counts) < _LEAST_GROUPS:
            continue
        margin = model.margin(keep_blocks(values[rows], model.columns, part))
        balanced = np.where(y == 1, 0.5 / max((y == 1).sum(), 1), 0.5 / max((y == 0).sum(), 1))
        fitted = fit_calibrator(margin, y, weights=balanced * len(y), counts=(counts[0], counts[1]))
        if not isinstance(fitted, Affine):
            continue
        key = pattern_key(part)
        calibrators[key], auc[key] = fitted, metrics.auc(y, margin)
        odds_of[key] = np.full(len(table), np.nan)
        odds_of[key][rows] = fitted.log_odds(margin)
    if not calibrators:
        return None
    sources, source_of = np.unique(table.source, return_inverse=True)
    bundle = Bundle(
        columns=model.columns,
        heads={"p_ai": Head(model=model, calibrators=calibrators)},
        conformal={},
        pattern_auc=auc,
        sources=tuple(str(s) for s in sources.tolist()),
        error_rates=dict(rates),
        worst_source=base.worst_source,
        minimum_tasks=base.minimum_tasks,
        minimum_groups=base.minimum_groups,
        plausible=base.plausible,
    )
    kinds = np.array([str(k) for k in table.kinds])
    numbers = source_of.astype(np.int32)
    conformal = {}
    for key, odds in odds_of.items():
        masked = keep_blocks(values, model.columns, key.split("+"))
        shares = [bundle.ai_share(row) for row in masked]
        conformal[key] = own_scores(kinds, table.group, numbers, {"p_ai": odds}, shares, np.arange(len(table)))
    return attrs.evolve(bundle, conformal=conformal)


def _described(bundle: Bundle, rates: Mapping[Label, float]) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        key: {
            str(label): {
                "groups": by[label].groups,
                "needed": needed_groups(rates[label], bundle.minimum_groups),
                "from": OWN,
            }
            for label in DEFINITE_LABELS
            if label in by
        }
        for key, by in bundle.conformal.items()
    }


__all__ = ["HELD", "SAMPLE", "Census", "census", "fit_external", "places", "sampled", "tune_batches"]
