"""What a detector is given: one kind of view per task, which keeps that task's cues and hides the other's."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from .checks import array, integer, member, read_only, read_only_each, refuse, same_array, same_arrays, several, text
from .checks import crops as check_crops
from .picture import Box, Facts
from .taxonomy import Task


@attrs.frozen(kw_only=True)
class SemanticView:
    """The whole picture, antialiased down and lightly blurred and re-encoded: meaning stays, pixel traces go."""

    key: str = attrs.field(validator=text())
    """Identifies the view within one call; models that share a forward pass share it by this key."""
    image: NDArray[np.uint8] = attrs.field(
        converter=read_only, eq=same_array, validator=array((None, None, 3), np.uint8)
    )
    """RGB uint8 (h, w, 3), whole picture."""
    width: int = attrs.field(validator=integer(1))
    """Width of the original picture in pixels."""
    height: int = attrs.field(validator=integer(1))


@attrs.frozen(kw_only=True)
class PixelView:
    """Native-resolution crops, never resampled, chosen over the picture; `crops` may be empty for a tiny picture."""

    key: str = attrs.field(validator=text())
    crops: tuple[NDArray[np.uint8], ...] = attrs.field(
        converter=read_only_each, eq=same_arrays, validator=check_crops()
    )
    """RGB uint8 (h, w, 3) each, all of one size; empty where the short side is below the view's minimum."""
    boxes: tuple[Box, ...] = attrs.field(validator=several(Box))
    """Where each crop lies in the picture."""
    kinds: tuple[str, ...] = attrs.field(validator=several(str))
    """Why each crop was chosen: "texture", "smooth", "random"."""
    width: int = attrs.field(validator=integer(1))
    height: int = attrs.field(validator=integer(1))
    centre: NDArray[np.uint8] | None = attrs.field(
        default=None, converter=read_only, eq=same_array, validator=array((None, None, 3), np.uint8, optional=True)
    )
    """RGB uint8 (h, w, 3): the middle of the picture, at most 336 px a side and native too, for detectors that were
    published with one centre crop; None where there are no crops."""

    def __attrs_post_init__(self) -> None:
        n = len(self.crops)
        if len(self.boxes) != n:
            raise refuse(self, "boxes", f"as many boxes as crops ({n})", len(self.boxes))
        if len(self.kinds) != n:
            raise refuse(self, "kinds", f"as many kinds as crops ({n})", len(self.kinds))


@attrs.frozen(kw_only=True)
class SegmentationView:
    """Native pixels with their position; the plugin tiles them itself through `tellsign.views.tiles`."""

    key: str = attrs.field(validator=text())
    image: NDArray[np.uint8] = attrs.field(
        converter=read_only, eq=same_array, validator=array((None, None, 3), np.uint8)
    )


@attrs.frozen(kw_only=True)
class ProvenanceView:
    """The file: its bytes and what was read off them. Empty for pictures that came as arrays."""

    key: str = attrs.field(validator=text())
    original: bytes | None = attrs.field(repr=False, validator=member(bytes, optional=True))
    facts: Facts | None = attrs.field(validator=member(Facts, optional=True))


View = SemanticView | PixelView | SegmentationView | ProvenanceView

VIEW_OF_TASK: dict[Task, type] = {
    Task.SEMANTIC: SemanticView,
    Task.REASONING: SemanticView,
    Task.PIXEL: PixelView,
    Task.SEGMENTATION: SegmentationView,
    Task.PROVENANCE: ProvenanceView,
}
"""Reasoning sees what semantic sees; the two share one view and so one forward pass of a shared tower."""
