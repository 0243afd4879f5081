"""Pictures with marked artifacts, cut or scaled to what a model is shown, with their masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.artifacts.rows import MarkedPicture, marked_pictures
from tellsign.errors import SettingError

_TRIES = 30
_LEAST = 0.02  # of a window: an artifact that is hardly in it cannot be looked at


class Marked(NamedTuple):
    """Pictures of one size."""

    pixels: NDArray[np.uint8]
    """(B, side, side, 3)"""
    labels: NDArray[np.float32]
    """(B,): 1 made by AI; 0 real, or a window that shows nothing of the part that is made by AI."""
    masks: NDArray[np.bool_]
    """(B, side, side): an artifact of whatever category."""
    known: NDArray[np.bool_]
    """(B,): see `MarkedPicture.known`."""


class MarkedWindows:
    """Draws batches, half of them real, in which artifacts are marked.

    Parameters
    ----------
    pictures : sequence of MarkedPicture
        Real and generated ones. Generated ones whose artifacts are not known are left out: alignment learns nothing of
        them.
    side : int
        Of the squares, in pixels.
    whole : bool, default False
        Scale the whole picture to a square, as models of meaning take it, and do not cut a native window out of it.

    Raises
    ------
    SettingError
        There are none of one class.
    """

    def __init__(self, pictures: Sequence[MarkedPicture], side: int, *, whole: bool = False) -> None:
        self.side, self.whole = side, whole
        kept = [p for p in pictures if p.known]
        self.by_label = [[p for p in kept if p.label == label] for label in (0, 1)]
        if not all(self.by_label):
            told = f"{len(self.by_label[0])} real and {len(self.by_label[1])} marked ones"
            raise SettingError("masks", "real pictures, and generated ones whose artifacts are marked", told)

    @classmethod
    def read(cls, folders: Sequence[Path], side: int, *, whole: bool = False) -> MarkedWindows:
        """Of X-AIGD's rows or forged folders; see `marked_pictures`."""
        return cls([p for folder in folders for p in marked_pictures(folder)], side, whole=whole)

    def draw(self, count: int, rng: np.random.Generator) -> Marked:
        """`count` pictures, real and generated in turns; the same for the same state of `rng`."""
        squares, masks, labels = [], [], []
        for k in range(count):
            of = self.by_label[k % 2]
            picture = of[int(rng.integers(len(of)))]
            pixels, seven = picture.load()
            pixels, mask = self._square(pixels, np.asarray(seven.any(axis=0)), rng)
            squares.append(pixels)
            masks.append(mask)
            labels.append(float(picture.label and not (picture.local and not mask.any())))
        return Marked(np.stack(squares), np.array(labels, np.float32), np.stack(masks), np.ones(count, bool))

    def _square(
        self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        side = self.side
        if self.whole or min(mask.shape) < side:
            return scaled(pixels, mask, side)
        height, width = mask.shape
        best, most = (0, 0), -1.0
        for _ in range(_TRIES):
            top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            share = float(mask[top : top + side, left : left + side].mean())
            if share > most:
                best, most = (top, left), share
            if share >= _LEAST or not mask.any():
                break
        top, left = best
        return pixels[top : top + side, left : left + side], mask[top : top + side, left : left + side]


def scaled(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], side: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A picture and its mask as squares of `side` pixels; a pixel of the mask is set where half of it was."""
    square = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    flags = Image.fromarray(mask.astype(np.uint8) * 255).resize((side, side), Image.Resampling.BOX)
    return np.asarray(square), np.asarray(flags) > 127


__all__ = ["Marked", "MarkedWindows", "scaled"]
