"""Where pixels were synthesised and where they were moved: GAMMA, two masks and a class from native tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tellsign.plugin import hookimpl

if TYPE_CHECKING:
    from .detector import SegmentationDetector


@hookimpl
def tellsign_detector() -> type[SegmentationDetector]:
    """The class; torch is imported here and not before."""
    from .detector import SegmentationDetector

    return SegmentationDetector
