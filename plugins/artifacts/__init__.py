"""Names artifacts that plain rules can find: garbled lettering, and a lattice in the fine detail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tellsign.plugin import hookimpl

if TYPE_CHECKING:
    from .detector import ArtifactsDetector


@hookimpl
def tellsign_detector() -> type[ArtifactsDetector]:
    """The class; what it needs is imported here and not before."""
    from .detector import ArtifactsDetector

    return ArtifactsDetector
