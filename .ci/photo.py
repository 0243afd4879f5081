"""Draws a picture with a photograph's statistics (1/f spectrum, sensor noise, JPEG) for the README smoke test."""

import sys

import numpy as np
from PIL import Image


def photograph(width: int = 1200, height: int = 800, seed: int = 0) -> Image.Image:
    """A smooth scene with edges, under a 1/f texture and noise."""
    rng = np.random.default_rng(seed)
    fy, fx = np.meshgrid(np.fft.fftfreq(height), np.fft.rfftfreq(width), indexing="ij")
    amplitude = 1 / np.maximum(np.hypot(fy, fx), 1 / width)
    shape = (*amplitude.shape, 3)
    spectrum = amplitude[..., None] * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
    texture = np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))
    scene = texture / texture.std((0, 1)) * 35 + np.linspace(170, 80, height)[:, None, None]
    scene[height // 2 :, width // 3 : width // 2] -= 40  # something with edges
    return Image.fromarray(np.clip(scene + rng.normal(0, 3, scene.shape), 0, 255).astype(np.uint8))


if __name__ == "__main__":
    photograph().save(sys.argv[1], quality=90)
