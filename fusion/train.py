"""Trains a bundle on a score table, and says how good it is where it was not trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, cast

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.schemas import DEFINITE_LABELS, HEADS, Declaration, Label, label_probabilities

from . import metrics
from .baselines import SingleColumns, fit_single_columns
from .booster import LADDER, BoosterConfig, BoosterHead, fit_booster
from .bundle import PLAUSIBLE, Bundle, Head
from .calibration import Affine, fit_calibrator, fit_isotonic, logit, sigmoid
from .conformal import DEFAULT_ERROR_RATES, ClassScores, group_weights, resolve_error_rates
from .features import FeatureColumn, keep_blocks, pattern_key, present_blocks
from .folds import Fold, family_folds, group_folds
from .logistic import LogisticHead, fit_logistic, plugin_shares
from .origin import libraries, scored_by
from .paired import differences
from .table import ScoreTable

TrainingReport = dict[str, Any]
"""JSON-able; NaN never occurs in it (None instead)."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Pattern = frozenset[str]
Scorer = Callable[[Floats], Floats]

SMALL = 200
"""Below so many pictures the logistic stack is taken without asking the booster."""

TOLERANCE = {"auc": 0.002, "log_loss": 0.002}
"""By how much the booster may be worse before it counts as having lost."""

_MOST_PATTERNS = 64
_LEAST_GROUPS = 10
_FAMILY_FLOOR = 10
_L2_GRID = (0.003, 0.03, 0.3)
_ALIKE_GRID = (0.03, 0.3, math.inf)
_DROPOUT_SEED, _ROUNDS_SEED = 1, 2


