"""The ablations of GAMMA's tables 4 to 8, from one configuration file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from tellsign.errors import SettingError
from tellsign.plugins.segmentation.scan import forward_of

from .data import read_forged
from .evaluate import look_at_all, table
from .recipe import Recipe
from .train import build, train

CONFIG = Path(__file__).with_name("ablations.json")


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
    config: Path, folder: Path, test: Path, out: Path, *, only: str | None = None, imagenet: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Train and measure every row of the configuration with every seed; rows that are done are kept.

    Parameters
    ----------
    config : Path
        "seeds", "base" (what all recipes share) and "tables": by table and row what differs.
    folder, test : Path
        Forged pictures to train on and to measure on.
    out : Path
        Receives a run's folder each, with its `result.json`.
    only : str, optional
        One table.
    imagenet : Path, optional
        See `train`.

    Returns
    -------
    dict
        By "table: row": mean and standard deviation over the seeds of class AUC and of both masks' pooled F1.
    """
    seeds: list[int] = json.loads(config.read_text())["seeds"]
    answer: dict[str, dict[str, Any]] = {}
    for (name, row), recipe in recipes(config, only).items():
        results = [_one(attrs.evolve(recipe, seed=s), folder, test, out / f"{name}-{row}-{s}", imagenet) for s in seeds]
        answer[f"{name}: {row}"] = {
            key: {"mean": float(np.mean(values)), "sd": float(np.std(values))}
            for key in results[0]
            for values in ([r[key] for r in results],)
        }
    return answer


def _one(recipe: Recipe, folder: Path, test: Path, out: Path, imagenet: Path | None) -> dict[str, float]:
    result = out / "result.json"
    if not result.is_file():
        from safetensors.torch import load_file

        weights = train(recipe, [folder], out, imagenet=imagenet)
        model = build(recipe, None, initialise=False)
        model.load_state_dict(load_file(weights))
        device = next(model.parameters()).device
        told = table(look_at_all(read_forged(test), forward_of(model.eval(), device)))
        numbers = {
            "class AUC": told["classes"].get("all", {}).get("auc_max"),
            "AI F1": told["masks"].get("ai all", {}).get("f1"),
            "manipulation F1": told["masks"].get("manipulation all", {}).get("f1"),
        }
        result.write_text(json.dumps({k: v or 0.0 for k, v in numbers.items()}))
    read: dict[str, float] = json.loads(result.read_text())
    return read
