"""Pixel traces of synthesis, from native-resolution crops (the pixel branch of task-model alignment)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tellsign.plugin import hookimpl

if TYPE_CHECKING:
    from .detector import PixelDetector


@hookimpl
def tellsign_detector() -> type[PixelDetector]:
    """The class; torch is imported here and not before."""
    from .detector import PixelDetector

    return PixelDetector
