"""`python -m tellsign.artifacts.niqe DATA --photographs DIR --out FILE`: NIQE of every picture, for `--quality`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from tellsign.cli.common import console, fail, told_errors
from tellsign.decoding import decode
from tellsign.errors import TellsignError
from tellsign.evaluation.dataset import DataError, load

from .naturalness import Naturalness

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}
FIELDS = ("name", "niqe")


def command(
    data: Annotated[Path, typer.Argument(help="X-AIGD, or any data set that `tellsign eval` reads.")],
    photographs: Annotated[
        Path, typer.Option(help="A folder of photographs; what their patches look like is natural.")
    ],
    out: Annotated[Path, typer.Option(help="CSV of name and niqe; pictures that it has are not measured again.")],
    split: Annotated[str | None, typer.Option(help="As of `tellsign eval`.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many pictures.")] = None,
) -> None:
    """NIQE under a model of photographs of your own; comparable within one model only."""
    from tqdm import tqdm

    files = sorted(p for p in photographs.rglob("*") if p.suffix.casefold() in SUFFIXES)
    with told_errors():
        try:
            items = load(data, split=split, limit=limit).items
            model = Naturalness.fit(_pixels(files))
        except DataError as error:
            fail(str(error), code=2)
        except ValueError as error:
            fail(f"--photographs {photographs}: {error}.", code=2)
    known = set()
    if out.is_file():
        with out.open(newline="", encoding="utf-8") as handle:
            known = {line["name"] for line in csv.DictReader(handle)}
    with out.open("a", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        if not known:
            handle.truncate(0)
            writer.writerow(FIELDS)
        for item in tqdm([i for i in items if i.name not in known], desc="pictures"):
            try:
                value = model.distance(decode(item.file).pixels)
            except TellsignError as error:
                console(stderr=True).print(f"{item.name}: {error}")
                continue
            writer.writerow((item.name, f"{value:.6g}"))
            handle.flush()
    typer.echo(f"{out}: {len(items)} pictures, a model of {len(files)} photographs")


def _pixels(files: list[Path]) -> Iterator[NDArray[np.uint8]]:
    for file in files:
        yield decode(file).pixels


if __name__ == "__main__":
    typer.run(command)
