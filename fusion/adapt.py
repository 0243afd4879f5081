"""Tunes a bundle on somebody's own scores, and says whether that is better than leaving it as it is.

What is compared, on folds whose pictures nobody trained on: the base as it is; the base moved (`shrink`), by as much as
a fixed prior lets the pictures move it; and, from 200 pictures on, a bundle trained anew. What gains most replaces the
base, and only where the lower bound of its gain is above zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.schemas import HEADS, Declaration, Label

from . import metrics
from .bundle import Bundle, Head
from .conformal import ClassScores, resolve_error_rates
from .features import FeatureColumn, pattern_key, present_blocks
from .folds import Fold, family_folds, group_folds, out_of_fold
from .gain import Gain, even_weights, log_losses, paired_gain
from .inherit import OWN, inherited, needed_groups, own_scores
from .origin import libraries, scored_by
from .shrink import (
    BaseView,
    base_view,
    can_reweight,
    head_odds,
    recalibrated,
    reweighted,
    with_new_patterns,
)
from .table import ScoreTable
from .train import SMALL, labelled_rows, train_bundle

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST_GROUPS = 10
"""With fewer independent pictures of a class nothing is tuned: no fold could show a gain."""

SPLITS = ("group", "generator")
CURVE = (0.25, 0.5, 0.75, 1.0)
"""Shares of the groups that the learning curve trains on."""

_BASE, _MOVED, _ANEW = "base", "moved", "anew"


@attrs.frozen(kw_only=True)
class Choice:
    """How a head is moved."""

    method: str
    """"base" (not at all), "recalibrated" or "reweighted"."""
    groups: int = 0
    """Independent pictures that move it, against the prior."""

    @property
    def title(self) -> str:
        """For tables."""
        return self.method if self.method == _BASE else f"{self.method} by {self.groups} groups"


@attrs.frozen(kw_only=True, eq=False)
class HeldOut:
    """One head's log-odds at even odds on rows that were held out, float64 (n,), NaN where there is no answer."""

    labels: Ints
    """-1 where unknown."""
    rows: Ints
    """Those that were compared."""
    before: Floats
    after: Floats


@attrs.frozen(kw_only=True, eq=False)
class Tuned:
    """What tuning came to."""

    bundle: Bundle
    """The base where nothing better was found."""
    improved: bool
    """Whether the bundle is another than the base."""
    reasons: tuple[str, ...]
    """Why, in words."""
    held_out: dict[str, HeldOut]
    """By head."""
    gains: dict[str, dict[str, Gain]]
    """By head, then by contender ("moved", "anew")."""
    choices: dict[str, Choice]
    """By head: how the final head was moved."""
    sets: dict[str, dict[str, dict[str, Any]]]
    """By pattern and label: groups, how many are needed, and where the scores come from."""
    curve: tuple[dict[str, Any], ...]
    """Learning curve: groups trained on, log loss and gain on held-out rows."""
    training: dict[str, Any]
    """What went into the manifest."""
    judged: ScoreTable | None = None
    """The rows of `held_out`, where they are not those of the table that was given."""


@attrs.frozen(kw_only=True, eq=False)
class _Task:
    name: str
    view: BaseView
    labels: Ints
    known: Ints
    weights: Floats
    groups: NDArray[np.str_]
    families: NDArray[np.str_]

    @classmethod
    def of(cls, base: Bundle, table: ScoreTable, name: str) -> _Task | None:
        if name not in base.heads:
            return None
        view = base_view(base, table, name)
        rows = labelled_rows(table, name, np.asarray(~np.isnan(view.values).all(axis=1)))
        if rows is None:
            return None
        return cls(
            name=name,
            view=view,
            labels=rows.labels,
            known=rows.known,
            weights=rows.weights,
            groups=table.group,
            families=table.family,
        )

    @property
    def least(self) -> int:
        return min(len(np.unique(self.groups[self.known][self.labels[self.known] == v])) for v in (0, 1))

    def folds(self, split: str, count: int, seed: int) -> tuple[Fold, ...]:
        y, g = self.labels[self.known], self.groups[self.known]
        made = family_folds(y, self.families[self.known], g, seed=seed) if split == "generator" else ()
        made = made or group_folds(y, g, count, seed)
        return tuple(Fold(self.known[f.train], self.known[f.test], f.held) for f in made)

    def base_odds(self, base: Bundle) -> Floats:
        """The base's answer with its limit; no answer is even odds, which is what a user is left with."""
        part = base.heads[self.name]
        kept = attrs.evolve(self.view, columns=part.columns, values=self._only(part.columns))
        odds = head_odds(part, kept)
        return np.where(np.isnan(odds), 0.0, odds)

    def _only(self, columns: Sequence[FeatureColumn]) -> Floats:
        place = {c.name: j for j, c in enumerate(self.view.columns)}
        return self.view.values[:, [place[c.name] for c in columns]]


