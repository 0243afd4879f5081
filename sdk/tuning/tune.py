"""Score, check, train, compare, write: `tellsign.tune`."""

from __future__ import annotations

import csv
import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from tellsign.errors import SettingError
from tellsign.evaluation.dataset import load
from tellsign.evaluation.items import FAKE, TAMPERED, DataError, Dataset, Item
from tellsign.fusion.adapt import SPLITS, Tuned, bundle_odds, tune_bundle
from tellsign.fusion.bundle import MANIFEST, Bundle
from tellsign.fusion.conformal import resolve_error_rates
from tellsign.fusion.edit import scaled
from tellsign.fusion.features import columns, matrix, pattern_key
from tellsign.fusion.operating import OperatingPoint, TooFew, at_cost, at_max_fpr
from tellsign.fusion.outofcore import tune_batches
from tellsign.fusion.table import ScoreTable
from tellsign.host import discover
from tellsign.schemas import Declaration

from . import checks, known, tables
from .checks import Finding
from .report import build
from .scoring import ScoredPicture, Scores, Trouble, score

Progress = Callable[[int, int | None], None]

REPORT = "report.json"
PAGE = "report.html"
IN_MEMORY = 200_000
"""Rows of a Parquet table above which it is read in batches."""
_REFERENCE = 1000
"""Held-out scores per class and pattern that the bundle keeps for `tellsign monitor`."""


@attrs.frozen(kw_only=True)
class TuneResult:
    """What `tune` came to."""

    bundle: Bundle
    """The new bundle, or the base where nothing better was proven."""
    written: bool
    """Whether a bundle was written."""
    folder: Path
    """Holds the reports, and the bundle where one was written."""
    reasons: tuple[str, ...]
    """Why, in words."""
    operating: OperatingPoint | TooFew | None
    """The threshold that was asked for."""
    report: dict[str, Any]
    """What report.json says."""


