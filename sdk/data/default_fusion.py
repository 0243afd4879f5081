"""Makes the fusion bundle that ships: `python -m tellsign.data.default_fusion`.

Every picture of `fuse` is scored by the shipped plugins as they are with the CLIP tower and as they are without it
(`tellsign.data.scoring`); versions share the picture's group, so that they count as one picture. Forgeries of the
photographs of `fuse` teach `p_tampered`, and so do photographs as large as people's own, in which a map has more
places to be wrong.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import attrs
import numpy as np
import typer

from tellsign.errors import SettingError
from tellsign.fusion.features import columns, matrix
from tellsign.fusion.table import ScoreTable
from tellsign.fusion.train import train_bundle
from tellsign.host import discover
from tellsign.schemas import Declaration, Label, Task

from .forged import read_forged
from .rows import PictureRow, read_rows
from .scoring import VERSIONS, Line, Skipped, key_of, read_scores, score_plugin

MACHINES: dict[str, dict[str, str]] = {
    "with-tower": {"pixel": "tower", "reasoning": "tower", "semantic": "tower"},
    "offline": {"pixel": "bundled", "reasoning": "student", "semantic": "student"},
}
"""Strength in which each plugin speaks, on a machine that has the tower and on one that has not. A plugin that is not
named has no strengths."""

FORGED = "fuse-forged"
"""Split of the forgeries' rows: beside their bases they would count each photograph many times for `p_ai`."""

TAMPERED_RATE = 0.7
"""Share of tampered pictures that may be called something else: maps see pasted regions, and hardly a copied one."""
TAMPERED_SHARE = 0.1
"""Share of tampered pictures, among those without synthesised pixels, that `p_tampered` assumes."""

app = typer.Typer(add_completion=False, help=__doc__)


def score_table(
    rows: Sequence[PictureRow],
    declarations: Mapping[str, Declaration],
    *,
    device: str,
    out: Path,
    versions: int = VERSIONS,
) -> tuple[ScoreTable, list[Skipped]]:
    """Score `rows` as on each of `MACHINES`.

    Parameters
    ----------
    rows : sequence of PictureRow
    declarations : mapping of str to Declaration
        The plugins to score with; those without columns are passed over.
    device : str
    out : Path
        Keeps the scores, `scores-<plugin>[-<strength>].jsonl`.
    versions : int

    Returns
    -------
    table : ScoreTable
        A row per machine, picture and version that any plugin had something to say of.
    skipped : list of Skipped
    """
    made = columns(declarations)
    lines: list[Line] = []
    kept: list[PictureRow] = []
    skipped: dict[Path, Skipped] = {}
    seen: dict[str, Mapping[tuple[str, int], Line]] = {}
    for strengths in MACHINES.values():
        answers = []
        for plugin, declaration in sorted(declarations.items()):
            if not declaration.columns:
                continue
            strength = strengths.get(plugin)
            name = plugin if strength is None else f"{plugin}-{strength}"
            if name not in seen:
                settings = {} if strength is None else {"strength": strength}
                cache = _cache(out, name)
                mine = [r for r in rows if not r.as_is or declaration.task is Task.SEGMENTATION]
                seen[name], missed = score_plugin(mine, plugin, settings, cache, device=device, versions=versions)
                skipped |= {s.path: s for s in missed}
            answers.append(seen[name])
        for row in rows:
            for version in range(1 if row.as_is else versions):
                line: Line = {}
                for answer in answers:
                    line |= answer.get(key_of(row, version), {})
                if line:
                    kept.append(row)
                    lines.append(line)
    values = matrix(lines, made)
    answered = np.flatnonzero(~np.isnan(values).all(axis=1))
    chosen = [kept[i] for i in answered]
    table = ScoreTable(
        rows=values[answered],
        columns=made,
        label=[r.label for r in chosen],
        group=[r.group for r in chosen],
        source=[r.source for r in chosen],
        split=[r.split for r in chosen],
        tampered=[r.tampered for r in chosen],
        edited=[r.edited for r in chosen],
    )
    return table, sorted(skipped.values(), key=lambda s: s.path)


def whole_photographs(rows: Sequence[PictureRow], each: int) -> list[PictureRow]:
    """At most `each` photographs of every source among `rows`, evenly spread over it, to be looked at as they are."""
    by_source: dict[str, list[PictureRow]] = {}
    for row in rows:
        if row.label == 0 and not row.forged:
            by_source.setdefault(row.source, []).append(row)
    out: list[PictureRow] = []
    for mine in by_source.values():
        places = np.unique(np.linspace(0, len(mine) - 1, min(each, len(mine))).astype(int))
        out += [attrs.evolve(mine[i], as_is=True) for i in places.tolist()]
    return out