@attrs.frozen(kw_only=True)
class _Comparison:
    """Two fusions on the same held-out rows."""

    task: _Task
    rows: Ints
    confidence: float
    draws: int
    seed: int

    def __call__(self, before: Floats, after: Floats) -> Gain:
        rows, task = self.rows, self.task
        return paired_gain(
            task.labels[rows],
            before[rows],
            after[rows],
            task.groups[rows],
            confidence=self.confidence,
            draws=self.draws,
            seed=self.seed,
        )


def fit_choice(base: Bundle, task: _Task, rows: Ints, choice: Choice) -> Head:
    """The base's head moved as chosen, with calibrators for the patterns that only the rows have."""
    part = base.heads[task.name]
    if choice.method == _BASE:
        return part
    fit = recalibrated if choice.method == "recalibrated" else reweighted
    head = fit(base, task.view, task.labels, task.weights, rows, 1 / choice.groups)
    if choice.method == "reweighted":
        columns = task.view.columns
        seen = {present_blocks(row, columns) for row in task.view.values[task.known]}
        head = with_new_patterns(head, part, sorted(seen, key=pattern_key))
    return head


def choose(base: Bundle, task: _Task, rows: Ints) -> Choice:
    """The richest way that the base's head allows.

    Nothing is chosen by the data: on few pictures, folds that choose a method and its ridge add more noise than they
    find, and the gain could not be proven (docs/tuning.md).
    """
    y, g = task.labels[rows], task.groups[rows]
    if min(len(np.unique(g[y == v])) for v in (0, 1)) < 2:
        return Choice(method=_BASE)
    method = "reweighted" if can_reweight(base, task.view) else "recalibrated"
    return Choice(method=method, groups=len(np.unique(g)))


def _odds_of(head: Head, task: _Task) -> Floats:
    place = {c.name: j for j, c in enumerate(task.view.columns)}
    values = task.view.values[:, [place[c.name] for c in head.columns]]
    odds = head_odds(head, attrs.evolve(task.view, columns=head.columns, values=values))
    return np.where(np.isnan(odds), 0.0, odds)