def tune(
    data: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str],
    table: str | os.PathLike[str] | None = None,
    fusion: str | os.PathLike[str] | Bundle | None = None,
    plugins: Collection[str] | None = None,
    settings: Mapping[str, Mapping[str, object]] | None = None,
    trust: Mapping[str, object] | None = None,
    device: str = "auto",
    group: str | None = None,
    folds: str = "group",
    split: str | None = None,
    root: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    normalise: bool = False,
    weights: Mapping[str, float] | None = None,
    max_fpr: float | None = None,
    cost: tuple[float, float] | None = None,
    prior: float = 0.5,
    error_rate: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    cache: str | os.PathLike[str] | None = None,
    export: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> TuneResult:
    """Tune the fusion on somebody's own labelled pictures.

    Parameters
    ----------
    data : path, optional
        Labelled pictures as `tellsign eval` takes them. Either this or `table`.
    out : path
        Folder; receives report.json, report.html and, where a better fusion was found, the bundle.
    table : path, optional
        Scores instead of pictures: CSV or Parquet, as `export` writes them. Parquet of more than 200 000 rows is read
        in batches.
    fusion : path or Bundle, optional
        What is tuned, and what must be beaten; default the shipped bundle.
    plugins, settings, device
        As `tellsign.Detector`.
    trust : mapping, optional
        Its deny, commercial_only, isolate, isolate_memory and time_limit.
    group : str, optional
        Column of DATA's CSV whose value ties pictures together; default `group`, else every picture for itself.
    folds : {"group", "generator"}
        What is held out together to judge: groups, or whole generators.
    split, root, limit
        Which rows of DATA.
    normalise : bool
        Put every picture through `tellsign.data.normalise` first.
    weights : mapping of str to float, optional
        By task: multiplies what the base gives the task. The bundle is then written whatever its gain.
    max_fpr : float, optional
        Ask for a threshold with at most this share of false alarms, at 95 % confidence.
    cost : (float, float), optional
        Of a false alarm and of a miss: ask for the cheapest threshold.
    prior : float
        Share of AI pictures where pictures come from; of the thresholds.
    error_rate : float, optional
        Of the prediction sets, for every label; default the base's.
    seed : int
        The same data, plugins and seed give the same bundle, byte for byte.
    overwrite : bool
        Whether a bundle that lies in `out` may be replaced.
    cache : path, optional
        Where scores are kept; default tellsign's own cache. A killed run goes on from there.
    export : path, optional
        Write the score table here, CSV or Parquet by its suffix.
    progress : callable, optional
        Called with (pictures done, pictures in all).

    Returns
    -------
    TuneResult

    Raises
    ------
    DataError
        DATA cannot be used.
    SettingError
        A parameter that is not allowed.
    BundleError
        `fusion` is no bundle.

    Examples
    --------
    >>> result = tune("my-pictures/", out="my-fusion", max_fpr=0.01)  # doctest: +SKIP
    >>> detector = Detector(fusion="my-fusion")  # doctest: +SKIP
    """
    if (data is None) == (table is None):
        raise SettingError("data", "labelled pictures, or none and a table", "both" if data is not None else "neither")
    if folds not in SPLITS:
        raise SettingError("folds", " or ".join(repr(s) for s in SPLITS), folds)
    if max_fpr is not None and cost is not None:
        raise SettingError("cost", "nothing where max_fpr is given: one threshold at a time", cost)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise SettingError("out", "a folder", str(folder))
    if (folder / MANIFEST).exists() and not overwrite:
        raise SettingError("out", "a folder without a bundle, or overwrite", str(folder))
    for name, value in (("max_fpr", max_fpr), ("prior", prior), ("error_rate", error_rate)):
        if value is not None and not 0 < value < 1:
            raise SettingError(name, "a number strictly between 0 and 1", value)
    if cost is not None and not (len(cost) == 2 and all(c > 0 for c in cost)):
        raise SettingError("cost", "two positive numbers, of a false alarm and of a miss", cost)
    base = fusion if isinstance(fusion, Bundle) else Bundle.load(None if fusion is None else Path(fusion))
    start = base
    if weights:
        try:
            start = scaled(base, weights)
        except ValueError as error:
            raise SettingError("weights", "the base's tasks with numbers of at least 0", str(error)) from error

    gathered = (
        _from_data(
            Path(data),
            plugins=plugins,
            settings=settings,
            trust=trust,
            device=device,
            group=group,
            split=split,
            root=root,
            limit=limit,
            normalise=normalise,
            seed=seed,
            cache=cache,
            progress=progress,
        )
        if data is not None
        else _from_table(Path(table or ""), split=split)
    )
    if export is not None:
        if gathered.table is None:
            raise SettingError("export", "nothing where the table is read in batches", str(export))
        tables.save(gathered.table, Path(export), gathered.declarations)
    rates = resolve_error_rates(error_rate, base.error_rates)
    findings = list(gathered.findings)
    if gathered.table is not None:
        findings += checks.of_table(gathered.table, rates=rates, minimum=base.minimum_groups, split=folds)
    extra = {"weights": dict(sorted(weights.items()))} if weights else {}
    options: dict[str, Any] = {
        "declarations": gathered.declarations,
        "seed": seed,
        "split": folds,
        "error_rate": error_rate,
        "extra": extra,
    }
    try:
        if gathered.table is not None:
            tuned = tune_bundle(gathered.table, start, always=bool(weights), **options)
        else:
            path, head = Path(table or ""), gathered.head
            if weights:
                raise SettingError("weights", "nothing where the table is read in batches", dict(weights))
            tuned = tune_batches(functools.partial(tables.batches, path, head), head.columns, start, **options)
    except SettingError:
        raise
    except ValueError as error:
        raise SettingError("data", "what can be tuned on", str(error)) from error
    judged = tuned.judged if tuned.judged is not None else gathered.table
    if judged is None:
        raise SettingError("data", "rows that can be judged", "none")
    # A person's weights are the person's; the default is what they would otherwise have.
    chosen = tuned.bundle if tuned.improved else base
    point = _operating(tuned, base, judged, max_fpr=max_fpr, cost=cost, prior=prior)
    if tuned.improved:
        training = tuned.bundle.training | {"reference": _reference(tuned, judged)}
        if isinstance(point, OperatingPoint):
            training |= {"operating": point.to_json()}
        chosen = attrs.evolve(tuned.bundle, training=json.loads(json.dumps(training)))
    report = build(
        tuned=tuned,
        base=base,
        start=start,
        chosen=chosen,
        table=judged,
        findings=findings,
        left_out=gathered.left_out,
        troubles=gathered.troubles,
        shortcuts=gathered.shortcuts,
        operating=point,
        rows=gathered.rows,
        settings={
            "data": None if data is None else str(data),
            "table": None if table is None else str(table),
            "folds": folds,
            "split": split,
            "group": group,
            "normalise": normalise,
            "weights": dict(weights) if weights else None,
            "max_fpr": max_fpr,
            "cost": list(cost) if cost else None,
            "prior": prior,
            "error_rate": error_rate,
            "seed": seed,
        },
        seed=seed,
    )
    folder.mkdir(parents=True, exist_ok=True)
    if tuned.improved:
        chosen.save(folder)
    _write(folder / REPORT, json.dumps(report, indent=1, allow_nan=False) + "\n")
    from .page import render

    _write(folder / PAGE, render(report))
    return TuneResult(
        bundle=chosen,
        written=tuned.improved,
        folder=folder,
        reasons=tuple(report["reasons"]),
        operating=point,
        report=report,
    )


