"""The ablations of GAMMA's tables 4 to 8, from one configuration file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from safetensors.torch import load_file

from tellsign.errors import SettingError
from tellsign.plugins.segmentation.model import MASKS, GammaModel
from tellsign.plugins.segmentation.scan import forward_of

from .augment import centre_crop
from .data import ForgedRow, few, load, read_forged
from .evaluate import auc, look_at_all, table
from .recipe import Recipe
from .train import build, train

CONFIG = Path(__file__).with_name("ablations.json")
SMALL = Path(__file__).with_name("ablations-small.json")
"""The same tables at a scale that one core goes through within half an hour."""


def recipes(config: Path, only: str | None = None) -> dict[tuple[str, str], Recipe]:
    """The recipes by table and row, with seed 0.

    Raises
    ------
    SettingError
        A table that the file does not have.
    """
    told: dict[str, Any] = json.loads(config.read_text())
    if only is not None and only not in told["tables"]:
        raise SettingError("only", f"one of {', '.join(told['tables'])}", only)
    base = Recipe.parse(json.dumps(told["base"]))
    return {
        (name, row): Recipe.parse(json.dumps(change), base)
        for name, rows in told["tables"].items()
        if only in (None, name)
        for row, change in rows.items()
    }


def ablate(
    config: Path,
    folders: Sequence[Path],
    test: Path,
    out: Path,
    *,
    only: str | None = None,
    imagenet: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Train and measure every row of the configuration with every seed; rows that are done are kept.

    Rows whose recipes are the same share their runs.

    Parameters
    ----------
    config : Path
        "seeds", "base" (what all recipes share) and "tables": by table and row what differs. "crops", where it is
        there, has middles of so many pictures of each kind and tool measured, instead of whole pictures of all.
    folders : sequence of Path
        Forged pictures to train on.
    test : Path
        Forged pictures to measure on.
    out : Path
        Receives a run's folder each, with its `result.json`.
    only : str, optional
        One table.
    imagenet : Path, optional
        See `train`.

    Returns
    -------
    dict
        By "table: row": mean and standard deviation over the seeds of class AUC and of both masks' pooled F1, or, of
        crops, of both masks' AUC within a picture. None of what the row does not train.
    """
    told: dict[str, Any] = json.loads(config.read_text())
    seeds: list[int] = told["seeds"]
    crops: int | None = told.get("crops")
    answer: dict[str, dict[str, Any]] = {}
    first: dict[str, Path] = {}
    for (name, row), recipe in recipes(config, only).items():
        results = []
        for seed in seeds:
            one = attrs.evolve(recipe, seed=seed)
            same = attrs.evolve(one, alpha=0, weights=tuple(map(float, one.loss_weights.values()))).dump()
            run = first.setdefault(same, out / f"{name}-{row}-{seed}")
            results.append(_one(one, folders, test, run, imagenet, crops))
        answer[f"{name}: {row}"] = {key: _spread(r[key] for r in results) for key in results[0]}
    return answer


def _spread(values: Iterable[float | None]) -> dict[str, float] | None:
    known = [v for v in values if v is not None]
    return {"mean": float(np.mean(known)), "sd": float(np.std(known))} if known else None


def _one(
    recipe: Recipe, folders: Sequence[Path], test: Path, out: Path, imagenet: Path | None, crops: int | None
) -> dict[str, float | None]:
    result = out / "result.json"
    if not result.is_file():
        weights = train(recipe, folders, out, imagenet=imagenet)
        model = build(recipe, None, initialise=False)
        model.load_state_dict(load_file(weights))
        model.eval()
        numbers = _on_pictures(model, test) if crops is None else on_crops(model, few(read_forged(test), crops), recipe)
        trained = {"class AUC": "cls", "AI": "ai", "manipulation": "manipulation"}
        of = {k: next(part for start, part in trained.items() if k.startswith(start)) for k in numbers}
        result.write_text(json.dumps({k: v if of[k] in recipe.parts else None for k, v in numbers.items()}))
        (out / "checkpoint.pt").unlink(missing_ok=True)
    read: dict[str, float | None] = json.loads(result.read_text())
    return read


def _on_pictures(model: GammaModel, test: Path) -> dict[str, float | None]:
    told = table(look_at_all(read_forged(test), forward_of(model, next(model.parameters()).device), own=False))
    return {
        "class AUC": told["classes"].get("all", {}).get("auc_max"),
        "AI F1": told["masks"].get("ai all", {}).get("f1"),
        "manipulation F1": told["masks"].get("manipulation all", {}).get("f1"),
    }


def on_crops(model: GammaModel, rows: Sequence[ForgedRow], recipe: Recipe) -> dict[str, float | None]:
    """What a network makes of the middles of pictures, without any cut.

    Parameters
    ----------
    model : GammaModel
        In eval mode.
    rows : sequence of ForgedRow
    recipe : Recipe
        Of which side and batch count.

    Returns
    -------
    dict
        "class AUC" over all; "AI AUC" and "manipulation AUC", the chance that a cell inside the region has more than
        one outside, as the mean over the crops that show both. None where no crop does.
    """
    logits: list[float] = []
    within: dict[str, list[float]] = {name: [] for name in MASKS}
    for start in range(0, len(rows), recipe.batch):
        part = rows[start : start + recipe.batch]
        samples = [centre_crop(load(r), recipe.side) for r in part]
        with torch.inference_mode():
            out = model(torch.from_numpy(np.stack([s.pixels for s in samples])))
        logits += out.logit[:, 0].tolist()
        for i, (row, sample) in enumerate(zip(part, samples, strict=True)):
            for name, truth, known in (
                ("ai", sample.ai, row.ai_counts),
                ("manipulation", sample.manipulation, row.ma_counts),
            ):
                heat, inside = getattr(out, name)[i, 0].numpy()[2::4, 2::4], truth[2::4, 2::4] > 0
                if known and 0 < inside.mean() < 1:
                    within[name].append(auc(heat[inside], heat[~inside]) or 0.0)
    told = {"class AUC": auc(*([x for x, r in zip(logits, rows, strict=True) if r.cls == c] for c in (1, 0)))}
    return told | {
        f"{title} AUC": float(np.mean(within[name])) if within[name] else None
        for title, name in (("AI", "ai"), ("manipulation", "manipulation"))
    }
