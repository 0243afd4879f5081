"""Reads the weights files that ship with the plugin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from tellsign.errors import WeightsError
from tellsign.towers import ClipTower, LoraSet
from tellsign.weights.files import read_weights

from .model import PixelHead, PixelModel
from .quantise import unpack
from .residuals import ResidualProbe

FOLDER = Path(__file__).with_name("weights")
TOWER = FOLDER / "pixel-tower.safetensors"
BUNDLED = FOLDER / "pixel-bundled.safetensors"
RESIDUAL = FOLDER / "pixel-residual.safetensors"


class Adapter(nn.Module):
    """Updates and head of the tower model, without the tower."""

    def __init__(self, lora: LoraSet | None, head: PixelHead) -> None:
        super().__init__()
        self.lora, self.head = lora, head


def load_adapter(file: Path = TOWER) -> Adapter:
    """Read the tower model's updates and head.

    Raises
    ------
    WeightsError
        The file is missing, damaged, or not of this kind.
    """
    state, notes = read_weights(file)
    return Adapter(*_adapter(file, state, notes))


def load_bundled(file: Path = BUNDLED) -> PixelModel:
    """Read the bundled model: its own trunk in four bits, updates and head.

    Raises
    ------
    WeightsError
        The file is missing, damaged, or not of this kind.
    """
    state, notes = read_weights(file)
    lora, head = _adapter(file, state, notes)
    try:
        trunk = unpack({k.removeprefix("tower."): v for k, v in state.items() if k.startswith("tower.")})
        return PixelModel(ClipTower.from_state_dict(trunk, copy=False), lora, head)
    except (KeyError, ValueError, RuntimeError) as error:
        raise WeightsError(str(file), f"does not hold the bundled model's trunk: {error}") from error


def load_residual(file: Path = RESIDUAL) -> ResidualProbe:
    """Read the probe on residual statistics.

    Raises
    ------
    WeightsError
        The file is missing, damaged, or not of this kind.
    """
    state, _ = read_weights(file)
    probe = ResidualProbe()
    try:
        probe.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(str(file), f"does not hold the probe on residuals: {error}") from error
    return probe


def _adapter(file: Path, state: Mapping[str, Tensor], notes: Mapping[str, str]) -> tuple[LoraSet | None, PixelHead]:
    try:
        blocks = [int(b) for b in notes["blocks"].split(",")]
        width = state["head.weight"].shape[2]
        head = PixelHead(blocks, width)
        lora: LoraSet | None = None
        if int(notes["rank"]):
            lora = LoraSet.for_tower(
                width,
                range(1, max(blocks) + 1),
                rank=int(notes["rank"]),
                alpha=float(notes["alpha"]),
                ratio=float(notes["ratio"]),
            )
            updates = {k.removeprefix("lora."): v.float() for k, v in state.items() if k.startswith("lora.")}
            lora.load_state_dict(updates)
        head.load_state_dict({k.removeprefix("head."): v.float() for k, v in state.items() if k.startswith("head.")})
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise WeightsError(str(file), f"does not hold the pixel plugin's updates and head: {error}") from error
    return lora, head
