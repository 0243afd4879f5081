"""The report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tellsign.data.trivial import GATED, LIMIT
from tellsign.report.words import printable

_OVERALL = (
    ("AUC", "auc"),
    ("balanced accuracy at p = .5", "balanced_accuracy"),
    ("ECE, 15 equal-mass bins", "ece"),
    ("ECE, classes weighed alike", "ece_balanced"),
    ("Brier", "brier"),
    ("Brier, classes weighed alike", "brier_balanced"),
    ("TPR at 5 % FPR", "tpr_at_5_fpr"),
    ("TPR at 1 % FPR", "tpr_at_1_fpr"),
    ("share of uncertain", "uncertain"),
    ("errors among definite verdicts", "definite_error_rate"),
    ("false accusations among definite", "false_accusation_rate"),
)
_COVERAGES = (0.25, 0.5, 0.75, 1.0)
_FILES = 10  # unreadable files that the terminal names; the JSON names all


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print a report of `tellsign.evaluation.run.evaluate`."""
    console.print(renderable(report))


def renderable(report: Mapping[str, Any]) -> RenderableType:
    """The report as something rich can print."""
    overall, settings = report["overall"], report["settings"]
    first = next(iter(settings["conditions"]))
    parts: list[RenderableType] = [
        Text.assemble(
            (printable(settings["data"]), "bold"),
            f": {overall['n_ai']} AI, {overall['n_real']} real, {overall['groups']} groups; "
            f"{settings['pipeline']}, {first}; data {report['data_hash'][:12]}",
        )
    ]
    table = _table("Overall", "", "value", "95 % interval")
    for words, key in _OVERALL:
        table.add_row(words, _number(overall[key]), _interval(overall[f"{key}_ci"]))
    parts.append(table)
    parts.append(_generators(report))
    parts.append(_sources(report))
    if len(report["by_condition"]) > 1:
        table = _table("By condition", "", "AUC", "interval", "bal. acc.", "ECE", "TPR at 5 %", "uncertain", "accused")
        for name, block in report["by_condition"].items():
            table.add_row(
                name,
                _number(block["auc"]),
                _interval(block["auc_ci"]),
                *(_number(block[k]) for k in ("balanced_accuracy", "ece", "tpr_at_5_fpr", "uncertain")),
                _number(block["false_accusation_rate"]),
            )
        parts.append(table)
    parts.append(_curve(report["risk_coverage"]))
    table = _table("Rules that look at nothing", "", "AUC", "")
    for name, value in report["trivial_rules"].items():
        loud = name in GATED and value > LIMIT
        note = f"above {LIMIT}: suspect" if loud else ("" if name in GATED else "for comparison")
        table.add_row(name, Text(_number(value), "red" if loud else ""), note)
    parts.append(table)
    for trouble in report["errors"]["files"][:_FILES]:
        where = f" ({trouble['condition']})" if trouble["condition"] else ""
        parts.append(
            Text.assemble(("not scored ", "yellow"), printable(f"{trouble['path']}{where}: {trouble['message']}"))
        )
    if len(report["errors"]["files"]) > _FILES:
        parts.append(Text(f"... and {len(report['errors']['files']) - _FILES} more; --json names them all"))
    parts += [Text.assemble(("note ", "yellow"), printable(sentence)) for sentence in report["warnings"]]
    return Group(*parts)


def _generators(report: Mapping[str, Any]) -> Table:
    table = _table("By generator, against all reals", "", "n", "AUC", "interval", "called AI", "uncertain")
    worst = report["worst_generator"]
    for name, row in report["by_generator"].items():
        table.add_row(
            _named(name, worst is not None and worst["name"] == name),
            str(row["n"]),
            _number(row["auc"]),
            _interval(row["auc_ci"]),
            _number(row["called_ai"]),
            _number(row["uncertain"]),
        )
    return table


def _sources(report: Mapping[str, Any]) -> Table:
    table = _table("False accusations by real source", "", "n", "definite", "accused", "rate", "interval")
    worst = report["worst_real_source"]
    for name, row in report["by_real_source"].items():
        table.add_row(
            _named(name, worst is not None and worst["accused"] > 0 and worst["name"] == name),
            *(str(row[k]) for k in ("n", "definite", "accused")),
            _number(row["rate"]),
            _interval(row["rate_ci"]),
        )
    return table


def _curve(curve: Mapping[str, Any]) -> Table:
    table = _table("Risk and coverage", "most confident", "error rate", "confidence |p - .5|")
    for want in _COVERAGES:
        at = next((i for i, have in enumerate(curve["coverage"]) if have >= want - 1e-9), None)
        if at is not None:
            table.add_row(f"{curve['coverage'][at]:.0%}", _number(curve["risk"][at]), _number(curve["confidence"][at]))
    verdicts = curve["verdicts"]
    if verdicts["coverage"] is not None:
        table.add_row(f"{verdicts['coverage']:.0%} (definite verdicts)", _number(verdicts["risk"]), "")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i == 0 else "right")
    return table


def _named(name: str, worst: bool) -> Text:
    return Text.assemble(printable(name), (" (worst)", "red") if worst else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(pair: tuple[float, float] | None) -> str:
    return "" if pair is None else f"{pair[0]:.3f} to {pair[1]:.3f}"
