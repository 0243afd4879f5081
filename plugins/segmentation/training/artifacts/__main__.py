"""Learns to see artifacts: `python -m tellsign.plugins.segmentation.training.artifacts COMMAND`.

    train      judge, pad, transfer or both (resumes)
    evaluate   a run by X-AIGD's protocol

DATA is X-AIGD as the hub has it or exported, or a folder that `tellsign forge` wrote, whose inpainted regions then
stand for artifacts.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from tellsign.artifacts.rows import MarkedPicture, marked_pictures
from tellsign.plugins.segmentation.training.flushing import flushing

from . import evaluate as evaluating
from .crops import hold_out
from .recipe import Recipe
from .train import train as run_training

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)

Data = Annotated[list[Path], typer.Option(help="X-AIGD or a forged folder; may be given several times.")]
Split = Annotated[str | None, typer.Option(help="Of X-AIGD: labeled_train, labeled_test, unlabeled_train ...")]
Real = Annotated[Path | None, typer.Option(help="A folder of real pictures; X-AIGD brings none.")]


def _read(data: list[Path], split: str | None, real: Path | None) -> list[MarkedPicture]:
    # Real pictures are the same beside each DATA.
    return [p for k, d in enumerate(data) for p in marked_pictures(d, split=split, reals=real if k == 0 else None)]


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    recipe: Annotated[str, typer.Option(help="JSON with what differs from the default recipe.")] = "{}",
    split: Split = None,
    real: Real = None,
    imagenet: Annotated[
        Path | None, typer.Option(help="ImageNet weights of the encoder; see the segmentation plugin's training.")
    ] = None,
    start: Annotated[Path | None, typer.Option(help='Weights of a run of mode "pad", for "transfer".')] = None,
) -> None:
    """Train, or go on."""
    with flushing():
        pictures = _read(data, split, real)
        typer.echo(f"{run_training(Recipe.parse(recipe), pictures, out, imagenet=imagenet, start=start)}")


@app.command()
def evaluate(
    data: Data,
    run: Annotated[Path, typer.Option(help="Folder of the finished run.")],
    split: Split = None,
    real: Real = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only the groups that the run left out, for the data it learned from.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Receives the numbers as JSON.")] = None,
) -> None:
    """Print the protocol's numbers."""
    recipe, model = evaluating.read_run(run)
    pictures = _read(data, split, real)
    if held_out:
        pictures = hold_out(pictures, recipe.validation)[1]
    told = json.dumps(_plain(evaluating.evaluate(recipe, model, pictures)), indent=1, allow_nan=False)
    if out is not None:
        out.write_text(told + "\n")
    typer.echo(told)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    app()
