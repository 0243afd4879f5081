"""Pictures of every mode and size, drawn on the spot: what a detector must have an answer for."""

from __future__ import annotations

import io
from collections.abc import Callable

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo


@attrs.frozen
class Shown:
    """One picture."""

    name: str
    make: Callable[[], Image.Image | bytes | NDArray[np.uint8]]
    small: bool = True
    """Whether it is cheap enough to be looked at again and again."""


def scene(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """RGB uint8 (height, width, 3): waves and edges of several sizes under noise that differs over the picture."""
    rng = np.random.default_rng([seed, width, height])
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    base = 120 + 50 * np.sin(x / 9 + y / 23) + 25 * np.sin(x / 61 - y / 37) + 20 * ((x // 48 + y // 48) % 2)
    noise = rng.standard_normal((height, width, 3), dtype=np.float32) * (2 + 8 * x / max(1, width))[..., None]
    colour = base[..., None] * np.array([1, 0.9, 0.7], np.float32) + noise
    drawn: NDArray[np.uint8] = np.clip(colour, 0, 255).astype(np.uint8)
    return drawn


def image(mode: str, width: int, height: int) -> Image.Image:
    """A scene in one of Pillow's modes."""
    drawn = Image.fromarray(scene(width, height))
    if mode == "I;16":
        return Image.fromarray(np.asarray(drawn.convert("L")).astype(np.uint16) * 257)
    if mode in ("RGBA", "LA"):
        drawn = drawn.convert(mode)
        drawn.putalpha(Image.fromarray(np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)))
        return drawn
    return drawn.convert(mode)


def stored(format: str, width: int, height: int, seed: int = 0, **options: object) -> bytes:
    """A scene as a file."""
    out = io.BytesIO()
    Image.fromarray(scene(width, height, seed)).save(out, format, **options)
    return out.getvalue()


def _upright() -> bytes:
    exif = Image.Exif()
    exif[274], exif[271], exif[272], exif[305] = (
        6,
        "Acme",
        "One",
        "Acme Firmware 1.0",
    )  # orientation, make, model, software
    return stored("JPEG", 160, 128, quality=88, exif=exif)


def _told() -> bytes:
    text = PngInfo()
    text.add_text("Comment", "drawn for a check")
    return stored("PNG", 144, 128, pnginfo=text)


def _animated() -> bytes:
    out = io.BytesIO()
    first, second = (Image.fromarray(scene(128, 130, seed)).convert("P") for seed in (1, 2))
    first.save(out, "GIF", save_all=True, append_images=[second])
    return out.getvalue()


ORDINARY = "RGB 1200x900"
"""The picture that every detector but one of provenance should have something to say about."""


def _drawn(mode: str, width: int, height: int) -> Shown:
    return Shown(f"{mode} {width}x{height}", lambda: image(mode, width, height), width * height < 30_000)


PICTURES: tuple[Shown, ...] = (
    *(
        _drawn(mode, width, height)
        for mode, width, height in (
            ("RGB", 1, 1),
            ("RGB", 64, 64),
            ("L", 128, 128),
            ("LA", 132, 128),
            ("RGBA", 130, 140),
            ("P", 150, 128),
            ("1", 160, 128),
            ("I;16", 128, 130),
            ("CMYK", 140, 128),
            ("RGB", 200, 500),
            ("RGB", 2000, 128),
            ("RGB", 3, 4000),
            ("RGB", 1200, 900),
        )
    ),
    Shown("black 256x256", lambda: np.zeros((256, 256, 3), np.uint8)),
    Shown("white 130x128", lambda: np.full((128, 130, 3), 255, np.uint8)),
    Shown("turned JPEG with EXIF", _upright),
    Shown("PNG with a comment", _told),
    Shown("WebP", lambda: stored("WEBP", 136, 128, quality=80)),
    Shown("animated GIF", _animated),
)

__all__ = ["ORDINARY", "PICTURES", "Shown", "image", "scene", "stored"]
