"""Whether what a picture shows makes sense (the semantic branch of task-model alignment)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tellsign.plugin import hookimpl

if TYPE_CHECKING:
    from .detector import SemanticDetector


@hookimpl
def tellsign_detector() -> type[SemanticDetector]:
    """The class; torch is imported here and not before."""
    from .detector import SemanticDetector

    return SemanticDetector
