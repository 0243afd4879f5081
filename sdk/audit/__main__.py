"""`python -m tellsign.audit TABLE`: who catches what the others miss, from a table of scores.

TABLE is what `python -m tellsign.data.default_fusion` leaves in its work folder, so no detector is asked again.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from tellsign.evaluation.items import DataError

from .matrix import FPR, accuracy, blind_spots

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def spots(
    table: Annotated[
        Path, typer.Argument(help="A CSV with label, source, group and a column of log-odds per detector.")
    ],
    columns: Annotated[str, typer.Option(help="Detectors, commas between; rows without all of them are left out.")],
    fpr: Annotated[float, typer.Option(min=0, max=1, help="Share of real pictures accused, for each detector.")] = FPR,
) -> None:
    """Print accuracy, the share caught per generator, and what each catches of what another misses.

    Of several rows of one group the first counts.
    """
    names = [n.strip() for n in columns.split(",")]
    with table.open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        lacking = [n for n in (*names, "label", "source", "group") if n not in (reader.fieldnames or ())]
        if lacking:
            raise DataError(f"{table} has no column {', '.join(lacking)}.")
        first: dict[tuple[str, str], dict[str, str]] = {}
        for line in reader:
            if all(line[n] for n in names):
                first.setdefault((line["source"], line["group"]), line)
    rows = list(first.values())
    label = np.array([int(r["label"]) for r in rows], int)
    scores = {n: np.array([float(r[n]) for r in rows]) for n in names}
    found = blind_spots(label, [r["source"] for r in rows], scores, fpr=fpr)
    typer.echo(f"{len(rows)} pictures, {int((label == 0).sum())} real; each detector accuses {fpr:.0%} of them")
    for name, values in scores.items():
        said = accuracy(label, values)
        typer.echo(
            f"{name:<24} AUC {said['auc']:.3f}, balanced accuracy at its own threshold {said['balanced_accuracy']:.3f}"
        )
    typer.echo("| generator | n | " + " | ".join(names) + " |")
    for generator, line in sorted(found["caught"].items(), key=lambda pair: -pair[1]["n"]):
        typer.echo(f"| {generator} | {line['n']} | " + " | ".join(f"{line[n]:.2f}" for n in names) + " |")
    for one, others in found["rescued"].items():
        for other, share in others.items():
            typer.echo(f"of what {one} misses, {other} catches " + ("-" if share is None else f"{share:.2f}"))


if __name__ == "__main__":
    app()
