"""Larger weights that do not ship in the wheel: where they lie, and how they come here.

>>> from tellsign.weights import locate
>>> path = locate("clip-vit-b16")  # None until `tellsign models fetch clip-vit-b16` was run
"""

from .registry import SPECS, HubSource, IndexSource, WeightsSpec, clip_tower_layout, spec_of
from .store import SOURCES, Progress, Stamp, fetch, home, locate, path_of, stamp, tensors_digest, verify

__all__ = [
    "SOURCES",
    "SPECS",
    "HubSource",
    "IndexSource",
    "Progress",
    "Stamp",
    "WeightsSpec",
    "clip_tower_layout",
    "fetch",
    "home",
    "locate",
    "path_of",
    "spec_of",
    "stamp",
    "tensors_digest",
    "verify",
]
