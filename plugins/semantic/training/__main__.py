"""`python -m tellsign.plugins.semantic.training`: from pictures to weights files, and what docs/semantic.md prints."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from tellsign.data.purity import check_purity
from tellsign.data.rows import SPLITS, read_rows
from tellsign.data.scoring import write_scores
from tellsign.errors import SettingError
from tellsign.plugins.semantic.weights_files import load_head
from tellsign.schemas import Task
from tellsign.towers import CLIP_VIT_B16, ClipTower, clip_tower
from tellsign.weights.files import declare as declare_weights

from . import crossfit, lite, lora, paper, probe
from . import export as exporting
from .features import Squares, extract
from .measure import accused, auc, by_source, evenly
from .prepare import SIDE, VERSIONS
from .prepare import prepare as preparing

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
Folder = Annotated[Path, typer.Option(help="What `prepare` wrote.")]
Tower = Annotated[str, typer.Option(help="A tower of `tellsign models list`.")]
Each = Annotated[int, typer.Option(help="At most so many pictures of a source, spread evenly; 0 for all.")]
Real = Annotated[bool, typer.Option("--real", help="Real pictures only.")]
Forced = Annotated[bool, typer.Option("--force", help="Train on data that was made for another task.")]


def _chosen(squares: Squares, split: str, *, each: int, real: bool) -> NDArray[np.int64]:
    """Places of a split's pictures, all of them or some."""
    rows = np.flatnonzero((squares.split == split) & ((squares.label == 0) | (not real)))
    return evenly(rows, squares.label[rows], squares.source[rows], each) if each else rows


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
    side: Annotated[int, typer.Option(help="What the tower takes: 224 px, or 336 for clip-vit-l14-336.")] = SIDE,
) -> None:
    """Make what the tower is shown of every picture."""
    leave: list[Path] = []
    if skipped is not None:
        with skipped.open(newline="") as handle:
            leave = [Path(line["path"]) for line in csv.DictReader(handle)]
    rows = [r for r in read_rows(shared / "data", full) if r.split != "user"]
    typer.echo(f"{preparing(rows, out, skipped=leave, side=side)} pictures in {out}")


@app.command()
def features(
    folder: Folder,
    tower: Tower = CLIP_VIT_B16,
    versions: Annotated[str, typer.Option(help=f"Of {', '.join(VERSIONS)}.")] = "overview",
    splits: Annotated[str, typer.Option(help=f"Of {', '.join(SPLITS)}.")] = "fit,fuse",
    each: Each = 0,
    real: Real = False,
) -> None:
    """Extract the tower's class tokens."""
    model, squares = _half(clip_tower(tower)), Squares.read(folder)
    side, wanted = squares.pixels.shape[2], model.grid * model.patch
    if side != wanted:  # the plugin shows the tower its own size, and the head must have learned from that
        raise SettingError("folder", f"squares of {wanted} px for {tower} (`prepare --side {wanted}`)", f"{side} px")
    for version in versions.split(","):
        for split in splits.split(","):
            extract(squares, version, model, folder, rows=_chosen(squares, split, each=each, real=real))


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
    weights: Annotated[Path, typer.Option(help="A head's weights file, or the student's.")],
    split: Annotated[str, typer.Option(help="fuse chooses; test is read once, for the table.")] = "fuse",
    version: Annotated[str, typer.Option(help="overview (normalised) or plain (the picture as it is).")] = "overview",
    each: Each = 0,
    real: Real = False,
) -> None:
    """AUC of a finished model on a split, and the real pictures of each source above its threshold, worst first."""
    squares = Squares.read(folder)
    rows = _chosen(squares, split, each=each, real=real)
    scores = lite.finished(folder, squares, rows, weights, version)
    label, source = squares.label[rows], squares.source[rows]
    if not real:
        caught = f"{int((scores[label == 1] > 0).sum())} of {int((label == 1).sum())}"
        typer.echo(
            f"{split}, {version}: AUC {auc(label, scores):.3f}, by source {by_source(label, scores, source):.3f}, "
            f"AI pictures above the threshold {caught}"
        )
    found = accused(label, scores, source, 0.0)
    for name, (above, n) in sorted(found.items(), key=lambda pair: -pair[1][0] / pair[1][1]):
        typer.echo(f"{name:<28} {above:>4} of {n:<5} {above / n:6.1%}")


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


@app.command("cross-fit")
def cross_fit(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="Receives the scores, as JSON lines.")],
    run: Annotated[Path | None, typer.Option(help="Folder of the student's run, which holds its features.")] = None,
    tower: Tower = CLIP_VIT_B16,
) -> None:
    """Score `fit` by heads that saw nothing of a picture's source: the fusion learns its balance from it too."""
    trunk = None if run is None else np.asarray(np.load(run / "features-overview.npy"), np.float32)
    lines = crossfit.cross_fitted(
        Squares.read(folder),
        probe.Data(folder, clip_tower(tower)),
        trunk,
        recipe=probe.Recipe(),
        student=lite.Recipe(),
    )
    write_scores(out, lines)
    typer.echo(f"{len(lines)} pictures in {out}")


@app.command("student-table")
def student_table(
    folder: Folder,
    teacher: Annotated[Path, typer.Option(help="The head's weights file.")],
    start: Annotated[Path, typer.Option(help="efficientnet-lite0-57934424.pth of the package index.")],
    run: Annotated[Path, typer.Option(help="Folder of `student`'s run, whose features are taken.")],
) -> None:
    """Heads on the student's trunk by what they are fitted to, on `fuse`."""
    squares, data = Squares.read(folder), probe.Data(folder, clip_tower(CLIP_VIT_B16))
    _show(lite.table(squares, data, load_head(teacher), start, run))


@app.command("lora")
def compare_lora(
    folder: Folder,
    run: Annotated[Path, typer.Option(help="Folder of the run; one that was interrupted goes on.")],
    tower: Tower = CLIP_VIT_B16,
    seeds: Annotated[str, typer.Option(help="Of the updates' start and of the order.")] = "0,1,2",
    recipe: Annotated[str, typer.Option(help="JSON with what differs from the default recipe.")] = "{}",
    masks: Annotated[
        list[Path] | None, typer.Option(help="Marked artifacts, for a recipe with `align`: X-AIGD or forged folders.")
    ] = None,
    force: Forced = False,
) -> None:
    """Linear against low-rank updates, on the same pictures; also to RUN/table.json."""
    check_purity(folder, Task.SEMANTIC, force=force)
    squares, data = Squares.read(folder), probe.Data(folder, clip_tower(tower))
    chosen = [int(s) for s in seeds.split(",")]
    chosen_recipe, trunk = lora.Recipe(**_told(recipe)), _half(clip_tower(tower))
    lines = lora.compare(squares, data, trunk, chosen_recipe, run, seeds=chosen, masks=masks or ())
    (run / "table.json").write_text(json.dumps(lines, indent=1))
    _show(lines)


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
    declare_weights(sorted(weights.glob("*.safetensors")), weights.parent / "tellsign.json")


def _told(recipe: str) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(recipe).items()}


def _show(lines: list[dict[str, float | str]]) -> None:
    for line in lines:
        typer.echo("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{v:<44}" for k, v in line.items()))


if __name__ == "__main__":
    app()
