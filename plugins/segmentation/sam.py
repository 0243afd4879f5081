"""Object proposals of segment-anything, for maps that end where objects end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.errors import SettingError
from tellsign.towers.sam import load_sam

Proposer = Callable[[NDArray[np.uint8], tuple[int, ...]], list[NDArray[np.bool_]]]
"""A picture (H, W, 3) and the shape of a map to masks of that shape."""

POINTS = 12
"""Points a side; 32 by default there, and seven times as slow."""
LONGEST = 1024
"""The picture is scaled down to this before; SAM works at that size."""
QUALITY, STABILITY = 0.8, 0.9
"""Least predicted quality and stability of a proposal; .88 and .95 there, which leaves few of MobileSAM's."""


def sam_proposer(file: Path) -> Proposer:
    """Proposals from a checkpoint; it is read at the first picture.

    Parameters
    ----------
    file : Path
        MobileSAM's checkpoint or one of segment-anything's, as `tellsign.towers.sam.load_sam` reads it.

    Raises
    ------
    SettingError
        No such file.
    """
    if not file.is_file():
        raise SettingError("sam", "an existing checkpoint of MobileSAM or segment-anything", str(file))
    made: list[Any] = []

    def propose(image: NDArray[np.uint8], shape: tuple[int, ...]) -> list[NDArray[np.bool_]]:
        from segment_anything import SamAutomaticMaskGenerator

        if not made:
            generator = SamAutomaticMaskGenerator(
                load_sam(file),
                points_per_side=POINTS,
                pred_iou_thresh=QUALITY,
                stability_score_thresh=STABILITY,
            )
            made.append(generator)
        scale = min(1.0, LONGEST / max(image.shape[:2]))
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        return [on_grid(m["segmentation"], shape) for m in made[0].generate(small)]

    return propose


def on_grid(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask brought to another shape: cells that it covers by more than half."""
    image = Image.fromarray((mask * 255).astype(np.uint8)).resize((shape[1], shape[0]), Image.Resampling.BOX)
    return np.asarray(image) > 127
