"""Which pixels of a picture are edited or carry an artifact, as the data set writes it down."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tellsign.decoding import decode
from tellsign.errors import DecodeError

Mask = NDArray[np.bool_]
Point = tuple[float, float]


class Truth(Protocol):
    """A mask that is made when it is asked for; nothing of it stays in memory."""

    def mask(self, height: int, width: int) -> Mask:
        """Whether each pixel is edited: bool (height, width), the size that the picture is judged at.

        Raises
        ------
        DecodeError
            The mask cannot be read.
        """

    @property
    def fingerprint(self) -> str:
        """Says whether two truths are the same one, without drawing them."""


def _above(threshold: int) -> Callable[[NDArray[np.uint8]], Mask]:
    return lambda pixels: pixels.max(axis=2) > threshold


def _green(pixels: NDArray[np.uint8]) -> Mask:
    """Columbia paints the spliced part green and the rest red; JPEG smears both, so the stronger one counts."""
    return np.asarray(pixels[:, :, 1].astype(int) > np.maximum(pixels[:, :, 0].astype(int), 60), bool)


RULES: dict[str, Callable[[NDArray[np.uint8]], Mask]] = {
    "half": _above(127),
    "any": _above(1),
    "green": _green,
}
"""How a mask's colours are read: above 127 of 255; above 1 (CAT-Net's rule for TampCOCO); green (Columbia)."""


@attrs.frozen(kw_only=True)
class MaskPicture:
    """A mask that is a picture of its own; resized to the judged picture by nearest neighbour where sizes differ."""

    path: Path | None = None
    content: Callable[[], bytes] | None = attrs.field(default=None, eq=False)
    name: str = ""
    rule: str = "half"

    def mask(self, height: int, width: int) -> Mask:
        """See `Truth.mask`."""
        if self.content is not None:
            source: Path | bytes = self.content()
        elif self.path is not None:
            source = self.path
        else:
            raise DecodeError("not_found", "the data set names no mask")
        flags = RULES[self.rule](decode(source).pixels)
        return resized(flags, height, width)

    @property
    def fingerprint(self) -> str:
        """See `Truth.fingerprint`."""
        return f"{self.rule}:{self.path or ''}:{self.name}"


@attrs.frozen(kw_only=True)
class Shapes:
    """Polygons and rectangles in the picture's own pixels; together they are the mask.

    Polygons of fewer than three points, or without area, are left out as annotation slips.
    """

    polygons: tuple[tuple[Point, ...], ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    """Left, top, width, height."""
    size: tuple[int, int] | None = None
    """Width and height that the coordinates are in; None means the stored picture's."""
    names: tuple[str, ...] = ()
    """What each polygon is called, where the data set says: X-AIGD's categories."""

    def only(self, name: str) -> Shapes:
        """The polygons that are called `name`."""
        kept = tuple(p for p, n in zip(self.polygons, self.names, strict=bool(self.names)) if n == name)
        return attrs.evolve(self, polygons=kept, names=(name,) * len(kept), boxes=())

    def mask(self, height: int, width: int) -> Mask:
        """See `Truth.mask`."""
        across, down = self.size or (width, height)
        image = Image.new("L", (across, down), 0)
        draw = ImageDraw.Draw(image)
        for points in self.polygons:
            if _area(points) > 0:
                draw.polygon([(float(x), float(y)) for x, y in points], fill=255, outline=255)
        for left, top, wide, tall in self.boxes:
            if wide >= 1 and tall >= 1:
                draw.rectangle((left, top, left + wide - 1, top + tall - 1), fill=255)
        return resized(np.asarray(image) > 127, height, width)

    @property
    def fingerprint(self) -> str:
        """See `Truth.fingerprint`."""
        return hashlib.sha256(repr((self.polygons, self.boxes, self.size)).encode()).hexdigest()[:16]

    @property
    def flaws(self) -> int:
        """How many polygons are left out."""
        return sum(_area(points) <= 0 for points in self.polygons)


@attrs.frozen
class Nothing:
    """A picture of which no pixel is edited."""

    def mask(self, height: int, width: int) -> Mask:
        """All false."""
        return np.zeros((height, width), bool)

    @property
    def fingerprint(self) -> str:
        """See `Truth.fingerprint`."""
        return "nothing"


def resized(flags: Mask, height: int, width: int) -> Mask:
    """A mask at another size, by nearest neighbour."""
    if flags.shape == (height, width):
        return flags
    image = Image.fromarray(flags.astype(np.uint8) * 255)
    return np.asarray(image.resize((width, height), Image.Resampling.NEAREST)) > 127


def size_of(source: Path | bytes) -> tuple[int, int] | None:
    """Width and height as stored, from the header alone; None where it cannot be read."""
    from tellsign.decoding.quiet import quiet_pillow

    try:
        with quiet_pillow(), Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _area(points: tuple[Point, ...]) -> float:
    """Shoelace formula; rounding of a few ulps counts as none."""
    if len(points) < 3:
        return 0.0
    x, y = np.asarray(points, np.float64).T
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    return area if area > 1e-6 else 0.0
