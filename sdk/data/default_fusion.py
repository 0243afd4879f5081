"""Makes the fusion bundle that ships: `python -m tellsign.data.default_fusion`.

Every picture of `fuse` is scored by the shipped plugins in several versions (another window, another compression, from
the one normalising pipeline), with the tower model and with the bundled one; versions share the picture's group, so
that they count as one picture.
"""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from tellsign.decoding import decode
from tellsign.detector import Detector
from tellsign.errors import DecodeError, SettingError
from tellsign.fusion.features import columns, feature_row, matrix
from tellsign.fusion.table import ScoreTable
from tellsign.fusion.train import train_bundle
from tellsign.host import discover
from tellsign.schemas import HEADS, Declaration, Picture

from .normalise import normalise, reencode
from .rows import PictureRow, read_rows

STRENGTHS = ("tower", "bundled")
VERSIONS = 2
"""Versions of a picture: the first as the pipeline gives it, the second from another window and compressed harder."""

app = typer.Typer(add_completion=False, help=__doc__)


def version_of(pixels: NDArray[np.uint8], row: PictureRow, version: int) -> NDArray[np.uint8]:
    """Version `version` of a picture: uint8 (H, W, 3) to uint8 (s, s, 3)."""
    seed = zlib.crc32(f"{row.source}/{row.path.name}/{version}".encode())
    out = normalise(pixels, seed)
    if version:
        rng = np.random.default_rng(seed)
        out = reencode(out, int(rng.integers(40, 96)))
    return out


def scored(
    rows: Sequence[PictureRow], detector: Detector, *, versions: int, chunk: int = 16
) -> Iterator[tuple[PictureRow, dict[str, float]]]:
    """Feature rows of every version of every picture that can be read and is large enough."""
    waiting: list[tuple[PictureRow, Picture]] = []

    def flush() -> Iterator[tuple[PictureRow, dict[str, float]]]:
        answers = detector.collect_many([p for _, p in waiting])
        for (row, _), evidence in zip(waiting, answers, strict=True):
            line: dict[str, float] = {}
            for head in HEADS:
                line |= feature_row(evidence, detector.declarations, head)
            yield row, line
        waiting.clear()

    for row in rows:
        try:
            pixels = decode(row.path).pixels
            made = [Picture(pixels=version_of(pixels, row, v)) for v in range(versions)]
        except (DecodeError, SettingError) as error:
            typer.echo(f"left out: {row.path.name}: {error}", err=True)
            continue
        waiting += [(row, p) for p in made]
        if len(waiting) >= chunk:
            yield from flush()
    yield from flush()


def score_table(
    rows: Sequence[PictureRow], declarations: dict[str, Declaration], *, device: str, out: Path
) -> ScoreTable:
    """Score `rows` with both strengths, or read what an earlier call scored (`scores-<strength>.json` in `out`)."""
    made = columns(declarations)
    lines: list[dict[str, float]] = []
    kept: list[PictureRow] = []
    by_path = {str(r.path): r for r in rows}
    for strength in STRENGTHS:
        cache = out / f"scores-{strength}.json"
        if not cache.is_file():
            with Detector(device=device, settings={"pixel": {"strength": strength}}) as detector:
                pairs = [(str(r.path), line) for r, line in scored(rows, detector, versions=VERSIONS)]
            cache.write_text(json.dumps(pairs))
        for path, line in json.loads(cache.read_text()):
            # What an earlier call scored and this one leaves out.
            if path in by_path:
                kept.append(by_path[path])
                lines.append(line)
    values = matrix(lines, made)
    answered = np.flatnonzero(~np.isnan(values).all(axis=1))
    chosen = [kept[i] for i in answered]
    return ScoreTable(
        rows=values[answered],
        columns=made,
        label=[r.label for r in chosen],
        group=[r.group for r in chosen],
        source=[r.source for r in chosen],
        split=[r.split for r in chosen],
    )


@app.command()
def main(
    shared: Annotated[Path, typer.Option(help="Folder with data/.")],
    work: Annotated[Path, typer.Option(help="Receives the scores and the training report.")],
    out: Annotated[Path, typer.Option(help="Receives the bundle.")],
    full: Annotated[Path | None, typer.Option(help="Whole pictures with their manifest.csv.")] = None,
    skipped: Annotated[
        Path | None, typer.Option(help="skipped.csv of the pixel plugin's `prepare`: what it lists is left out.")
    ] = None,
    device: str = "auto",
    seed: int = 0,
) -> None:
    """Score `fuse` and train the bundle."""
    work.mkdir(parents=True, exist_ok=True)
    out_of_play: set[Path] = set()
    if skipped is not None:
        with skipped.open(newline="") as handle:
            out_of_play = {Path(line["path"]).resolve() for line in csv.DictReader(handle)}
    rows = [r for r in read_rows(shared / "data", full) if r.split == "fuse" and r.path.resolve() not in out_of_play]
    declarations = {r.name: r.declaration for r in discover() if r.declaration is not None and r.state == "ok"}
    table = score_table(rows, declarations, device=device, out=work)
    # Chosen on `fuse` with families left out: at .2 hardly any verdict was definite, and .5 gained nothing over .35.
    bundle, report = train_bundle(table, declarations=declarations, seed=seed, plausible=0.35)
    table.save(work / "fuse.csv")
    (work / "report.json").write_text(json.dumps(report, indent=1))
    bundle.save(out)
    typer.echo(f"{len(table)} rows of {len(set(table.group.tolist()))} pictures; bundle {bundle.version} in {out}")


if __name__ == "__main__":
    app()
