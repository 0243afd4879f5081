"""`python -m tellsign.plugins.reasoning.training`: tokens, pairs, ablation, diagnostics, tower, student, cross-fit,
declare.
"""

from __future__ import annotations

import csv
import json
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import attrs
import numpy as np
import typer

from tellsign.data.purity import check_purity, tag
from tellsign.data.rows import read_rows
from tellsign.data.scoring import write_scores
from tellsign.data.squares import Squares
from tellsign.errors import TellsignError
from tellsign.plugins.reasoning.weights_files import load_student, load_tower_model
from tellsign.schemas import Task
from tellsign.towers import CLIP_VIT_B16, ClipTower, clip_tower
from tellsign.weights.files import declare as declare_weights

from . import crossfit, finish, small
from . import pairs as pairing
from . import tokens as caching
from .ablation import CONFIGURATION, Bench, Configuration, run, table, text_space
from .text import text_encoder
from .train import Recipe, facts_of

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

Folder = Annotated[Path, typer.Option(help="What `tokens` wrote.")]
Text = Annotated[str, typer.Option(help='"clip", "clip:ARCHITECTURE:WEIGHTS", or a folder with MiniLM.')]
Changed = Annotated[str, typer.Option(help="JSON with what differs from the default recipe.")]


def _half(tower: ClipTower) -> ClipTower:
    """Frozen blocks in bfloat16: a third of the time."""
    tower.requires_grad_(False)
    tower.transformer.bfloat16()
    return tower.eval()


@app.command()
def tokens(
    squares: Annotated[Path, typer.Option(help="What the semantic plugin's `prepare` and `features` wrote.")],
    shared: Annotated[Path, typer.Option(help="Folder with data/.")],
    out: Annotated[Path, typer.Option(help="Receives the tokens.")],
    full: Annotated[Path | None, typer.Option(help="Whole pictures with their manifest.csv.")] = None,
    skipped: Annotated[
        Path | None, typer.Option(help="skipped.csv of the pixel plugin's `prepare`: what it lists is left out.")
    ] = None,
    forged: Annotated[
        list[Path] | None, typer.Option(help="Folders of `tellsign forge`, of photographs of fit; may be repeated.")
    ] = None,
    forged_fuse: Annotated[Path | None, typer.Option(help="The same, of photographs of fuse.")] = None,
    count: Annotated[int, typer.Option(help="Pictures of fit, half of each class.")] = 700,
    forgeries: Annotated[int, typer.Option(help="Forgeries of each folder.")] = 48,
    force: Annotated[bool, typer.Option("--force", help="Train on data that was made for another task.")] = False,
) -> None:
    """Run the tower once over a balanced set of `fit`, over `fuse` and over forgeries, and keep its middle tokens."""
    # The reasoning plugin is shown what the semantic one is shown.
    check_purity(squares, Task.SEMANTIC, force=force)
    leave: set[Path] = set()
    if skipped is not None:
        with skipped.open(newline="", encoding="utf-8") as handle:
            leave = {Path(line["path"]).resolve() for line in csv.DictReader(handle)}
    read, tower = Squares.read(squares), clip_tower(CLIP_VIT_B16)
    classes = np.load(squares / "tokens-overview.npy", mmap_mode="r")[: len(read)]
    rows = caching.sample(read, classes, tower, count=count)
    fuse = [r for r in read_rows(shared / "data", full) if r.split == "fuse" and r.path.resolve() not in leave]
    folders = forged or []
    fit = [caching.shown_squares(read, rows), *(caching.shown_forgeries(f, "fit", count=forgeries) for f in folders)]
    _half(tower)
    out.mkdir(parents=True, exist_ok=True)
    tag(out, Task.SEMANTIC)
    done = caching.write(chain(*fit), len(rows) + forgeries * len(folders), tower, out / "fit")
    typer.echo(f"{done} pictures in {out / 'fit'}")
    done = caching.write(caching.shown_scored(fuse, (0,)), len(fuse), tower, out / "fuse")
    typer.echo(f"{done} pictures in {out / 'fuse'}")
    if forged_fuse is not None:
        shown = caching.shown_forgeries(forged_fuse, "fuse", count=2 * forgeries)
        typer.echo(f"{caching.write(shown, 2 * forgeries, tower, out / 'forged')} pictures in {out / 'forged'}")


@app.command()
def pairs(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="Receives the records as JSON lines.")],
    texts: Annotated[int, typer.Option(help="Per picture.")] = 3,
) -> None:
    """Write what is known of the pictures of `fit` as texts, to be read before they teach."""
    store = caching.TokenStore.read(folder / "fit")
    names = sorted(set(store.source.tolist()))
    told = ((f"{folder / 'fit'}:{i}", f) for i, f in enumerate(facts_of(store)))
    typer.echo(f"{pairing.save(pairing.known(told, texts=texts, forbidden=names), out)} records in {out}")


