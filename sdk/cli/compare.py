"""`tellsign compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .common import console, fail


def command(
    first: Annotated[Path, typer.Argument(help="A report of tellsign eval --json.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another one, on the same pictures.", show_default=False)],
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write every number to this file.", show_default=False)
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="Of the paired bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
) -> None:
    """Compare two reports picture by picture: is the second better than the first, or is it the draw?

    Pictures are paired by content. Differences are second less first, with intervals and p-values from a bootstrap over
    groups, and DeLong's and McNemar's tests where every picture stands alone. Exit status 2 where nothing can be
    compared.
    """
    from tellsign.evaluation.compare import load, reports
    from tellsign.evaluation.items import DataError
    from tellsign.evaluation.table import show_comparison

    try:
        if json_path is not None and not json_path.absolute().parent.is_dir():
            raise DataError(f"--json {json_path} lies in a folder that does not exist.")
        compared = reports(load(first), load(second), draws=draws, seed=seed)
    except DataError as error:
        fail(str(error), code=2)
    if json_path is not None:
        json_path.write_text(json.dumps(compared, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    names = (first.stem, second.stem) if first.stem != second.stem else (str(first), str(second))
    show_comparison(compared, *names, console())
