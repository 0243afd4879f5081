"""`tellsign tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import console, fail, told_errors
from .settings import Settings, parse_settings
from .trust import CommercialOnly, Deny, Isolate, IsolateMemory, Plugin, TimeLimit, trust_options


def command(
    data: Annotated[
        Path | None,
        typer.Argument(help="Labelled pictures, as `tellsign eval` takes them.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the bundle and its reports.", show_default=False)
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Scores instead of pictures: CSV or Parquet.", show_default=False)
    ] = None,
    fusion: Annotated[
        Path | None, typer.Option(help="Bundle to tune; default the shipped one.", show_default=False)
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Column of DATA's CSV that ties pictures of one thing together.", show_default=False),
    ] = None,
    folds: Annotated[
        str, typer.Option(help="What is held out to judge: group, or generator (leave one generator out).")
    ] = "group",
    max_fpr: Annotated[
        float | None,
        typer.Option(
            "--max-fpr", help="A threshold with at most this share of false alarms, sure to 95 %.", show_default=False
        ),
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(help="FALSE,MISS: the cheapest threshold, such as 10,1.", show_default=False),
    ] = None,
    prior: Annotated[float, typer.Option(help="Share of AI pictures where yours come from; for thresholds.")] = 0.5,
    error_rate: Annotated[
        float | None, typer.Option(help="Of the prediction sets; default the base's.", show_default=False)
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Multiply tasks by hand: pixel=.5,semantic=1. Written whatever the gain.", show_default=False
        ),
    ] = None,
    normalise: Annotated[
        bool, typer.Option("--normalise/--as-is", help="Put every picture through one pipeline first.")
    ] = False,
    split: Annotated[str | None, typer.Option(help="Only this split of DATA.", show_default=False)] = None,
    root: Annotated[
        Path | None, typer.Option(help="Where the CSV's paths start; default its own folder.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many pictures.", show_default=False)] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the score table here, CSV or .parquet.", show_default=False)
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where scores are kept; default tellsign's cache.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same data and seed give the same bundle.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that lies in --out.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    plugin: Plugin = None,
    deny: Deny = None,
    commercial_only: CommercialOnly = False,
    isolate: Isolate = None,
    isolate_memory: IsolateMemory = None,
    time_limit: TimeLimit = None,
    settings: Settings = None,
) -> None:
    """Tune the fusion on your own labelled pictures, and say whether that helped.

    Scores are kept, so a run that was killed goes on where it was. Exit status 0 whether a bundle was written or the
    base was kept (report.json says which), 2 where DATA or an option cannot be used.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tellsign.evaluation.items import DataError
    from tellsign.tuning.tune import tune

    if out is None:
        fail("--out names the folder for the bundle and its reports, and is missing.", code=2)
    factors, costs = _factors(weights), _cost(cost)
    trust = trust_options(
        plugin=plugin,
        deny=deny,
        commercial_only=commercial_only,
        isolate=isolate,
        isolate_memory=isolate_memory,
        time_limit=time_limit,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with told_errors(), Progress(*columns, console=console(stderr=True), transient=True) as bar:
        scoring = bar.add_task("scoring", total=None)
        try:
            result = tune(
                data,
                out=out,
                table=table,
                fusion=fusion,
                plugins=trust.pop("plugins", None),
                settings=parse_settings(settings),
                trust=trust,
                device=device,
                group=group,
                folds=folds,
                split=split,
                root=root,
                limit=limit,
                normalise=normalise,
                weights=factors,
                max_fpr=max_fpr,
                cost=costs,
                prior=prior,
                error_rate=error_rate,
                seed=seed,
                overwrite=overwrite,
                cache=cache,
                export=export,
                progress=lambda done, total: bar.update(
                    scoring, completed=done, total=total, description="training" if done == total else "scoring"
                ),
            )
        except DataError as error:
            fail(str(error), code=2)
    show(result.report, written=result.written, folder=result.folder)


def show(report: dict[str, object], *, written: bool, folder: Path) -> None:
    """Print what a person should know."""
    from tellsign.report.words import printable

    out = console()
    findings = report["findings"]
    for found in findings if isinstance(findings, list) else []:
        out.print(f"{'! ' if found['serious'] else '- '}{printable(found['text'])}", soft_wrap=True)
    out.print()
    out.print("A tuned bundle was written." if written else "Nothing better was proven: the base stays in use.")
    reasons = report["reasons"]
    for reason in reasons if isinstance(reasons, list) else []:
        out.print(f"  {printable(reason)}", soft_wrap=True)
    point = report["operating"]
    if isinstance(point, dict):
        out.print(f"Threshold: {point['text']}", soft_wrap=True)
    out.print(f"Reports: {folder / 'report.html'}, {folder / 'report.json'}", soft_wrap=True)
    if written:
        out.print(f'Use it: Detector(fusion="{folder}"), or tellsign detect --fusion {folder}', soft_wrap=True)


def _factors(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    out: dict[str, float] = {}
    for part in text.split(","):
        task, equals, value = part.partition("=")
        try:
            out[task.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals or not task.strip():
            fail(f"--weights takes TASK=NUMBER,..., such as pixel=.5,semantic=1, got {text!r}.", code=2)
    return out


def _cost(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    parts = text.replace(":", ",").split(",")
    try:
        false, miss = (float(p) for p in parts)
    except ValueError:
        fail(f"--cost takes FALSE,MISS, such as 10,1, got {text!r}.", code=2)
    return false, miss