@attrs.frozen(kw_only=True)
class _Gathered:
    """A table, and what was left out on the way to it."""

    table: ScoreTable | None
    head: tables.Heading
    rows: int
    declarations: dict[str, Declaration]
    findings: tuple[Finding, ...] = ()
    left_out: dict[str, int] = attrs.field(factory=dict)
    """Pictures that a plugin trained on, by plugin."""
    troubles: tuple[Trouble, ...] = ()
    shortcuts: dict[str, float] = attrs.field(factory=dict)


def _from_data(
    data: Path,
    *,
    plugins: Collection[str] | None,
    settings: Mapping[str, Mapping[str, object]] | None,
    trust: Mapping[str, object] | None,
    device: str,
    group: str | None,
    split: str | None,
    root: str | os.PathLike[str] | None,
    limit: int | None,
    normalise: bool,
    seed: int,
    cache: str | os.PathLike[str] | None,
    progress: Progress | None,
) -> _Gathered:
    dataset = load(data, root=None if root is None else Path(root), split=split, limit=limit, seed=seed)
    groups = _groups(data, dataset, group)
    scores = score(
        dataset.items,
        plugins=None if plugins is None else sorted(plugins),
        settings=settings,
        trust=trust,
        device=device,
        normalise=normalise,
        cache=None if cache is None else Path(cache),
        progress=progress,
    )
    sifted = checks.sift(scores.pictures, [groups[p.item.name] for p in scores.pictures])
    hits = known.recognise([p.phash for p in sifted.kept], known.installed(discover(allow=scores.declarations)))
    trained = {r.place for r in hits}
    left_out = dict(sorted(Counter(p for r in hits for p in r.plugins).items()))
    keep = [i for i in range(len(sifted.kept)) if i not in trained]
    pictures = [sifted.kept[i] for i in keep]
    findings = [*sifted.findings, *(Finding(code="note", serious=False, text=t) for t in dataset.notes)]
    if scores.troubles:
        text = f"{len(scores.troubles)} of {len(dataset.items)} pictures could not be read and are left out."
        findings.append(Finding(code="unreadable", serious=False, text=text))
    if left_out:
        names = ", ".join(f"{n}: {c}" for n, c in left_out.items())
        text = f"{len(trained)} pictures are ones that a plugin was trained on ({names}); they are left out."
        findings.append(Finding(code="trained_on", serious=True, text=text))
    found, notes = checks.shortcuts(pictures, seed=seed)
    findings += notes
    owned = {n: [f"{n}.{c.name}" for c in d.columns] for n, d in scores.declarations.items()}
    findings += checks.of_answers(pictures, owned)
    made = _table(pictures, [sifted.groups[i] for i in keep], scores, dataset)
    return _Gathered(
        table=made,
        head=tables.Heading(columns=made.columns, plugins={}, rows=len(made)),
        rows=len(made),
        declarations=scores.declarations,
        findings=tuple(findings),
        left_out=left_out,
        troubles=scores.troubles,
        shortcuts=found,
    )


def _from_table(path: Path, *, split: str | None) -> _Gathered:
    records = discover()
    declarations = {r.name: r.declaration for r in records if r.declaration is not None}
    head = tables.heading(path, declarations)
    declarations = {n: d for n, d in declarations.items() if any(c.plugin == n for c in head.columns)}
    findings = []
    for name, told in sorted(head.plugins.items()):
        if name in declarations and told.get("version") != declarations[name].version:
            now = declarations[name].version
            text = f"the table was scored with {name} {told.get('version')}, and {now} is installed."
            findings.append(Finding(code="plugin_version", serious=True, text=text))
    if tables.is_parquet(path) and (head.rows or 0) > IN_MEMORY:
        if split is not None:
            raise SettingError("split", "nothing where the table is read in batches: write one table per split", split)
        text = (
            f"the table has {head.rows} rows and is read in batches; duplicates, shortcuts and pictures that a plugin "
            "trained on are looked for where the pictures are scored, not here."
        )
        findings.append(Finding(code="batches", serious=False, text=text))
        return _Gathered(
            table=None, head=head, rows=head.rows or 0, declarations=declarations, findings=tuple(findings)
        )
    table = tables.load(path, declarations)
    if split is not None:
        rows = np.flatnonzero(table.split == split)
        if not len(rows):
            raise SettingError("split", f"one of {', '.join(sorted(set(table.split.tolist())))}", split)
        table = table.take(rows)
    silent = np.isnan(table.rows).all(1)
    if silent.any():
        text = f"{int(silent.sum())} rows have no number at all and are left out."
        findings.append(Finding(code="empty_rows", serious=False, text=text))
        if silent.all():
            raise SettingError("table", "rows with at least one number", "none")
        table = table.take(np.flatnonzero(~silent))
    return _Gathered(table=table, head=head, rows=len(table), declarations=declarations, findings=tuple(findings))


