"""The bench as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "info": "dim"}


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print a report of `tellsign.bench.run.bench`."""
    machine, settings = report["machine"], report["settings"]
    console.print(
        f"{machine['device']}, {machine['cores']} cores, {machine['torch_threads']} torch threads, "
        f"torch {machine['torch']}; {settings['pairs']} alternating pairs, medians with 95 % bootstrap intervals"
    )
    table = Table(box=box.SIMPLE_HEAD)
    for i, name in enumerate(("", "median", "interval", "A/A", "limit", "")):
        table.add_column(name, justify="left" if i in (0, 5) else "right")
    for line in report["lines"]:
        unit, limit = line["unit"], line["limit"]
        table.add_row(
            line["name"],
            "-" if line["value"] is None else _amount(line["value"]["median"], unit),
            _interval(line["value"], unit),
            _interval(line["aa"], unit),
            "" if limit is None else _amount(limit, unit),
            Text("" if line["judgement"] == "info" else line["judgement"], _STYLES[line["judgement"]]),
        )
    console.print(table)
    if report["batch_curve"]:
        console.print(_curve(report["batch_curve"]))
    for line in report["lines"]:
        if line["note"]:
            console.print(Text.assemble((line["name"], "dim"), f": {line['summary']}; {line['note']}"))


def _curve(points: Sequence[Mapping[str, float]]) -> Table:
    curve = Table(title="Batch size", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("pictures per batch", "per picture", "interval", "pictures a second"):
        curve.add_column(name, justify="right")
    for point in points:
        seconds = point["seconds_per_picture"]
        curve.add_row(
            str(point["batch_size"]),
            _amount(seconds, "s"),
            f"{_amount(point['low'], 's')} to {_amount(point['high'], 's')}",
            f"{1 / seconds:.1f}",
        )
    return curve


def _interval(estimate: Mapping[str, float] | None, unit: str) -> str:
    return "" if estimate is None else f"{_amount(estimate['low'], unit)} to {_amount(estimate['high'], unit)}"


def _amount(value: float, unit: str) -> str:
    if unit == "share":
        return f"{value:.1%}"
    return f"{value * 1e3:.2f} ms" if abs(value) < 0.1 else f"{value:.2f} s"
