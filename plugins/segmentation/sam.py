"""Object proposals of segment-anything, for maps that end where objects end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.errors import SettingError, WeightsError

Proposer = Callable[[NDArray[np.uint8], tuple[int, ...]], list[NDArray[np.bool_]]]
"""A picture (H, W, 3) and the shape of a map to masks of that shape."""

POINTS = 12
"""Points a side; 32 by default there, and eight times as slow."""
LONGEST = 1024
"""The picture is scaled down to this before; SAM works at that size."""


def sam_proposer(file: Path) -> Proposer:
    """Proposals from a checkpoint; it is read at the first picture.

    Parameters
    ----------
    file : Path
        A checkpoint whose name holds vit_b, vit_l or vit_h.

    Raises
    ------
    SettingError
        No such file, or a name without the size.
    """
    sizes = [size for size in ("vit_b", "vit_l", "vit_h") if size in file.name]
    if len(sizes) != 1 or not file.is_file():
        raise SettingError("sam", "an existing file whose name holds vit_b, vit_l or vit_h", str(file))
    made: list[object] = []

    def propose(image: NDArray[np.uint8], shape: tuple[int, ...]) -> list[NDArray[np.bool_]]:
        from segment_anything import SamAutomaticMaskGenerator, sam_model_registry

        if not made:
            try:
                sam = sam_model_registry[sizes[0]](checkpoint=str(file))
            except Exception as error:  # torch.load raises what it likes
                raise WeightsError(str(file), f"is no checkpoint of segment-anything: {error}") from error
            made.append(SamAutomaticMaskGenerator(sam.eval(), points_per_side=POINTS))
        scale = min(1.0, LONGEST / max(image.shape[:2]))
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        generator: SamAutomaticMaskGenerator = made[0]
        return [on_grid(m["segmentation"], shape) for m in generator.generate(small)]

    return propose


def on_grid(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask brought to another shape: cells that it covers by more than half."""
    image = Image.fromarray((mask * 255).astype(np.uint8)).resize((shape[1], shape[0]), Image.Resampling.BOX)
    return np.asarray(image) > 127
