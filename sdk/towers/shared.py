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


CLIP_VIT_L14_336 = "clip-vit-l14-336"
"""OpenAI's ViT-L/14 image tower at 336 px, likewise."""

CLIP_TOWERS = (CLIP_VIT_B16, CLIP_VIT_L14_336)


def clip_vit_b16_is_here() -> bool:
    """Whether the tower's weights are on this machine."""
    return locate(CLIP_VIT_B16) is not None


def clip_vit_b16() -> ClipTower:
    """`clip_tower` of the ViT-B/16."""
    return clip_tower(CLIP_VIT_B16)


def clip_tower(name: str) -> ClipTower:
    """Build a tower from the weights on this machine; what plugins pass to `DeviceRuntime.use`.

    Parameters
    ----------
    name : str
        One of `CLIP_TOWERS`.

    Raises
    ------
    UnavailableError
        The weights are not here.
    WeightsError
        They are damaged or of another shape.
    """
    file: Path | None = locate(name)
    if file is None:
        raise UnavailableError(f"the weights of {name} are not on this machine: run `tellsign models fetch {name}`")
    try:
        return ClipTower.from_state_dict(load_file(file))
    except Exception as error:
        raise WeightsError(str(file), f"does not hold the tower: {error}") from error
