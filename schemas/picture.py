"""A decoded picture and what its file says about itself."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from .checks import (
    Check,
    array,
    integer,
    is_number,
    mapping,
    member,
    own_dict,
    read_only,
    refuse,
    same_array,
    several,
    text,
)

_tables = Check(
    "a tuple of tuples of 64 integers in [0, 65535]",
    lambda v: (
        isinstance(v, tuple)
        and all(isinstance(t, tuple) and len(t) == 64 for t in v)
        and all(isinstance(n, int) and is_number(n) and 0 <= n <= 65535 for t in v for n in t)
    ),
    {
        "items": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 65535},
            "minItems": 64,
            "maxItems": 64,
        }
    },
)


@attrs.frozen(kw_only=True)
class Facts:
    """What the file says, before and beside its pixels. No fact feeds the default fusion."""

    container: str = attrs.field(validator=text())
    """Format of the file as its bytes show it: "JPEG", "PNG", ..."""
    mode: str = attrs.field(validator=text())
    """Pillow's mode of the stored pixels: "RGB", "CMYK", "I;16", ..."""
    width: int = attrs.field(validator=integer(1))
    """Stored width in pixels, before EXIF orientation."""
    height: int = attrs.field(validator=integer(1))
    frames: int = attrs.field(default=1, validator=integer(1))
    quantization: tuple[tuple[int, ...], ...] = attrs.field(default=(), validator=_tables)
    """JPEG quantisation tables in the file's order, 64 numbers each; empty for other formats."""
    quality: int | None = attrs.field(default=None, validator=integer(1, 100, optional=True))
    """Estimate of the JPEG quality on libjpeg's scale (1 to 100), None where there are no tables."""
    camera: dict[str, str] = attrs.field(factory=dict, converter=own_dict, validator=mapping(str))
    """EXIF camera fields by name ("Make", "Model", "LensModel", ...)."""
    software: tuple[str, ...] = attrs.field(default=(), validator=several(str))
    """EXIF Software and the like."""
    texts: dict[str, str] = attrs.field(factory=dict, converter=own_dict, validator=mapping(str))
    """PNG text chunks, comments and XMP, by key."""
    conversions: tuple[str, ...] = attrs.field(default=(), validator=several(str))
    """What was done on the way to sRGB, one sentence each ("CMYK converted to RGB ...")."""


_flat = Check(
    "a Picture without an overview of its own, or None",
    lambda v: v is None or (isinstance(v, Picture) and v.overview is None),
    {},
)


@attrs.frozen(kw_only=True)
class Picture:
    """A picture, decoded once and safely.

    `pixels` is RGB uint8 (H, W, 3) in sRGB after EXIF orientation, alpha laid over white; locked against writing.
    """

    pixels: NDArray[np.uint8] = attrs.field(
        converter=read_only, eq=same_array, validator=array((None, None, 3), np.uint8)
    )
    source: str | None = attrs.field(default=None, validator=text(optional=True))
    """Where it came from (a path), None for bytes and arrays."""
    facts: Facts | None = attrs.field(default=None, validator=member(Facts, optional=True))
    """None for pictures that came as an array: an array has no file."""
    original: bytes | None = attrs.field(default=None, repr=False, validator=member(bytes, optional=True))
    """The bytes of the file, for whoever needs its block grid or its signature."""
    overview: Picture | None = attrs.field(default=None, repr=False, validator=_flat)
    """The whole of which `pixels` is a native piece, at any size; views of meaning are made from it. None, the rule,
    where `pixels` is the whole picture."""

    @property
    def whole(self) -> Picture:
        """The picture that shows everything: the overview where there is one."""
        return self if self.overview is None else self.overview

    @property
    def width(self) -> int:
        """Width in pixels after orientation."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels after orientation."""
        return int(self.pixels.shape[0])

    @property
    def megapixels(self) -> float:
        """Width times height in millions."""
        return self.width * self.height / 1e6


@attrs.frozen
class Box:
    """A rectangle in the picture's pixels: left and top inside, right and bottom outside."""

    left: int = attrs.field(validator=integer(0))
    top: int = attrs.field(validator=integer(0))
    right: int = attrs.field(validator=integer(1))
    bottom: int = attrs.field(validator=integer(1))

    def __attrs_post_init__(self) -> None:
        if self.right <= self.left:
            raise refuse(self, "right", f"an integer above left ({self.left})", self.right)
        if self.bottom <= self.top:
            raise refuse(self, "bottom", f"an integer above top ({self.top})", self.bottom)

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.bottom - self.top


__all__ = ["Box", "Facts", "Picture"]
