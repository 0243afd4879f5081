"""Inpainting by any callable; adapters for MI-GAN's ONNX file, diffusers' pipelines, and a decoder over everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .blend import changed_outside
from .errors import ForgeError
from .onnx import Session
from .roundtrip import RoundTrip

Pixels = NDArray[np.uint8]
REWRITTEN = 0.5
"""A generator that wrote everything changed at least this share of the pixels outside the hole."""


class Inpainter(Protocol):
    """Whatever fills a hole."""

    def __call__(self, pixels: Pixels, region: NDArray[np.bool_], rng: np.random.Generator) -> Pixels:
        """Fill `region` of uint8 (H, W, 3) `pixels`; the answer has the same shape.

        What it does outside the region is its own business: `blend` takes the region only, `inpaint` everything.
        """
        ...


class MiGan:
    """MI-GAN (Sargsyan et al. 2023) as the one-file ONNX pipeline.

    The pipeline crops around the hole, fills, and puts the crop back, so that the picture outside keeps its pixels but
    for a soft edge. Its answer is therefore one for `blend`, and for `inpaint` only under `Latent`.

    Parameters
    ----------
    file : Path
        `migan_pipeline_v2.onnx`: uint8 picture (1, 3, H, W) and mask (1, 1, H, W), 255 = keep.
    """

    def __init__(self, file: Path) -> None:
        self.session = Session(file, inputs=2)

    def __call__(self, pixels: Pixels, region: NDArray[np.bool_], rng: np.random.Generator) -> Pixels:
        """Fill `region`; no draw is made."""
        picture = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
        keep = np.where(region, 0, 255).astype(np.uint8)[None, None]
        return np.ascontiguousarray(self.session.run(picture, keep)[0].transpose(1, 2, 0))


class Latent:
    """An inpainter whose whole answer goes through an autoencoder, as every latent-diffusion inpainter's does.

    Parameters
    ----------
    inner : Inpainter
        Fills the hole.
    autoencoder : RoundTrip
        Writes every pixel anew, those outside the hole too.
    """

    def __init__(self, inner: Inpainter, autoencoder: RoundTrip) -> None:
        self.inner, self.autoencoder = inner, autoencoder

    def __call__(self, pixels: Pixels, region: NDArray[np.bool_], rng: np.random.Generator) -> Pixels:
        """Fill, encode, decode."""
        return self.autoencoder(self.inner(pixels, region, rng), rng)


class Diffusers:
    """A diffusers inpainting pipeline.

    Parameters
    ----------
    pipeline : diffusers pipeline
        Called as `pipeline(prompt=, image=, mask_image=, height=, width=, num_inference_steps=, generator=)`, answering
        with `.images`; what `AutoPipelineForInpainting.from_pretrained` gives.
    prompt : str, default ""
        The empty prompt lets the surroundings decide.
    steps : int, default 30
    """

    def __init__(self, pipeline: Any, *, prompt: str = "", steps: int = 30) -> None:
        self.pipeline, self.prompt, self.steps = pipeline, prompt, steps

    @classmethod
    def load(cls, name: str, *, prompt: str = "", steps: int = 30, device: str = "cpu") -> Diffusers:
        """From a folder or a model's name on the hub."""
        try:
            from diffusers import AutoPipelineForInpainting
        except ImportError as error:
            raise ForgeError("diffusers is not installed; pip install 'tellsign[diffusion]' brings it") from error
        try:
            pipeline = AutoPipelineForInpainting.from_pretrained(name)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ForgeError(f"the inpainting pipeline {name!r} cannot be loaded: {reason}") from error
        pipeline = pipeline.to(device)
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline, prompt=prompt, steps=steps)

    def __call__(self, pixels: Pixels, region: NDArray[np.bool_], rng: np.random.Generator) -> Pixels:
        """Fill `region`. Sides that are no multiples of 8 are mirrored up to one and cut back, never resampled."""
        import torch

        height, width = pixels.shape[:2]
        down, right = -height % 8, -width % 8
        padded = np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="reflect")
        hole = np.pad(region, ((0, down), (0, right)))
        answer = self.pipeline(
            prompt=self.prompt,
            image=Image.fromarray(padded),
            mask_image=Image.fromarray(hole.astype(np.uint8) * 255),
            height=height + down,
            width=width + right,
            num_inference_steps=self.steps,
            generator=torch.Generator().manual_seed(int(rng.integers(2**31))),
        )
        return np.asarray(answer.images[0].convert("RGB"))[:height, :width]


def inpainted(
    inpainter: Inpainter, pixels: Pixels, region: NDArray[np.bool_], rng: np.random.Generator, *, plain: bool
) -> Pixels:
    """An inpainter's answer, checked.

    Parameters
    ----------
    inpainter : Inpainter
    pixels : uint8 array of (H, W, 3)
    region : bool array of (H, W)
    rng : numpy.random.Generator
    plain : bool
        Whether the answer is to be kept whole, with an AI mask of all ones. Then the generator must have written the
        surroundings as well, or that mask would be false.

    Raises
    ------
    ForgeError
        The answer has another shape or dtype, or `plain` was asked of an inpainter that keeps the surroundings.
    """
    answer = np.asarray(inpainter(pixels, region, rng))
    if answer.shape != pixels.shape or answer.dtype != np.uint8:
        raise ForgeError(
            f"an inpainter answers with uint8 of shape {pixels.shape}, this one with {answer.dtype} of shape "
            f"{answer.shape}"
        )
    if plain and (rewritten := changed_outside(pixels, answer, region)) < REWRITTEN:
        raise ForgeError(
            f"the inpainter kept {1 - rewritten:.0%} of the pixels outside the hole, so that an AI mask of all ones "
            "would be false: take the kind blend, or an inpainter that writes the whole picture"
        )
    return answer
