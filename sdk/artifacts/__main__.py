"""`python -m tellsign.artifacts DATA`: X-AIGD's protocol on the detectors that are installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tellsign.cli.common import console, fail, told_errors
from tellsign.cli.settings import Settings, parse_settings

LAYOUTS = ("x-aigd", "x-aigd-json")


def command(
    data: Annotated[Path, typer.Argument(help="X-AIGD: its folder of parquet files, or a .json or .jsonl export.")],
    json_path: Annotated[Path | None, typer.Option("--json", help="Write every number to this file.")] = None,
    real: Annotated[Path | None, typer.Option(help="A folder of real pictures; X-AIGD brings none.")] = None,
    split: Annotated[str | None, typer.Option(help="Default labeled_test.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many pictures.")] = None,
    heat: Annotated[
        str | None, typer.Option("--map", metavar="PLUGIN[:MAP]", help="Heat map; default the verdict's.")
    ] = None,
    scaling: Annotated[
        str, typer.Option(help="min-max, as the paper does, or own: the map as its plugin gives it.")
    ] = "min-max",
    scored: Annotated[
        str, typer.Option(help="Whose pixels count: annotated (all annotated pictures) or judged-fake.")
    ] = "annotated",
    journal: Annotated[Path | None, typer.Option(help="Keep answers here and go on where it ends.")] = None,
    quality: Annotated[
        Path | None,
        typer.Option(help="CSV of pictures' names and measures of quality; tellsign.artifacts.niqe has one."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of --limit and the bootstrap.")] = 0,
    settings: Settings = None,
) -> None:
    """Artifact judgement, artifact detection per category, and both against the artifact proportion."""
    from rich.progress import Progress

    from tellsign import Detector
    from tellsign.evaluation.dataset import DataError, load

    from .protocol import SCORED, run
    from .quality import read_quality

    if scaling not in ("own", "min-max"):
        fail(f"--scaling takes min-max or own, got {scaling!r}.", code=2)
    if scored not in SCORED:
        fail(f"--scored takes {' or '.join(SCORED)}, got {scored!r}.", code=2)
    try:
        dataset = load(data, split=split, limit=limit, seed=seed, reals=real)
        if dataset.layout not in LAYOUTS:
            raise DataError(f"{data} was read as {dataset.layout}; this protocol needs X-AIGD's rows.")
        measured = {} if quality is None else read_quality(quality)
    except DataError as error:
        fail(str(error), code=2)
    given = parse_settings(settings)
    with (
        told_errors(),
        Detector(device=device, stability_probe=False, settings=given) as detector,
        Progress(console=console(stderr=True), transient=True) as bar,
    ):
        task = bar.add_task("judging", total=len(dataset.items))
        report = run(
            dataset,
            detector,
            heat=heat,
            scaling="own" if scaling == "own" else "min-max",
            scored=scored,
            journal=journal,
            quality=measured,
            setup={"device": device, "settings": given},
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json_path is not None:
        json_path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    _show(report)


def _show(report: dict[str, Any]) -> None:
    from rich.table import Table

    from .detection import ANY

    out = console()
    judged = report["judgement"]
    table = Table(title="Judgement (generated is positive)", title_justify="left")
    for name in ("", "real", "generated", "balanced accuracy", "precision", "recall", "F1"):
        table.add_column(name, justify="left" if not name else "right")
    for name, row in {"all": judged, **report["by_generator"]}.items():
        numbers = [_number(row[k]) for k in ("balanced_accuracy", "precision", "recall", "f1")]
        table.add_row(name, str(row["n_real"]), str(row["n_fake"]), *numbers)
    out.print(table)
    named = report["maps_name_categories"]
    table = Table(title="Artifact detection, pixels pooled", title_justify="left")
    for name in ("category", "pictures", "IoU", "PixP", "PixR", "PixF1", "IoU/picture"):
        table.add_column(name, justify="left" if name == "category" else "right", no_wrap=True)
    for name, row in report["detection"].items():
        cells = {k: _number(row[k]) for k in ("iou", "precision", "recall", "f1")}
        mean = _number(row["per_picture"]["iou"])
        if not named and name != ANY:  # the other categories' pixels count against the one map
            cells, mean = {k: v if k == "recall" else "-" for k, v in cells.items()}, "-"
        table.add_row(name, str(row["n"]), *cells.values(), mean)
    out.print(table)
    if not named:
        out.print("One map was held against every category, so a category's row has its recall alone.")
    fid = report["fidelity"]
    for name, words in (("clean", "without annotated artifacts"), ("flawed", "with artifacts")):
        out.print(f"Found of {fid[name]['n']} generated pictures {words}: {_number(fid[name]['accuracy'])}")
    out.print(f"Spearman of artifact proportion and p_ai: {_number(fid['spearman_p'])}")
    for name, row in report["quality"].items():
        told = f"{_number(row['spearman_p'])}, and being found: {_number(row['spearman_right'])}"
        out.print(f"Spearman of {name} and p_ai: {told} ({row['n']} pictures)")
    for note in report["notes"]:
        out.print(note)
    for error in report["errors"]:
        out.print(f"{error['name']}: {error['message']}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    typer.run(command)
