"""Makes the pixel plugin's weights: `python -m tellsign.plugins.pixel.training COMMAND`.

    prepare    native windows and aligned pairs
    features   frozen features of every window (resumes)
    fit        heads on frozen features: what ships
    yardstick  the table of linear probes
    train      low-rank updates and heads (resumes)
    finetune   the early head and its updates again, on the four-bit trunk
    score      AUC of a run on `fuse`, or once on `test`
    export     the two weights files

Every command says where it writes; a run that was cut off goes on when it is called again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import attrs
import torch
import typer

from tellsign.data.rows import read_rows
from tellsign.towers import ClipTower

from . import export as exporting
from . import prepare as preparing
from . import probe
from .score import score_run
from .train import Recipe, Windows, finetune_early
from .train import train as run_training

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)

Folder = Annotated[Path, typer.Option(help="What `prepare` wrote.")]
TowerFile = Annotated[Path, typer.Option(help="The CLIP tower, as `tellsign models fetch clip-vit-b16` stores it.")]
Run = Annotated[Path, typer.Option(help="Folder of the run.")]


@app.command()
def prepare(
    shared: Annotated[Path, typer.Option(help="Folder with data/ and weights/.")],
    out: Annotated[Path, typer.Option(help="Receives windows and pairs; about 5 GB.")],
    full: Annotated[Path | None, typer.Option(help="Whole pictures with their manifest.csv.")] = None,
    count: Annotated[int, typer.Option(help="Aligned pairs to make.")] = 2400,
) -> None:
    """Cut windows and make pairs."""
    rows = read_rows(shared / "data", full)
    typer.echo(f"{preparing.windows(rows, out)} windows in {out}")
    typer.echo(f"{preparing.pairs(rows, shared / 'weights' / 'taesd', out, count=count)} pairs in {out}")


@app.command()
def features(
    folder: Folder,
    tower: TowerFile,
    only: Annotated[
        str | None, typer.Option(help="residuals, tower, or trunkN: the first N blocks in four bits.")
    ] = None,
) -> None:
    """Extract what the yardstick and the heads read."""
    windows = Windows(folder)
    for name in [only] if only else ["residuals", "tower", "trunk6"]:
        if name == "residuals":
            probe.extract(windows, folder, probe.residual_features, name)
            continue
        state = exporting.load_tower(tower)
        depth = int(name.removeprefix("trunk")) if name.startswith("trunk") else None
        model = ClipTower.from_state_dict(state) if depth is None else exporting.quantised_tower(state, depth)
        probe.extract(windows, folder, probe.tower_extractor(model.eval()), name)


@app.command()
def fit(
    folder: Folder,
    out: Run,
    deep: Annotated[str, typer.Option(help="Blocks of the tower model's head.")] = "7,8,12",
    deep_strength: Annotated[float, typer.Option(help="Inverse penalty.")] = 1e-3,
    early: Annotated[str, typer.Option(help="Of the bundled model's; the last is the trunk's depth.")] = "6",
    early_strength: Annotated[float, typer.Option(help="Inverse penalty.")] = 1e-3,
    residual_strength: Annotated[float, typer.Option(help="Inverse penalty of the probe on residuals.")] = 1e-2,
) -> None:
    """Fit both heads to frozen features, and the probe on residuals, and write them as a run without updates."""
    blocks = {n: tuple(int(b) for b in text.split(",")) for n, text in (("deep", deep), ("early", early))}
    heads = {
        "deep": probe.HeadFit(blocks=blocks["deep"], strength=deep_strength),
        "early": probe.HeadFit(
            blocks=blocks["early"], strength=early_strength, features=f"trunk{max(blocks['early'])}"
        ),
    }
    out.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(steps=0, rank=0, pairs=0, deep=blocks["deep"], early=blocks["early"])
    told = attrs.asdict(recipe) | {"heads": {n: attrs.asdict(h) for n, h in heads.items()}}
    (out / "recipe.json").write_text(json.dumps(told, indent=1))
    windows = Windows(folder)
    residual = probe.fit_residual(windows, folder, strength=residual_strength)
    typer.echo(probe.fit_heads(windows, folder, heads, out / "run.safetensors"))
    exporting.save_residual(residual, out)


@app.command()
def fit_residual(
    folder: Folder,
    out: Run,
    strength: Annotated[float, typer.Option(help="Inverse penalty.")] = 1e-2,
) -> None:
    """Fit the probe on residuals alone."""
    out.mkdir(parents=True, exist_ok=True)
    typer.echo(exporting.save_residual(probe.fit_residual(Windows(folder), folder, strength=strength), out))


@app.command()
def yardstick(folder: Folder) -> None:
    """Print the table of linear probes; also to yardstick.json."""
    table = probe.yardstick(Windows(folder), folder)
    (folder / "yardstick.json").write_text(json.dumps(table, indent=1))
    for line in table:
        typer.echo("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{v:<42}" for k, v in line.items()))


@app.command()
def train(
    folder: Folder,
    tower: TowerFile,
    out: Run,
    recipe: Annotated[str, typer.Option(help="JSON with what differs from the default recipe.")] = "{}",
) -> None:
    """Train, or go on."""
    chosen = Recipe.parse(recipe)
    out.mkdir(parents=True, exist_ok=True)
    start = out / "start.safetensors"
    if not start.is_file():
        heads = {n: probe.HeadFit(blocks=getattr(chosen, n), strength=3e-4) for n in ("deep", "early")}
        probe.fit_heads(Windows(folder), folder, heads, start)
    model = ClipTower.from_state_dict(exporting.load_tower(tower))
    typer.echo(f"{run_training(chosen, folder=folder, out=out, tower=model, start=start)}")


@app.command()
def finetune(
    folder: Folder,
    tower: TowerFile,
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder of the new run.")],
    steps: int = 150,
) -> None:
    """Fine-tune the early head and its updates on the four-bit trunk, with the tower model as the teacher."""
    state = exporting.load_tower(tower)
    recipe = Recipe.read(run)
    recipe = attrs.evolve(recipe, steps=steps, lora_rate=recipe.lora_rate / 2)
    teacher = ClipTower.from_state_dict(state)
    student = exporting.quantised_tower(state, max(recipe.early))
    typer.echo(f"{finetune_early(recipe, folder=folder, run=run, out=out, teacher=teacher, student=student)}")


@app.command()
def score(
    folder: Folder,
    run: Run,
    tower: TowerFile,
    head: Annotated[str, typer.Option(help="deep or early.")] = "deep",
    split: Annotated[str, typer.Option(help="fuse chooses; test is read once, for the table.")] = "fuse",
    quantised: Annotated[bool, typer.Option(help="Score on the four-bit trunk.")] = False,
) -> None:
    """Score one crop of each window, native and JPEG 90."""
    state = exporting.load_tower(tower)
    torch.set_grad_enabled(False)
    typer.echo(
        json.dumps(score_run(Windows(folder), run, state, head=head, split=split, quantised=quantised), indent=1)
    )


@app.command()
def export(
    run: Run,
    tower: TowerFile,
    out: Annotated[Path, typer.Option(help="Receives the weights files.")],
    version: Annotated[str, typer.Option()],
    early: Annotated[Path | None, typer.Option(help="Run of `finetune`; default the same run.")] = None,
) -> None:
    """Write the weights files that ship."""
    out.mkdir(parents=True, exist_ok=True)
    files = [exporting.export_tower(run, out, version=version)]
    files.append(exporting.export_bundled(early or run, exporting.load_tower(tower), out, version=version))
    if (run / exporting.RESIDUAL).is_file():
        files.append(exporting.export_residual(run, out, version=version))
    declaration = out.parent / "tellsign.json"
    if declaration.is_file():
        exporting.declare(files, declaration)
    for file in files:
        typer.echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    app()
