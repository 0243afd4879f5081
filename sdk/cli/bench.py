"""`tellsign bench`."""

from __future__ import annotations

import functools
import json
from typing import Annotated

import typer

from .common import console, told_errors
from .trust import CommercialOnly, Deny, Plugin, trust_options


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    pairs: Annotated[
        int | None, typer.Option(min=3, help="Alternating pairs per ratio (default 60, or 8 with --quick).")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer pairs and pictures: minutes, not an hour.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PIECE",
            help="Measure only start, one, many, shared, memory, curve, floor, probe or big; repeatable.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    plugin: Plugin = None,
    deny: Deny = None,
    commercial_only: CommercialOnly = False,
) -> None:
    """Measure what the package costs beside its models: pass, fail or inconclusive, each with its A/A line.

    Close other programs first. Exit status 1 where a line fails.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from tellsign import Detector
    from tellsign.bench.run import PIECES, Plan, bench
    from tellsign.bench.table import show

    trust = trust_options(plugin=plugin, deny=deny, commercial_only=commercial_only)
    pieces = tuple(only) if only else PIECES
    with told_errors():
        plan = Plan.quick(pairs or 8, pieces) if quick else Plan(pairs=pairs or 60, pieces=pieces)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("turn {task.completed}"),
        TimeElapsedColumn(),
    )
    # Redrawn twice a second: a lively bar would take time from what is measured.
    bar = Progress(*columns, console=console(stderr=True), transient=True, refresh_per_second=2)
    with told_errors(), bar:
        task = bar.add_task("loading", total=None)
        now = ""

        def tick(what: str) -> None:
            nonlocal now
            if what != now:
                now = what
                bar.reset(task, description=what)
            bar.advance(task)

        report = bench(make=functools.partial(Detector, **trust), plan=plan, device=device, tick=tick)
    if as_json:
        typer.echo(json.dumps(report, indent=1, allow_nan=False))
    else:
        show(report, console())
    if any(line["judgement"] == "fail" for line in report["lines"]):
        raise typer.Exit(1)
