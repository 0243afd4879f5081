"""The artifacts plugin: asks the rules that are switched on, and claims nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tellsign.errors import SettingError
from tellsign.plugin import DetectorPlugin, UnavailableError
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Box, Category, Declaration, Evidence, SegmentationView, View

from .lettering import garbled
from .reading import read

NOTHING = "none of its rules found anything, which says nothing either way"


class ArtifactsDetector(DetectorPlugin):
    """Findings of rules that were measured for false alarms on real pictures of every kind (docs/artifacts.md).

    Every rule that is here keeps to one false alarm in a hundred photographs, works of art, scans and screenshots, each
    kind by itself. A category that no rule is about is not assessed.
    """

    def __init__(self, declaration: Declaration, settings: Mapping[str, object]) -> None:
        super().__init__(declaration, settings)
        for name in settings:
            raise SettingError(f"settings of {declaration.name}", "none", name)

    def detect(self, views: Sequence[View], runtime: DeviceRuntime) -> Sequence[Sequence[Evidence]]:
        """What the rules find; to a picture in which they find nothing the plugin does not apply."""
        out: list[list[Evidence]] = []
        for view in views:
            if not isinstance(view, SegmentationView):
                raise TypeError("the artifacts plugin takes SegmentationView only")
            out.append(list(self._found(view.image)) or [self.not_applicable(NOTHING)])
        return out

    def _found(self, pixels: NDArray[np.uint8]) -> Iterator[Evidence]:
        try:
            found = garbled(read(pixels))
        except UnavailableError as error:
            yield self.unavailable(error.reason)
            return
        if found is not None:
            height, width = pixels.shape[:2]
            left, top = (max(0, math.floor(v)) for v in found.box[:2])
            right, bottom = (min(n, math.ceil(v)) for n, v in zip((width, height), found.box[2:], strict=True))
            told = ", ".join(f'"{word}"' for word in found.unknown[:3])
            yield self.finding(
                Category.SYMBOL,
                found.strength,
                region=Box(left=left, top=top, right=right, bottom=bottom),
                note=f"reads {told}, which is in no dictionary here",
            )


__all__ = ["ArtifactsDetector"]
