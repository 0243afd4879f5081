"""Makes the pixel plugin's weights: `python -m tellsign.plugins.pixel.training COMMAND`.

    prepare    native windows and aligned pairs
    features   frozen features of every window (resumes)
    fit        heads on frozen features: what ships
    cross-fit  scores of `fit` by heads that did not see the picture's source
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
from tellsign.data.scoring import write_scores
from tellsign.towers import ClipTower
from tellsign.weights.files import declare

from . import crossfit, probe
from . import export as exporting
from . import prepare as preparing
from .balance import Balance
from .score import score_run
from .train import Recipe, Windows, finetune_early
from .train import train as run_training

HeadText = tuple[str, float, str]
app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)

Folder = Annotated[Path, typer.Option(help="What `prepare` wrote.")]
TowerFile = Annotated[Path, typer.Option(help="The CLIP tower, as `tellsign models fetch clip-vit-b16` stores it.")]
Run = Annotated[Path, typer.Option(help="Folder of the run.")]
Strength = Annotated[float, typer.Option(help="Inverse penalty.")]
Balancing = Annotated[str, typer.Option(help="JSON of what differs from the default `Balance`.")]
DEEP, EARLY = (3e-2, '{"power": 0.0, "by_content": true, "offset": 4.0}'), (1e-3, "{}")
"""Penalty and balance of the heads that ship."""


def heads_of(deep: HeadText, early: HeadText) -> dict[str, probe.HeadFit]:
    """The two heads' fits: blocks, inverse penalty and balance of each, as the command line gives them."""
    out = {}
    for name, (blocks, strength, balance) in (("deep", deep), ("early", early)):
        chosen = tuple(int(b) for b in blocks.split(","))
        features = "tower" if name == "deep" else f"trunk{max(chosen)}"
        out[name] = probe.HeadFit(
            blocks=chosen, strength=strength, features=features, balance=Balance(**json.loads(balance))
        )
    return out


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
    deep_strength: Strength = DEEP[0],
    deep_balance: Balancing = DEEP[1],
    early: Annotated[str, typer.Option(help="Of the bundled model's; the last is the trunk's depth.")] = "6",
    early_strength: Strength = EARLY[0],
    early_balance: Balancing = EARLY[1],
    residual_strength: Annotated[float, typer.Option(help="Inverse penalty of the probe on residuals.")] = 1e-2,
) -> None:
    """Fit both heads to frozen features, and the probe on residuals, and write them as a run without updates."""
    heads = heads_of((deep, deep_strength, deep_balance), (early, early_strength, early_balance))
    out.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(steps=0, rank=0, pairs=0, deep=heads["deep"].blocks, early=heads["early"].blocks)
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
def cross_fit(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="Receives the scores, as JSON lines.")],
    deep: Annotated[str, typer.Option(help="Blocks of the tower model's head.")] = "7,8,12",
    deep_strength: Strength = DEEP[0],
    deep_balance: Balancing = DEEP[1],
    early: Annotated[str, typer.Option(help="Blocks of the bundled model's; the last is the trunk's depth.")] = "6",
    early_strength: Strength = EARLY[0],
    early_balance: Balancing = EARLY[1],
    residual_strength: Annotated[float, typer.Option(help="Inverse penalty of the probe on residuals.")] = 1e-2,
) -> None:
    """Score `fit` by heads that saw nothing of a picture's source: the fusion learns its balance from it too."""
    fits = heads_of((deep, deep_strength, deep_balance), (early, early_strength, early_balance))
    heads = {"tower": fits["deep"], "bundled": fits["early"]}
    lines = crossfit.cross_fitted(Windows(folder), folder, heads, residual=residual_strength)
    write_scores(out, lines)
    typer.echo(f"{len(lines)} pictures in {out}")


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
    masks: Annotated[
        list[Path] | None, typer.Option(help="Marked artifacts, for a recipe with `align`: X-AIGD or forged folders.")
    ] = None,
) -> None:
    """Train, or go on."""
    chosen = Recipe.parse(recipe)
    out.mkdir(parents=True, exist_ok=True)
    start = out / "start.safetensors"
    if not start.is_file():
        heads = {n: probe.HeadFit(blocks=getattr(chosen, n), strength=3e-4) for n in ("deep", "early")}
        probe.fit_heads(Windows(folder), folder, heads, start)
    model = ClipTower.from_state_dict(exporting.load_tower(tower))
    typer.echo(f"{run_training(chosen, folder=folder, out=out, tower=model, start=start, masks=masks or ())}")


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
    only: Annotated[str, typer.Option(help="What is written anew; the other files stay.")] = "tower,bundled,residual",
) -> None:
    """Write the weights files that ship."""
    out.mkdir(parents=True, exist_ok=True)
    asked = only.split(",")
    if unknown := set(asked) - {"tower", "bundled", "residual"}:
        raise typer.BadParameter(f"--only takes some of tower, bundled, residual, got {', '.join(sorted(unknown))}")
    if "tower" in asked:
        exporting.export_tower(run, out, version=version)
    if "bundled" in asked:
        exporting.export_bundled(early or run, exporting.load_tower(tower), out, version=version)
    if "residual" in asked and (run / exporting.RESIDUAL).is_file():
        exporting.export_residual(run, out, version=version)
    files = [f for n in ("tower", "bundled", "residual") if (f := out / f"pixel-{n}.safetensors").is_file()]
    declaration = out.parent / "tellsign.json"
    if declaration.is_file():
        declare(files, declaration)
    for file in files:
        typer.echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    app()
