"""What tuning on a few pictures of one's own brings, there and elsewhere: `python -m tellsign.tuning.experiment`.

Takes score tables (`score` makes one of the project's own pictures), draws so many rows of the `user` split, tunes the
shipped fusion on them, and compares on the rest of that split and on `test`. Each draw is judged by a paired bootstrap
over groups; the interval over all draws holds both what the draw and what the held-out pictures leave open.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from tellsign.data.default_fusion import MACHINES
from tellsign.data.rows import PictureRow, read_rows
from tellsign.data.scoring import key_of, score_plugin
from tellsign.evaluation import metrics
from tellsign.fusion.adapt import bundle_odds, tune_bundle
from tellsign.fusion.bundle import Bundle
from tellsign.fusion.calibration import sigmoid
from tellsign.fusion.features import columns, matrix
from tellsign.fusion.gain import drawn_gains, even_weights, group_draws, log_losses
from tellsign.fusion.table import ScoreTable
from tellsign.host import discover
from tellsign.schemas import Declaration

from . import tables
from .scoring import fingerprint

SIZES = (50, 100, 200)
DRAWS = 20
BOOTSTRAP = 400

Floats = NDArray[np.float64]

app = typer.Typer(add_completion=False, help=__doc__)


def drawn_rows(table: ScoreTable, size: int, seed: int) -> NDArray[np.int64]:
    """Row numbers of whole groups, drawn at random class by class until each class has half of `size`.

    A class with too few rows gives what it has, less a fifth of its groups, so that something is left to judge on.
    """
    rng = np.random.default_rng([seed, size])
    out: list[int] = []
    for value in (0, 1):
        own = np.flatnonzero(table.label == value)
        groups = rng.permutation(np.unique(table.group[own]))
        most = max(1, len(groups) * 4 // 5)
        taken: list[int] = []
        for group in groups[:most]:
            if len(taken) >= size // 2:
                break
            taken += own[table.group[own] == group].tolist()
        out += taken
    return np.array(sorted(out))


def compared(table: ScoreTable, before: Floats, after: Floats, *, seed: int) -> dict[str, Any]:
    """Log loss, AUC and balanced accuracy of both, and what the bootstrap draws of the differences are."""
    y, weight = table.label, even_weights(table.label, table.group)
    old, new = log_losses(y, before), log_losses(y, after)
    draws = {"log_loss_gain": drawn_gains(y, before, after, table.group, draws=BOOTSTRAP, seed=seed)}
    aucs = [metrics.weighted_auc(y, z) for z in (before, after)]
    differences = []
    for times in group_draws(y, table.group, draws=BOOTSTRAP, seed=seed):
        differences.append(aucs[1](times) - aucs[0](times))
    draws["auc_gain"] = np.concatenate(differences)
    accuracy = [metrics.balanced_accuracy(y, sigmoid(z)) or 0.0 for z in (before, after)]
    area = [metrics.auc(y, z) or 0.0 for z in (before, after)]
    return {
        "log_loss": (float(weight @ old), float(weight @ new)),
        "auc": (area[0], area[1]),
        "balanced_accuracy": (accuracy[0], accuracy[1]),
        "log_loss_gain": float(weight @ (old - new)),
        "auc_gain": area[1] - area[0],
        "balanced_accuracy_gain": accuracy[1] - accuracy[0],
        "draws": draws,
    }


def one_draw(
    user: ScoreTable,
    elsewhere: ScoreTable,
    base: Bundle,
    declarations: Mapping[str, Declaration],
    *,
    size: int,
    seed: int,
    gated: bool,
) -> dict[str, Any]:
    """Tune on one draw and compare on what was not drawn and elsewhere."""
    rows = drawn_rows(user, size, seed)
    rest = np.flatnonzero(~np.isin(user.group, np.unique(user.group[rows])))
    tuned = tune_bundle(
        user.take(rows), base, declarations=declarations, seed=seed, anew="never", curve=False, always=not gated
    )
    out: dict[str, Any] = {"seed": seed, "rows": len(rows), "rest": len(rest), "written": tuned.improved}
    out["choice"] = {head: choice.title for head, choice in tuned.choices.items()}
    for name, part in (("rest", user.take(rest)), ("elsewhere", elsewhere)):
        before, after = (np.nan_to_num(bundle_odds(b, part)) for b in (base, tuned.bundle))
        out[name] = compared(part, before, after, seed=seed)
    return out


def summarised(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the draws, and 95 % intervals over draws and bootstrap together."""
    out: dict[str, Any] = {
        "draws": len(runs),
        "written": sum(bool(r["written"]) for r in runs),
        "rows": float(np.mean([r["rows"] for r in runs])),
    }
    for part in ("rest", "elsewhere"):
        out[part] = {}
        for name in ("log_loss", "auc", "balanced_accuracy"):
            out[part][name] = [float(np.mean([r[part][name][k] for r in runs])) for k in (0, 1)]
            values = [r[part][f"{name}_gain"] for r in runs]
            entry: dict[str, Any] = {"mean": float(np.mean(values)), "worst": float(min(values))}
            if f"{name}_gain" in runs[0][part]["draws"]:
                pooled = np.concatenate([r[part]["draws"][f"{name}_gain"] for r in runs])
                low, high = np.quantile(pooled[np.isfinite(pooled)], [0.025, 0.975])
                entry |= {"low": float(low), "high": float(high)}
            out[part][f"{name}_gain"] = entry
        out[part]["draws_that_lose"] = sum(r[part]["log_loss_gain"] < 0 for r in runs)
    return out