def tune_bundle(
    table: ScoreTable,
    base: Bundle,
    *,
    declarations: Mapping[str, Declaration] | None = None,
    seed: int = 0,
    folds: int = 5,
    split: str = "group",
    anew: str = "auto",
    error_rate: float | Mapping[Label, float] | Mapping[str, float] | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    always: bool = False,
    curve: bool = True,
    extra: Mapping[str, Any] | None = None,
) -> Tuned:
    """Tune `base` on a table.

    Parameters
    ----------
    table : ScoreTable
        Scores of pictures that no plugin trained on.
    base : Bundle
        What is moved, and what must be beaten.
    declarations : mapping of str to Declaration, optional
        Of the plugins that scored; their versions and weights' hashes go into the manifest.
    seed : int
        The same table, base and seed give the same bits.
    folds : int
        At least 2.
    split : {"group", "generator"}
        What a held-out fold holds: groups, or whole generators (and a real source with each).
    anew : {"auto", "never"}
        Whether a bundle trained without the base competes, from 200 pictures on.
    error_rate : float or mapping of Label to float, optional
        Of the prediction sets; default the base's.
    confidence : float
        Of the interval of the gain. With two contenders each gets half of what is left to 1.
    draws : int
        Of the bootstrap.
    always : bool
        Take the moved base whatever its gain: for weights that a person has set.
    curve : bool
        Whether the learning curve is computed, which trains three times more.
    extra : mapping, optional
        JSON-able, goes into the manifest's "training".

    Returns
    -------
    Tuned

    Raises
    ------
    ValueError
        A setting outside its range, or a column that means something else in the base.
    """
    if split not in SPLITS:
        raise ValueError(f'split takes "group" or "generator", got {split!r}')
    if anew not in ("auto", "never"):
        raise ValueError(f'anew takes "auto" or "never", got {anew!r}')
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise ValueError(f"folds takes an integer of at least 2, got {folds!r}")
    rates = resolve_error_rates(error_rate, base.error_rates)
    heads = dict(base.heads)
    held: dict[str, HeldOut] = {}
    gains: dict[str, dict[str, Gain]] = {}
    choices: dict[str, Choice] = {}
    reasons: list[str] = []
    kept_curve: tuple[dict[str, Any], ...] = ()
    moved = False
    for name in HEADS:
        task = _Task.of(base, table, name)
        if task is None or task.least < LEAST_GROUPS:
            if name == "p_ai" or (name in base.heads and (table.tampered >= 0).any()):
                have = 0 if task is None else task.least
                reasons.append(
                    f"{name}: {have} independent pictures of the rarer class, and {LEAST_GROUPS} are the least that "
                    "anything can be tuned on"
                )
            continue
        outer = task.folds(split, folds, seed)
        after = _held_out(base, task, outer)
        before = task.base_odds(base)
        rows = np.flatnonzero(np.isfinite(after))
        contenders = 2 if name == "p_ai" and _large(task, anew) else 1
        sure = 1 - (1 - confidence) / contenders

        compare = _Comparison(task=task, rows=rows, confidence=sure, draws=draws, seed=seed)
        gains[name] = {_MOVED: compare(before, after)}
        if contenders == 2:
            other = _trained_anew(table, task, outer, seed=seed, split=split)
            if np.isfinite(other[rows]).all():
                gains[name][_ANEW] = compare(before, other)
                # The moved base keeps every pattern that the base knew; a new bundle knows the table's only, so being
                # a hair better is not enough.
                if gains[name][_ANEW].proven and compare(after, other).proven and not always:
                    held[name] = HeldOut(labels=task.labels, rows=rows, before=before, after=other)
                    reasons.append(because(name, "trained anew", gains[name][_ANEW]))
                    return _anew(
                        table,
                        base,
                        declarations,
                        seed=seed,
                        split=split,
                        rates=rates,
                        held=held,
                        gains=gains,
                        reasons=reasons,
                        extra=extra,
                    )
        choice = choose(base, task, task.known)
        choices[name] = choice
        gain = gains[name][_MOVED]
        if (gain.proven or always) and choice.method != _BASE:
            heads[name] = fit_choice(base, task, task.known, choice)
            moved = True
            reasons.append(because(name, choice.title, gain, asked=always and not gain.proven))
        else:
            reasons.append(because(name, None, gain))
        held[name] = HeldOut(labels=task.labels, rows=rows, before=before, after=after)
        if curve and name == "p_ai":
            kept_curve = _curve(base, task, outer, before, seed=seed)
    if not moved:
        return Tuned(
            bundle=base,
            improved=False,
            reasons=tuple(reasons),
            held_out=held,
            gains=gains,
            choices=choices,
            sets={},
            curve=kept_curve,
            training={},
        )
    bundle, sets = _with_sets(base, table, heads, held, rates)
    training = training_of(
        table, base, bundle, declarations, seed=seed, folds=folds, split=split, gains=gains, extra=extra
    ) | {"choices": {n: c.title for n, c in sorted(choices.items())}, "sets": _sources_of(sets)}
    bundle = attrs.evolve(bundle, training=training)
    return Tuned(
        bundle=bundle,
        improved=True,
        reasons=tuple(reasons),
        held_out=held,
        gains=gains,
        choices=choices,
        sets=sets,
        curve=kept_curve,
        training=training,
    )


def bundle_odds(bundle: Bundle, table: ScoreTable, head: str = "p_ai") -> Floats:
    """Calibrated log-odds at even odds of every row, as `fuse` would give them; NaN where there is no answer.

    Parameters
    ----------
    bundle : Bundle
    table : ScoreTable
        Columns that the bundle does not know are passed over.
    head : {"p_ai", "p_tampered"}

    Returns
    -------
    float64 array (n,)
    """
    known = {c.name for c in bundle.columns}
    keep = [i for i, c in enumerate(table.columns) if c.name in known]
    if not keep:
        return np.full(len(table), np.nan)
    part = attrs.evolve(table, rows=table.rows[:, keep], columns=[table.columns[i] for i in keep])
    view = base_view(bundle, part, head)
    mine = bundle.heads[head]
    place = {c.name: j for j, c in enumerate(view.columns)}
    values = view.values[:, [place[c.name] for c in mine.columns]]
    return head_odds(mine, attrs.evolve(view, columns=mine.columns, values=values))


# -- comparing -------------------------------------------------------------------------------------------------------


def _large(task: _Task, anew: str) -> bool:
    return anew == "auto" and len(task.known) >= SMALL and task.least >= 2 * LEAST_GROUPS


