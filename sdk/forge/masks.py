"""Where to forge: rectangles, free-form strokes, SAM's objects and given annotations, in stated shares.

Random masks beside objects are deliberate (GAMMA, section 2.3): a network that sees only object masks learns where
objects are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tellsign.errors import SettingError

from .copymove import find_offset

Mask = NDArray[np.bool_]
Propose = Callable[[], Sequence[Mask]]
"""Masks of one picture's own things; called at most once per picture."""

SHAPES = ("rectangle", "freeform", "sam", "annotation")
AREA = (0.02, 0.40)
"""Smallest and largest share of the picture."""
DILATION = (0, 15)
"""Pixels by which a region grows, smallest and largest."""
_TRIES = 24


@attrs.frozen(kw_only=True)
class Region:
    """Where a picture is forged."""

    mask: Mask
    """bool (H, W)."""
    shape: str
    """One of `SHAPES`."""
    dilation: int
    """Pixels that it was grown by."""
    offset: tuple[int, int]
    """A place of the same picture that copy-move can take: (down, right)."""


def check_shares(shares: Mapping[str, float]) -> dict[str, float]:
    """Shares by shape, normalised to sum to one; shapes without a share are left out."""
    unknown = set(shares) - set(SHAPES)
    total = sum(shares.values())
    if unknown or total <= 0 or any(not (value >= 0 and math.isfinite(value)) for value in shares.values()):
        raise SettingError("shares", f"shares of at least 0 for {', '.join(SHAPES)}, not all 0", dict(shares))
    return {name: shares[name] / total for name in SHAPES if shares.get(name, 0) > 0}


def rectangle(height: int, width: int, area: float, rng: np.random.Generator) -> Mask:
    """An upright rectangle at a random place, sides in a ratio of at most 2.5.

    Parameters
    ----------
    height, width : int
        Of the picture, in pixels.
    area : float
        Share of the picture.
    rng : numpy.random.Generator
    """
    ratio = math.exp(rng.uniform(-math.log(2.5), math.log(2.5)))
    tall = min(height, max(1, round(math.sqrt(area * height * width * ratio))))
    wide = min(width, max(1, round(area * height * width / tall)))
    if wide == width:  # a narrow picture: the other side makes up for it
        tall = min(height, max(1, round(area * height)))
    top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
    mask = np.zeros((height, width), np.bool_)
    mask[top : top + tall, left : left + wide] = True
    return mask


def freeform(height: int, width: int, area: float, rng: np.random.Generator) -> Mask:
    """Strokes of a brush that keeps changing direction, until they cover `area` (parameters as for `rectangle`)."""
    short = min(height, width)
    image = Image.new("1", (width, height))
    draw = ImageDraw.Draw(image)
    brush = short * float(rng.uniform(0.08, 0.25)) * math.sqrt(area / 0.2)
    brush = max(3.0, brush)
    x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
    angle = float(rng.uniform(0, 2 * math.pi))
    for _ in range(400):
        angle += float(rng.normal(0, 0.9))
        step = brush * float(rng.uniform(0.4, 1.5))
        nx, ny = x + step * math.cos(angle), y + step * math.sin(angle)
        if not (0 <= nx < width and 0 <= ny < height):
            angle += math.pi / 2
            continue
        draw.line((x, y, nx, ny), fill=1, width=round(brush))
        radius = brush / 2
        draw.ellipse((nx - radius, ny - radius, nx + radius, ny + radius), fill=1)
        x, y = nx, ny
        if np.asarray(image).mean() >= area:
            break
    return np.array(image, np.bool_)


def dilated(mask: Mask, pixels: int) -> Mask:
    """`mask` grown by a disc of that radius."""
    if not pixels or not mask.any():
        return mask
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~mask) <= pixels)


def draw_region(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    shares: Mapping[str, float],
    propose: Mapping[str, Propose] | None = None,
    area: tuple[float, float] = AREA,
) -> Region:
    """One region. Every kind of forgery draws from this, so that no kind can be told by where it is.

    A region is taken only if copy-move could use it too (`copymove.find_offset`). Where a shape gives none, another one
    is drawn, and at last a rectangle.

    Parameters
    ----------
    height, width : int
        Of the picture, in pixels.
    rng : numpy.random.Generator
    shares : mapping from shape to share
        See `SHAPES`; as `check_shares` returns them.
    propose : mapping from shape to callable, optional
        The picture's own masks, for "sam" and "annotation". A shape with a share but without this is not drawn.
    area : (float, float), default (.02, .40)
        Smallest and largest share of the picture.
    """
    propose = propose or {}
    usable = {s: v for s, v in shares.items() if s in ("rectangle", "freeform") or s in propose}
    while usable:
        names = sorted(usable)
        weights = np.array([usable[n] for n in names])
        shape = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        drawn: Sequence[Mask] | None = None
        if shape in propose:
            drawn = [m for m in propose[shape]() if m.shape == (height, width) and area[0] <= m.mean() <= area[1]]
        for _ in range(_TRIES):
            if drawn is None:
                want = math.exp(rng.uniform(math.log(area[0]), math.log(area[1])))
                mask = (rectangle if shape == "rectangle" else freeform)(height, width, want, rng)
            elif drawn:
                mask = drawn[int(rng.integers(len(drawn)))]
            else:
                break
            grow = int(rng.integers(DILATION[0], DILATION[1] + 1))
            mask = dilated(mask, grow)
            if area[0] <= mask.mean() <= area[1] and (offset := find_offset(mask, rng)) is not None:
                return Region(mask=mask, shape=shape, dilation=grow, offset=offset)
        del usable[shape]
    # A third of each side, at a corner: there is always room beside it.
    mask = np.zeros((height, width), np.bool_)
    mask[: height // 3, : width // 3] = True
    return Region(mask=mask, shape="rectangle", dilation=0, offset=(height // 3, width // 3))