def drop_blocks(
    values: Floats, columns: Sequence[FeatureColumn], *, rate: float, copies: int, seed: int
) -> tuple[Floats, Ints]:
    """Copy every row `copies` times with whole blocks set to NaN.

    Each block that a row has is dropped with probability `rate`, drawn again until at least one stays, so that the
    model knows every part of every pattern.

    Parameters
    ----------
    values : float64 array (n, columns)
    columns : sequence of FeatureColumn
    rate : float
        In [0, 1).
    copies : int
        At least 1.
    seed : int

    Returns
    -------
    values : float64 array (n * copies, columns)
    rows : int64 array (n * copies,)
        Number of the row that each was copied from.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate takes a number in [0, 1), got {rate!r}")
    if copies < 1:
        raise ValueError(f"copies takes an integer of at least 1, got {copies!r}")
    blocks = sorted({c.block for c in columns})
    member = np.array([[c.block == b for c in columns] for b in blocks])
    rows = np.repeat(np.arange(len(values)), copies)
    out = np.array(values[rows], np.float64)
    present = (~np.isnan(out))[:, None, :] & member[None]
    has = present.any(2)
    rng = np.random.default_rng([seed, _DROPOUT_SEED])
    kept = np.zeros_like(has)
    todo = has.any(1)
    while todo.any():
        draw = rng.random((int(todo.sum()), len(blocks))) >= rate
        kept[todo] = draw & has[todo]
        todo &= ~kept.any(1)
    gone = has & ~kept
    out[(gone[:, :, None] & member[None]).any(1)] = np.nan
    return out, rows


def sample_weights(table: ScoreTable, labels: Ints, head: str = "p_ai") -> Floats:
    """Weights under which both labels weigh the same and no large family dominates its label.

    A row weighs one over the rows of its group under its pattern; a family of label 0 or 1 is then divided by its
    number of groups, at least 10 so that a family of three pictures does not rule; last both labels are brought to
    the same sum and the mean to 1.
    """
    places = [i for i, c in enumerate(table.columns) if c.head == head]
    mine = [table.columns[i] for i in places]
    patterns = [pattern_key(present_blocks(row, mine)) for row in table.rows[:, places]]
    keys = np.array([f"{g}|{p}" for g, p in zip(table.group, patterns, strict=True)])
    weights = group_weights(keys)
    for label in (0, 1):
        own = labels == label
        for family in np.unique(table.family[own]):
            part = own & (table.family == family)
            weights[part] /= max(len(np.unique(table.group[part])), _FAMILY_FLOOR)
        if own.any():
            weights[own] *= len(labels) / 2 / weights[own].sum()
    return weights


@attrs.frozen(kw_only=True, eq=False)
class LabelledRows:
    """What of a table a head can be trained on."""

    labels: Ints
    """Per row; -1 where unknown."""
    known: Ints
    """Row numbers that can be trained on."""
    weights: Floats
    """Per row, `sample_weights`; NaN where unknown."""


def labelled_rows(
    table: ScoreTable, head: str, answered: NDArray[np.bool_], *, aside: Sequence[str] = ()
) -> LabelledRows | None:
    """The rows with a label for the head and an answer in its columns; None without two groups of each label.

    Rows whose split is in `aside` have none for `p_ai`.
    """
    labels = table.label if head == "p_ai" else table.tampered
    usable = (labels >= 0) & answered
    if head == "p_ai":
        usable &= ~np.isin(table.split, list(aside))
    known = np.flatnonzero(usable)
    if any(len(np.unique(table.group[known][labels[known] == v])) < 2 for v in (0, 1)):
        return None
    weights = np.full(len(table), np.nan)
    weights[known] = sample_weights(table.take(known), labels[known], head)
    return LabelledRows(labels=labels, known=known, weights=weights)


def train_bundle(
    table: ScoreTable,
    *,
    declarations: Mapping[str, Declaration] | None = None,
    seed: int = 0,
    head: str = "auto",
    error_rate: float | Mapping[Label, float] | Mapping[str, float] | None = None,
    worst_source: bool = True,
    minimum_tasks: int = 1,
    minimum_groups: int = 20,
    plausible: float = PLAUSIBLE,
    dropout: float = 0.3,
    copies: int = 2,
    folds: int = 5,
    calibration: str = "auto",
    calibrate_on: str = "group",
    ladder: Sequence[BoosterConfig] = LADDER,
    extra: Mapping[str, Any] | None = None,
    beside: ScoreTable | None = None,
    tampered_share: float = 0.5,
    aside: Sequence[str] = (),
) -> tuple[Bundle, TrainingReport]:
    """Train heads, calibrators and conformal scores.

    Parameters
    ----------
    table : ScoreTable
        Scores of the shipped plugins on pictures that none of them trained on.
    declarations : mapping of str to Declaration, optional
        Their versions and weights' hashes go into the manifest, and `Bundle.fuse` notices others.
    seed : int
        The same table and seed give the same bits.
    head : {"auto", "booster", "logistic"}
        "auto" compares both leaving out generator families, simplifies the booster until it does not lose and takes
        the logistic stack where it always does, or where there are fewer than 200 pictures.
    error_rate : float or mapping of Label to float, optional
        Default .02 for authentic, .05 for the others.
    worst_source : bool
        Whether the quantile of `authentic` is that of the worst real source with at least 20 groups. Both are
        reported.
    minimum_tasks : int
        With fewer answered tasks the verdict is uncertain.
    minimum_groups : int
        A class with fewer groups under a pattern stays in every set.
    plausible : float
        In (0, .5]; a label of at least this probability stays in the set, so a definite verdict is at least
        1 - `plausible` sure by its own calibration. At .5 the sets decide alone.
    dropout, copies : float, int
        See `drop_blocks`.
    folds : int
        Of the out-of-fold margins that calibrators and conformal scores are fitted on.
    calibration : {"auto", "temperature", "platt"}
        Isotonic has no slope to split into contributions; the report says what it would give.
    calibrate_on : {"group", "family"}
        Whether those margins come from folds by group, or from folds that leave out whole families: the second is
        nearer to a generator that nobody has seen.
    ladder : sequence of BoosterConfig
        From complex to simple.
    extra : mapping, optional
        JSON-able, goes into the manifest's "training" beside its own entries.
    beside : ScoreTable, optional
        Scores of other pictures from which the head `p_ai` learns the balance of its columns too, weighing as much as
        `table` does: families that the plugins know, by heads fitted without them. They are brought to each column's
        mean and spread in `table`. How the stack is penalised, and whether a booster loses against it, is then judged
        on held-out families of both tables; calibrators and conformal scores rest on `table` alone.
    tampered_share : float
        In (0, 1): the share of tampered pictures, among those without synthesised pixels, that `p_tampered` assumes.
        Calibration is at even odds, and at even odds a plugin that sees some kinds of tampering leaves every
        photograph nearly as likely tampered as not.
    aside : sequence of str
        Splits whose rows teach `p_tampered` and the sets, and `p_ai` nothing: forgeries of the same photographs.

    Returns
    -------
    bundle : Bundle
    report : dict
        "table", "heads" (per head: the penalties that were tried; contenders with AUC, balanced accuracy, ECE, Brier
        and log loss out of fold and out of family per pattern, and beside the table, with paired differences from the
        stack; the choice and why), "calibration", "conformal" (counts, quantiles with and without the
        guard), "out_of_family" (coverage, definite verdicts and false accusations under leave-one-family-out, nested:
        model, calibrators and quantiles know nothing of the held family).

    Raises
    ------
    ValueError
        A setting outside its range, or a table without two groups of each label.
    """
    if head not in ("auto", "booster", "logistic"):
        raise ValueError(f'head takes "auto", "booster" or "logistic", got {head!r}')
    if calibrate_on not in ("group", "family"):
        raise ValueError(f'calibrate_on takes "group" or "family", got {calibrate_on!r}')
    if calibration not in ("auto", "temperature", "platt"):
        raise ValueError(f'calibration takes "auto", "temperature" or "platt", got {calibration!r}')
    if not ladder:
        raise ValueError("ladder takes at least one BoosterConfig, got none")
    for name, value, least in (("folds", folds, 2), ("minimum_tasks", minimum_tasks, 1), ("copies", copies, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} takes an integer of at least {least}, got {value!r}")
    if minimum_groups < 1:
        raise ValueError(f"minimum_groups takes an integer of at least 1, got {minimum_groups!r}")
    if isinstance(plausible, bool) or not isinstance(plausible, int | float) or not 0 < plausible <= 0.5:
        raise ValueError(f"plausible takes a number in (0, .5], got {plausible!r}")
    if isinstance(tampered_share, bool) or not isinstance(tampered_share, int | float) or not 0 < tampered_share < 1:
        raise ValueError(f"tampered_share takes a number between 0 and 1, both excluded, got {tampered_share!r}")
    settings = _Settings(
        seed=seed,
        tampered_share=float(tampered_share),
        aside=tuple(aside),
        rates=resolve_error_rates(error_rate, DEFAULT_ERROR_RATES),
        worst_source=worst_source,
        minimum_tasks=minimum_tasks,
        minimum_groups=minimum_groups,
        plausible=float(plausible),
        dropout=dropout,
        copies=copies,
        folds=folds,
        calibration=calibration,
        calibrate_on=calibrate_on,
        beside=None if beside is None else _Beside.of(table, beside),
    )
    recipes: dict[str, _Recipe] = {}
    report: TrainingReport = {"table": _describe(table), "heads": {}}
    for name in HEADS:
        task = _HeadTask.of(table, name, settings.aside)
        if task is None:
            continue
        recipes[name], report["heads"][name] = _choose(task, settings, head, ladder)
    if "p_ai" not in recipes:
        raise ValueError("table takes p_ai columns with at least two groups of each label, got none")
    bundle, made = _assemble(table, recipes, settings)
    training = {
        "data_sha256": table.sha256,
        "rows": len(table),
        "groups": len(np.unique(table.group)),
        "dropout": {"rate": dropout, "copies": copies},
        "seed": seed,
        "folds": folds,
        "calibrate_on": calibrate_on,
        "tampered_share": tampered_share,
        "beside": None if beside is None else {"rows": len(beside), "data_sha256": beside.sha256},
        "heads": {name: recipe.title for name, recipe in recipes.items()},
        "compared": {name: _compared(entry) for name, entry in report["heads"].items()},
        "plugins": scored_by(declarations, table.columns),
        "versions": libraries(),
        **dict(extra or {}),
    }
    bundle = attrs.evolve(bundle, training=training)
    report["calibration"] = _calibration_report(bundle, table, made, settings.aside)
    report["conformal"] = _conformal_report(bundle)
    report["out_of_family"] = _out_of_family(table, recipes, settings)
    return bundle, cast(TrainingReport, _plain(report))


# -- one head ----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Settings:
    seed: int
    rates: dict[Label, float]
    worst_source: bool
    minimum_tasks: int
    minimum_groups: int
    plausible: float
    dropout: float
    copies: int
    folds: int
    calibration: str
    calibrate_on: str
    beside: _Beside | None = None
    tampered_share: float = 0.5
    aside: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False)
class _Beside:
    """Rows that take part in choosing and fitting `p_ai`, and in nothing else."""

    task: _HeadTask

    @classmethod
    def of(cls, table: ScoreTable, beside: ScoreTable) -> _Beside:
        if len(np.unique(beside.label)) < 2:
            raise ValueError("beside takes rows of both labels, got one")
        columns = [c for c in table.columns if c.head == "p_ai"]
        if not {c.name for c in columns} & {c.name for c in beside.columns}:
            raise ValueError(f"beside takes some of the columns {[c.name for c in columns]}, got none of them")
        place = {c.name: i for i, c in enumerate(beside.columns)}
        weights = sample_weights(beside, beside.label)
        theirs = sample_weights(table, table.label)
        values = np.full((len(beside), len(columns)), np.nan)
        for j, column in enumerate(columns):
            if column.name not in place:
                continue
            mine, target = beside.rows[:, place[column.name]], table.rows[:, table.columns.index(column)]
            (centre, spread), (to_centre, to_spread) = _moments(mine, weights), _moments(target, theirs)
            # Scores of cross-fitted heads have a scale of their own, which says nothing of how far to trust them.
            values[:, j] = (mine - centre) * (to_spread / spread if spread > 0 else 0.0) + to_centre
        scaled = ScoreTable(
            rows=values,
            columns=columns,
            label=beside.label,
            group=beside.group,
            source=beside.source,
            family=beside.family,
            split=beside.split,
        )
        task = _HeadTask.of(scaled, "p_ai")
        if task is None:
            raise ValueError("beside takes at least two groups of each label with an answer, got fewer")
        return cls(task=task)


def _moments(values: Floats, weights: Floats) -> tuple[float, float]:
    """Weighted mean and standard deviation of the numbers among `values`; 0 and 0 without any."""
    known = ~np.isnan(values)
    if not known.any():
        return 0.0, 0.0
    w = weights[known] / weights[known].sum()
    mean = float((w * values[known]).sum())
    return mean, math.sqrt(float((w * (values[known] - mean) ** 2).sum()))


@attrs.frozen(kw_only=True, eq=False)
class _HeadTask:
    """One head's part of a table."""

    name: str
    table: ScoreTable
    columns: tuple[FeatureColumn, ...]
    values: Floats
    """(n, the head's columns)."""
    labels: Ints
    """-1 where unknown."""
    known: Ints
    """Row numbers that can be trained on."""
    weights: Floats
    patterns: tuple[Pattern, ...]
    """Of the head's blocks, per row."""

    @classmethod
    def of(cls, table: ScoreTable, name: str, aside: Sequence[str] = ()) -> _HeadTask | None:
        """None where the table has nothing to train this head on."""
        places = [i for i, c in enumerate(table.columns) if c.head == name]
        if not places:
            return None
        columns = tuple(table.columns[i] for i in places)
        # By the head's own columns: a block may have answered the other head's question only.
        patterns = tuple(present_blocks(row, columns) for row in table.rows[:, places])
        rows = labelled_rows(table, name, np.array([bool(p) for p in patterns]), aside=aside)
        if rows is None:
            return None
        return cls(
            name=name,
            table=table,
            columns=columns,
            values=table.rows[:, places],
            labels=rows.labels,
            known=rows.known,
            weights=rows.weights,
            patterns=patterns,
        )

    def observed(self) -> tuple[Pattern, ...]:
        return tuple(sorted({p for p in self.patterns if p}, key=lambda p: (len(p), pattern_key(p))))

    def rows_with(self, pattern: Pattern) -> NDArray[np.bool_]:
        return np.array([pattern <= p for p in self.patterns])

    def natural(self, pattern: Pattern) -> NDArray[np.bool_]:
        return np.array([pattern == p for p in self.patterns])


