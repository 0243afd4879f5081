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

from tellsign.decoding import decode, encode_jpeg
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
    family: str | None = None
    """Damages that differ in their strength only; a curve is drawn through them."""
    strength: float | None = None


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


def _scaled(factor: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.asarray(_resized(pixels, factor))


def _blurred(sigma: float, times: int = 1) -> Callable[[Pixels], Pixels]:
    def apply(pixels: Pixels) -> Pixels:
        image = Image.fromarray(pixels)
        for _ in range(times):
            image = image.filter(ImageFilter.GaussianBlur(sigma))
        return np.asarray(image)

    return apply


def _twice_jpeg(quality: int) -> Callable[[Pixels], bytes]:
    return lambda pixels: encode_jpeg(decode(encode_jpeg(pixels, quality)).pixels, quality)


def _there_and_back(factor: float) -> Callable[[Pixels], Pixels]:
    def apply(pixels: Pixels) -> Pixels:
        size = pixels.shape[1], pixels.shape[0]
        return np.asarray(_resized(pixels, factor).resize(size, Image.Resampling.BICUBIC))

    return apply


def _screenshot(pixels: Pixels) -> bytes:
    image = _resized(pixels, SCREEN_SCALE).filter(ImageFilter.UnsharpMask(radius=1, percent=50, threshold=0))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


CONDITIONS: dict[str, Condition] = {
    c.name: c
    for c in (
        Condition(NATIVE, "as it is", lambda pixels: pixels),
        *(Condition(f"jpeg{q}", f"JPEG, quality {q}, 4:2:0", _jpeg(q), "JPEG quality", q) for q in (90, 70, 40)),
        Condition("webp", f"WebP, quality {WEBP_QUALITY}", _webp),
        Condition("half", "both sides halved, antialiased bicubic", _scaled(0.5), "resize factor", 0.5),
        Condition("blur", "Gaussian blur, sigma 1 px", _blurred(1.0), "blur sigma in px", 1.0),
        Condition(
            "screenshot",
            f"both sides times {SCREEN_SCALE}, antialiased bicubic; unsharp mask (radius 1, 50 %); PNG, RGB",
            _screenshot,
        ),
    )
}
"""Every condition by its name, in the order in which tables print them."""


def _grid() -> tuple[Condition, ...]:
    qualities = range(100, 0, -10)
    sigmas = [n / 2 for n in range(1, 9)]
    factors = [n / 4 for n in range(1, 17) if n != 4]
    shrinks = (0.2, 0.4, 0.6, 0.8)
    both = "antialiased bicubic"
    return (
        *(Condition(f"jpeg{q}", f"JPEG, quality {q}, 4:2:0", _jpeg(q), "JPEG quality", q) for q in qualities),
        *(
            Condition(f"jpeg{q}-twice", f"JPEG, quality {q}, 4:2:0, twice", _twice_jpeg(q), "JPEG quality, twice", q)
            for q in qualities
        ),
        *(
            Condition(f"blur{s:g}", f"Gaussian blur, sigma {s:g} px", _blurred(s), "blur sigma in px", s)
            for s in sigmas
        ),
        *(
            Condition(
                f"blur{s:g}-twice",
                f"Gaussian blur, sigma {s:g} px, twice",
                _blurred(s, 2),
                "blur sigma in px, twice",
                s,
            )
            for s in sigmas
        ),
        *(
            Condition(f"resize{f:g}", f"both sides times {f:g}, {both}", _scaled(f), "resize factor", f)
            for f in factors
        ),
        *(
            Condition(
                f"resize{f:g}-back",
                f"both sides times {f:g} and back, {both}",
                _there_and_back(f),
                "resize factor, and back",
                f,
            )
            for f in shrinks
        ),
    )


GRID: dict[str, Condition] = {c.name: c for c in _grid()}
"""The robustness grid: JPEG, blur and resizing, each once and twice, at every strength."""
_EVERY = GRID | CONDITIONS
_STEPS = "jpeg10 to jpeg100, blur0.5 to blur4, resize0.25 to resize4; with -twice, for resize0.2 to 0.8 with -back"


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
    fits = words and all(w in _EVERY for w in words) and len(set(words)) == len(words)
    if not fits:
        allowed = f"some of {', '.join(CONDITIONS)}, or of the robustness grid ({_STEPS}), none twice"
        raise SettingError("conditions", allowed, ",".join(words))
    return tuple(_EVERY[w] for w in words)
