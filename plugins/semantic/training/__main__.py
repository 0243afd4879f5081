"""`python -m tellsign.plugins.semantic.training`: prepare, features, table, head, student, export."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from tellsign.data.purity import check_purity
from tellsign.data.rows import SPLITS, read_rows
from tellsign.plugins.semantic.weights_files import load_head
from tellsign.schemas import Task
from tellsign.towers import CLIP_VIT_B16, ClipTower, clip_tower

from . import export as exporting
from . import lite, paper, probe
from .features import Squares, extract, read_tokens
from .measure import accused, auc
from .prepare import VERSIONS
from .prepare import prepare as preparing

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
Folder = Annotated[Path, typer.Option(help="What `prepare` wrote.")]
Tower = Annotated[str, typer.Option(help="A tower of `tellsign models list`.")]
Forced = Annotated[bool, typer.Option("--force", help="Train on data that was made for another task.")]


def _half(tower: ClipTower) -> ClipTower:
    """Frozen blocks in bfloat16, which is what the features were taken with."""
    tower.requires_grad_(False)
    tower.transformer.bfloat16()
    return tower.eval()


@app.command()
def prepare(
    shared: Annotated[Path, typer.Option(help="Folder with data/.")],
    out: Annotated[Path, typer.Option(help="Receives the squares.")],
    full: Annotated[Path | None, typer.Option(help="Whole pictures with their manifest.csv.")] = None,
    skipped: Annotated[
        Path | None, typer.Option(help="skipped.csv of the pixel plugin's `prepare`: what it lists is left out.")
    ] = None,
) -> None:
    """Make what the tower is shown of every picture."""
    leave: list[Path] = []
    if skipped is not None:
        with skipped.open(newline="") as handle:
            leave = [Path(line["path"]) for line in csv.DictReader(handle)]
    rows = [r for r in read_rows(shared / "data", full) if r.split != "user"]
    typer.echo(f"{preparing(rows, out, skipped=leave)} pictures in {out}")


@app.command()
def features(
    folder: Folder,
    tower: Tower = CLIP_VIT_B16,
    versions: Annotated[str, typer.Option(help=f"Of {', '.join(VERSIONS)}.")] = "overview",
    splits: Annotated[str, typer.Option(help=f"Of {', '.join(SPLITS)}.")] = "fit,fuse",
) -> None:
    """Extract the tower's class tokens."""
    model = _half(clip_tower(tower))
    for version in versions.split(","):
        extract(Squares.read(folder), version, model, folder, splits=splits.split(","))


@app.command()
def table(folder: Folder, tower: Tower = CLIP_VIT_B16) -> None:
    """Print the table of linear probes against the topic-only baseline; also to table.json."""
    data = probe.Data(folder, clip_tower(tower))
    lines = probe.table(data, probe.ROWS)
    (folder / "table.json").write_text(json.dumps(lines, indent=1))
    _show(lines)


@app.command()
def head(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="Receives the weights file.")],
    version: Annotated[str, typer.Option()],
    tower: Tower = CLIP_VIT_B16,
    recipe: Annotated[str, typer.Option(help="JSON with what differs from the default recipe.")] = "{}",
    force: Forced = False,
) -> None:
    """Fit the head that ships, its zero at its own threshold."""
    check_purity(folder, Task.SEMANTIC, force=force)
    chosen = probe.Recipe(**_told(recipe))
    data = probe.Data(folder, clip_tower(tower))
    versions = [v for v in ("overview", "plain") if v in data.tokens and data.has(v)[data.split == "fuse"].all()]
    made = exporting.fit_head(data, chosen, versions=versions)
    out.mkdir(parents=True, exist_ok=True)
    typer.echo(exporting.export_head(made, chosen, out, version=version, tower=tower))


@app.command()
def accusations(
    folder: Folder,
    weights: Annotated[Path, typer.Option(help="A head's weights file.")],
    split: Annotated[str, typer.Option(help="fuse chooses; test is read once, for the table.")] = "fuse",
    version: Annotated[str, typer.Option(help=f"Of {', '.join(VERSIONS)}.")] = "overview",
) -> None:
    """AUC of a finished head on a split, and the real pictures of each source above its threshold."""
    squares, made = Squares.read(folder), load_head(weights)
    rows = np.flatnonzero(squares.split == split)
    tokens = torch.from_numpy(np.asarray(read_tokens(folder, version)[rows], np.float32))
    with torch.inference_mode():
        scores = made(tokens).numpy().astype(np.float64)
    label, source = squares.label[rows], squares.source[rows]
    typer.echo(f"AUC {auc(label, scores):.3f}, caught {(scores[label == 1] > 0).mean():.3f}")
    for name, (above, n) in accused(label, scores, source, 0.0).items():
        typer.echo(f"{name:<24} {above} of {n}")


@app.command()
def student(
    folder: Folder,
    teacher: Annotated[Path, typer.Option(help="The head's weights file.")],
    start: Annotated[Path, typer.Option(help="efficientnet-lite0-57934424.pth of the package index.")],
    run: Annotated[Path, typer.Option(help="Folder of the run.")],
    out: Annotated[Path, typer.Option(help="Receives the weights file.")],
    version: Annotated[str, typer.Option()],
    recipe: Annotated[str, typer.Option(help="JSON with what differs from the default recipe.")] = "{}",
    force: Forced = False,
) -> None:
    """Distil the student and export it with its zero at its own threshold."""
    check_purity(folder, Task.SEMANTIC, force=force)
    chosen = lite.Recipe(**_told(recipe))
    squares, data = Squares.read(folder), probe.Data(folder, clip_tower(CLIP_VIT_B16))
    made = lite.distil(chosen, squares, data, load_head(teacher), start, run)
    calibration = lite.calibration(squares, data, made, ("overview", "plain"))
    out.mkdir(parents=True, exist_ok=True)
    typer.echo(exporting.export_student(run, out, calibration, version=version))


@app.command()
def transfer(
    folder: Folder,
    pairs: Annotated[Path, typer.Option(help="Folder with the pixel plugin's pairs_real.npy and pairs_fake.npy.")],
    blocks: Annotated[str, typer.Option(help="Counted from 1.")] = "7,12",
    count: Annotated[int, typer.Option(help="Pairs to take.")] = 400,
    force: Forced = False,
) -> None:
    """The paper's measurement: semantic against pixel supervision of one tower, on unseen families."""
    tower = clip_tower(CLIP_VIT_B16)
    data = probe.Data(folder, tower)
    cache = folder / "pairs.npy"
    if not cache.is_file():
        np.save(cache, paper.pair_tokens(pairs, _half(tower), count=count, force=force))
    lines = paper.transfer(data, np.load(cache), [int(b) for b in blocks.split(",")])
    (folder / "transfer.json").write_text(json.dumps(lines, indent=1))
    _show(lines)


@app.command()
def declare(
    weights: Annotated[Path, typer.Option(help="Folder with the weights files, beside tellsign.json.")],
) -> None:
    """Write the weights files' hashes into the declaration."""
    exporting.declare(sorted(weights.glob("*.safetensors")), weights.parent / "tellsign.json")


def _told(recipe: str) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(recipe).items()}


def _show(lines: list[dict[str, float | str]]) -> None:
    for line in lines:
        typer.echo("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{v:<44}" for k, v in line.items()))


if __name__ == "__main__":
    app()