def _groups(data: Path, dataset: Dataset, column: str | None) -> dict[str, str]:
    """The group of each picture by its name; `column` names another column of DATA's CSV."""
    own = {item.name: item.group for item in dataset.items}
    if column is None or column == "group":
        return own
    if not data.is_file():
        raise DataError(f"--group {column} names a column of a CSV, and {data} is none.")
    with data.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        names = [n.strip() for n in reader.fieldnames or ()]
        reader.fieldnames = names
        if column not in names:
            raise DataError(f"--group {column} is no column of {data}, whose columns are: {', '.join(names)}.")
        where = "path" if "path" in names else "crop"
        told = {(row[where] or "").strip(): (row[column] or "").strip() for row in reader}
    return {name: told.get(name) or mine for name, mine in own.items()}


def _table(pictures: Sequence[ScoredPicture], groups: Sequence[str], scores: Scores, dataset: Dataset) -> ScoreTable:
    made = columns(scores.declarations)
    values = matrix([p.values for p in pictures], made)
    rows = np.flatnonzero(~np.isnan(values).all(1))
    if not len(rows):
        raise DataError("No picture is left that a plugin had anything to say of.")
    items: list[Item] = [pictures[i].item for i in rows.tolist()]
    asks_tampered = dataset.asks == TAMPERED
    return ScoreTable(
        rows=values[rows],
        columns=made,
        label=[0 if asks_tampered else item.label for item in items],
        group=[groups[i] for i in rows.tolist()],
        source=[item.source for item in items],
        tampered=[item.label if asks_tampered else -1 for item in items],
        edited=[int(item.mask and item.label == FAKE and not asks_tampered) for item in items],
    )


def _operating(
    tuned: Tuned,
    base: Bundle,
    table: ScoreTable,
    *,
    max_fpr: float | None,
    cost: tuple[float, float] | None,
    prior: float,
) -> OperatingPoint | TooFew | None:
    if max_fpr is None and cost is None:
        return None
    held = tuned.held_out.get("p_ai") if tuned.improved else None
    odds = bundle_odds(base, table) if held is None else held.after
    rows = np.flatnonzero(np.isfinite(odds))
    z, y, g = odds[rows], table.label[rows], table.group[rows]
    if cost is not None:
        return at_cost(z, y, g, cost, prior=prior)
    return at_max_fpr(z, y, g, max_fpr if max_fpr is not None else 0.01, prior=prior)


def _reference(tuned: Tuned, table: ScoreTable) -> dict[str, dict[str, list[float]]]:
    """Held-out log-odds for `tellsign monitor`, one per group, by pattern and class."""
    held = tuned.held_out.get("p_ai")
    if held is None:
        return {}
    known_columns = {c.name for c in tuned.bundle.columns}
    keep = [i for i, c in enumerate(table.columns) if c.name in known_columns]
    kept = [table.columns[i] for i in keep]
    blocks = [
        frozenset(c.block for c, v in zip(kept, row, strict=True) if v == v) for row in table.rows[:, keep].tolist()
    ]
    out: dict[str, dict[str, list[float]]] = {}
    rng = np.random.default_rng(0)
    for pattern in sorted(set(blocks), key=pattern_key):
        used = tuned.bundle.covering(pattern) if pattern else None
        if used is None:
            continue
        for side, value in (("real", 0), ("ai", 1)):
            by_group: dict[str, list[float]] = {}
            for i in held.rows.tolist():
                if blocks[i] == pattern and table.label[i] == value and np.isfinite(held.after[i]):
                    by_group.setdefault(str(table.group[i]), []).append(float(held.after[i]))
            means = np.array([np.mean(v) for _, v in sorted(by_group.items())], np.float64)
            if len(means) > _REFERENCE:
                means = means[np.sort(rng.permutation(len(means))[:_REFERENCE])]
            out.setdefault(pattern_key(used), {}).setdefault(side, []).extend(np.round(means, 6).tolist())
    return out


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


__all__ = ["IN_MEMORY", "PAGE", "REPORT", "TuneResult", "tune"]
