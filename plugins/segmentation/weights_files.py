"""Reads the weights file that ships with the plugin, and others in its format."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from tellsign.errors import TellsignError, WeightsError

from .model import GammaConfig, GammaModel

FOLDER = Path(__file__).with_name("weights")
GAMMA = FOLDER / "gamma.safetensors"


@cache
def version_of(file: Path) -> str:
    """Name and version of a weights file, as evidence carries it.

    Raises
    ------
    WeightsError
        The file is missing or damaged.
    """
    return f"{file.stem} {_notes(file).get('version', '?')}"


def load_gamma(file: Path = GAMMA) -> GammaModel:
    """Read a network, in eval mode.

    Parameters
    ----------
    file : Path
        As `training.export` writes it: half precision, the configuration in the metadata.

    Raises
    ------
    WeightsError
        The file is missing, damaged, or not of this kind.
    """
    notes = _notes(file)
    try:
        model = GammaModel(GammaConfig.from_json(notes["config"]))
        model.load_state_dict({k: _float(v) for k, v in load_file(file).items()})
    except (KeyError, TypeError, ValueError, RuntimeError, TellsignError) as error:
        raise WeightsError(str(file), f"does not hold a network of the segmentation plugin: {error}") from error
    return model.to(memory_format=torch.channels_last).eval()


def _float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _notes(file: Path) -> Mapping[str, str]:
    try:
        with safe_open(file, "pt") as handle:
            return dict(handle.metadata() or {})
    except FileNotFoundError as error:
        raise WeightsError(str(file), "the file is not there") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(str(file), f"cannot be read as safetensors: {error}") from error
