"""Reads the weights file that ships with the plugin, and others in its format."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tellsign.errors import TellsignError, WeightsError
from tellsign.weights.files import read_weights

from .folding import fold
from .model import GammaConfig, GammaModel

FOLDER = Path(__file__).with_name("weights")
GAMMA = FOLDER / "gamma.safetensors"


def load_gamma(file: Path = GAMMA) -> GammaModel:
    """Read a network, in eval mode and with its batch norms folded.

    Parameters
    ----------
    file : Path
        As `training.export` writes it: half precision, the configuration in the metadata.

    Raises
    ------
    WeightsError
        The file is missing, damaged, or not of this kind.
    """
    state, notes = read_weights(file)
    try:
        model = GammaModel(GammaConfig.from_json(notes["config"]))
        model.load_state_dict({k: _float(v) for k, v in state.items()})
    except (KeyError, TypeError, ValueError, RuntimeError, TellsignError) as error:
        raise WeightsError(str(file), f"does not hold a network of the segmentation plugin: {error}") from error
    fold(model.eval())
    return model.to(memory_format=torch.channels_last)


def _float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
