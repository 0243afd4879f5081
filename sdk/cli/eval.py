"""`tellsign eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .common import console, fail, told_errors
from .settings import Settings, parse_settings


def command(
    data: Annotated[
        Path,
        typer.Argument(
            help="CSV with path,label[,generator,group,mask,source,split] (label 1 = AI), "
            "or a folder with real/ and fake/.",
            show_default=False,
        ),
    ],
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write every number to this file.", show_default=False)
    ] = None,
    conditions: Annotated[
        str,
        typer.Option(help="Commas between: native, jpeg90, jpeg70, jpeg40, webp, half, blur, screenshot."),
    ] = "native",
    normalise: Annotated[
        bool,
        typer.Option(
            "--normalise/--as-is",
            help="Resample and re-encode every picture alike first, or judge the files as they are.",
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(help="At most so many pictures, half of each class.", show_default=False)
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only the rows of this split of the CSV.", show_default=False)
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Where the CSV's paths start; default its own folder.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of --limit, the bootstrap and --normalise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    stability: Annotated[
        bool,
        typer.Option("--stability/--no-stability", help="Look at each picture saved again, as detect does."),
    ] = True,
    settings: Settings = None,
) -> None:
    """Measure the verdicts on labelled pictures: ranking, calibration, abstention, false accusations.

    The first condition is what the overall numbers are measured under. Exit status 2 where DATA cannot be used.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tellsign.errors import SettingError
    from tellsign.evaluation.conditions import parse
    from tellsign.evaluation.dataset import DataError, load
    from tellsign.evaluation.run import evaluate
    from tellsign.evaluation.table import show

    try:
        chosen = [c.name for c in parse(conditions)]
        dataset = load(data, root=root, split=split, limit=limit, seed=seed)
        # Before the hour of scoring, not after it.
        if json_path is not None and not json_path.absolute().parent.is_dir():
            raise DataError(f"--json {json_path} lies in a folder that does not exist.")
    except (DataError, SettingError) as error:
        fail(str(error), code=2)

    from tellsign import Detector

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        told_errors(),
        Detector(device=device, stability_probe=stability, settings=parse_settings(settings)) as detector,
        Progress(*columns, console=console(stderr=True), transient=True) as bar,
    ):
        task = bar.add_task("scoring", total=len(dataset.items) * len(chosen))
        report = evaluate(
            dataset,
            detector,
            conditions=chosen,
            normalise=normalise,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json_path is not None:
        json_path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    show(report, console())
    if report["overall"]["auc"] is None:
        raise typer.Exit(1)
