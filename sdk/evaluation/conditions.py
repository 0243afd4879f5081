"""What happens to pictures on their way: saved again, made smaller, photographed off the screen.

Every condition works on decoded pixels and is applied to both classes alike; a condition that has a file format hands
out the bytes of that file, so that the detector sees what a user would be sent.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tellsign.decoding import encode_jpeg
from tellsign.errors import SettingError

Pixels = NDArray[np.uint8]

NATIVE = "native"
WEBP_QUALITY = 80
SCREEN_SCALE = 0.8


@attrs.frozen
class Condition:
    """One way of damaging a picture.

    Attributes
    ----------
    name : str
    summary : str
        The definition in words; it travels with the numbers.
    apply : callable
        uint8 (H, W, 3) pixels to the bytes of a file or to uint8 pixels.
    """

    name: str
    summary: str
    apply: Callable[[Pixels], bytes | Pixels]


def _jpeg(quality: int) -> Callable[[Pixels], bytes]:
    return lambda pixels: encode_jpeg(pixels, quality)


def _webp(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=WEBP_QUALITY, method=4)
    return buffer.getvalue()


def _resized(pixels: Pixels, factor: float) -> Image.Image:
    height, width = pixels.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def _half(pixels: Pixels) -> Pixels:
    return np.asarray(_resized(pixels, 0.5))


def _blur(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1.0)))


def _screenshot(pixels: Pixels) -> bytes:
    image = _resized(pixels, SCREEN_SCALE).filter(ImageFilter.UnsharpMask(radius=1, percent=50, threshold=0))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


CONDITIONS: dict[str, Condition] = {
    c.name: c
    for c in (
        Condition(NATIVE, "as it is", lambda pixels: pixels),
        Condition("jpeg90", "JPEG, quality 90, 4:2:0", _jpeg(90)),
        Condition("jpeg70", "JPEG, quality 70, 4:2:0", _jpeg(70)),
        Condition("jpeg40", "JPEG, quality 40, 4:2:0", _jpeg(40)),
        Condition("webp", f"WebP, quality {WEBP_QUALITY}", _webp),
        Condition("half", "both sides halved, antialiased bicubic", _half),
        Condition("blur", "Gaussian blur, sigma 1 px", _blur),
        Condition(
            "screenshot",
            f"both sides times {SCREEN_SCALE}, antialiased bicubic; unsharp mask (radius 1, 50 %); PNG, RGB",
            _screenshot,
        ),
    )
}
"""Every condition by its name, in the order in which tables print them."""


def parse(names: str | Sequence[str]) -> tuple[Condition, ...]:
    """Conditions by name.

    Parameters
    ----------
    names : str or sequence of str
        Names, or one string with commas between them.

    Returns
    -------
    tuple of Condition
        In the given order; the first one is what `overall` is measured under.

    Raises
    ------
    SettingError
        No name, an unknown one, or one twice.
    """
    words = [w.strip() for w in (names.split(",") if isinstance(names, str) else names)]
    fits = words and all(w in CONDITIONS for w in words) and len(set(words)) == len(words)
    if not fits:
        raise SettingError("conditions", f"some of {', '.join(CONDITIONS)}, none twice", ",".join(words))
    return tuple(CONDITIONS[w] for w in words)
