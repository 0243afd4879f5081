"""AIGI-R1, reasoning learned from rewards: `python -m tellsign.plugins.reasoning.training.grpo COMMAND`.

train   GRPO on low-rank updates (needs the extra train-vlm; goes on when called again)
merge   write model and updates as one folder
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from tellsign import decode
from tellsign.data.labelled import read_labelled
from tellsign.errors import TellsignError
from tellsign.plugin import UnavailableError
from tellsign.towers.vlm_adapter import merge_adapter

from .train import ADAPTER, GrpoRecipe
from .train import train as run_training

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)

Model = Annotated[str, typer.Option("--vlm", help="Folder of a Qwen2.5-VL model, or its repository on the hub.")]
Download = Annotated[bool, typer.Option(help="Fetch the repository when it is not on this machine.")]


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """A picture as detection decodes it."""
    return decode(path).pixels


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