def cross_fitted(rows: Sequence[PictureRow], declarations: Mapping[str, Declaration], folder: Path) -> ScoreTable:
    """Scores of `fit` by heads that saw nothing of a picture's source (`cross-fit` of the plugins' trainings).

    Parameters
    ----------
    rows : sequence of PictureRow
        Those of `fit` are looked up.
    declarations : mapping of str to Declaration
        Their columns are read.
    folder : Path
        With `crossfit-<plugin>.jsonl`.

    Returns
    -------
    ScoreTable
        A row per machine and picture of which every plugin that has such scores has one: a plugin that knows fewer
        pictures must not be judged on others than the rest.

    Raises
    ------
    SettingError
        No such file, or none of its pictures.
    """
    files = sorted(folder.glob("crossfit-*.jsonl"))
    if not files:
        raise SettingError("beside", "a folder with crossfit-PLUGIN.jsonl", str(folder))
    parts = [read_scores(file) for file in files]
    made = columns(declarations)
    known = [r for r in rows if r.split == "fit" and all(key_of(r, 0) in part for part in parts)]
    if not known:
        raise SettingError("beside", "scores of pictures of fit", f"{len(files)} files without one")
    blocks = {c.name: c.block for c in made}
    kept, lines = [], []
    for strengths in MACHINES.values():
        silent = {
            f"{plugin}.{strength}"
            for other in MACHINES.values()
            for plugin, strength in other.items()
            if strength != strengths.get(plugin)
        }
        for row in known:
            line = {k: v for part in parts for k, v in part[key_of(row, 0)].items() if k in blocks}
            kept.append(row)
            lines.append({k: v for k, v in line.items() if blocks[k] not in silent})
    return ScoreTable(
        rows=matrix(lines, made),
        columns=made,
        label=[r.label for r in kept],
        group=[r.group for r in kept],
        source=[r.source for r in kept],
        split=[r.split for r in kept],
    )


def comparison(compared: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What was compared for each head, in lines: AUC and log loss out of family, and the same beside the table."""
    lines = []
    for head, found in sorted(compared.items()):
        lines.append(f"{head}: {found['why']}")
        for kind in ("penalties", "contenders"):
            for recipe, numbers in found[kind].items():
                places = [numbers, *([numbers["beside"]] if "beside" in numbers else [])]
                cells = [f"{p[k]:.3f}" if p[k] is not None else "-" for p in places for k in ("auc", "log_loss")]
                lines.append("  ".join([f"  {recipe:<52}", *cells]))
    return lines


def _cache(folder: Path, name: str) -> Path:
    return folder / f"scores-{name}.jsonl"


def forget(plugin: str, work: Path) -> None:
    """Throw a plugin's kept scores away, those of all its strengths.

    Raises
    ------
    SettingError
        There are none.
    """
    names = {plugin} | {f"{plugin}-{strengths[plugin]}" for strengths in MACHINES.values() if plugin in strengths}
    files = [file for name in sorted(names) if (file := _cache(work, name)).is_file()]
    if not files:
        raise SettingError("rescore", "a plugin with kept scores", plugin)
    for file in files:
        file.unlink()


@app.command()
def main(
    shared: Annotated[Path, typer.Option(help="Folder with data/.")],
    work: Annotated[Path, typer.Option(help="Receives the scores and the training report.")],
    out: Annotated[Path, typer.Option(help="Receives the bundle.")],
    full: Annotated[Path | None, typer.Option(help="Whole pictures with their manifest.csv.")] = None,
    forged: Annotated[
        Path | None, typer.Option(help="Forgeries of the photographs of `fuse` (`tellsign forge`).")
    ] = None,
    as_is: Annotated[
        int, typer.Option(help="Photographs per source that the segmentation plugin sees whole and unchanged too.")
    ] = 0,
    skipped: Annotated[
        Path | None, typer.Option(help="skipped.csv of the pixel plugin's `prepare`: what it lists is left out.")
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(help="Folder with crossfit-PLUGIN.jsonl: scores of `fit` by heads that did not see the source."),
    ] = None,
    head: Annotated[
        str, typer.Option(help="auto (compares boosters with the logistic stack), booster or logistic.")
    ] = "auto",
    rescore: Annotated[
        list[str] | None, typer.Option(help="A plugin whose kept scores are of other weights; may be repeated.")
    ] = None,
    device: str = "auto",
    seed: int = 0,
) -> None:
    """Score `fuse` and train the bundle."""
    work.mkdir(parents=True, exist_ok=True)
    for plugin in rescore or ():
        forget(plugin, work)
    out_of_play: set[Path] = set()
    if skipped is not None:
        with skipped.open(newline="") as handle:
            out_of_play = {Path(line["path"]).resolve() for line in csv.DictReader(handle)}
    rows = [r for r in read_rows(shared / "data", full) if r.split == "fuse" and r.path.resolve() not in out_of_play]
    if forged is not None:
        # Forgeries by hand only: a small synthesised region in a window is beyond what the detectors of whole pictures
        # see, and as rows with label 1 they would teach that nothing can be seen.
        rows += [r for r in read_forged(forged, FORGED) if r.label == 0]
    rows += whole_photographs(rows, as_is)
    # What a file says of itself is no matter of training: it speaks through a rule.
    declarations = {
        r.name: r.declaration
        for r in discover()
        if r.declaration is not None and r.state == "ok" and r.declaration.task is not Task.PROVENANCE
    }
    table, missed = score_table(rows, declarations, device=device, out=work)
    for one in missed:
        typer.echo(f"left out: {one.path.name}: {one.why}", err=True)
    # Chosen on `fuse` with families left out: at .2 hardly any verdict was definite, and .5 gained nothing over .35.
    other = None if beside is None else cross_fitted(read_rows(shared / "data", full), declarations, beside)
    bundle, report = train_bundle(
        table,
        declarations=declarations,
        seed=seed,
        head=head,
        plausible=0.35,
        beside=other,
        # Whole families are held out of the calibration too, because the next generator is of a family of its own.
        calibrate_on="family",
        error_rate={Label.TAMPERED: TAMPERED_RATE},
        tampered_share=TAMPERED_SHARE,
        aside=(FORGED,),
    )
    table.save(work / "fuse.csv")
    (work / "report.json").write_text(json.dumps(report, indent=1))
    bundle.save(out)
    for line in comparison(bundle.training["compared"]):
        typer.echo(line)
    typer.echo(f"{len(table)} rows of {len(set(table.group.tolist()))} pictures; bundle {bundle.version} in {out}")


if __name__ == "__main__":
    app()
