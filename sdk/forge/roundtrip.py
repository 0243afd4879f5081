"""A region through a local autoencoder: what its decoder leaves in pixels whose content hardly changes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ForgeError


class RoundTrip:
    """Any autoencoder with `encode` and `decode`.

    Parameters
    ----------
    autoencoder : object
        `encode(x)` takes a float tensor (1, 3, H, W), sides multiples of 8, and gives latents; `decode(latents)` gives
        a tensor like `x`. `tellsign.data.autoencoders` fits, and so do diffusers' (which wrap what they give).
    signed : bool, default False
        Whether pictures are in [-1, 1] (diffusers) instead of [0, 1].
    noise : (float, float), default (0, 0)
        Standard deviation of the Gaussian noise on the latents as a share of theirs, smallest and largest.
    """

    def __init__(self, autoencoder: Any, *, signed: bool = False, noise: tuple[float, float] = (0.0, 0.0)) -> None:
        self.autoencoder, self.signed, self.noise = autoencoder, signed, noise

    def __call__(self, pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """The whole picture, encoded and decoded: uint8 (H, W, 3) to the same shape.

        Sides that are no multiples of 8 are mirrored up to one and cut back.
        """
        import torch

        height, width = pixels.shape[:2]
        padded = np.pad(pixels, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="reflect")
        share = float(rng.uniform(*self.noise))
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)))[None].float() / 255
            latents = self.autoencoder.encode(x * 2 - 1 if self.signed else x)
            latents = _tensor(latents)
            if share:
                draw = torch.from_numpy(rng.standard_normal(tuple(latents.shape), dtype=np.float32)).to(latents)
                latents = latents + share * latents.std() * draw
            y = _tensor(self.autoencoder.decode(latents)).float()
            y = (y + 1) / 2 if self.signed else y
            if y.shape != x.shape:
                raise ForgeError(f"the autoencoder gave {tuple(y.shape)} for a picture of {tuple(x.shape)}")
            out = (y.clamp(0, 1) * 255).round().byte()[0].permute(1, 2, 0).numpy()
        return np.ascontiguousarray(out[:height, :width])


def _tensor(given: Any) -> Any:
    """Diffusers wraps latents in a distribution inside an output object, and pictures in one with `sample`."""
    given = getattr(given, "latent_dist", given)
    given = getattr(given, "latents", given)
    if hasattr(given, "mode") and callable(given.mode) and not hasattr(given, "detach"):
        return given.mode()
    return given if hasattr(given, "detach") else given.sample
