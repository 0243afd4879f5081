"""Preference training of the vision-language judge: `python -m tellsign.plugins.semantic.training.dpo COMMAND`.

pairs   let a labelling model argue for both verdicts on labelled pictures
train   DPO on low-rank updates (needs the extra train-vlm; goes on when called again)
merge   write model and updates as one folder, for --set semantic.vlm=FOLDER
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from tellsign.data.labelled import read_labelled
from tellsign.towers.vlm import load_vlm
from tellsign.towers.vlm_training import Download, Model, merge, read_pixels, run_commands

from .labeller import vlm_labeller
from .pairs import make_pairs
from .train import DpoRecipe
from .train import train as run_training

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def pairs(
    pictures: Annotated[Path, typer.Option(help="CSV with path, label (1 = made by AI) and, if there, group.")],
    vlm: Model,
    out: Annotated[Path, typer.Option(help="Receives pairs.jsonl and the scrambled pictures.")],
    temperature: Annotated[float, typer.Option(help="0 gives the same text at every call.")] = 0.0,
    seed: int = 0,
    download: Download = False,
) -> None:
    """Make preference pairs."""
    rows = read_labelled(pictures)
    model = load_vlm(vlm, download=download, stored_dtype=torch.cuda.is_available())
    if torch.cuda.is_available():
        model.to("cuda")
    labeller = vlm_labeller(model, temperature=temperature, seed=seed)
    outcome = make_pairs(rows, labeller, out, read=read_pixels, seed=seed)
    for what, count in outcome.most_common():
        typer.echo(f"{count:6d} {what}")


@app.command()
def train(
    folder: Annotated[Path, typer.Option(help="What `pairs` wrote.")],
    vlm: Model,
    out: Annotated[Path, typer.Option(help="Receives the adapter and the run's state.")],
    recipe: Annotated[str, typer.Option(help="JSON with what differs from the default recipe.")] = "{}",
    download: Download = False,
    force: Annotated[bool, typer.Option(help="Take impure pairs too, to measure what mixing costs.")] = False,
) -> None:
    """Train, or go on."""
    typer.echo(run_training(vlm, folder, out, DpoRecipe.parse(recipe), download=download, force=force))


app.command()(merge)

if __name__ == "__main__":
    run_commands(app)
