"""The towers that plugins share, by the key under which the device runtime keeps them."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from tellsign.errors import WeightsError
from tellsign.plugin import UnavailableError
from tellsign.weights import locate

from .clip import ClipTower

CLIP_VIT_B16 = "clip-vit-b16"
"""OpenAI's ViT-B/16 image tower: key in the runtime and name in `tellsign models`."""


def clip_vit_b16_is_here() -> bool:
    """Whether the tower's weights are on this machine."""
    return locate(CLIP_VIT_B16) is not None


def clip_vit_b16() -> ClipTower:
    """Build the tower from the weights on this machine; what plugins pass to `DeviceRuntime.use`.

    Raises
    ------
    UnavailableError
        The weights are not here.
    WeightsError
        They are damaged or of another shape.
    """
    file: Path | None = locate(CLIP_VIT_B16)
    if file is None:
        raise UnavailableError(
            f"the weights of {CLIP_VIT_B16} are not on this machine: run `tellsign models fetch {CLIP_VIT_B16}`"
        )
    try:
        return ClipTower.from_state_dict(load_file(file))
    except Exception as error:
        raise WeightsError(str(file), f"does not hold the tower: {error}") from error
