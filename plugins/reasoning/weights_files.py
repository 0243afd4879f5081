"""Reads the weights files that ship with the plugin, and those that a user trained."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from torch import Tensor, nn

from tellsign.errors import WeightsError
from tellsign.towers.lite import LiteTrunk
from tellsign.weights.files import read_weights

from .bank import Bank
from .model import StudentModel, TowerModel

FOLDER = Path(__file__).with_name("weights")
TOWER = FOLDER / "reasoning-tower.safetensors"
STUDENT = FOLDER / "reasoning-student.safetensors"


class SmallModel(nn.Module):
    """The small network's trunk and the model on its features."""

    def __init__(self, trunk: LiteTrunk, model: StudentModel) -> None:
        super().__init__()
        self.trunk, self.model = trunk, model


def load_tower_model(file: Path = TOWER) -> TowerModel:
    """Read updates and head for a tower.

    Raises
    ------
    WeightsError
        The file is missing, damaged, or not of this kind; the error names it.
    """
    state, notes = read_weights(file)
    try:
        first, last = int(notes["first"]), int(notes["last"])
        down = state[f"lora.down.{first}/attn/in_proj"]
        model = TowerModel(
            width=down.shape[1],
            dim=state["head.first.weight"].shape[1],
            first=first,
            last=last,
            rank=down.shape[0],
            alpha=float(notes["alpha"]),
            projected=notes["projected"] == "1",
            hidden=state["head.first.weight"].shape[0],
        )
        model.load_state_dict(_weights(state))
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise WeightsError(str(file), f"does not hold the reasoning plugin's tower model: {error}") from error
    return model


def load_student(file: Path = STUDENT) -> SmallModel:
    """Read the small network with its head.

    Raises
    ------
    WeightsError
        The file is missing, damaged, or not of this kind; the error names it.
    """
    state, _ = read_weights(file)
    try:
        project = state["model.project.weight"]
        model = StudentModel(
            features=project.shape[1], dim=project.shape[0], hidden=state["model.head.first.weight"].shape[0]
        )
        small = SmallModel(LiteTrunk(), model)
        small.load_state_dict(_weights(state))
    except (KeyError, IndexError, RuntimeError) as error:
        raise WeightsError(str(file), f"does not hold the reasoning plugin's student: {error}") from error
    return small


@cache
def load_bank(file: Path) -> Bank:
    """The statements of a weights file.

    Raises
    ------
    WeightsError
        They are missing or not what they should be; the error names the file.
    """
    state, notes = read_weights(file)
    try:
        return Bank.read(notes["bank"], state["bank"])
    except (KeyError, ValueError) as error:
        raise WeightsError(str(file), f"does not hold a bank of statements: {error}") from error


def _weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.float() for k, v in state.items() if k != "bank"}