def _held_out(base: Bundle, task: _Task, outer: Sequence[Fold]) -> Floats:
    """Log-odds of the moved base on rows that its fit never saw."""

    def fit(train: Ints) -> Any:
        odds = _odds_of(fit_choice(base, task, train, choose(base, task, train)), task)
        return lambda rows: odds[rows]

    return out_of_fold(fit, len(task.labels), tuple(outer))


def _trained_anew(table: ScoreTable, task: _Task, outer: Sequence[Fold], *, seed: int, split: str) -> Floats:
    def fit(train: Ints) -> Any:
        try:
            bundle, _ = train_bundle(table.take(train), seed=seed, calibrate_on=_calibrate_on(split))
        except ValueError:  # Too few pictures are left to calibrate on.
            return lambda rows: np.full(len(rows), np.nan)
        odds = bundle_odds(bundle, table)
        odds = np.where(np.isnan(odds), 0.0, odds)
        return lambda rows: odds[rows]

    return out_of_fold(fit, len(task.labels), tuple(outer))


def _calibrate_on(split: str) -> str:
    return "family" if split == "generator" else "group"


def _curve(
    base: Bundle, task: _Task, outer: Sequence[Fold], before: Floats, *, seed: int
) -> tuple[dict[str, Any], ...]:
    """Held-out log loss by how many groups were trained on, all on the same held-out rows."""
    out = []
    for share in CURVE:
        thinned = tuple(Fold(_thin(task, f.train, share, seed), f.test, f.held) for f in outer)
        odds = _held_out(base, task, thinned)
        rows = np.flatnonzero(np.isfinite(odds))
        y = task.labels[rows]
        weight = even_weights(y, task.groups[rows])
        old, new = log_losses(y, before[rows]), log_losses(y, odds[rows])
        out.append(
            {
                "share": share,
                "groups": float(np.mean([len(np.unique(task.groups[f.train])) for f in thinned])),
                "log_loss": float(weight @ new),
                "gain": float(weight @ (old - new)),
                "auc": metrics.auc(y, odds[rows]),
            }
        )
    return tuple(out)


def _thin(task: _Task, rows: Ints, share: float, seed: int) -> Ints:
    """The rows of a share of the groups, taken label by label."""
    if share >= 1:
        return rows
    keep: set[str] = set()
    rng = np.random.default_rng([seed, round(share * 1000)])
    for value in (0, 1):
        groups = np.unique(task.groups[rows][task.labels[rows] == value])
        keep |= set(rng.permutation(groups)[: max(2, math.ceil(share * len(groups)))].tolist())
    return rows[np.isin(task.groups[rows], sorted(keep))]


# -- the bundle ------------------------------------------------------------------------------------------------------


def _with_sets(
    base: Bundle,
    table: ScoreTable,
    heads: Mapping[str, Head],
    held: Mapping[str, HeldOut],
    rates: Mapping[Label, float],
) -> tuple[Bundle, dict[str, dict[str, dict[str, Any]]]]:
    """The base with new heads and with prediction sets for them."""
    columns = tuple(sorted({c.name: c for h in heads.values() for c in h.columns}.values(), key=lambda c: c.name))
    sources = tuple(dict.fromkeys([*base.sources, *sorted(set(table.source.tolist()))]))
    number = {s: i for i, s in enumerate(sources)}
    source_of = np.array([number[s] for s in table.source.tolist()], np.int32)
    bundle = attrs.evolve(base, columns=columns, heads=dict(heads), sources=sources, error_rates=dict(rates))
    place = {c.name: i for i, c in enumerate(table.columns)}
    values = np.full((len(table), len(columns)), np.nan)
    for j, c in enumerate(columns):
        if c.name in place:
            values[:, j] = table.rows[:, place[c.name]]
    odds = {
        n: held[n].after if n in held and heads[n] is not base.heads.get(n) else bundle_odds(bundle, table, n)
        for n in heads
    }
    new = {c.block for c in columns} - {c.block for c in base.columns}
    patterns = []
    for row in values:
        answered = present_blocks(row, columns)
        used = base.covering(answered - new) if answered - new else None
        patterns.append(pattern_key((used or frozenset()) | (answered & new)))
    kinds = np.array([str(k) for k in table.kinds])
    shares = [bundle.ai_share(row) for row in values]
    calibrated = heads["p_ai"].calibrators
    keys = dict.fromkeys([*base.conformal, *sorted({p for p in patterns if p})])
    conformal: dict[str, dict[Label, ClassScores]] = {}
    sets: dict[str, dict[str, dict[str, Any]]] = {}
    for key in keys:
        if pattern_key(frozenset(key.split("+")) & heads["p_ai"].blocks) not in calibrated:
            continue
        rows = np.flatnonzero([p == key for p in patterns])
        own = own_scores(kinds, table.group, source_of, odds, shares, rows)
        older, how = inherited(base, bundle, key)
        conformal[key], sets[key] = {}, {}
        for label in sorted({*own, *older}, key=str):
            need = needed_groups(rates[label], base.minimum_groups)
            have = own[label].groups if label in own else 0
            mine = have >= need
            chosen = own.get(label) if mine else older.get(label)
            if chosen is not None:
                conformal[key][label] = chosen
            sets[key][str(label)] = {
                "groups": have,
                "needed": need,
                "from": OWN if mine else (how if label in older else "none"),
            }
    auc = dict(base.pattern_auc)
    if "p_ai" in held:
        for key in conformal:
            rows = np.array([i for i in held["p_ai"].rows.tolist() if patterns[i] == key], int)
            if len(rows) and len(np.unique(table.label[rows])) == 2:
                auc[key] = metrics.auc(table.label[rows], held["p_ai"].after[rows])
    return attrs.evolve(bundle, conformal=conformal, pattern_auc={k: auc.get(k, 0.5) for k in conformal}), sets