@app.command()
def ablation(
    folder: Folder,
    text: Text,
    out: Annotated[Path, typer.Option(help="Receives journal, table and diagnostics; runs in it are not repeated.")],
    config: Annotated[Path, typer.Option(help="Seeds, base and rows.")] = CONFIGURATION,
    rows: Annotated[str, typer.Option(help="Names of rows, parted by semicolons; by default all.")] = "",
) -> None:
    """Train every row of the configuration under every seed and print the table."""
    check_purity(folder, Task.SEMANTIC)
    told = Configuration.read(config)
    if rows:
        told = attrs.evolve(told, rows=tuple(r for r in told.rows if r.name in rows.split(";")))
    bench = Bench(folder, clip_tower(CLIP_VIT_B16), text_encoder(text))
    out.mkdir(parents=True, exist_ok=True)
    lines = run(bench, told, out / "journal.jsonl", tell=typer.echo)
    (out / "table.json").write_text(json.dumps(lines, indent=1), encoding="utf-8")
    typer.echo(table(lines))


@app.command()
def diagnostics(
    folder: Folder,
    text: Text,
    out: Annotated[Path, typer.Option(help="Receives diagnostics.json.")],
) -> None:
    """The three properties of the texts' space, for every kind of text."""
    found = text_space(Bench(folder, clip_tower(CLIP_VIT_B16), text_encoder(text)))
    out.mkdir(parents=True, exist_ok=True)
    (out / "diagnostics.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    for kind, line in found.items():
        typer.echo(f"{kind:<16}" + "  ".join(f"{k} {v:.3f}" for k, v in line.items()))


@app.command()
def tower(
    folder: Folder,
    text: Text,
    out: Annotated[Path, typer.Option(help="Receives the weights file.")],
    version: Annotated[str, typer.Option()],
    recipe: Changed = "{}",
) -> None:
    """Train updates and head, measure the statements, and write what ships."""
    check_purity(folder, Task.SEMANTIC)
    chosen = Recipe(**json.loads(recipe))
    bench = Bench(folder, clip_tower(CLIP_VIT_B16), text_encoder(text))
    file, report = finish.tower(bench, chosen, folder, out, version=version)
    (folder / "tower.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    _tell(report)
    typer.echo(f"{file}, {len(list(load_tower_model(file).parameters()))} tensors")


@app.command()
def student(
    folder: Folder,
    text: Text,
    start: Annotated[Path, typer.Option(help="efficientnet-lite0-57934424.pth of the package index.")],
    teacher: Annotated[Path, typer.Option(help="The tower model's weights file.")],
    out: Annotated[Path, typer.Option(help="Receives the weights file.")],
    version: Annotated[str, typer.Option()],
    recipe: Changed = "{}",
) -> None:
    """Teach the small model and write what ships."""
    check_purity(folder, Task.SEMANTIC)
    chosen = small.SmallRecipe(**json.loads(recipe))
    bench = Bench(folder, clip_tower(CLIP_VIT_B16), text_encoder(text))
    file, report = finish.student(bench, chosen, folder, start, load_tower_model(teacher), out, version=version)
    (folder / "student.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    _tell(report)
    typer.echo(f"{file}, {len(list(load_student(file).parameters()))} tensors")


@app.command("cross-fit")
def cross_fit(
    squares: Annotated[Path, typer.Option(help="What the semantic plugin's `prepare` and `features` wrote.")],
    out: Annotated[Path, typer.Option(help="Receives the scores, as JSON lines.")],
    run: Annotated[
        Path | None, typer.Option(help="Folder of the semantic student's run: its features-overview.npy is read.")
    ] = None,
) -> None:
    """Score `fit` by heads that saw nothing of a picture's source: the fusion learns its balance from it too."""
    check_purity(squares, Task.SEMANTIC)
    # Both students have one frozen trunk.
    pooled = None if run is None else np.load(run / "features-overview.npy")
    classes = np.load(squares / "tokens-overview.npy", mmap_mode="r")
    lines = crossfit.cross_fitted(Squares.read(squares), classes, clip_tower(CLIP_VIT_B16), pooled)
    write_scores(out, lines)
    typer.echo(f"{len(lines)} pictures in {out}")


@app.command()
def declare(
    weights: Annotated[Path, typer.Option(help="Folder with the weights files, beside tellsign.json.")],
) -> None:
    """Write the weights files' hashes into the declaration."""
    declare_weights(sorted(weights.glob("*.safetensors")), weights.parent / "tellsign.json")


def _tell(report: dict[str, Any]) -> None:
    for name, value in report.items():
        if isinstance(value, list):
            for line in value:
                typer.echo("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{v}" for k, v in line.items()))
        else:
            typer.echo(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")


def main() -> None:
    """Run a command; errors that are raised on purpose become one line."""
    try:
        app()
    except TellsignError as error:
        typer.echo(f"tellsign: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
