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

OVERALL = (
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
NAMES = {
    "accuracy": "acc.",
    "accuracy_real": "acc. real",
    "accuracy_fake": "acc. AI",
    "ap": "AP",
    "auc": "AUC",
}
"""Columns of the benchmark's table, as they are printed."""
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
    for words, key in OVERALL:
        table.add_row(words, number(overall[key]), _interval(overall[f"{key}_ci"]))
    parts.append(table)
    if len(report["paper"]["rows"]) > 1 or settings.get("protocol"):
        parts.append(_paper(report))
    parts.append(_generators(report))
    parts.append(_sources(report))
    if report["pixels"]:
        parts.append(_pixels(report["pixels"]))
    for name, by_condition in report["comparisons"].items():
        parts += [
            _comparison(
                f"tellsign beside {printable(name)} ({condition}): {block['n']} pictures", name, "tellsign", block
            )
            for condition, block in by_condition.items()
        ]
    if len(report["by_condition"]) > 1:
        table = _table("By condition", "", "AUC", "interval", "bal. acc.", "ECE", "TPR at 5 %", "uncertain", "accused")
        for name, block in report["by_condition"].items():
            table.add_row(
                name,
                number(block["auc"]),
                _interval(block["auc_ci"]),
                *(number(block[k]) for k in ("balanced_accuracy", "ece", "tpr_at_5_fpr", "uncertain")),
                number(block["false_accusation_rate"]),
            )
        parts.append(table)
    parts.append(_curve(report["risk_coverage"]))
    table = _table("Rules that look at nothing", "", "AUC", "")
    for name, value in report["trivial_rules"].items():
        loud = name in GATED and value > LIMIT
        note = f"above {LIMIT}: suspect" if loud else ("" if name in GATED else "for comparison")
        table.add_row(name, Text(number(value), "red" if loud else ""), note)
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


def _paper(report: Mapping[str, Any]) -> Table:
    protocol = report["settings"].get("protocol")
    columns = protocol["columns"] if protocol else ["accuracy", "ap", "auc"]
    methods = {"": report["paper"]} | {
        f", {printable(name)}": block["paper"] for name, block in report["peers"].items() if block["paper"]
    }
    head = [f"{NAMES[c]}{m}" for c in columns for m in methods]
    table = _table(protocol["title"] if protocol else "By row of the benchmark", "", "real", "AI", *head)
    for name, own in report["paper"]["rows"].items():
        cells = [number(b["rows"][name][c]) if name in b["rows"] else "-" for c in columns for b in methods.values()]
        table.add_row(printable(name), str(own["n_real"]), str(own["n_fake"]), *cells)
    means = [number(b["mean"][c]) for c in columns for b in methods.values()]
    table.add_row(Text("mean", "bold"), "", "", *(Text(m, "bold") for m in means))
    return table


def _pixels(found: Mapping[str, Any]) -> Table:
    table = _table("Pixels, heat map at .5", "", "n", "F1", "interval", "IoU", "interval")
    for words, key in (
        ("pooled", "pooled"),
        ("pooled, edited pictures", "pooled_edited"),
        ("mean over edited pictures", "per_picture"),
    ):
        part = found[key]
        if part:
            n = found["n"] if key == "pooled" else found["n_edited"]
            f1, iou = (number(part[k]) for k in ("f1", "iou"))
            table.add_row(words, str(n), f1, _interval(part["f1_ci"]), iou, _interval(part["iou_ci"]))
    return table


def show_comparison(compared: Mapping[str, Any], first: str, second: str, console: Console) -> None:
    """Print what `tellsign.evaluation.compare.reports` found."""
    for condition, block in compared["by_condition"].items():
        title = f"{printable(second)} less {printable(first)}, {condition}: {block['n']} pictures"
        console.print(_comparison(title, first, second, block))
    for name, key in ((first, "only_first"), (second, "only_second")):
        if compared[key]:
            console.print(Text(f"{compared[key]} pictures are in {printable(name)} only"))
    for note in compared["notes"]:
        console.print(Text.assemble(("note ", "yellow"), printable(note)))


def _comparison(title: str, first: str, second: str, block: Mapping[str, Any]) -> Table:
    table = _table(title, "", printable(first), printable(second), "difference", "95 % interval", "p")
    for words, cells in comparison_rows(block):
        table.add_row(words, *cells)
    return table


def _generators(report: Mapping[str, Any]) -> Table:
    table = _table("By generator, against all reals", "", "n", "AUC", "interval", "called AI", "uncertain")
    worst = report["worst_generator"]
    for name, row in report["by_generator"].items():
        table.add_row(
            _named(name, worst is not None and worst["name"] == name),
            str(row["n"]),
            number(row["auc"]),
            _interval(row["auc_ci"]),
            number(row["called_ai"]),
            number(row["uncertain"]),
        )
    return table


def _sources(report: Mapping[str, Any]) -> Table:
    table = _table("False accusations by real source", "", "n", "definite", "accused", "rate", "interval")
    worst = report["worst_real_source"]
    for name, row in report["by_real_source"].items():
        table.add_row(
            _named(name, worst is not None and worst["accused"] > 0 and worst["name"] == name),
            *(str(row[k]) for k in ("n", "definite", "accused")),
            number(row["rate"]),
            _interval(row["rate_ci"]),
        )
    return table


def _curve(curve: Mapping[str, Any]) -> Table:
    table = _table("Risk and coverage", "most confident", "error rate", "confidence |p - .5|")
    for want in _COVERAGES:
        at = next((i for i, have in enumerate(curve["coverage"]) if have >= want - 1e-9), None)
        if at is not None:
            table.add_row(f"{curve['coverage'][at]:.0%}", number(curve["risk"][at]), number(curve["confidence"][at]))
    verdicts = curve["verdicts"]
    if verdicts["coverage"] is not None:
        table.add_row(f"{verdicts['coverage']:.0%} (definite verdicts)", number(verdicts["risk"]), "")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i == 0 else "right")
    return table


def _named(name: str, worst: bool) -> Text:
    return Text.assemble(printable(name), (" (worst)", "red") if worst else "")


def number(value: float | None) -> str:
    """Three digits, or a dash where there is no number."""
    return "-" if value is None else f"{value:.3f}"


def comparison_rows(block: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """A comparison as lines of text: metric; first, second, difference, interval, p."""
    out: list[tuple[str, list[str]]] = []
    for words, key in (("AUC", "auc"), ("balanced accuracy", "balanced_accuracy"), ("Brier", "brier"), ("ECE", "ece")):
        one = block.get(key)
        if one:
            ci = f"{one['ci'][0]:+.3f} to {one['ci'][1]:+.3f}" if one["ci"] else ""
            out.append(
                (words, [number(one["first"]), number(one["second"]), f"{one['difference']:+.3f}", ci, _p(one["p"])])
            )
    if block.get("delong"):
        one = block["delong"]
        out.append(("AUC, DeLong", ["", "", f"{one['difference']:+.3f}", "", _p(one["p"])]))
    if block.get("mcnemar"):
        one = block["mcnemar"]
        out.append(
            (
                "right at .5, McNemar",
                [f"{one['only_first']} alone", f"{one['only_second']} alone", "", "", _p(one["p"])],
            )
        )
    return out


def _p(value: float | None) -> str:
    return "" if value is None else "< .001" if value < 0.001 else f"{value:.3f}"


def _interval(pair: tuple[float, float] | None) -> str:
    return "" if pair is None else f"{pair[0]:.3f} to {pair[1]:.3f}"