def _sources_of(sets: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, str]]:
    return {k: {label: str(e["from"]) for label, e in v.items()} for k, v in sorted(sets.items())}


def _anew(
    table: ScoreTable,
    base: Bundle,
    declarations: Mapping[str, Declaration] | None,
    *,
    seed: int,
    split: str,
    rates: Mapping[Label, float],
    held: dict[str, HeldOut],
    gains: dict[str, dict[str, Gain]],
    reasons: list[str],
    extra: Mapping[str, Any] | None,
) -> Tuned:
    bundle, report = train_bundle(
        table,
        declarations=declarations,
        seed=seed,
        error_rate=dict(rates),
        calibrate_on=_calibrate_on(split),
        worst_source=base.worst_source,
        minimum_tasks=base.minimum_tasks,
        minimum_groups=base.minimum_groups,
        plausible=base.plausible,
    )
    training = bundle.training | training_of(
        table, base, bundle, declarations, seed=seed, folds=0, split=split, gains=gains, extra=extra
    )
    sets = {
        key: {
            str(label): {
                "groups": scores.groups,
                "needed": needed_groups(rates[label], bundle.minimum_groups),
                "from": OWN,
            }
            for label, scores in by_label.items()
        }
        for key, by_label in bundle.conformal.items()
    }
    training["choices"] = {name: entry["chosen"] for name, entry in report["heads"].items()}
    bundle = attrs.evolve(bundle, training=training)
    return Tuned(
        bundle=bundle,
        improved=True,
        reasons=tuple(reasons),
        held_out=held,
        gains=gains,
        choices={},
        sets=sets,
        curve=(),
        training=training,
    )


def training_of(
    table: ScoreTable,
    base: Bundle,
    bundle: Bundle,
    declarations: Mapping[str, Declaration] | None,
    *,
    seed: int,
    folds: int,
    split: str,
    gains: Mapping[str, Mapping[str, Gain]],
    extra: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the manifest says of the tuning."""
    used = {c.plugin for c in bundle.columns}
    plugins = {n: p for n, p in base.training.get("plugins", {}).items() if n in used}
    plugins |= scored_by(declarations, bundle.columns)
    return {
        "base": base.version,
        "base_sha256": base.sha256,
        "data_sha256": table.sha256,
        "rows": len(table),
        "groups": len(np.unique(table.group)),
        "seed": seed,
        "folds": folds,
        "split": split,
        "plugins": plugins,
        "gain": {h: {k: attrs.asdict(g) for k, g in sorted(v.items())} for h, v in sorted(gains.items())},
        "versions": libraries(),
        **dict(extra or {}),
    }


def because(head: str, title: str | None, gain: Gain, *, asked: bool = False) -> str:
    """Why a head is what it is, in words; `title` is None where the base is kept."""
    interval = f"{gain.confidence:.1%} interval [{gain.low:+.4f}, {gain.high:+.4f}]"
    shown = f"{gain.mean:+.4f} nats per picture held out, {interval}"
    if title is None:
        return f"{head}: the base is kept, because the gain of changing it is not proven: {shown}"
    if asked:
        return f"{head}: {title}, because it was asked for and not because it is better: {shown}"
    return f"{head}: {title}: {shown}"


__all__ = [
    "LEAST_GROUPS",
    "SPLITS",
    "Choice",
    "HeldOut",
    "Tuned",
    "because",
    "bundle_odds",
    "choose",
    "fit_choice",
    "training_of",
    "tune_bundle",
]
