"""From finished runs to the two weights files that ship. No text encoder goes into either."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from tellsign.data.ranking import least_threshold
from tellsign.plugins.reasoning.bank import Bank
from tellsign.plugins.reasoning.model import StudentModel, TowerModel
from tellsign.towers import ClipTower
from tellsign.towers.lite import LiteTrunk

from .train import Recipe, Student

SHARE = 0.05
"""Of every real source that chooses the threshold, at most so many pictures lie above it."""
LEAST = 20
"""Pictures that a real source needs to have a say in the threshold."""


def own_threshold(raw: Tensor, label: NDArray[np.int64], source: NDArray[np.str_]) -> float:
    """The raw log-odds above which at most `SHARE` of every real source lies."""
    scores = raw.double().numpy()
    reals = {
        str(n): scores[(label == 0) & (source == n)]
        for n in np.unique(source[label == 0])
        if ((label == 0) & (source == n)).sum() >= LEAST
    }
    return least_threshold(reals, SHARE)


def tower_model(student: Student, recipe: Recipe, tower: ClipTower, *, slope: float, threshold: float) -> TowerModel:
    """What ships of a run: updates and head, in half precision's values.

    Parameters
    ----------
    student : Student
        Trained with low-rank updates.
    recipe : Recipe
    tower : ClipTower
    slope : float
        Of the log-odds.
    threshold : float
        Raw log-odds that become zero.

    Raises
    ------
    ValueError
        The run has no low-rank updates.
    """
    if student.lora is None:
        raise ValueError("student takes a run with low-rank updates")
    model = TowerModel(
        width=tower.width,
        dim=student.dim,
        first=student.first,
        last=student.last,
        rank=recipe.rank,
        alpha=recipe.alpha,
        projected=student.projected,
        hidden=recipe.hidden,
    )
    model.lora.load_state_dict(student.lora.state_dict())
    state = student.head.state_dict()
    state["slope"], state["offset"] = torch.tensor(slope), torch.tensor(-slope * threshold)
    model.head.load_state_dict(state)
    model.mean.copy_(student.mean)
    model.std.copy_(student.std)
    return model.eval()


def export_tower(model: TowerModel, bank: Bank, recipe: Recipe, out: Path, *, version: str, tower: str) -> Path:
    """Write `reasoning-tower.safetensors`."""
    notes = {
        "first": str(model.first),
        "last": str(model.last),
        "alpha": str(model.lora.alpha),
        "projected": str(int(model.projected)),
        "tower": tower,
        "version": version,
        "recipe": json.dumps(attrs.asdict(recipe), sort_keys=True),
    }
    return _save(model.state_dict(), bank, notes, out / "reasoning-tower.safetensors")


def export_student(
    trunk: LiteTrunk, model: StudentModel, bank: Bank, recipe: Mapping[str, object], out: Path, *, version: str
) -> Path:
    """Write `reasoning-student.safetensors`: trunk, projection, head and bank."""
    state = {f"trunk.{k}": v for k, v in trunk.state_dict().items()}
    state |= {f"model.{k}": v for k, v in model.state_dict().items()}
    notes = {"version": version, "recipe": json.dumps(dict(recipe), sort_keys=True)}
    return _save(state, bank, notes, out / "reasoning-student.safetensors")


def _save(state: Mapping[str, Tensor], bank: Bank, notes: dict[str, str], file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    half = {k: (v.half() if v.ndim else v.float()).contiguous() for k, v in state.items()}
    save_file(half | {"bank": bank.vectors.float().contiguous()}, file, metadata=notes | {"bank": bank.told()})
    return file
