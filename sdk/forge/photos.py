"""The pictures that go in: where they are, how large, and which collection they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.data.normalise import resample
from tellsign.decoding import DecodeError, decode
from tellsign.decoding.quiet import quiet_pillow

from .errors import ForgeError

SIDES = (224, 384)
"""Side of a window once its history is erased, smallest and largest, in pixels; always a multiple of 8."""
STEP = 8
FACTORS = (0.65, 0.95)
"""By how much a native window is scaled down to erase its history, strongest and weakest."""
WINDOW = 512
"""Largest side of the native window."""


@attrs.frozen(kw_only=True)
class Photo:
    """One picture that forgeries are made of."""

    path: Path
    name: str
    """As the manifest tells it: relative to what the user gave."""
    source: str
    """Collection or generator."""
    group: str
    """Pictures that show the same thing share it; a forgery belongs to its base's group."""
    fake: bool = False
    """Generated, not photographed."""


@attrs.frozen(kw_only=True)
class Sized:
    """A photo whose header was read."""

    photo: Photo
    short: int
    """Short side in pixels."""


def largest_side(short: int) -> int:
    """The largest window that a picture with this short side gives, a multiple of `STEP`; 0 where it is too small."""
    side = min(SIDES[1], int((short - 2) * FACTORS[1])) // STEP * STEP
    return side if side >= SIDES[0] else 0


def scan(
    photos: Sequence[Photo], *, minimum: int, left_out: Callable[[Photo, str], None], step: Callable[[], None]
) -> list[Sized]:
    """Read the headers. What is no picture or too small is told to `left_out` with the reason and not used.

    Parameters
    ----------
    photos : sequence of Photo
    minimum : int
        Smallest short side, in pixels.
    left_out : callable of (photo, reason)
    step : callable
        Called once per picture.
    """
    kept = []
    for photo in photos:
        try:
            with quiet_pillow(), Image.open(photo.path) as image:
                short = min(image.size)
        except FileNotFoundError:
            left_out(photo, "there is no such file")
        except PermissionError:
            left_out(photo, "it may not be read")
        except Exception:  # whatever a decoder raises on a header
            left_out(photo, "it is no picture that can be read")
        else:
            if short < minimum:
                left_out(photo, f"its short side is {short} px, and {minimum} are needed")
            else:
                kept.append(Sized(photo=photo, short=short))
        step()
    return kept


def pixels_of(photo: Photo) -> NDArray[np.uint8]:
    """The decoded picture, uint8 (H, W, 3).

    Raises
    ------
    ForgeError
        It cannot be decoded; the message names it.
    """
    try:
        return decode(photo.path).pixels
    except DecodeError as error:
        raise ForgeError(f"{photo.name}: {error.message}") from error


def erased_window(
    pixels: NDArray[np.uint8], side: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
    """A native window scaled down to `side` with a random phase and kernel, which breaks the block grid of old JPEGs.

    Parameters
    ----------
    pixels : uint8 array of (H, W, 3)
        With `largest_side(min(H, W)) >= side`.
    side : int
        In pixels.
    rng : numpy.random.Generator

    Returns
    -------
    uint8 array of (side, side, 3)
    box : (int, int, int)
        Top, left and side of the native window.
    """
    short = min(pixels.shape[:2])
    cut = round(side / rng.uniform(*FACTORS)) + 2
    cut = min(cut, short, max(WINDOW, round(side / FACTORS[1]) + 2))
    top, left = int(rng.integers(pixels.shape[0] - cut + 1)), int(rng.integers(pixels.shape[1] - cut + 1))
    window = np.ascontiguousarray(pixels[top : top + cut, left : left + cut])
    return resample(window, rng, side), (top, left, cut)


def choose(candidates: Iterable[Sized], rng: np.random.Generator) -> Sized:
    """One picture, its source drawn with the square root of the source's size.

    Evenly over the sources would wear out the small ones, evenly over the pictures would be the large ones only.

    Raises
    ------
    ForgeError
        There is none.
    """
    by_source: dict[str, list[Sized]] = {}
    for one in candidates:
        by_source.setdefault(one.photo.source, []).append(one)
    if not by_source:
        raise ForgeError("no picture is left to choose from")
    names = sorted(by_source)
    weights = np.sqrt([len(by_source[n]) for n in names])
    chosen = by_source[names[int(rng.choice(len(names), p=weights / weights.sum()))]]
    return chosen[int(rng.integers(len(chosen)))]
