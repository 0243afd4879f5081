"""Squares of marked pictures, with what they teach."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.artifacts.rows import MarkedPicture
from tellsign.data.normalise import reencode
from tellsign.errors import SettingError

from .recipe import Recipe


class Batch(NamedTuple):
    """What one step learns from."""

    pixels: NDArray[np.uint8]
    """(B, side, side, 3)."""
    labels: NDArray[np.float32]
    """(B,)."""
    masks: NDArray[np.bool_]
    """(B, 8, side, side): the seven categories, then any."""
    known: NDArray[np.float32]
    """(B,): whether the masks count."""


def hold_out(pictures: Sequence[MarkedPicture], share: float) -> tuple[list[MarkedPicture], list[MarkedPicture]]:
    """Split off about `share` of the groups, by a hash of the group's name; no group is in both."""

    def place(picture: MarkedPicture) -> float:
        return int.from_bytes(hashlib.blake2b(picture.group.encode(), digest_size=6).digest(), "big") / 2**48

    return [p for p in pictures if place(p) >= share], [p for p in pictures if place(p) < share]


def with_any(seven: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Masks (7, H, W) and their union behind them, (8, H, W)."""
    return np.concatenate([seven, seven.any(axis=0, keepdims=True)])


def crop(
    pixels: NDArray[np.uint8], masks: NDArray[np.bool_], side: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The same random square of a picture (H, W, 3) and its masks (k, H, W), mirrored half of the time."""
    short = min(pixels.shape[:2])
    if short < side:
        height, width = (max(side, round(n * side / short)) for n in pixels.shape[:2])
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
        masks = np.stack(
            [np.asarray(Image.fromarray(m).resize((width, height), Image.Resampling.NEAREST)) for m in masks]
        )
    top, left = (int(rng.integers(n - side + 1)) for n in pixels.shape[:2])
    square = pixels[top : top + side, left : left + side]
    cut = masks[:, top : top + side, left : left + side]
    return (square[:, ::-1], cut[:, :, ::-1]) if rng.random() < 0.5 else (square, cut)


class Crops:
    """Draws batches, half of each real and half generated.

    Parameters
    ----------
    recipe : Recipe
    pictures : sequence of MarkedPicture
        To learn from.

    Raises
    ------
    SettingError
        There are none of one class, or, where maps are trained, none whose artifacts are marked.
    """

    def __init__(self, recipe: Recipe, pictures: Sequence[MarkedPicture]) -> None:
        self.recipe = recipe
        # Pictures that teach neither class nor maps are not opened.
        kept = [p for p in pictures if recipe.learns_class or p.known]
        self.by_label = [[p for p in kept if p.label == label] for label in (0, 1)]
        if not all(self.by_label) or (recipe.learns_maps and not any(p.known for p in self.by_label[1])):
            told = f"{len(self.by_label[0])} real, {len(self.by_label[1])} generated of {len(pictures)}"
            raise SettingError("data", "real and generated pictures, some of these with marked artifacts", told)

    def batch(self, step: int) -> Batch:
        """The same for the same seed and step."""
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, step))
        pixels, labels, masks, known = [], [], [], []
        for k in range(recipe.batch):
            of = self.by_label[k % 2]
            picture = of[int(rng.integers(len(of)))]
            square, seven = crop(*picture.load(), recipe.side, rng)
            low, high = recipe.qualities
            pixels.append(reencode(np.ascontiguousarray(square), int(rng.integers(low, high + 1))))
            masks.append(with_any(seven))
            labels.append(float(picture.label and not (picture.local and not seven.any())))
            known.append(float(picture.known))
        return Batch(np.stack(pixels), np.array(labels, np.float32), np.stack(masks), np.array(known, np.float32))


__all__ = ["Batch", "Crops", "crop", "hold_out", "with_any"]