@attrs.frozen(kw_only=True)
class _Recipe:
    """How a head's model is fitted."""

    kind: str
    """booster, logistic, or a yardstick: or, mean, best_single."""
    config: BoosterConfig | None = None
    l2: float = 0.03
    alike: bool = False
    """Whether the stack's weights are drawn to every plugin counting the same, instead of to 0."""

    @property
    def title(self) -> str:
        if self.config is not None:
            return f"{self.config.title} rounds {self.config.rounds}"
        if self.kind != "logistic":
            return self.kind
        if not self.alike:
            return f"logistic l2 {self.l2:g}"
        return "logistic, plugins alike" + ("" if math.isinf(self.l2) else f", l2 {self.l2:g}")

    def fit(self, task: _HeadTask, train: Ints, settings: _Settings) -> LogisticHead | BoosterHead:
        values, labels, weights = self._rows(task, train, settings)
        if self.kind == "logistic":
            balance = plugin_shares(values, task.columns) if self.alike else None
            return fit_logistic(values, labels, task.columns, weights=weights, l2=self.l2, towards=balance)
        if self.config is None:
            raise ValueError(f"kind takes booster or logistic, got {self.kind!r}")
        return fit_booster(values, labels, task.columns, self.config, weights=weights, seed=settings.seed)[0]

    def scorer(self, task: _HeadTask, train: Ints, settings: _Settings) -> Scorer:
        """A function from rows to margins; the yardsticks included."""
        if self.kind in ("booster", "logistic"):
            return self.fit(task, train, settings).margin
        values, labels, weights = self._both(task, train, settings)
        single: SingleColumns = fit_single_columns(values, labels, task.columns, weights)
        return {"or": single.highest, "mean": single.mean, "best_single": single.best}[self.kind]

    def _both(self, task: _HeadTask, train: Ints, settings: _Settings) -> tuple[Floats, Ints, Floats]:
        """The training rows of the table, and those beside it with the same total weight."""
        usable = np.intersect1d(train, task.known)
        values, labels, weights = task.values[usable], task.labels[usable], task.weights[usable]
        if settings.beside is None or task.name != "p_ai":
            return values, labels, weights
        other = settings.beside.task
        their = other.weights[other.known] * (weights.sum() / other.weights[other.known].sum())
        return (
            np.vstack([values, other.values[other.known]]),
            np.append(labels, other.labels[other.known]),
            np.append(weights, their),
        )

    def _rows(self, task: _HeadTask, train: Ints, settings: _Settings) -> tuple[Floats, Ints, Floats]:
        """`_both` with blocks dropped."""
        values, labels, weights = self._both(task, train, settings)
        values, rows = drop_blocks(
            values, task.columns, rate=settings.dropout, copies=settings.copies, seed=settings.seed
        )
        # Copies share their row's weight: `min_child_weight` should count pictures.
        return values, labels[rows], weights[rows] / settings.copies

    def with_rounds(self, task: _HeadTask, folds: Sequence[Fold], settings: _Settings) -> _Recipe:
        """The recipe with the median best number of rounds of early stopping on held-out groups."""
        if self.config is None:
            return self
        best = []
        for fold in folds:
            values, labels, weights = self._rows(task, fold.train, settings)
            held = np.intersect1d(fold.test, task.known)
            _, rounds = fit_booster(
                values,
                labels,
                task.columns,
                self.config,
                weights=weights,
                seed=settings.seed,
                held=(task.values[held], task.labels[held], task.weights[held]),
            )
            best.append(rounds)
        return attrs.evolve(self, config=attrs.evolve(self.config, rounds=max(1, int(np.median(best)))))


