"""Aligned pairs: one content, with and without a decoder's traces, and nothing else to tell them apart.

The recipe is DDA's (Dual Data Alignment, arXiv 2505.14359, the pixel branch of AlignGemini) with three additions that
the project's data made necessary. The base's history is erased first (scaled down with a random phase and kernel):
a JPEG's block grid survives in the base and not in its round trip. The round trip's radial spectrum is set to the
base's: a tiny autoencoder softens, and a detector would learn softness. And both members are often replaced by
non-neural twins (blurred, or scaled down and up), so that the trace is learned on smoothed pictures too.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tellsign.data.normalise import KERNELS

from .autoencoders import Autoencoder

SIDE = 256
"""Side of a base in pixels."""
SHRINK = (0.3, 0.7)
"""By how much the original is scaled down to erase its history."""

Pixels = NDArray[np.uint8]


def erase_history(pixels: Pixels, rng: np.random.Generator) -> Pixels | None:
    """A base of `SIDE` px: a random window, scaled down with a random phase and kernel.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
    rng : numpy.random.Generator

    Returns
    -------
    uint8 array of (256, 256, 3) or None
        None where the picture is too small to be scaled down by at least the upper end of `SHRINK`.
    """
    height, width = pixels.shape[:2]
    short = min(height, width)
    if short * SHRINK[1] < SIDE + 2:
        return None
    factor = rng.uniform(max(SHRINK[0], SIDE / (short - 2)), SHRINK[1])
    cut = SIDE / factor
    left, top = rng.uniform(0, width - cut), rng.uniform(0, height - cut)
    kernel = KERNELS[int(rng.integers(len(KERNELS)))]
    box = (left, top, left + cut, top + cut)
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), kernel, box=box))


@torch.inference_mode()
def round_trip(
    bases: Sequence[Pixels], model: Autoencoder, rng: np.random.Generator, *, noise: float = 0.0
) -> list[Pixels]:
    """Encode and decode a batch of bases of one size.

    Parameters
    ----------
    bases : sequence of uint8 arrays of (H, W, 3)
    model : Autoencoder
    rng : numpy.random.Generator
    noise : float, default 0
        Standard deviation of Gaussian noise on the latents, as a share of their own.
    """
    weight = next(model.parameters())
    x = torch.from_numpy(np.stack(bases)).permute(0, 3, 1, 2).to(weight.device, weight.dtype) / 255
    latents = model.encoder(x.contiguous(memory_format=torch.channels_last))
    if noise:
        draw = torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32)).to(latents)
        latents = latents + noise * latents.std() * draw
    out = model.decoder(latents).float().clamp(0, 1)
    return list((out * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())


def match_spectrum(pixels: Pixels, reference: Pixels, *, limit: float = 3.0) -> Pixels:
    """Give `pixels` the radial amplitude spectrum of `reference`, channel by channel.

    Only a gain per ring of frequencies is changed, at most by `limit`: phase, direction and any grid stay.

    Parameters
    ----------
    pixels, reference : uint8 arrays of one shape (s, s, 3)
    limit : float, default 3
        Largest gain, and smallest as its inverse.
    """
    side = pixels.shape[0]
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    ring = np.minimum((np.hypot(fy, fx) * side).astype(int), side // 2)
    count = np.bincount(ring.ravel())
    out = np.empty(pixels.shape, np.float64)
    for c in range(3):
        spectrum = np.fft.rfft2(pixels[..., c].astype(np.float64))
        target = np.fft.rfft2(reference[..., c].astype(np.float64))
        have = np.sqrt(np.bincount(ring.ravel(), (np.abs(spectrum) ** 2).ravel()) / count)
        want = np.sqrt(np.bincount(ring.ravel(), (np.abs(target) ** 2).ravel()) / count)
        gain = np.clip(want / np.maximum(have, 1e-6), 1 / limit, limit)
        out[..., c] = np.fft.irfft2(spectrum * gain[ring], s=(side, side))
    return np.asarray(np.clip(np.rint(out), 0, 255), np.uint8)


def twin(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """The base, smoothed or resampled without any network: still labelled real.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
    rng : numpy.random.Generator
    """
    image = Image.fromarray(pixels)
    kind = rng.integers(4)
    if kind == 0:
        return np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0))))
    if kind == 1:
        return np.asarray(image.filter(ImageFilter.MedianFilter(3)))
    small = [max(16, int(n * rng.uniform(0.5, 0.95))) for n in image.size]
    down, up = (KERNELS[int(i)] for i in rng.integers(len(KERNELS), size=2))
    image = image.resize((small[0], small[1]), down).resize(image.size, up)
    if kind == 2:
        image = image.filter(ImageFilter.UnsharpMask(1.0, int(rng.integers(50, 150)), 0))
    return np.asarray(image)


def pixel_mix(fake: Pixels, real: Pixels, rng: np.random.Generator, *, most: float = 0.8) -> Pixels:
    """DDA's pixel mix: b * fake + (1 - b) * real with b from U(0.2, 1), so that some of the trace stays.

    DDA draws b from U(0, .8) and so also trains on a "fake" that is the real picture; here the share of the real
    picture is what is bounded by `most`.
    """
    share = rng.uniform(0, most)
    mixed = (1 - share) * fake.astype(np.float32) + share * real.astype(np.float32)
    return np.asarray(np.clip(np.rint(mixed), 0, 255), np.uint8)


def frequency_mix(fake: Pixels, real: Pixels, rng: np.random.Generator, *, most: float = 0.8) -> Pixels:
    """DDA's frequency mix: r * DCT(real) + (1 - r) * DCT(fake), r drawn per coefficient from U(0, most)."""
    import scipy.fft

    share = rng.uniform(0, most, size=fake.shape[:2])[..., None]
    spectrum = share * scipy.fft.dctn(real.astype(np.float64), axes=(0, 1), norm="ortho") + (
        1 - share
    ) * scipy.fft.dctn(fake.astype(np.float64), axes=(0, 1), norm="ortho")
    mixed = scipy.fft.idctn(spectrum, axes=(0, 1), norm="ortho")
    return np.asarray(np.clip(np.rint(mixed), 0, 255), np.uint8)


