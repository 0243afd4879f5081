"""Preference training of the vision-language judge: `python -m tellsign.plugins.semantic.training.dpo COMMAND`.

pairs   let a labelling model argue for both verdicts on labelled pictures
train   DPO on low-rank updates (needs the extra train-vlm; goes on when called again)
merge   write model and updates as one folder, for --set semantic.vlm=FOLDER
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from tellsign import decode
from tellsign.data.labelled import read_labelled
from tellsign.errors import TellsignError
from tellsign.plugin import UnavailableError
from tellsign.towers.vlm import load_vlm
from tellsign.towers.vlm_adapter import merge_adapter

from .labeller import vlm_labeller
from .pairs import make_pairs
from .train import DpoRecipe
from .train import train as run_training

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)

Model = Annotated[str, typer.Option("--vlm", help="Folder of a Qwen2.5-VL model, or its repository on the hub.")]
Download = Annotated[bool, typer.Option(help="Fetch the repository when it is not on this machine.")]


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """A picture as detection decodes it."""
    return decode(path).pixels


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


@app.command()
def merge(
    vlm: Model,
    adapter: Annotated[Path, typer.Option(help="What `train` wrote.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    download: Download = False,
) -> None:
    """Write model and updates as one folder."""
    typer.echo(merge_adapter(vlm, adapter, out, download=download))


def main() -> None:
    """Run a command; errors that are raised on purpose become one line."""
    try:
        app()
    except (TellsignError, UnavailableError) as error:
        typer.echo(f"tellsign: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
