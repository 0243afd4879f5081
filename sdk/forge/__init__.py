"""Forgeries with labels, of your own photographs: what segmentation detectors train on.

    from pathlib import Path
    from tellsign.forge import Photo, forge

    photos = [Photo(path=p, name=p.name, source="mine", group=p.stem) for p in Path("photos").glob("*.jpg")]
    forge(photos, Path("forged"), ["untouched", "copymove", "splice", "classical"])

`labels` says what is true of each kind, `masks` where regions are, `render` how each kind is made of a `scene`, `run`
writes and resumes, `manifest` reads back. Docs: docs/forge.md.
"""

from .errors import ForgeError
from .labels import KINDS, TRUTH, Truth
from .manifest import ForgedRow, load, read_manifest, read_provenance
from .photos import Photo
from .run import Report, forge
from .tools import Tools, gather

__all__ = [
    "KINDS",
    "TRUTH",
    "ForgeError",
    "ForgedRow",
    "Photo",
    "Report",
    "Tools",
    "Truth",
    "forge",
    "gather",
    "load",
    "read_manifest",
    "read_provenance",
]
