"""`tellsign audit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import console, fail, told_errors
from .settings import Settings, parse_settings
from .trust import CommercialOnly, Deny, Isolate, IsolateMemory, Plugin, TimeLimit, trust_options

if TYPE_CHECKING:
    from rich.table import Table


def command(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A table of labelled pictures or a folder, as for `tellsign eval`.")
    ],
    root: Annotated[
        Path | None, typer.Option(help="Where relative paths of a list start; default the list's own folder.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Take only this split.")] = None,
    limit: Annotated[
        int, typer.Option(min=2, help="At most so many pictures, half of each class, spread over its sources.")
    ] = 200,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    normalise: Annotated[
        bool, typer.Option("--normalise/--as-is", help="Bring all pictures to one pixel processing first.")
    ] = True,
    autoencoder: Annotated[
        Path | None,
        typer.Option(help="Folder with the weights of a tiny autoencoder; its round trip becomes one more change."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the matrix and pictures.")
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    plugin: Plugin = None,
    deny: Deny = None,
    commercial_only: CommercialOnly = False,
    isolate: Isolate = None,
    isolate_memory: IsolateMemory = None,
    time_limit: TimeLimit = None,
    settings: Settings = None,
) -> None:
    """Audit the detectors: is each moved by what its task is about, and by nothing else?

    Prints accuracy beside the sensitivity to pure pixel changes and to pure semantic changes, who catches what the
    others miss, and AlignGemini's OR against the learned fusion. Exit status 2 where DATA cannot be used.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tellsign.audit.changes import CHANGES, round_trip
    from tellsign.audit.page import save
    from tellsign.audit.run import audit
    from tellsign.errors import SettingError
    from tellsign.evaluation.dataset import DataError, load

    trust = trust_options(
        plugin=plugin,
        deny=deny,
        commercial_only=commercial_only,
        isolate=isolate,
        isolate_memory=isolate_memory,
        time_limit=time_limit,
    )
    changes = list(CHANGES)
    try:
        dataset = load(data, root=root, split=split, limit=limit, seed=seed)
        for name, path in (("--json", json_path), ("--html", html)):
            # Before the scoring, not after it.
            if path is not None and not path.absolute().parent.is_dir():
                raise DataError(f"{name} {path} lies in a folder that does not exist.")
        if autoencoder is not None:
            pixel = [c for c in changes if c.kind == "pixel"]
            changes = [*pixel, round_trip(autoencoder), *(c for c in changes if c.kind == "semantic")]
    except (DataError, SettingError) as error:
        fail(str(error), code=2)

    from tellsign import Detector

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        told_errors(),
        Detector(device=device, stability_probe=False, settings=parse_settings(settings), **trust) as detector,
        Progress(*columns, console=console(stderr=True), transient=True) as bar,
    ):
        task = bar.add_task("auditing", total=len(dataset.items) * (len(changes) + 1))
        found = audit(
            dataset,
            detector,
            changes=changes,
            normalise=normalise,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json_path is not None:
        json_path.write_text(json.dumps(found.report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if html is not None:
        save(found, html)
    for table in tables(found.report):
        console().print(table)


def tables(report: dict[str, Any]) -> list[Table]:
    """The report for the terminal."""
    from rich.table import Table
    from rich.text import Text

    from tellsign.audit.page import number

    def table(title: str, *names: str) -> Table:
        made = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
        for i, name in enumerate(names):
            made.add_column(Text(name), justify="left" if i == 0 else "right")
        return made

    detectors: dict[str, Any] = report["detectors"]
    moved = table("What moves each detector (standard deviations of its log-odds)", "", *detectors)
    moved.add_row("task", *(d["task"] for d in detectors.values()))
    moved.add_row("AUC", *(number(d["auc"], 3) for d in detectors.values()))
    moved.add_row("balanced accuracy at .5", *(number(d["balanced_accuracy"], 3) for d in detectors.values()))
    for change, told in report["changes"].items():
        cells = (number(d["sensitivity"][change]) for d in detectors.values())
        moved.add_row(Text(f"{told['kind']}: {change}"), *cells)
    for key, title in (("pixel", "mean, pixel"), ("semantic", "mean, semantic"), ("semantic_share", "semantic share")):
        moved.add_row(title, *(number(d["mean_sensitivity"][key]) for d in detectors.values()))

    blind = report["blind_spots"]
    caught = table(f"Caught at {blind['fpr']:.0%} false accusations", "generator", "n", *detectors)
    for group, row in sorted(blind["caught"].items(), key=lambda pair: (-pair[1]["n"], pair[0])):
        caught.add_row(Text(group), str(row["n"]), *(number(row[d]) for d in detectors))
    rescued = table("Of what this one misses, the share that the other catches", "", *detectors)
    for a in detectors:
        rescued.add_row(Text(a), *("" if a == b else number(blind["rescued"][a][b]) for b in detectors))

    rules = table("Rules", "", "AUC", "balanced accuracy", "caught", "falsely accused")
    for name, row in report["rules"].items():
        rules.add_row(name, *(number(row[k], 3) for k in ("auc", "balanced_accuracy", "tpr", "fpr")))
    return [moved, caught, rescued, rules]
