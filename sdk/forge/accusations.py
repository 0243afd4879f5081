"""Counts what the detectors say of forged folders, by kind and tool: `python -m tellsign.forge.accusations FOLDER...`.

Made for the policy on enhancement (docs/segmentation.md): folders with the kinds `untouched` and `enhanced` of the same
photographs tell how many a detector accuses before, and how many after, an up-scaler, an autoencoder or a denoiser.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tellsign.schemas import Label, ScoreEvidence, Verdict

from .manifest import ForgedRow, read_manifest

Detect = Callable[[Path], Verdict]


def made_by(row: ForgedRow) -> str:
    """Kind and tool, as results are grouped."""
    return f"{row.kind}/{row.tool}" if row.tool else row.kind


def look(
    folders: Iterable[Path], detect: Detect, progress: Callable[[str], None] = lambda _: None, limit: int = 0
) -> list[Any]:
    """One record per picture: kind/tool, scene, label, p_ai, p_tampered, the scores, and how many findings.

    Parameters
    ----------
    folders : iterable of Path
        What `tellsign forge` wrote.
    detect : callable of Path to Verdict
    progress : callable of str, optional
        Is told each picture's path.
    limit : int, default 0
        Pictures of each kind and tool at most, those of the first scenes; 0 for all.
    """
    told, counts = [], Counter[str]()
    for folder in folders:
        for row in sorted(read_manifest(folder), key=lambda r: r.id):
            counts[made_by(row)] += 1
            if counts[made_by(row)] > limit > 0:
                continue
            progress(row.path)
            verdict = detect(folder / row.path)
            told.append(
                {
                    "made_by": made_by(row),
                    "scene": f"{row.base}/{row.seed}/{row.id.split('-')[0]}",
                    "label": str(verdict.label),
                    "p_ai": verdict.p_ai,
                    "p_tampered": verdict.p_tampered,
                    "scores": {
                        f"{e.plugin}.{e.name}": e.score for e in verdict.evidence if isinstance(e, ScoreEvidence)
                    },
                    "findings": len(verdict.findings),
                }
            )
    return told


def summary(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | int | None]]:
    """By kind/tool: how many pictures, the share of each label, of p_ai >= .5, and the mean change of p_ai.

    The change is against the untouched picture of the same scene, over those that have one: folders of the same
    photographs, scenes and seed have the same scenes.
    """
    before = {r["scene"]: r["p_ai"] for r in records if r["made_by"] == "untouched"}
    out: dict[str, dict[str, float | int | None]] = {}
    for name in sorted({r["made_by"] for r in records}):
        part = [r for r in records if r["made_by"] == name]
        both = [r for r in part if r["scene"] in before and None not in (r["p_ai"], before[r["scene"]])]
        known = [r["p_ai"] for r in part if r["p_ai"] is not None]
        out[name] = {"n": len(part)} | {str(x): sum(r["label"] == x for r in part) / len(part) for x in Label}
        out[name] |= {
            "p_ai_half": float(np.mean([p >= 0.5 for p in known])) if known else None,
            "change": float(np.mean([r["p_ai"] - before[r["scene"]] for r in both])) if both else None,
            "pairs": len(both),
            "newly": sum(r["p_ai"] >= 0.5 > before[r["scene"]] for r in both),
        }
    return out


def in_markdown(told: Mapping[str, Mapping[str, float | int | None]]) -> str:
    """The summary as a table for the documentation."""
    head = ["made by", "n", *(str(x) for x in Label), "p_ai >= .5", "mean change of p_ai", "newly >= .5 of pairs"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, t in told.items():
        shares = [t[str(x)] for x in Label] + [t["p_ai_half"]]
        cells = [name, str(t["n"]), *("-" if s is None else f"{100 * s:.0f} %" for s in shares)]
        change = t["change"]
        cells += ["-" if change is None else f"{change:+.3f}", f"{t['newly']} of {t['pairs']}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(
    folders: Annotated[list[Path], typer.Argument(help="What `tellsign forge` wrote.")],
    out: Annotated[Path | None, typer.Option(help="Receives a JSON line for each picture.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Pictures of each kind and tool at most; 0 for all.")] = 0,
) -> None:
    """Print a table of verdicts by kind and tool."""
    from tellsign.default import detect

    from .errors import ForgeError

    try:
        records = look(folders, detect, lambda path: typer.echo(path, err=True), limit)
    except ForgeError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    if out is not None:
        out.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    typer.echo(in_markdown(summary(records)))


if __name__ == "__main__":
    typer.run(main)