def load_tables(paths: Sequence[Path], declarations: Mapping[str, Declaration]) -> ScoreTable:
    """Several tables of the same columns as one."""
    return tables.joined([tables.load(p, declarations) for p in paths])


@app.command()
def run(
    table: Annotated[
        list[Path], typer.Option(help="Score tables with the splits `user` and `test`; may be given several times.")
    ],
    out: Annotated[Path | None, typer.Option(help="Receives every number as JSON.")] = None,
    fusion: Annotated[Path | None, typer.Option(help="The bundle to tune; default the shipped one.")] = None,
    draws: Annotated[int, typer.Option(min=1)] = DRAWS,
    sizes: Annotated[str, typer.Option(help="Rows to tune on, commas between.")] = ",".join(map(str, SIZES)),
) -> None:
    """Tune on draws of `user`; print the gain on the rest of it and the change on `test`, with the gate and without."""
    declarations = {r.name: r.declaration for r in discover() if r.declaration is not None}
    everything = load_tables(table, declarations)
    base = Bundle.load(fusion)
    user, elsewhere = (everything.take(np.flatnonzero(everything.split == s)) for s in ("user", "test"))
    report: dict[str, Any] = {"base": base.version, "data_sha256": everything.sha256, "sizes": {}}
    typer.echo(f"base {base.version}; user {len(user)} rows, test {len(elsewhere)} rows")
    typer.echo("\n".join(HEAD))
    for size in (int(s) for s in sizes.split(",")):
        report["sizes"][size] = {}
        for gated in (True, False):
            runs = [
                one_draw(user, elsewhere, base, declarations, size=size, seed=seed, gated=gated)
                for seed in range(draws)
            ]
            found = summarised(runs)
            for r in runs:
                for part in ("rest", "elsewhere"):
                    del r[part]["draws"]
            report["sizes"][size]["gated" if gated else "always"] = {**found, "runs": runs}
            typer.echo(_line(size, gated, found))
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


