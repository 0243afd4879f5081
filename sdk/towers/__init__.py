"""Image towers that several plugins may share through the device runtime.

`ClipTower` is plain torch: importing it costs neither open_clip nor torchvision, so a first verdict stays quick.
"""

from .clip import CLIP_MEAN, CLIP_STD, ClipTower, clip_input
from .lora import LoraSet
from .semantic import (
    BRANCH,
    SemanticPass,
    branch,
    class_tokens,
    run_blocks,
    semantic_pass,
    semantic_square,
    semantic_tokens,
)
from .shared import CLIP_TOWERS, CLIP_VIT_B16, CLIP_VIT_L14_336, clip_tower, clip_vit_b16, clip_vit_b16_is_here

__all__ = [
    "BRANCH",
    "CLIP_MEAN",
    "CLIP_STD",
    "CLIP_TOWERS",
    "CLIP_VIT_B16",
    "CLIP_VIT_L14_336",
    "ClipTower",
    "LoraSet",
    "SemanticPass",
    "branch",
    "class_tokens",
    "clip_input",
    "clip_tower",
    "clip_vit_b16",
    "clip_vit_b16_is_here",
    "run_blocks",
    "semantic_pass",
    "semantic_square",
    "semantic_tokens",
]
