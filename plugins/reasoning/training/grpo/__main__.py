"""AIGI-R1, reasoning learned from rewards: `python -m tellsign.plugins.reasoning.training.grpo COMMAND`.

train   GRPO on low-rank updates (needs the extra train-vlm; goes on when called again)
merge   write model and updates as one folder
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tellsign.data.labelled import read_labelled
from tellsign.towers.vlm_training import ADAPTER, Download, Model, merge, read_pixels, run_commands

from .train import GrpoRecipe
from .train import train as run_training

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def train(
    pictures: Annotated[Path, typer.Option(help="CSV with path and label (1 = made by AI).")],
    vlm: Model,
    out: Annotated[Path, typer.Option(help="Receives the adapter and the run's state.")],
    recipe: Annotated[str, typer.Option(help="JSON with what differs from the default recipe.")] = "{}",
    download: Download = False,
) -> None:
    """Train, or go on."""
    chosen = GrpoRecipe.parse(recipe)
    unreadable = run_training(vlm, read_labelled(pictures), out, chosen, read=read_pixels, download=download)
    for line in unreadable:
        typer.echo(f"left out: {line}", err=True)
    typer.echo(out / ADAPTER)


app.command()(merge)

if __name__ == "__main__":
    run_commands(app)