@app.command()
def score(
    shared: Annotated[Path, typer.Option(help="Folder with data/.")],
    out: Annotated[Path, typer.Option(help="The table, CSV or Parquet. The scores are kept beside it.")],
    full: Annotated[Path | None, typer.Option(help="Whole pictures with their manifest.csv.")] = None,
    splits: Annotated[str, typer.Option(help="Commas between.")] = "user,test",
    machine: Annotated[
        str, typer.Option(help="offline or with-tower: the strength each plugin speaks in.")
    ] = "offline",
    most: Annotated[
        int | None, typer.Option(min=2, help="At most so many pictures of each split, even over classes and sources.")
    ] = None,
    plugins: Annotated[str, typer.Option(help="Commas between; default every plugin that has columns.")] = "",
    device: str = "auto",
) -> None:
    """Score the project's pictures, one normalised version each, with every plugin that has columns.

    Each plugin has a file of its own, named by its version and weights: a killed run goes on where it was, and a plugin
    that is new, or whose weights are, is the only one that runs.
    """
    if machine not in MACHINES:
        raise typer.BadParameter(f"takes {' or '.join(MACHINES)}, got {machine!r}", param_hint="--machine")
    wanted = splits.split(",")
    rows = [r for r in read_rows(shared / "data", full) if r.split in wanted]
    if most is not None:
        rows = [r for s in wanted for r in spread([x for x in rows if x.split == s], most)]
    declarations = {
        r.name: r.declaration
        for r in discover()
        if r.state == "ok" and r.declaration is not None and r.declaration.columns
    }
    if missing := set(filter(None, plugins.split(","))) - set(declarations):
        raise typer.BadParameter(f"not installed, or without columns: {', '.join(missing)}", param_hint="--plugins")
    if plugins:
        declarations = {n: d for n, d in declarations.items() if n in plugins.split(",")}
    answers = []
    for plugin, declaration in sorted(declarations.items()):
        strength = MACHINES[machine].get(plugin)
        settings = {} if strength is None else {"strength": strength}
        spoken = [plugin] if strength is None else [plugin, strength]
        mark = fingerprint(declaration, settings, normalise=True, machine=strength is None)
        cache = out.with_name("-".join(["scores", *spoken, mark]) + ".jsonl")
        lines, skipped = score_plugin(rows, plugin, settings, cache, device=device, versions=1)
        answers.append(lines)
        typer.echo(f"{'-'.join(spoken)}: {len(rows) - len(skipped)} scored, {len(skipped)} left out", err=True)
    made = columns(declarations)
    merged = [{k: v for a in answers for k, v in a.get(key_of(r, 0), {}).items()} for r in rows]
    values = matrix(merged, made)
    kept = np.flatnonzero(~np.isnan(values).all(1))
    chosen = [rows[i] for i in kept.tolist()]
    table = ScoreTable(
        rows=values[kept],
        columns=made,
        label=[r.label for r in chosen],
        group=[r.group for r in chosen],
        source=[r.source for r in chosen],
        split=[r.split for r in chosen],
    )
    tables.save(table, out, declarations)
    typer.echo(f"{len(table)} rows in {out}")


def spread(rows: Sequence[PictureRow], most: int) -> list[PictureRow]:
    """At most `most` rows: the classes and, within a class, the sources alike where there are enough; in order."""
    rng = np.random.default_rng(most)
    taken: list[int] = []
    for value in (0, 1):
        queues: dict[str, list[int]] = {}
        for i in rng.permutation(len(rows)).tolist():
            if rows[i].label == value:
                queues.setdefault(rows[i].source, []).append(i)
        for _ in range(most // 2):
            fullest = sorted(
                (s for s in queues if queues[s]), key=lambda s: (sum(rows[i].source == s for i in taken), s)
            )
            if not fullest:
                break
            taken.append(queues[fullest[0]].pop())
    return [rows[i] for i in sorted(taken)]


HEAD = (
    "| rows | gate | written | rest of the domain: log loss | gain [95 %] | AUC "
    "| elsewhere: log loss | gain [95 %] | AUC |",
    "|---:|---|---:|---|---|---|---|---|---|",
)


def _line(size: int, gated: bool, found: Mapping[str, Any]) -> str:
    """One line of the table in docs/tuning.md."""
    cells = [str(size), "on" if gated else "off", f"{found['written']} of {found['draws']}"]
    for part in ("rest", "elsewhere"):
        losses, areas, gain = (found[part][n] for n in ("log_loss", "auc", "log_loss_gain"))
        cells.append(f"{losses[0]:.3f} to {losses[1]:.3f}")
        cells.append(f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]")
        cells.append(f"{areas[0]:.3f} to {areas[1]:.3f}")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    app()
