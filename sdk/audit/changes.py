"""What is done to a picture: its pixels change and its meaning stays, or the other way round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tellsign.decoding import reencode
from tellsign.errors import SettingError
from tellsign.schemas import Picture

Pixels = NDArray[np.uint8]
Apply = Callable[[Pixels, Pixels, np.random.Generator], Pixels]
"""A picture's pixels, its partner's of the same size, and a generator, to changed pixels."""

SEAM = 2.0
"""Standard deviation in pixels of the Gaussian that separates content (below) from trace (above)."""


@attrs.frozen
class Change:
    """One change.

    Attributes
    ----------
    name : str
    kind : "pixel" or "semantic"
        What it changes; the other stays.
    summary : str
        The definition in words; it travels with the numbers.
    apply : callable
        uint8 (H, W, 3) pixels, those of the partner at the same size, and a generator, to uint8 pixels.
    """

    name: str
    kind: Literal["pixel", "semantic"]
    summary: str
    apply: Apply


def _jpeg(pixels: Pixels, partner: Pixels, rng: np.random.Generator) -> Pixels:
    return reencode(pixels, quality=60)


def _resize(pixels: Pixels, partner: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels).resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.BICUBIC)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def _blur(pixels: Pixels, partner: Pixels, rng: np.random.Generator) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1.0)))


def _noise(pixels: Pixels, partner: Pixels, rng: np.random.Generator) -> Pixels:
    drawn = pixels + rng.normal(0, 5, pixels.shape)
    out: Pixels = np.clip(np.rint(drawn), 0, 255).astype(np.uint8)
    return out


def split(pixels: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Content and trace of a picture, float32 (H, W, 3) each, whose sum is the picture.

    Content is what a Gaussian of `SEAM` px leaves, trace the rest.
    """
    from scipy.ndimage import gaussian_filter

    values = pixels.astype(np.float32)
    content = np.asarray(gaussian_filter(values, (SEAM, SEAM, 0), mode="nearest"), np.float32)
    return content, values - content


def _foreign_trace(pixels: Pixels, partner: Pixels, rng: np.random.Generator) -> Pixels:
    return _sum(split(pixels)[0], split(partner)[1])


def _foreign_content(pixels: Pixels, partner: Pixels, rng: np.random.Generator) -> Pixels:
    return _sum(split(partner)[0], split(pixels)[1])


def _partner(pixels: Pixels, partner: Pixels, rng: np.random.Generator) -> Pixels:
    return partner


def _sum(content: NDArray[np.float32], trace: NDArray[np.float32]) -> Pixels:
    out: Pixels = np.clip(np.rint(content + trace), 0, 255).astype(np.uint8)
    return out


CHANGES: tuple[Change, ...] = (
    Change("re-encode", "pixel", "saved as JPEG, quality 60, 4:2:0", _jpeg),
    Change("resize", "pixel", "halved and doubled again, bicubic", _resize),
    Change("blur", "pixel", "Gaussian blur, sigma 1 px", _blur),
    Change("noise", "pixel", "Gaussian noise, sigma 5 grey levels", _noise),
    Change("foreign trace", "pixel", f"detail below {SEAM:g} px taken from another picture", _foreign_trace),
    Change("foreign content", "semantic", f"all but the detail below {SEAM:g} px taken from another picture",
           _foreign_content),
    Change("another picture", "semantic",
           "another picture of the same source, through the same processing with the same draws", _partner),
)  # fmt: skip
"""In the order of the matrix; the autoencoder's round trip comes after them where its weights are given."""


def round_trip(folder: Path, name: str | None = None) -> Change:
    """The change that a generator's autoencoder leaves: encode, decode, nothing else.

    Parameters
    ----------
    folder : Path
        With `<name>_encoder.safetensors` and `<name>_decoder.safetensors`.
    name : str, optional
        One of `tellsign.data.autoencoders.NAMES`; by default the first that is in `folder`.

    Raises
    ------
    SettingError
        There is no autoencoder in `folder`.
    """
    import torch

    from tellsign.data.autoencoders import NAMES, Autoencoder

    here = [n for n in NAMES if (folder / f"{n}_decoder.safetensors").is_file()]
    chosen = name or (here[0] if here else None)
    if chosen is None or chosen not in here:
        raise SettingError("autoencoder", f"a folder with weights of one of {', '.join(NAMES)}", str(folder))
    model = Autoencoder.load(folder, chosen)

    def apply(pixels: Pixels, partner: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = (n // 8 * 8 for n in pixels.shape[:2])
        x = torch.from_numpy(pixels[:height, :width].copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            made = (model(x)[0] * 255).round().byte().permute(1, 2, 0).numpy()
        # Up to seven pixels at the right and below stay as they were, so that the size does.
        out = pixels.copy()
        out[:height, :width] = made
        return out

    return Change("autoencoder", "pixel", f"encoded and decoded by {chosen}", apply)


def fitted(partner: Pixels, height: int, width: int) -> Pixels:
    """A partner at another picture's size: its native pixels where they suffice, scaled up only where they do not."""
    scale = max(height / partner.shape[0], width / partner.shape[1])
    if scale > 1:
        size = (max(width, round(partner.shape[1] * scale)), max(height, round(partner.shape[0] * scale)))
        partner = np.asarray(Image.fromarray(partner).resize(size, Image.Resampling.BICUBIC))
    top, left = (partner.shape[0] - height) // 2, (partner.shape[1] - width) // 2
    return partner[top : top + height, left : left + width]


def changed(picture: Picture, partner: Picture, change: Change, *, seed: int) -> Picture:
    """A picture after a change, its overview likewise where it has one.

    Parameters
    ----------
    picture, partner : Picture
        Both with an overview or both without.
    change : Change
    seed : int
    """

    def one(mine: Pixels, other: Pixels) -> Pixels:
        rng = np.random.default_rng(seed)
        return change.apply(mine, fitted(other, *mine.shape[:2]), rng)

    overview = None
    if picture.overview is not None and partner.overview is not None:
        overview = Picture(pixels=one(picture.overview.pixels, partner.overview.pixels))
    return Picture(pixels=one(picture.pixels, partner.pixels), source=picture.source, overview=overview)


def partners(labels: Sequence[int], sources: Sequence[str], *, seed: int, same_source: bool) -> list[int]:
    """Another picture for each: of its own source and class, or of the other class.

    Parameters
    ----------
    labels, sources : sequences of (n,)
    seed : int
    same_source : bool
        A picture that is alone in its source gets one of its class.

    Returns
    -------
    list of int
        Never a picture's own index, unless it is the only one of its class.
    """
    rng = np.random.default_rng(seed)
    out = []
    for i, (label, source) in enumerate(zip(labels, sources, strict=True)):
        every = range(len(labels))
        if same_source:
            pool = [j for j in every if j != i and labels[j] == label and sources[j] == source]
            pool = pool or [j for j in every if j != i and labels[j] == label]
        else:
            pool = [j for j in every if labels[j] != label]
        out.append(int(rng.choice(pool)) if pool else i)
    return out


__all__ = ["CHANGES", "SEAM", "Change", "changed", "fitted", "partners", "round_trip", "split"]
