"""Crops and augmentations, the same for a picture and its masks.

The strengths follow what the default fusion is trained on (`tellsign.data.normalise`): a random resampling with a
random sub-pixel phase, then JPEG or WebP, so that neither a file's history nor its format tells the classes apart; and
Wang et al. (arXiv 1912.11035): blur, flips, colour.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tellsign.data.normalise import KERNELS, reencode
from tellsign.errors import SettingError

from .data import Sample

SCALES = (0.7, 1.4)
"""Range of the resampling factor."""
QUALITIES = (60, 100)
"""Range of JPEG and WebP quality (libjpeg's and libwebp's scales)."""
TOUCH = 0.8
"""Chance that the crop of an edited picture is laid over its region."""


def pad(sample: Sample, side: int, margin: int = 1) -> Sample:
    """Mirror a margin around a sample, and more where a side is shorter than `side`.

    Parameters
    ----------
    sample : Sample
    side : int
        In pixels.
    margin : int, default 1
        GAMMA pads by one pixel before it crops.
    """
    height, width = sample.pixels.shape[:2]
    y, x = (margin + max(0, -(-(side - n - 2 * margin) // 2)) for n in (height, width))

    def one(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.pad(values, [(y, y), (x, x)] + [(0, 0)] * (values.ndim - 2), mode="symmetric")

    return Sample(one(sample.pixels), one(sample.ai), one(sample.manipulation))


def cut(sample: Sample, top: int, left: int, side: int) -> Sample:
    """The square of `side` px whose upper left corner is there."""
    place = (slice(top, top + side), slice(left, left + side))
    return Sample(sample.pixels[place], sample.ai[place], sample.manipulation[place])


def centre_crop(sample: Sample, side: int, margin: int = 1) -> Sample:
    """The middle of a sample, as GAMMA evaluates.

    A picture with a side below `side` is scaled up until its shorter side is `side` (bilinear; masks by nearest), and
    not padded; then the margin is mirrored around it and the middle is cut out.
    """
    height, width = sample.pixels.shape[:2]
    if min(height, width) < side:
        scale = side / min(height, width)
        size = (max(side, round(width * scale)), max(side, round(height * scale)))
        sample = Sample(
            np.asarray(Image.fromarray(sample.pixels).resize(size, Image.Resampling.BILINEAR)),
            *(
                np.asarray(Image.fromarray(m).resize(size, Image.Resampling.NEAREST))
                for m in (sample.ai, sample.manipulation)
            ),
        )
    sample = pad(sample, side, margin)
    height, width = sample.pixels.shape[:2]
    return cut(sample, (height - side) // 2, (width - side) // 2, side)


def random_crop(
    sample: Sample, side: int, rng: np.random.Generator, margin: int = 1, *, native: float = 0.15
) -> Sample:
    """A resampled square at a random place.

    A window of `side` over a factor drawn from `SCALES` (at most the padded picture) is cut out, in edited pictures
    mostly over the region, and resampled to `side` with a random kernel and a random sub-pixel phase; the masks by
    nearest neighbour from the same window.

    Parameters
    ----------
    sample : Sample
    side : int
        In pixels.
    rng : numpy.random.Generator
    margin : int, default 1
    native : float, default 0.15
        Share of crops that are not resampled.
    """
    if side < 32:
        raise SettingError("side", "at least 32 px", side)
    factor = float(np.exp(rng.uniform(*np.log(SCALES))))
    sample = pad(sample, min(side, 64), margin)
    height, width = sample.pixels.shape[:2]
    window = min(round(side / factor) + 2, height, width)
    region = sample.ai if 0 < sample.ai.mean() < 1 else sample.manipulation
    if rng.random() < TOUCH and 0 < region.mean() < 1:
        ys, xs = np.nonzero(region)
        i = int(rng.integers(len(ys)))
        top = int(np.clip(ys[i] - rng.integers(window), 0, height - window))
        left = int(np.clip(xs[i] - rng.integers(window), 0, width - window))
    else:
        top, left = int(rng.integers(height - window + 1)), int(rng.integers(width - window + 1))
    piece = cut(sample, top, left, window)
    if rng.random() < native and min(height, width) >= side:
        # Some stay as they came, with the block grid and the traces that resampling would soften.
        if window < side:
            top, left = min(top, height - side), min(left, width - side)
            return cut(sample, top, left, side)
        y, x = (int(rng.integers(window - side + 1)) for _ in range(2))
        return cut(piece, y, x, side)
    y, x = rng.uniform(0, 2, size=2)
    box = (x, y, x + window - 2, y + window - 2)
    kernel = KERNELS[int(rng.integers(len(KERNELS)))]
    return Sample(
        np.asarray(Image.fromarray(piece.pixels).resize((side, side), kernel, box=box)),
        *(
            np.asarray(Image.fromarray(m).resize((side, side), Image.Resampling.NEAREST, box=box))
            for m in (piece.ai, piece.manipulation)
        ),
    )


def augment(
    sample: Sample,
    rng: np.random.Generator,
    *,
    strength: float = 1.0,
    lossless: float = 0.2,
    qualities: tuple[int, int] = QUALITIES,
) -> Sample:
    """Blur, colours, compression and flips; only flips move the masks.

    Parameters
    ----------
    sample : Sample
        Of one size with what comes out.
    rng : numpy.random.Generator
    strength : float, default 1
        Factor of the chances of blur, colours and noise.
    lossless : float, default 0.2
        Share that is not compressed; an eighth of the rest becomes WebP.
    qualities : tuple of int
        Range of JPEG and WebP quality.
    """
    pixels = sample.pixels
    if rng.random() < 0.15 * strength:
        radius = float(rng.uniform(0.3, 1.0))
        pixels = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))
    if rng.random() < 0.3 * strength:
        gain, shift = rng.uniform(0.8, 1.2), rng.uniform(-20, 20, size=3)
        pixels = np.clip(np.rint((pixels - 128.0) * gain + 128 + shift), 0, 255).astype(np.uint8)
    if rng.random() < 0.1 * strength:
        noise = rng.normal(0, rng.uniform(0.5, 3), size=pixels.shape)
        pixels = np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
    draw = rng.random()
    quality = int(rng.integers(qualities[0], qualities[1] + 1))
    if draw < 0.875 * (1 - lossless):
        pixels = reencode(pixels, quality, int(rng.choice([0, 2])))
    elif draw < 1 - lossless:
        pixels = webp(pixels, quality)
    masks = [sample.ai, sample.manipulation]
    if rng.random() < 0.5:
        pixels, *masks = (a[:, ::-1] for a in (pixels, *masks))
    return Sample(np.ascontiguousarray(pixels), *(np.ascontiguousarray(m) for m in masks))


def webp(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Save as lossy WebP and open again."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=0)
    return np.asarray(Image.open(buffer).convert("RGB"))
