"""Annotated polygons as one mask per category."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tellsign.evaluation.truth import Mask, Shapes
from tellsign.schemas import Category

CATEGORIES = tuple(Category)
"""The seven categories, in the order of every axis of seven in this package."""


def category_masks(shapes: Shapes, height: int, width: int) -> NDArray[np.bool_]:
    """Which pixels carry an artifact of each category.

    Parameters
    ----------
    shapes : Shapes
        Polygons with `names` out of the seven categories. Polygons of fewer than three points are left out, and
        `shapes.flaws` counts them.
    height, width : int
        Of the picture as it is judged.

    Returns
    -------
    bool array of (7, height, width)
        In the order of `CATEGORIES`. A pixel may carry several; without polygons none does.

    Raises
    ------
    ValueError
        A polygon has no name or an unknown one.
    """
    allowed = {c.value for c in CATEGORIES}
    if shapes.boxes or len(shapes.names) != len(shapes.polygons):
        raise ValueError("shapes takes polygons that all have a name, got some without")
    for name in shapes.names:
        if name not in allowed:
            raise ValueError(f"names takes {', '.join(sorted(allowed))}; got {name!r}")
    masks: list[Mask] = [shapes.only(c.value).mask(height, width) for c in CATEGORIES]
    return np.stack(masks)


def proportion(masks: NDArray[np.bool_]) -> float:
    """Artifact proportion (PAR): share of the pixels, (7, H, W) or (H, W), that carry any artifact; in [0, 1]."""
    if masks.ndim not in (2, 3) or not masks.size:
        raise ValueError(f"masks takes a bool array of (7, H, W) or (H, W), got {masks.shape}")
    return float((masks.any(axis=0) if masks.ndim == 3 else masks).mean())
