"""Regions of a map: connected, large and distinct enough to be pointed at; and maps snapped to objects."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.schemas import Box

CUT = 0.5
PLACE, LEVEL, STEEP = 0.6, -1.75, 3.0
"""A map whose quantile `PLACE` is above `LEVEL` (log-odds) is cut `STEEP` times as much higher as it is above.

An edit covers less than half of most pictures, so what the larger part of a map says is the picture's own level. Chosen
on `fuse` so that sources which chose nothing stay quiet (docs/segmentation.md)."""
LEAST_AREA, MOST_AREA = 0.002, 0.6
"""Of the picture. Smaller regions are noise of the map, larger ones no place."""
LEAST_CONTRAST = 0.3
"""Mean probability inside less that of the surroundings: what fades into its surroundings is no region."""
MOST_REGIONS = 3


@attrs.frozen
class Region:
    """A marked part of the picture."""

    box: Box
    """In pixels of the picture."""
    area: float
    """Share of the picture."""
    strength: float
    """Mean probability inside."""
    contrast: float
    """Mean probability inside less that of a belt around it."""


def own_cut(heat: NDArray[np.float32], cut: float = CUT) -> float:
    """From which probability on a manipulation map marks: `cut`, and more in a picture that it calls moved everywhere.

    Skies that are blown out, smooth halves and grain of a kind that training did not have lift a map as a whole; an
    edit lifts a part of it.

    Parameters
    ----------
    heat : float32 array (rows, columns) in [0, 1]
    cut : float
        In (0, 1): where a picture is cut whose level is low.

    Returns
    -------
    float
        In [cut, 1).
    """
    base = log_odds(cut)
    level = log_odds(float(np.quantile(heat, PLACE))) - base
    return float(1 / (1 + np.exp(-base - STEEP * max(0.0, level - LEVEL))))


def log_odds(p: float) -> float:
    """Of a probability, at most 14 either way."""
    edge = 1e-6
    p = min(max(p, edge), 1 - edge)
    return float(np.log(p / (1 - p)))


def regions(heat: NDArray[np.float32], width: int, height: int, cut: float = CUT) -> list[Region]:
    """The regions of a map, the strongest first.

    Parameters
    ----------
    heat : float32 array (rows, columns) in [0, 1]
    width, height : int
        Of the picture that the map covers, in pixels.
    cut : float
        What is above it is marked.
    """
    marked = heat > cut
    if marked.mean() < LEAST_AREA:
        return []
    from scipy import ndimage  # a quarter of a second, which most pictures are spared

    labels, _ = ndimage.label(marked)
    found: list[Region] = []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels == number
        area = float(inside.mean())
        if not LEAST_AREA <= area <= MOST_AREA:
            continue
        belt = ring(inside)
        strength = float(heat[inside].mean())
        contrast = strength - (float(heat[belt].mean()) if belt.any() else 0.0)
        if contrast < LEAST_CONTRAST:
            continue
        rows, columns = place
        box = Box(
            int(columns.start * width / heat.shape[1]),
            int(rows.start * height / heat.shape[0]),
            min(width, int(np.ceil(columns.stop * width / heat.shape[1]))),
            min(height, int(np.ceil(rows.stop * height / heat.shape[0]))),
        )
        found.append(Region(box, area, strength, contrast))
    return sorted(found, key=lambda r: (-r.strength * r.contrast, r.box.top, r.box.left))[:MOST_REGIONS]


def ring(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A belt around a region, about as wide as a fifth of the region's radius and two cells at least."""
    width = max(2, round(0.2 * float(np.sqrt(inside.sum()))))
    from scipy import ndimage

    grown = ndimage.binary_dilation(inside, iterations=width)
    return np.asarray(grown & ~inside)


def snap(
    heat: NDArray[np.float32],
    masks: Sequence[NDArray[np.bool_]],
    *,
    cut: float = CUT,
    areas: tuple[float, float] = (0.001, 0.6),
) -> NDArray[np.float32]:
    """A map snapped to objects.

    Each mask whose mean probability is above `cut`, whose surroundings have less, and whose area lies in `areas` is
    filled with its mean; the snapped map is the largest of them at each cell, and the map itself where no mask is left.

    Parameters
    ----------
    heat : float32 array (rows, columns) in [0, 1]
    masks : sequence of bool arrays (rows, columns)
        Of objects, such as segment-anything proposes.
    cut : float
    areas : tuple of float
        Smallest and largest share of the picture.
    """
    out = np.zeros_like(heat)
    for mask in masks:
        if not areas[0] <= mask.mean() <= areas[1]:
            continue
        inside, belt = float(heat[mask].mean()), ring(mask)
        if inside > cut and (not belt.any() or inside > float(heat[belt].mean())):
            out[mask] = np.maximum(out[mask], inside)
    return out if out.any() else heat