def subsets(patterns: Sequence[Pattern]) -> tuple[Pattern, ...]:
    """Every non-empty part of every pattern; where those are too many: themselves, less one block, and singles."""
    full: set[Pattern] = set()
    for p in patterns:
        if len(p) > 12:
            full = set()
            break
        full |= {frozenset(c) for n in range(1, len(p) + 1) for c in combinations(sorted(p), n)}
    if not full or len(full) > _MOST_PATTERNS:
        full = set(patterns) | {frozenset({b}) for p in patterns for b in p}
        full |= {p - {b} for p in patterns for b in p if len(p) > 1}
    return tuple(sorted(full, key=lambda p: (len(p), pattern_key(p))))


def _group_folds(task: _HeadTask, settings: _Settings) -> tuple[Fold, ...]:
    """Folds over all rows: rows without a label for this head are scored, never trained on."""
    y = np.where(task.labels == 1, 1, 0)
    made = group_folds(y[task.known], task.table.group[task.known], settings.folds, settings.seed)
    return _over_all_rows(task, made)


def _family_folds(task: _HeadTask, settings: _Settings) -> tuple[Fold, ...]:
    """Folds over all rows that hold out families."""
    table = task.table
    made = family_folds(task.labels[task.known], table.family[task.known], table.group[task.known], seed=settings.seed)
    return _over_all_rows(task, made)


def _over_all_rows(task: _HeadTask, made: Sequence[Fold]) -> tuple[Fold, ...]:
    """Folds of the known rows, with the other rows spread over their test parts."""
    if not made:
        return ()
    group = task.table.group
    rest = np.setdiff1d(np.arange(len(task.labels)), task.known)
    out = []
    for fold, part in zip(made, np.array_split(rest, len(made)), strict=True):
        test = np.concatenate([task.known[fold.test], part])
        train = task.known[fold.train]
        # A row without a label may share its group with rows that train elsewhere.
        out.append(Fold(train[~np.isin(group[train], group[part])], test, fold.held))
    return tuple(out)


def _margins(
    recipe: _Recipe, task: _HeadTask, folds: Sequence[Fold], patterns: Sequence[Pattern], settings: _Settings
) -> dict[str, Floats]:
    """Out-of-fold margins by pattern, float64 (n,): NaN for rows that lack the pattern or that no fold holds out.

    Each fold's margins are centred on its own training rows, and the final model's calibrator takes the final model's
    centre: where a pattern is weak or rare in training, the models of different folds differ in offset, and quantiles
    of raw margins would not hold for the final model (on toys a booster's coverage fell to 0 under such a pattern).
    """
    total = {pattern_key(p): np.zeros(len(task.values)) for p in patterns}
    count = {key: np.zeros(len(task.values)) for key in total}
    has = {pattern_key(p): task.rows_with(p) for p in patterns}
    for fold in folds:
        score = recipe.scorer(task, fold.train, settings)
        for p in patterns:
            key = pattern_key(p)
            rows = fold.test[has[key][fold.test]]
            centre = _centre(score, task, fold.train, p)
            if len(rows) and centre is not None:
                total[key][rows] += score(keep_blocks(task.values[rows], task.columns, p)) - centre
                count[key][rows] += 1
    return {k: np.where(count[k] > 0, total[k] / np.maximum(count[k], 1), np.nan) for k in total}


def _centre(score: Scorer, task: _HeadTask, train: Ints, pattern: Pattern) -> float | None:
    """Weighted mean margin of the training rows under a pattern, None where no row has it."""
    usable = np.intersect1d(train, task.known)
    rows = usable[task.rows_with(pattern)[usable]]
    if not len(rows):
        return None
    margins = score(keep_blocks(task.values[rows], task.columns, pattern))
    return float(np.average(margins, weights=task.weights[rows]))


def _counts(task: _HeadTask, rows: Ints) -> tuple[float, float]:
    zero, one = (float(len(np.unique(task.table.group[rows[task.labels[rows] == v]]))) for v in (0, 1))
    return zero, one


def _calibrators(task: _HeadTask, margins: Mapping[str, Floats], settings: _Settings) -> dict[str, Affine]:
    out = {}
    for key, values in margins.items():
        rows = task.known[np.isfinite(values[task.known])]
        counts = _counts(task, rows)
        if min(counts) >= _LEAST_GROUPS:
            fitted = fit_calibrator(
                values[rows], task.labels[rows], settings.calibration, weights=task.weights[rows], counts=counts
            )
            if isinstance(fitted, Affine):
                out[key] = fitted
    return out


