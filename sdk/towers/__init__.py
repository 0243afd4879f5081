"""Image towers that several plugins may share through the device runtime.

`ClipTower` is plain torch: importing it costs neither open_clip nor torchvision, so a first verdict stays quick.
"""

from .clip import CLIP_MEAN, CLIP_STD, ClipTower, clip_input
from .lora import LoraSet
from .shared import CLIP_VIT_B16, clip_vit_b16, clip_vit_b16_is_here

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "CLIP_VIT_B16",
    "ClipTower",
    "LoraSet",
    "clip_input",
    "clip_vit_b16",
    "clip_vit_b16_is_here",
]
