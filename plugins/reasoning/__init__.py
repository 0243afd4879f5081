"""A detector that learned from reasons in words and needs none when it runs (ReAlign)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tellsign.plugin import hookimpl

if TYPE_CHECKING:
    from .detector import ReasoningDetector


@hookimpl
def tellsign_detector() -> type[ReasoningDetector]:
    """The class; torch is imported here and not before."""
    from .detector import ReasoningDetector

    return ReasoningDetector
