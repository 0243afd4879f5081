"""`tellsign plugins new` and `tellsign plugins check`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import console, told_errors
from .settings import Settings, parse_settings

if TYPE_CHECKING:
    from tellsign.devkit import Report, Result

_COLOURS = {"passed": "green", "failed": "bold red", "expected": "yellow", "skipped": "dim"}


def new(
    name: Annotated[str, typer.Argument(help="The detector's name: a-z, 0-9, _ and -.")],
    task: Annotated[
        str, typer.Option(help="What it looks at: pixel, semantic, segmentation, reasoning or provenance.")
    ] = "pixel",
    folder: Annotated[Path, typer.Option("--into", help="Folder to write into.", metavar="DIR")] = Path(),
    single: Annotated[bool, typer.Option("--one-file", help="One file for a trial, and no package.")] = False,
) -> None:
    """Write a detector that works as it stands: a package to install, or one file to try."""
    from tellsign.devkit.new import new as write
    from tellsign.schemas import Task

    tasks = [t.value for t in Task]
    if task not in tasks:
        raise typer.BadParameter(f"takes one of {', '.join(tasks)}, got {task!r}", param_hint="--task")
    with told_errors():
        written = write(name, task=Task(task), folder=folder, single=single)
    out = console()
    for path in written:
        out.print(str(path), soft_wrap=True)
    if single:
        out.print(f"\nTry it:  tellsign detect PICTURE --plugin {written[0]}", soft_wrap=True)
        out.print(f"Check it:  tellsign plugins check {written[0]}", soft_wrap=True)
    else:
        out.print(f"\nInstall it:  pip install -e {written[0].parent}", soft_wrap=True)
        out.print(f"Check it:  tellsign plugins check {name}", soft_wrap=True)


def check(
    plugin: Annotated[str, typer.Argument(metavar="NAME|FILE.py", help="An installed detector, or one in a file.")],
    expect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECK=REASON", help="A check that is known to fail, and why; may be given several times."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="Only this check; may be given several times.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, auto, cuda or mps.", metavar="D")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    settings: Settings = None,
) -> None:
    """Check that a detector keeps to what every detector must keep to; each check says what it did and counted.

    Ends with 1 where a check fails that was not expected to, or where the detector cannot speak here.
    """
    from tellsign.devkit import check as run

    given = parse_settings(settings)
    name = plugin.removesuffix(".py").replace("\\", "/").rpartition("/")[2] if plugin.endswith(".py") else plugin
    strangers = sorted(set(given) - {name})
    if strangers:
        raise typer.BadParameter(f"takes settings of {name}, got some of {', '.join(strangers)}", param_hint="--set")
    with told_errors():
        report = run(
            plugin,
            settings=given.get(name, {}),
            expected=_expected(expect),
            only=only,
            device=device,
            tell=(lambda _: None) if as_json else _say,
        )
    if as_json:
        import attrs

        typer.echo(json.dumps({"passed": report.passed, "counts": report.counts} | attrs.asdict(report), indent=2))
    else:
        _sum_up(report)
    if not report.passed:
        raise typer.Exit(1)


def _expected(given: Iterable[str] | None) -> dict[str, str]:
    out = {}
    for text in given or ():
        name, equals, reason = text.partition("=")
        if not equals or not reason.strip():
            raise typer.BadParameter(f"takes CHECK=REASON, got {text!r}", param_hint="--expect")
        out[name] = reason
    return out


def _say(result: Result) -> None:
    from rich.table import Table
    from rich.text import Text

    from tellsign.report.words import printable

    line = Table.grid(padding=(0, 2))
    line.add_column(width=8, justify="right")
    line.add_column(width=19)
    line.add_column(overflow="fold")
    said = Text(printable(result.said))
    line.add_row(Text(result.state, style=_COLOURS[result.state]), Text(result.name, style="bold"), said)
    if result.state == "expected":
        line.add_row("", "", Text(printable(f"expected: {result.reason}"), style="yellow"))
    console().print(line)


def _sum_up(report: Report) -> None:
    from tellsign.report.words import printable

    counted = ", ".join(f"{n} {state}" for state, n in report.counts.items() if n)
    console().print()
    console().print(printable(f"{report.plugin}: {counted}, of {len(report.results)} checks."))
    if report.unavailable:
        console().print(printable(f"It cannot be checked here: {report.unavailable}"))
