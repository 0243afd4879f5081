"""Masks of a picture's things: Segment Anything's automatic masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tellsign.errors import SettingError
from tellsign.towers.sam import load_sam


class SamMasks:
    """Proposes masks for a picture.

    Parameters
    ----------
    checkpoint : Path
        As `tellsign.towers.sam.load_sam` reads it.
    points : int, default 8
        Prompts a side. segment-anything's default of 32 finds more small things at sixteen times the cost.
    device : str, default "cpu"

    Raises
    ------
    WeightsError
        The file is not there, or is none of these.
    """

    def __init__(self, checkpoint: Path, *, points: int = 8, device: str = "cpu") -> None:
        if points < 1:
            raise SettingError("points", "at least 1", points)
        from segment_anything import SamAutomaticMaskGenerator

        self.model = load_sam(checkpoint).to(device)
        # A little below segment-anything's .88 and .95: MobileSAM is less sure of itself, and a mask that is slightly
        # off is as good a place for a forgery as any.
        self.generator = SamAutomaticMaskGenerator(
            self.model, points_per_side=points, pred_iou_thresh=0.8, stability_score_thresh=0.9
        )

    def __call__(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.bool_]]:
        """Masks, largest predicted quality first.

        Parameters
        ----------
        pixels : uint8 array of (H, W, 3)

        Returns
        -------
        list of bool arrays of (H, W)
        """
        found: list[dict[str, Any]] = self.generator.generate(np.ascontiguousarray(pixels))
        found.sort(key=lambda m: -m["predicted_iou"])
        return [np.asarray(m["segmentation"], np.bool_) for m in found]
