"""Immerkaer's noise estimate over native crops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tellsign.plugin import DetectorPlugin
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Evidence, PixelView, View

REFERENCE = 1.5
"""Grey levels. Between the medians of photographs (1.78) and of AI pictures (1.25) in the split `fuse`."""

FLOOR = 0.05
"""Grey levels: a picture without any noise gets a finite score."""


class Noise(DetectorPlugin):
    """The less noise, the higher the score; .5 at `REFERENCE`."""

    def detect(self, views: Sequence[View], runtime: DeviceRuntime) -> Sequence[Sequence[Evidence]]:
        """Score each picture by the median over its crops."""
        return [self._look(view) for view in views if isinstance(view, PixelView)]

    def _look(self, view: PixelView) -> list[Evidence]:
        if not view.crops:
            return [self.not_applicable("the picture is too small for native crops")]
        level = float(np.median([noise_level(crop) for crop in view.crops]))
        logit = float(np.log(REFERENCE / max(level, FLOOR)))
        return [self.score("quiet", 1 / (1 + np.exp(-logit)), logit=logit)]


def noise_level(crop: NDArray[np.uint8]) -> float:
    """Standard deviation of the noise, in grey levels (Immerkaer, Fast Noise Variance Estimation, 1996, eq. 8).

    Parameters
    ----------
    crop : uint8 array of (h, w, 3), 3 or more a side
    """
    grey = crop.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    rows = grey[:-2] - 2 * grey[1:-1] + grey[2:]
    mask = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(mask).mean())
