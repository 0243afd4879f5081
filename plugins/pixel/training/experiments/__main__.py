"""Experiments on frozen features: `python -m tellsign.plugins.pixel.training.experiments COMMAND`.

    balance    weights and offsets of sources, art, topics, GroupDRO
    looks      several crops, two scales, aggregations, reconstruction errors (resumes)
    lora       low-rank updates without pairs, from kept tokens (resumes)
    pairs      what the zoo's pairs are worth
    stem       a small network from scratch, beside what ships (resumes)
    views      whole scrambled views apart from native crops
    zoo        decoders trained here, pairs of every family, their frozen features (resumes)

Choices are made on held-out families inside `fit` and on `fuse`; no command reads `test`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from tellsign.data.autoencoders import NAMES, Autoencoder
from tellsign.plugins.pixel.training import probe
from tellsign.plugins.pixel.training.balance import Balance
from tellsign.plugins.pixel.training.export import load_tower
from tellsign.plugins.pixel.training.train import Windows, half_precision
from tellsign.towers import ClipTower

from . import balancing, lowrank, pairing
from . import looks as looking
from . import stem as stems
from . import zoo as zoos
from .study import SEEDS, Scores, Study

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)

Folder = Annotated[Path, typer.Option(help="What `prepare` and `features` wrote.")]
TowerFile = Annotated[Path, typer.Option(help="The CLIP tower, as `tellsign models fetch clip-vit-b16` stores it.")]


@app.command()
def balance(
    folder: Folder,
    blocks: Annotated[str, typer.Option(help="Blocks of the tower.")] = "7,8,12",
    name: Annotated[str, typer.Option(help="Extraction to read.")] = "tower",
    only: Annotated[str | None, typer.Option(help="Rows with this in their title, beside the first.")] = None,
) -> None:
    """Print the table on weights; also to `balance-NAME.json`."""
    study = Study.read(
        Windows(folder),
        folder,
        blocks=[int(b) for b in blocks.split(",")],
        name=name,
    )
    first, *others = balancing.ROWS
    chosen = [first, *(t for t in others if only is None or only in t)]
    print_table(study, ((t, study.evaluate(balancing.ROWS[t])) for t in chosen), folder / f"balance-{name}.json")


def print_table(study: Study, rows: Iterable[tuple[str, Scores]], out: Path) -> None:
    """Row by row: compare with the first, print, and keep as JSON."""
    lines: dict[str, object] = {}
    base: Scores | None = None
    for title, scores in rows:
        lines[title] = line = study.line(scores)
        typer.echo(title + "  " + "  ".join(f"{k} {v:.3f}" for k, v in line.items()))
        if base is None:
            base = scores
        else:
            gain = study.gain(scores, base)
            lines[title] = line | {"gain": gain}
            typer.echo("    gain  " + "  ".join(f"{k} {d:+.3f} [{a:+.3f}, {b:+.3f}]" for k, (d, a, b) in gain.items()))
        out.write_text(json.dumps(lines, indent=1))


@app.command()
def views(
    folder: Folder,
    semantic: Annotated[Path, typer.Option(help="What the semantic training's `prepare` and `features` wrote.")],
) -> None:
    """Print what whole scrambled views give apart from native crops; also to `views.json`."""
    table = {}
    for blocks in ((8,), (12,), (7, 8, 12)):
        for kind, study in (
            ("native crop", Study.read(Windows(folder), folder, blocks=blocks)),
            ("whole scrambled view", Study.whole_views(semantic, blocks=blocks)),
        ):
            title = f"{kind}, blocks {', '.join(map(str, blocks))}"
            table[title] = line = study.line(study.evaluate(balancing.balanced(1e-3, Balance())))
            typer.echo(title + "  " + "  ".join(f"{k} {v:.3f}" for k, v in line.items()))
    (folder / "views.json").write_text(json.dumps(table, indent=1))


@app.command()
def pairs(
    folder: Folder,
    zoo: Annotated[Path, typer.Option(help="What `zoo` wrote.")],
    only: Annotated[str | None, typer.Option(help="Rows with this in their title, beside the first.")] = None,
) -> None:
    """Print what the zoo's pairs are worth: one family left out, and beside real generated pictures.

    Probes learn from the families that the gate let pass; every family is scored.
    """
    every = pairing.Zoo.read(zoo)
    made = every.past(json.loads((zoo / "gate.json").read_text()))
    table = [pairing.one_family_out(every, made, seed=s) for s in SEEDS]
    out = {name: [float(np.mean(v := [t[name] for t in table])), float(np.std(v))] for name in table[0]}
    (zoo / "families.json").write_text(json.dumps(out, indent=1))
    for name, (mean, spread) in out.items():
        typer.echo(f"{name}  {mean:.3f} sd {spread:.3f}")
    study = Study.read(Windows(folder), folder)
    first, *others = pairing.ROWS
    chosen = [first, *(t for t in others if only is None or only in t)]
    told = {t: pairing.ROWS[t] for t in chosen}
    scores = ((t, pairing.with_pairs(study, made, generated=g, bases=b, seeds=SEEDS)) for t, (g, b) in told.items())
    print_table(study, scores, zoo / "pairs.json")


@app.command()
def zoo(
    folder: Folder,
    tower: TowerFile,
    weights: Annotated[Path, typer.Option(help="Folder of the tiny autoencoders.")],
    out: Annotated[Path, typer.Option(help="Receives decoders, pairs and features.")],
    forged: Annotated[Path | None, typer.Option(help="A folder of `tellsign forge` on pictures of fit.")] = None,
    count: Annotated[int, typer.Option(help="Pairs of each family.")] = 48,
    shown: Annotated[int | None, typer.Option(help="Of those, how many the tower looks at.")] = None,
    seed: int = 0,
    steps: Annotated[int, typer.Option(help="Of each small decoder's training.")] = 400,
) -> None:
    """Make the zoo and its features, and print what the gate says of every family."""
    zoos.make(folder, weights, out, forged=forged, count=count, seed=seed, steps=steps)
    (out / "gate.json").write_text(json.dumps(zoos.gate(out), indent=1))
    zoos.features(out, probe.tower_extractor(ClipTower.from_state_dict(load_tower(tower)).eval()), count=shown)
    typer.echo((out / "gate.json").read_text())


@app.command()
def looks(
    folder: Folder,
    tower: TowerFile,
    out: Annotated[Path, typer.Option(help="Receives features and tables; a finished extraction is kept.")],
    weights: Annotated[Path | None, typer.Option(help="Folder of the tiny autoencoders; without it no errors.")] = None,
    count: Annotated[int, typer.Option(help="Pictures of fit, and of fuse.")] = 200,
    skip: Annotated[int, typer.Option(help="Of those, leave out the first, on which a row was chosen.")] = 0,
) -> None:
    """Several crops, two scales, aggregations, a second encoding, and reconstruction errors."""
    out.mkdir(parents=True, exist_ok=True)
    windows = Windows(folder)
    index = looking.in_turn(*(looking.drawn(windows, split, count) for split in ("fit", "fuse")))
    study = Study.read(windows, folder)
    compute = probe.tower_extractor(ClipTower.from_state_dict(load_tower(tower)).eval())
    tokens, sides = looking.crop_features(windows, index, compute, out)
    looked = looking.look(study, windows, tokens[:, :, [6, 7, 11], 0], np.array(index), seeds=SEEDS, out=out)
    seen = np.isin(index, [i for split in ("fit", "fuse") for i in looking.drawn(windows, split, skip)])
    looked, short = looked.only(~seen), np.asarray(sides, np.int64)[~seen]
    table: dict[str, Mapping[str, float | list[float]]] = dict(looked.table(looking.AGGREGATIONS))
    large = looked.only(short >= looking.LARGE)
    if large.complete:
        table |= {f"{t}, short side {looking.LARGE} px": v for t, v in large.table(looking.OF_LARGE).items()}
    if not skip:
        table["mean of a picture and its JPEG 90"] = looking.encoded_twice(study)
    if weights is not None and not skip:
        models = [Autoencoder.load(weights, n) for n in NAMES]
        names, errors = looking.reconstruction_errors(windows, index, models, out)
        table |= looking.error_lines(windows, np.array(index), names, errors, seeds=SEEDS)
    told(table, out / (f"looks-after-{skip}.json" if skip else "looks.json"))


def told(table: Mapping[str, Mapping[str, float | list[float]]], out: Path) -> None:
    """Print a table, and keep it as JSON."""
    out.write_text(json.dumps(table, indent=1))
    for title, line in table.items():
        typer.echo(title)
        for name, value in line.items():
            if isinstance(value, list):
                typer.echo(f"    {name} {value[0]:+.3f} [{value[1]:+.3f}, {value[2]:+.3f}]")
            else:
                typer.echo(f"    {name} {value:.3f}")


@app.command()
def lora(
    folder: Folder,
    tower: TowerFile,
    out: Annotated[Path, typer.Option(help="Receives tokens (302 kB a picture) and results.")],
    fit: Annotated[int, typer.Option(help="Pictures of fit.")] = 1000,
    fuse: Annotated[int, typer.Option(help="Pictures of fuse.")] = 400,
    recipe: Annotated[str, typer.Option(help="JSON with what differs from the default recipe.")] = "{}",
) -> None:
    """Low-rank updates without pairs against the frozen probe, on the same pictures."""
    out.mkdir(parents=True, exist_ok=True)
    chosen = lowrank.Recipe.parse(recipe)
    windows = Windows(folder)
    model = half_precision(ClipTower.from_state_dict(load_tower(tower), depth=max(chosen.blocks)).eval())
    index = looking.in_turn(looking.drawn(windows, "fit", fit), looking.drawn(windows, "fuse", fuse))
    tokens = lowrank.keep_tokens(windows, index, model, chosen.frozen, out)
    compared = lowrank.compare(windows, index, tokens, model, chosen, out)
    told(compared.table(lowrank.COLUMNS), out / "lora.json")


@app.command()
def stem(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="Receives checkpoints and results.")],
    fit: Annotated[int, typer.Option(help="Pictures of fit to score; windows of other sources teach.")] = 800,
    fuse: Annotated[int, typer.Option(help="Pictures of fuse.")] = 400,
    recipe: Annotated[str, typer.Option(help="JSON with what differs from the default recipe.")] = "{}",
) -> None:
    """A small network with a stem of stride 1, RGB and fixed residuals, beside what ships."""
    out.mkdir(parents=True, exist_ok=True)
    windows = Windows(folder)
    index = looking.in_turn(looking.drawn(windows, "fit", fit), looking.drawn(windows, "fuse", fuse))
    compared = stems.compare(windows, folder, index, stems.Recipe.parse(recipe), out)
    told(compared.table(stems.COLUMNS), out / "stem.json")


if __name__ == "__main__":
    app()
