"""The one pipeline that every project picture passes before training and scoring.

The classes differ in format, size and compression, and a model that sees them as they are learns that. So each picture
gives a native window of at most `WINDOW` pixels a side, which is resampled by a random factor with a random kernel and
a random sub-pixel phase to a side drawn from `SIDES` (which breaks the block grid of an old JPEG), and is then saved
as JPEG with a quality and chroma subsampling drawn at random. Neither draw depends on the class or on the source.

A window shows no composition, so `normalise_picture` adds the whole, for the tasks that look at meaning: a cut of
random proportions (generated pictures are square more often than photographs), resampled and saved in the same way.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.errors import SettingError
from tellsign.schemas import Picture

WINDOW = 320
"""Largest side of the native window, in pixels."""
SIDES = (224, 304)
"""The side after resampling, smallest and largest, in pixels."""
QUALITIES = (70, 96)
"""JPEG quality of the re-encoding, lowest and highest (libjpeg's scale)."""
MINIMUM = 192
"""Pictures whose short side is smaller than this are left out: they would have to be blown up."""
OVERVIEW_SIDES = (352, 512)
"""Short side of the whole after resampling, smallest and largest, in pixels. The view of meaning halves such a picture
first, so that one of 256 px, the smallest common size, is shown no blurrier than the others."""
PROPORTIONS = (3 / 4, 4 / 3)
"""Width over height of the whole, smallest and largest."""
KERNELS = (
    Image.Resampling.BILINEAR,
    Image.Resampling.HAMMING,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)


def window(pixels: NDArray[np.uint8], rng: np.random.Generator, side: int = WINDOW) -> NDArray[np.uint8]:
    """A square native window at a random place.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
    rng : numpy.random.Generator
    side : int, default 320
        Side in pixels; the short side of the picture where that is smaller.

    Returns
    -------
    uint8 array of (s, s, 3)

    Raises
    ------
    SettingError
        The short side is below `MINIMUM`.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < MINIMUM:
        raise SettingError("pixels", f"a picture with a short side of at least {MINIMUM} px", f"{width} x {height}")
    side = min(side, height, width)
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    return pixels[top : top + side, left : left + side]


def resample(pixels: NDArray[np.uint8], rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Resample a square to `side` with a random kernel and a random sub-pixel phase.

    Parameters
    ----------
    pixels : uint8 array of (s, s, 3)
    rng : numpy.random.Generator
    side : int
        In pixels.

    Returns
    -------
    uint8 array of (side, side, 3)
    """
    size = pixels.shape[0]
    # A box that starts between pixels shifts the phase; up to two pixels are given up at the border for it.
    left, top = rng.uniform(0, 2, size=2)
    cut = size - 2
    kernel = KERNELS[int(rng.integers(len(KERNELS)))]
    image = Image.fromarray(pixels).resize((side, side), kernel, box=(left, top, left + cut, top + cut))
    return np.asarray(image)


def reencode(pixels: NDArray[np.uint8], quality: int, subsampling: int = 2) -> NDArray[np.uint8]:
    """Save as JPEG and open again.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
    quality : int
        1 to 100, libjpeg's scale.
    subsampling : int, default 2
        Pillow's code: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(buffer).convert("RGB"))


def normalise(pixels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Window, resample, re-encode; the same seed gives the same picture.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
        Short side of at least 192 px.
    seed : int
        Non-negative. Take one per picture that does not depend on its class.

    Returns
    -------
    uint8 array of (s, s, 3), s from 224 to 304

    Raises
    ------
    SettingError
        The picture is too small.
    """
    rng = np.random.default_rng(seed)
    return normalise_window(window(pixels, rng), rng)


def normalise_window(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The second half of `normalise`, for windows that were cut before."""
    side = int(rng.integers(SIDES[0], SIDES[1] + 1))
    pixels = resample(pixels, rng, side)
    quality = int(rng.integers(QUALITIES[0], QUALITIES[1] + 1))
    return reencode(pixels, quality, int(rng.choice([0, 2])))


def overview(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The whole picture at a common range of sizes and proportions.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
    rng : numpy.random.Generator

    Returns
    -------
    uint8 array of (h, w, 3)
        The largest cut of proportions drawn from `PROPORTIONS`, at a random place, resampled with a random kernel to a
        short side drawn from `OVERVIEW_SIDES` and saved as JPEG.
    """
    height, width = pixels.shape[:2]
    proportion = float(np.exp(rng.uniform(*np.log(PROPORTIONS))))
    cut_width, cut_height = min(width, round(height * proportion)), min(height, round(width / proportion))
    left, top = (float(rng.uniform(0, n)) for n in (width - cut_width, height - cut_height))
    side = int(rng.integers(OVERVIEW_SIDES[0], OVERVIEW_SIDES[1] + 1))
    scale = side / min(cut_width, cut_height)
    target = (max(1, round(cut_width * scale)), max(1, round(cut_height * scale)))
    kernel = KERNELS[int(rng.integers(len(KERNELS)))]
    image = Image.fromarray(pixels).resize(target, kernel, box=(left, top, left + cut_width, top + cut_height))
    quality = int(rng.integers(QUALITIES[0], QUALITIES[1] + 1))
    return reencode(np.asarray(image), quality, int(rng.choice([0, 2])))


def normalise_picture(pixels: NDArray[np.uint8], seed: int, *, cut: bool = True) -> Picture:
    """`normalise` for the tasks that look at native pixels, and `overview` for those that look at meaning.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
        Short side of at least 192 px.
    seed : int
        As for `normalise`, which gives the same window.
    cut : bool, default True
        False for what is a window already: the largest square is taken whole, and there is no overview.

    Returns
    -------
    Picture
        `pixels` uint8 (s, s, 3) with s from 224 to 304; `overview` with a short side from 352 to 512.

    Raises
    ------
    SettingError
        The picture is too small.
    """
    if not cut:
        rng = np.random.default_rng(seed)
        return Picture(pixels=normalise_window(window(pixels, rng, min(pixels.shape[:2])), rng))
    # A stream of its own, so that the window does not depend on whether an overview is made.
    whole = overview(pixels, np.random.default_rng([seed, 1]))
    return Picture(pixels=normalise(pixels, seed), overview=Picture(pixels=whole))
