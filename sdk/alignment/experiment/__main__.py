"""`python -m tellsign.alignment.experiment --forged DIR --tower FILE --out DIR`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import attrs
import numpy as np
import torch
import typer
from safetensors.torch import load_file
from tqdm import tqdm

from tellsign.cli.common import fail, told_errors
from tellsign.errors import SettingError
from tellsign.towers import ClipTower

from .model import pooled
from .pictures import FIT, SEEN, TEST, choose
from .report import NONE, markdown, table
from .setting import Setting
from .tokens import cached
from .train import Answers, Inputs, answer, fit


def command(
    forged: Annotated[list[Path], typer.Option(help="What `tellsign forge` wrote; may be given several times.")],
    tower: Annotated[Path, typer.Option(help="CLIP's image tower as safetensors, with open_clip's names.")],
    out: Annotated[Path, typer.Option(help="Folder of the experiment; a run that was stopped goes on.")],
    setting: Annotated[str, typer.Option(help="JSON with what differs from the defaults.")] = "{}",
    minutes: Annotated[float | None, typer.Option(help="Start no training run after so many minutes.")] = None,
) -> None:
    """Train without and with alignment, under a cue that flips, and write the table."""
    started = time.monotonic()
    with told_errors():
        chosen = _setting(setting)
        samples = choose(forged, chosen)
        names = [s.name for s in samples]
        out.mkdir(parents=True, exist_ok=True)
        model = _tower(tower, chosen.block)
        with tqdm(total=len(samples), desc="tokens") as bar:
            known = cached(
                samples,
                chosen,
                model,
                out / f"tokens-{tower.stem}-{chosen.cue}-{chosen.side}-{chosen.block}",
                progress=lambda done, _: bar.update(done - bar.n),
            )
    del model
    inputs = Inputs(
        tokens=torch.stack([pooled(torch.from_numpy(known.tokens[:, k]).float(), chosen.pool) for k in (0, 1)], dim=1),
        region=known.region,
        salient=known.salient,
        fake=np.array([s.fake for s in samples]),
    )
    part = np.array([s.part for s in samples])
    runs = _all(inputs, part, chosen, out / f"runs-{chosen.key(names)}", started, minutes)
    test = part != FIT
    fake = inputs.fake[test]
    held_out = part[test] == TEST
    found = table(runs, fake, held_out)
    facts = {
        "n_fit": int((part == FIT).sum()),
        "n_test": int((part == TEST).sum()),
        "n_seen": int((part == SEEN).sum()),
        "share": float(known.region[test][fake & held_out].mean()),
        "seeds": min(len(r) for r in runs.values()),
    }
    report = {"setting": attrs.asdict(chosen), "facts": facts, "arms": found}
    (out / "table.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = markdown(found, chosen, facts)
    (out / "table.md").write_text(text, encoding="utf-8")
    typer.echo(text)


def _tower(file: Path, depth: int) -> ClipTower:
    try:
        return ClipTower.from_state_dict(load_file(file), depth=depth).eval()
    except Exception as error:  # safetensors has its own, which derives from nothing narrower
        fail(f"--tower {file} does not hold a CLIP image tower of {depth} blocks or more: {error}", code=2)


def _setting(text: str) -> Setting:
    try:
        given: dict[str, Any] = json.loads(text)
        names = {f.name for f in attrs.fields(Setting)}
        if not isinstance(given, dict) or not set(given) <= names:
            raise SettingError("--setting", f"a JSON object with {', '.join(sorted(names))}", text)
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        return Setting(**fields)
    except ValueError as error:
        if isinstance(error, SettingError):
            raise
        raise SettingError("--setting", "a JSON object", text) from error


def _all(
    inputs: Inputs, part: np.ndarray[Any, Any], setting: Setting, folder: Path, started: float, minutes: float | None
) -> dict[str, list[Answers]]:
    """Answers of every arm, one per seed; only seeds that every arm has."""
    folder.mkdir(parents=True, exist_ok=True)
    arms, to_fit, to_test = setting.arms(), inputs.take(part == FIT), inputs.take(part != FIT)
    runs: dict[str, list[Answers]] = {arm.name: [] for arm in arms}
    for seed in tqdm(range(setting.seeds), desc="seeds"):
        row: dict[str, Answers] = {}
        for arm in arms:
            file = folder / f"{arm.name.replace(', ', '-').replace(' ', '_')}-{seed}.npz"
            if file.is_file():
                row[arm.name] = _read(file)
            elif minutes is None or time.monotonic() - started < 60 * minutes:
                row[arm.name] = answer(fit(to_fit, setting, arm, seed), to_test)
                _write(file, row[arm.name])
        if len(row) == len(runs):
            for name, answers in row.items():
                runs[name].append(answers)
    if not runs[NONE]:
        fail("no seed is complete; the same command goes on, with more --minutes.")
    return runs


def _write(file: Path, answers: Answers) -> None:
    half = file.with_suffix(".part.npz")
    np.savez(half, **attrs.asdict(answers))
    half.replace(file)


def _read(file: Path) -> Answers:
    with np.load(file) as stored:
        return Answers(**{name: stored[name] for name in stored.files})


if __name__ == "__main__":
    typer.run(command)