def draw_augmentation(rng: np.random.Generator, *, side: int = 224) -> Callable[[Pixels], Pixels]:
    """One augmentation with all its draws made, so that both members of a pair get the identical one.

    Resize (.6 to 1.5), crop to `side`, flips, light blur or noise at times, then JPEG 40 to 95 or WebP at times.

    Parameters
    ----------
    rng : numpy.random.Generator
    side : int, default 224
        Side of the crop in pixels; inputs must be square.
    """
    resize = rng.random() < 0.6
    factor = rng.uniform(0.6, 1.5)
    kernel = KERNELS[int(rng.integers(len(KERNELS)))]
    place = rng.random(2)
    flip, turn = rng.random() < 0.5, rng.random() < 0.1
    blur = rng.uniform(0.2, 1.0) if rng.random() < 0.1 else 0.0
    noise = rng.uniform(1, 5) if rng.random() < 0.1 else 0.0
    noise_seed = int(rng.integers(2**32))
    codec = rng.random()
    quality = int(rng.integers(40, 96))
    subsampling = int(rng.choice([0, 2]))

    def apply(pixels: Pixels) -> Pixels:
        image = Image.fromarray(pixels)
        if resize:
            size = max(side, round(pixels.shape[0] * factor))
            image = image.resize((size, size), kernel)
        left, top = (int(p * (n - side + 1)) for p, n in zip(place, image.size, strict=True))
        image = image.crop((left, top, left + side, top + side))
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if turn:
            image = image.transpose(Image.Transpose.ROTATE_90)
        if blur:
            image = image.filter(ImageFilter.GaussianBlur(blur))
        if noise:
            draw = np.random.default_rng(noise_seed).normal(0, noise, (side, side, 3))
            image = Image.fromarray(np.clip(np.asarray(image) + draw, 0, 255).astype(np.uint8))
        if codec < 0.8:
            image = _saved(image, "JPEG", quality=quality, subsampling=subsampling)
        elif codec < 0.9:
            image = _saved(image, "WEBP", quality=quality)
        return np.asarray(image)

    return apply


def _saved(image: Image.Image, container: str, **options: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, container, **options)
    return Image.open(buffer).convert("RGB")
