"""A scene: one base and one region, which every kind of forgery that is made of it shares.

Kinds differ in nothing but what happens inside the region: not in where it is, how large, what shape, or on which
pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import ForgeError
from .masks import Mask, Propose, Region, draw_region
from .photos import SIDES, STEP, Photo, Sized, choose, erased_window, largest_side, pixels_of
from .tools import Tools

_TRIES = 20


@attrs.frozen(kw_only=True)
class World:
    """What scenes and forgeries are drawn from."""

    real: Sequence[Sized]
    """Bases and donors."""
    generated: Sequence[Sized]
    tools: Tools
    shares: Mapping[str, float]
    """Of the regions' shapes, see `masks.check_shares`."""
    keep: bool
    """Whole pictures with their history, instead of windows whose history is erased."""
    left_out: Callable[[Photo, str], None]
    """Told of pictures that turn out to be unreadable."""


@attrs.frozen(kw_only=True)
class View:
    """A picture as it enters a forgery."""

    photo: Photo
    pixels: NDArray[np.uint8]
    box: tuple[int, int, int] | None
    """Top, left and side of the native window; None for a whole picture."""


@attrs.frozen(kw_only=True)
class Scene:
    """One base with its region."""

    base: View
    region: Region

    @property
    def side(self) -> int:
        """Short side in pixels."""
        return int(min(self.base.pixels.shape[:2]))


def view(
    candidates: Sequence[Sized], world: World, rng: np.random.Generator, side: int | None, *, apart_from: str = ""
) -> View:
    """Draw a picture and read it.

    Parameters
    ----------
    candidates : sequence of Sized
    world : World
    rng : numpy.random.Generator
    side : int or None
        Of the window; None draws one (or takes the picture whole).
    apart_from : str, default ""
        A group that must not be drawn.

    Raises
    ------
    ForgeError
        None of those drawn could be read, or none is large enough.
    """
    fitting = [
        c
        for c in candidates
        if (not apart_from or c.photo.group != apart_from)
        and (world.keep or side is None or largest_side(c.short) >= side)
    ]
    for _ in range(_TRIES):
        if not fitting:
            break
        one = choose(fitting, rng)
        try:
            pixels = pixels_of(one.photo)
        except ForgeError as error:
            world.left_out(one.photo, str(error).removeprefix(f"{one.photo.name}: "))
            fitting = [c for c in fitting if c is not one]
            continue
        if world.keep:
            return View(photo=one.photo, pixels=pixels, box=None)
        wide = side or int(rng.integers(SIDES[0] // STEP, largest_side(one.short) // STEP + 1)) * STEP
        window, box = erased_window(pixels, wide, rng)
        return View(photo=one.photo, pixels=window, box=box)
    raise ForgeError("no picture is left that can be read and is large enough for this scene")


def draw_scene(world: World, rng: np.random.Generator) -> Scene:
    """One scene."""
    base = view(world.real, world, rng, None)
    height, width = base.pixels.shape[:2]
    propose: dict[str, Propose] = {}
    if world.tools.sam is not None:
        propose["sam"] = partial(world.tools.sam, base.pixels)
    if world.tools.annotations is not None:
        propose["annotation"] = partial(annotated, world.tools.annotations, base)
    region = draw_region(height, width, rng, shares=world.shares, propose=propose)
    return Scene(base=base, region=region)


def annotated(folder: Path, base: View) -> list[Mask]:
    """The masks of `folder` that are named after the picture ("stem.png", "stem_1.png", ...), cut to its window."""
    stem = base.photo.path.stem
    height, width = base.pixels.shape[:2]
    out = []
    for file in sorted(p for p in folder.iterdir() if p.stem == stem or p.stem.startswith(f"{stem}_")):
        try:
            with Image.open(file) as image:
                mask = image.convert("L")
        except OSError as error:
            raise ForgeError(f"the annotation {file.name} cannot be read") from error
        if base.box is not None:
            top, left, side = base.box
            mask = mask.crop((left, top, left + side, top + side)).resize((width, height), Image.Resampling.NEAREST)
        inside = np.asarray(mask) > 1
        if inside.shape != (height, width):
            raise ForgeError(
                f"the annotation {file.name} is {inside.shape[1]} x {inside.shape[0]} px, and its picture is "
                f"{width} x {height}"
            )
        out.append(inside)
    return out
