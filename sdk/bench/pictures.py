"""Pictures that are made up on the spot, so that a bench needs no data."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tellsign.decoding import encode_jpeg


def made_up(width: int, height: int, seed: int = 0, quality: int = 90) -> bytes:
    """A JPEG with flat, smooth and textured places, like a photograph in what it costs.

    Parameters
    ----------
    width, height : int
        In pixels.
    seed : int
    quality : int
    """
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 160), max(2, width // 160), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    # Noise of a strength that changes over the picture: crops are chosen by texture.
    strength = np.linspace(0, 24, width, dtype=np.float32)[None, :, None]
    noise = rng.standard_normal((height, width, 1), dtype=np.float32) * strength
    return encode_jpeg(np.clip(smooth + noise.astype(np.int16), 0, 255).astype(np.uint8), quality)