def _scored(
    task: _HeadTask,
    patterns: Sequence[Pattern],
    margins: Mapping[str, Floats],
    calibrators: Mapping[str, Affine],
) -> dict[str, dict[str, float | int]]:
    """Metrics by pattern, over the rows that have just this pattern where there are any, else all that include it."""
    out = {}
    for p in patterns:
        key = pattern_key(p)
        rows = task.known[np.isfinite(margins[key][task.known])]
        natural = rows[task.natural(p)[rows]]
        rows = natural if len(natural) else rows
        if key in calibrators and len(rows):
            z = calibrators[key].log_odds(margins[key][rows])
            entry = metrics.summary(task.labels[rows], z, task.weights[rows])
            # The calibrator's limit makes ties among the surest; ranking is the margin's.
            entry["auc"] = metrics.auc(task.labels[rows], margins[key][rows])
            out[key] = entry
    return out


def _by_family(
    task: _HeadTask, folds: Sequence[Fold], margins: Mapping[str, Floats], patterns: Sequence[Pattern]
) -> dict[str, dict[str, float]]:
    """AUC of every held family of label 1 against all held-out rows of label 0, by pattern."""
    out: dict[str, dict[str, float]] = {}
    for p in patterns:
        key, values = pattern_key(p), margins[pattern_key(p)]
        rows = task.known[np.isfinite(values[task.known]) & task.natural(p)[task.known]]
        zero = rows[task.labels[rows] == 0]
        ones = rows[task.labels[rows] == 1]
        aucs = {}
        for family in np.unique(task.table.family[ones]).tolist():
            mine = ones[task.table.family[ones] == family]
            both = np.concatenate([zero, mine])
            aucs[str(family)] = metrics.auc(task.labels[both], values[both])
        out[key] = aucs
    return out


@attrs.frozen(kw_only=True, eq=False)
class _Odds:
    """Calibrated held-out log-odds of the rows that one pattern is natural to."""

    labels: Ints
    values: Floats
    weights: Floats
    families: NDArray[np.str_]


def _odds(
    task: _HeadTask, patterns: Sequence[Pattern], margins: Mapping[str, Floats], calibrators: Mapping[str, Affine]
) -> dict[str, _Odds]:
    out = {}
    for p in patterns:
        values = margins[pattern_key(p)]
        rows = task.known[np.isfinite(values[task.known]) & task.natural(p)[task.known]]
        if pattern_key(p) in calibrators and len(np.unique(task.labels[rows])) == 2:
            odds = calibrators[pattern_key(p)].log_odds(values[rows])
            out[pattern_key(p)] = _Odds(
                labels=task.labels[rows],
                values=odds,
                weights=task.weights[rows],
                families=task.table.family[rows],
            )
    return out


def _against(mine: Mapping[str, _Odds], theirs: Mapping[str, _Odds], seed: int) -> dict[str, Any]:
    """Paired differences, by family, over all patterns together."""
    both = [k for k in theirs if k in mine]
    if not both:
        return {}
    labels, weights, families = (
        np.concatenate([getattr(theirs[k], f) for k in both]) for f in ("labels", "weights", "families")
    )
    one, other = (np.concatenate([x[k].values for k in both]) for x in (mine, theirs))
    found = differences(labels, one, other, weights, families, seed=seed)
    return {name: attrs.asdict(value) for name, value in found.items()}


@attrs.frozen(kw_only=True, eq=False)
class _Held:
    """The rows beside the table, judged by models that knew the whole table and none of their family."""

    task: _HeadTask
    folds: tuple[Fold, ...]
    settings: _Settings

    @classmethod
    def of(cls, task: _HeadTask, settings: _Settings) -> _Held | None:
        """None for a head that learns from no rows beside the table."""
        if settings.beside is None or task.name != "p_ai":
            return None
        theirs = settings.beside.task
        folds = _family_folds(theirs, settings) or _group_folds(theirs, settings)
        return cls(task=theirs, folds=folds, settings=attrs.evolve(settings, beside=_Beside(task=task)))

    def judge(self, recipe: _Recipe) -> tuple[dict[str, Any], dict[str, _Odds]]:
        """AUC (by weight) and log loss by pattern and their means, and the held-out log-odds by pattern."""
        patterns = self.task.observed()
        margins = _margins(recipe, self.task, self.folds, patterns, self.settings)
        # Nothing of these rows is calibrated in what ships: their scale is whatever fits.
        calibrators = _calibrators(self.task, margins, self.settings)
        found = _scored(self.task, patterns, margins, calibrators)
        odds = _odds(self.task, patterns, margins, calibrators)
        for key, held in odds.items():
            found[key]["auc"] = metrics.auc(held.labels, held.values, held.weights)
        means = {name: _mean([float(e[name]) for e in found.values()]) for name in ("auc", "log_loss")}
        return {**means, "by_pattern": found}, odds


def _stack(
    task: _HeadTask, groups: Sequence[Fold], settings: _Settings, other: _Held | None
) -> tuple[_Recipe, list[dict[str, Any]]]:
    """The stack's penalty, and what every one that was tried gave.

    By log loss on held-out groups; with rows beside the table by the mean of the log losses on held-out families of
    both tables, where plugins that all count the same are tried too. Of equal ones (beside: within the tolerance) the
    one that says least of its own.
    """
    observed = task.observed()
    folds = groups if other is None else (_family_folds(task, settings) or groups)
    recipes = [_Recipe(kind="logistic", l2=x) for x in reversed(_L2_GRID)]
    if other is not None:
        recipes += [_Recipe(kind="logistic", l2=x, alike=True) for x in _ALIKE_GRID]
        # From the one with no balance of its own to the freest.
        recipes.sort(key=lambda r: (-r.l2, not r.alike))
    tried: list[dict[str, Any]] = []
    for recipe in recipes:
        margins = _margins(recipe, task, folds, observed, settings)
        scored = _scored(task, observed, margins, _calibrators(task, margins, settings))
        line: dict[str, Any] = {
            "recipe": recipe.title,
            "auc": _mean([float(e["auc"]) for e in scored.values()]),
            "log_loss": _mean([float(e["log_loss"]) for e in scored.values()]),
        }
        line["score"] = line["log_loss"]
        if other is not None:
            line["beside"] = {k: v for k, v in other.judge(recipe)[0].items() if k != "by_pattern"}
            line["score"] = (line["log_loss"] + line["beside"]["log_loss"]) / 2
        tried.append(line)
    # NaN where no pattern could be calibrated.
    scores = [math.inf if math.isnan(t["score"]) else t["score"] for t in tried]
    if other is None:
        return recipes[min(range(len(scores)), key=lambda i: round(scores[i], 4))], tried
    best = min(scores)
    return recipes[next(i for i, x in enumerate(scores) if x <= best + TOLERANCE["log_loss"])], tried


