"""What the file itself says of its origin: signed manifests, metadata, generators' texts, watermarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tellsign.plugin import hookimpl

if TYPE_CHECKING:
    from .detector import ProvenanceDetector


@hookimpl
def tellsign_detector() -> type[ProvenanceDetector]:
    """The class; Pillow and the parsers are imported here and not before."""
    from .detector import ProvenanceDetector

    return ProvenanceDetector
