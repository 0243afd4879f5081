"""Writes the rows of one split as a CSV for `tellsign eval`: `python -m tellsign.data.manifest`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from .rows import SPLITS, read_rows

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def main(
    shared: Annotated[Path, typer.Option(help="Folder with data/.")],
    split: Annotated[str, typer.Option(help="fit, fuse, user or test.")],
    out: Annotated[Path, typer.Option(help="The CSV.")],
    full: Annotated[Path | None, typer.Option(help="Whole pictures with their manifest.csv.")] = None,
) -> None:
    """Whole pictures where there are some, native crops otherwise; `generator` is the source of the fakes."""
    if split not in SPLITS:
        raise typer.BadParameter(f"takes one of {', '.join(SPLITS)}, got {split!r}", param_hint="--split")
    rows = [r for r in read_rows(shared / "data", full) if r.split == split]
    with out.open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(("path", "label", "source", "generator", "group"))
        for r in rows:
            table.writerow((r.path.absolute(), r.label, r.source, r.source if r.label else "", r.group))
    typer.echo(f"{len(rows)} pictures of {split} in {out}")


if __name__ == "__main__":
    app()