def _choose(
    task: _HeadTask, settings: _Settings, head: str, ladder: Sequence[BoosterConfig]
) -> tuple[_Recipe, dict[str, Any]]:
    """Compare, simplify, choose."""
    observed = task.observed()
    groups, families = _group_folds(task, settings), _family_folds(task, settings)
    outer = families or groups
    other = _Held.of(task, settings)
    contenders: dict[str, Any] = {}
    kept: dict[str, tuple[dict[str, _Odds], dict[str, _Odds]]] = {}

    def measure(recipe: _Recipe, name: str) -> dict[str, Any]:
        inside = _margins(recipe, task, groups, observed, settings)
        outside = _margins(recipe, task, outer, observed, settings)
        calibrators = _calibrators(task, inside, settings)
        by_family = _by_family(task, outer, outside, observed)
        worst = min(
            ((v, f, k) for k, per in by_family.items() for f, v in per.items() if not math.isnan(v)), default=None
        )
        scored = _scored(task, observed, outside, calibrators)
        entry: dict[str, Any] = {
            "recipe": recipe.title,
            "out_of_fold": _scored(task, observed, inside, calibrators),
            "out_of_family": scored,
            "auc": _mean([e["auc"] for e in scored.values()]),
            "log_loss": _mean([e["log_loss"] for e in scored.values()]),
            "mean_family_auc": _mean([_mean(list(per.values())) for per in by_family.values()]),
            "worst_family": None if worst is None else {"family": worst[1], "pattern": worst[2], "auc": worst[0]},
            "family_auc": by_family,
        }
        mine = _odds(task, observed, outside, calibrators)
        beside: dict[str, _Odds] = {}
        if other is not None:
            entry["beside"], beside = other.judge(recipe)
        kept[name] = (mine, beside)
        if name != "logistic":
            entry["against_logistic"] = _against(mine, kept["logistic"][0], settings.seed)
            if other is not None:
                entry["beside"]["against_logistic"] = _against(beside, kept["logistic"][1], settings.seed)
        contenders[name] = entry
        return entry

    logistic, penalties = _stack(task, groups, settings, other)
    yardstick = measure(logistic, "logistic")
    for kind in ("or", "mean", "best_single"):
        measure(_Recipe(kind=kind), kind)

    pictures = max(len(task.known[task.natural(p)[task.known]]) for p in observed)
    chosen, why = logistic, ""
    tried: list[str] = []
    if head == "logistic":
        why = "the logistic stack was asked for"
    elif head == "auto" and pictures < SMALL:
        why = f"{pictures} pictures, fewer than {SMALL}: the logistic stack"
    else:
        for config in ladder:
            recipe = _Recipe(kind="booster", config=config).with_rounds(task, groups, settings)
            tried.append(recipe.title)
            entry = measure(recipe, "booster" if config is ladder[0] else f"booster {len(tried)}")
            if not _loses(entry, yardstick):
                chosen, why = recipe, f"{recipe.title} does not lose against the logistic stack out of family"
                break
        else:
            why = "every booster tried loses against the logistic stack out of family"
            if head == "booster":
                best = min(
                    range(len(tried)), key=lambda i: contenders["booster" if i == 0 else f"booster {i + 1}"]["log_loss"]
                )
                chosen = _Recipe(kind="booster", config=ladder[best]).with_rounds(task, groups, settings)
                why += "; a booster was asked for, the best of them was taken"
    mine = (
        contenders["logistic"]
        if chosen.kind == "logistic"
        else next(e for e in contenders.values() if e["recipe"] == chosen.title)
    )
    beaten_by = [k for k in ("or", "mean", "best_single") if contenders[k]["auc"] > mine["auc"] + TOLERANCE["auc"]]
    return chosen, {
        "chosen": chosen.title,
        "kind": chosen.kind,
        "why": why,
        "ladder": tried,
        "beaten_by": beaten_by,
        "pictures": pictures,
        "families_held_out": len(families),
        "penalties": penalties,
        "contenders": contenders,
    }


def _compared(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What of a head's comparison goes with the bundle."""

    def numbers(line: Mapping[str, Any]) -> dict[str, Any]:
        found = {k: round(float(line[k]), 4) for k in ("auc", "log_loss") if k in line}
        return found | ({"beside": numbers(line["beside"])} if "beside" in line else {})

    return cast(
        dict[str, Any],
        _plain(
            {
                "why": entry["why"],
                "penalties": {line["recipe"]: numbers(line) for line in entry["penalties"]},
                "contenders": {line["recipe"]: numbers(line) for line in entry["contenders"].values()},
            }
        ),
    )


def _loses(entry: Mapping[str, Any], yardstick: Mapping[str, Any]) -> bool:
    """Whether it is worse in ranking or log loss, on the table or on the rows beside it."""
    pairs = [(entry, yardstick)]
    if "beside" in yardstick:
        pairs.append((entry["beside"], yardstick["beside"]))
    return not all(
        mine["auc"] >= theirs["auc"] - TOLERANCE["auc"]
        and mine["log_loss"] <= theirs["log_loss"] + TOLERANCE["log_loss"]
        for mine, theirs in pairs
    )


# -- a whole bundle ----------------------------------------------------------------------------------------------------


def _assemble(
    table: ScoreTable, recipes: Mapping[str, _Recipe], settings: _Settings
) -> tuple[Bundle, dict[str, tuple[dict[str, Floats], dict[str, Affine]]]]:
    """Fit every head on all rows, and calibrators and conformal scores on out-of-fold margins.

    Returns the bundle, and by head the centred out-of-fold margins and the calibrators of those.
    """
    heads: dict[str, Head] = {}
    oof: dict[str, dict[str, Floats]] = {}
    fitted_on: dict[str, dict[str, Affine]] = {}
    even: dict[str, dict[str, Affine]] = {}
    auc: dict[str, float] = {}
    for name, recipe in recipes.items():
        task = _HeadTask.of(table, name, settings.aside)
        if task is None:
            continue
        patterns = subsets(task.observed())
        folds = _family_folds(task, settings) if settings.calibrate_on == "family" else ()
        margins = _margins(recipe, task, folds or _group_folds(task, settings), patterns, settings)
        calibrators = _calibrators(task, margins, settings)
        if not calibrators and name == "p_ai":
            raise ValueError(f"table takes at least {_LEAST_GROUPS} groups of each label in some pattern, got fewer")
        even[name] = calibrators
        if name == "p_tampered":
            shift = logit(settings.tampered_share)
            calibrators = {k: attrs.evolve(c, intercept=c.intercept + shift) for k, c in calibrators.items()}
        everything = np.arange(len(table))
        model = recipe.fit(task, everything, settings)
        final = {}
        for p in patterns:
            key, centre = pattern_key(p), _centre(model.margin, task, everything, p)
            if key in calibrators and centre is not None:
                fitted = calibrators[key]
                final[key] = attrs.evolve(fitted, intercept=fitted.intercept - fitted.slope * centre)
        heads[name] = Head(model=model, calibrators=final)
        fitted_on[name] = calibrators
        oof[name] = margins
        if name == "p_ai":
            for key in calibrators:
                rows = task.known[np.isfinite(margins[key][task.known])]
                auc[key] = metrics.auc(task.labels[rows], margins[key][rows])
    sources, source_of = np.unique(table.source, return_inverse=True)
    conformal: dict[str, dict[Label, ClassScores]] = {}
    pattern_auc: dict[str, float] = {}
    kept = tuple(c for c in table.columns if c.head in heads)
    kinds = np.array([str(k) for k in table.kinds])
    bundle = Bundle(
        columns=kept,
        heads=heads,
        conformal={},
        pattern_auc={},
        sources=tuple(str(s) for s in sources.tolist()),
        error_rates=dict(settings.rates),
        worst_source=settings.worst_source,
        minimum_tasks=settings.minimum_tasks,
        minimum_groups=settings.minimum_groups,
        plausible=settings.plausible,
    )
    usable = {c.block for c in kept}
    seen = tuple(sorted({p & usable for p in table.patterns} - {frozenset()}, key=pattern_key))
    for pattern in subsets(seen):
        part = pattern_key(pattern & heads["p_ai"].blocks)
        if part not in heads["p_ai"].calibrators:
            continue
        scores, rows = _label_scores(bundle, table, pattern, oof, fitted_on, kinds)
        key = pattern_key(pattern)
        conformal[key] = {}
        for label in DEFINITE_LABELS:
            mine = rows[kinds[rows] == label]
            if len(mine):
                conformal[key][label] = ClassScores(
                    scores=np.ascontiguousarray(scores[mine]),
                    weights=group_weights(table.group[mine]),
                    sources=source_of[mine].astype(np.int32),
                )
        pattern_auc[key] = auc[part]
    made = {name: (oof[name], even[name]) for name in heads}
    return attrs.evolve(bundle, conformal=conformal, pattern_auc=pattern_auc), made


def _label_scores(
    bundle: Bundle,
    table: ScoreTable,
    pattern: Pattern,
    oof: Mapping[str, Mapping[str, Floats]],
    fitted_on: Mapping[str, Mapping[str, Affine]],
    kinds: NDArray[np.str_],
) -> tuple[Floats, Ints]:
    """1 - out-of-fold probability of the true label, float64 (n,), and the rows for which it is known and assessed."""
    odds: dict[str, Floats] = {}
    for name, head in bundle.heads.items():
        key = pattern_key(pattern & head.blocks)
        if key in fitted_on[name]:
            odds[name] = fitted_on[name][key].log_odds(oof[name][key])
    rows = np.flatnonzero(np.logical_and.reduce([np.isfinite(z) for z in odds.values()]))
    rows = rows[[pattern <= p for p in np.array(table.patterns, dtype=object)[rows]]] if len(rows) else rows
    place = {c.name: i for i, c in enumerate(table.columns)}
    values = keep_blocks(table.rows, table.columns, pattern)[:, [place[c.name] for c in bundle.columns]]
    out = np.full(len(table), np.nan)
    for i in rows.tolist():
        p_tampered = float(sigmoid(odds["p_tampered"][i])) if "p_tampered" in odds else None
        share = bundle.ai_share(values[i])
        truth = Label(str(kinds[i]))
        # A label that this evidence gives no probability to is not assessed: its scores would all be 1, and it would
        # stand in every set as if it had been looked at.
        if (truth is Label.AI_EDITED and share is None) or (truth is Label.TAMPERED and p_tampered is None):
            continue
        out[i] = 1 - label_probabilities(float(sigmoid(odds["p_ai"][i])), p_tampered, share)[truth]
    return np.clip(out, 0, 1), rows[~np.isnan(out[rows])]


# -- the report --------------------------------------------------------------------------------------------------------


def _describe(table: ScoreTable) -> dict[str, Any]:
    patterns = [pattern_key(p) for p in table.patterns]
    kinds = [str(k) for k in table.kinds]
    return {
        "rows": len(table),
        "groups": len(np.unique(table.group)),
        "groups_by_label": {k: len(np.unique(table.group[np.array(kinds) == k])) for k in sorted(set(kinds))},
        "rows_by_pattern": {k: patterns.count(k) for k in sorted(set(patterns))},
        "families": {
            str(v): {
                str(f): len(np.unique(table.group[(table.label == v) & (table.family == f)]))
                for f in np.unique(table.family[table.label == v])
            }
            for v in (0, 1)
        },
        "columns": [c.name for c in table.columns],
        "sha256": table.sha256,
    }


def _calibration_report(
    bundle: Bundle,
    table: ScoreTable,
    made: Mapping[str, tuple[dict[str, Floats], dict[str, Affine]]],
    aside: Sequence[str] = (),
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, head in bundle.heads.items():
        task = _HeadTask.of(table, name, aside)
        if task is None:
            continue
        out[name] = {}
        margins_of, calibrators = made[name]
        for key, calibrator in sorted(calibrators.items()):
            margins = margins_of[key]
            rows = task.known[np.isfinite(margins[task.known])]
            y, w, m = task.labels[rows], task.weights[rows], margins[rows]
            methods = {
                "none": m,
                "used": calibrator.log_odds(m),
                "isotonic": fit_isotonic(m, y, weights=w).log_odds(m),
            }
            zero, one = _counts(task, rows)
            out[name][key] = {
                **attrs.asdict(head.calibrators[key]),
                "groups": {"0": zero, "1": one},
                # Out-of-fold margins, through the calibrator fitted on them.
                "auc": metrics.auc(y, m),
                "balanced_accuracy": metrics.balanced_accuracy(y, sigmoid(calibrator.log_odds(m))),
                "brier": metrics.brier(y, sigmoid(calibrator.log_odds(m)), w),
                "by_method": {
                    k: {
                        "ece": metrics.expected_calibration_error(y, sigmoid(z), w),
                        "log_loss": metrics.log_loss(y, z, w),
                    }
                    for k, z in methods.items()
                },
            }
    return out


def _conformal_report(bundle: Bundle) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, by_label in sorted(bundle.conformal.items()):
        out[key] = {}
        for label in DEFINITE_LABELS:
            rate = bundle.error_rates[label]
            scores = by_label.get(label)
            # An accusation is what costs most, so only `authentic` has the guard.
            plain, guarded = (bundle.quantile(key, label, rate, g and label is Label.AUTHENTIC) for g in (False, True))
            out[key][str(label)] = {
                "groups": scores.groups if scores else 0,
                "error_rate": rate,
                "assessed": not math.isinf(plain),
                "quantile": plain,
                "quantile_worst_source": guarded,
            }
    return out


def _out_of_family(table: ScoreTable, recipes: Mapping[str, _Recipe], settings: _Settings) -> dict[str, Any]:
    """Coverage, definite verdicts and false accusations on families that model, calibrators and sets never saw."""
    task = _HeadTask.of(table, "p_ai", settings.aside)
    if task is None:
        return {}
    folds = _family_folds(task, settings)
    observed = tuple(sorted({p for p in table.patterns if p}, key=pattern_key))
    kinds = np.array([str(k) for k in table.kinds])
    rows: list[dict[str, Any]] = []
    skipped = 0
    inner = attrs.evolve(settings, folds=min(settings.folds, 4))
    for fold in folds:
        # The rows without a label for p_ai teach p_tampered and the sets; none of the held pictures' groups does.
        other = np.setdiff1d(np.arange(len(table)), np.concatenate([task.known, fold.test]))
        other = other[~np.isin(table.group[other], table.group[fold.test])]
        try:
            bundle, _ = _assemble(table.take(np.concatenate([fold.train, other])), recipes, inner)
        except ValueError:
            skipped += 1  # Too few groups are left to calibrate on.
            continue
        place = {c.name: i for i, c in enumerate(table.columns)}
        values = table.rows[:, [place[c.name] for c in bundle.columns]]
        for pattern in observed:
            key = pattern_key(pattern & {c.block for c in bundle.columns})
            mine = [i for i in fold.test.tolist() if table.patterns[i] == pattern]
            if not mine or key not in bundle.conformal:
                continue
            odds = {
                name: bundle.log_odds(name, values[mine], pattern)
                for name, head in bundle.heads.items()
                if pattern_key(head.blocks & pattern) in head.calibrators
            }
            for j, i in enumerate(mine):
                p_tampered = float(sigmoid(odds["p_tampered"][j])) if "p_tampered" in odds else None
                for guard in (False, True):
                    label, _, chosen = bundle.judge(
                        float(odds["p_ai"][j]), p_tampered, bundle.ai_share(values[i]), key, settings.rates, guard
                    )
                    rows.append(
                        {
                            "pattern": key,
                            "guard": guard,
                            "truth": str(kinds[i]),
                            "family": str(table.family[i]),
                            "group": str(table.group[i]),
                            "covered": str(kinds[i]) in chosen.labels,
                            "label": str(label),
                        }
                    )
    out: dict[str, Any] = {
        "folds": len(folds),
        "folds_skipped": skipped,
        "promised": {str(k): 1 - v for k, v in settings.rates.items()},
        "used": "worst_source" if settings.worst_source else "pooled",
        "by_pattern": {},
    }
    for key in sorted({r["pattern"] for r in rows}):
        out["by_pattern"][key] = {
            name: _coverage([r for r in rows if r["pattern"] == key and r["guard"] is guard])
            for name, guard in (("pooled", False), ("worst_source", True))
        }
    return out


def _coverage(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shares by truth and by family; a picture held out in several folds counts as one, split over them."""
    out: dict[str, Any] = {"by_label": {}, "by_family": {}}
    for field, target in (("truth", "by_label"), ("family", "by_family")):
        for value in sorted({r[field] for r in rows}):
            mine = [r for r in rows if r[field] == value]
            weight = group_weights([r["group"] for r in mine])
            truth = [r["truth"] for r in mine]
            definite = np.array([r["label"] != str(Label.UNCERTAIN) for r in mine])
            ai = (str(Label.AI_GENERATED), str(Label.AI_EDITED))
            wrong = np.array(
                [d and ((r["label"] in ai) != (t in ai)) for r, t, d in zip(mine, truth, definite, strict=True)]
            )
            total, sure = float(weight.sum()), float(weight[definite].sum())
            out[target][value] = {
                "groups": total,
                "coverage": float(weight[[r["covered"] for r in mine]].sum()) / total,
                "definite": sure / total,
                "wrong": float(weight[wrong].sum()) / total,
                "wrong_among_definite": float(weight[wrong].sum()) / sure if sure else None,
            }
    real = {
        f: e
        for f, e in out["by_family"].items()
        if any(r["family"] == f and r["truth"] in (str(Label.AUTHENTIC), str(Label.TAMPERED)) for r in rows)
    }
    worst = max(real.items(), key=lambda p: p[1]["wrong"], default=None)
    out["worst_real_source"] = None if worst is None else {"family": worst[0], **worst[1]}
    return out


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if not math.isnan(v)]
    return float(np.mean(finite)) if finite else math.nan


def _plain(value: Any) -> Any:
    """JSON's own types; NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


__all__ = ["LADDER", "SMALL", "TrainingReport", "drop_blocks", "sample_weights", "subsets", "train_bundle"]
