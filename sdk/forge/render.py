"""Makes one forgery of a scene."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from .blend import blend
from .classical import FILLS, grain
from .copymove import copy_move
from .enhance import DENOISE, denoised
from .errors import ForgeError
from .inpaint import inpainted
from .scene import Scene, View, World, view
from .splice import splice
from .upscale import upscaled

_TRIES = 10


@attrs.frozen(kw_only=True)
class Forged:
    """A forgery before it is saved."""

    pixels: NDArray[np.uint8]
    base: View
    tool: str = ""
    donor: View | None = None
    inside: dict[str, Any] = attrs.field(factory=dict)
    """How the region came about, for the provenance."""


def render(kind: str, scene: Scene, world: World, rng: np.random.Generator) -> Forged:
    """One forgery.

    Parameters
    ----------
    kind : str
        One of `labels.KINDS`.
    scene : Scene
    world : World
    rng : numpy.random.Generator

    Raises
    ------
    ForgeError
        This scene gives no forgery of this kind.
    """
    return _MAKERS[kind](scene, world, rng)


def _untouched(scene: Scene, world: World, rng: np.random.Generator) -> Forged:
    return Forged(pixels=scene.base.pixels, base=scene.base)


def _generated(scene: Scene, world: World, rng: np.random.Generator) -> Forged:
    made = view(world.generated, world, rng, scene.side)
    return Forged(pixels=made.pixels, base=made, tool=made.photo.source)


def _tool(kind: str, world: World, rng: np.random.Generator) -> str:
    names = world.tools.of(kind)
    return names[int(rng.integers(len(names)))]


def _inpaint(scene: Scene, world: World, rng: np.random.Generator) -> Forged:
    tool = _tool("inpaint", world, rng)
    out = inpainted(world.tools.plain[tool], scene.base.pixels, scene.region.mask, rng, plain=True)
    return Forged(pixels=out, base=scene.base, tool=tool, inside={"inpainted": tool, "outside": tool})


def _blend(scene: Scene, world: World, rng: np.random.Generator) -> Forged:
    tool = _tool("blend", world, rng)
    out = inpainted(world.tools.blend[tool], scene.base.pixels, scene.region.mask, rng, plain=False)
    return _blended(scene, out, tool, {"inpainted": tool})


def _roundtrip(scene: Scene, world: World, rng: np.random.Generator) -> Forged:
    tool = _tool("roundtrip", world, rng)
    return _blended(scene, world.tools.roundtrip[tool](scene.base.pixels, rng), tool, {"round trip": tool})


def _upscale(scene: Scene, world: World, rng: np.random.Generator) -> Forged:
    tool = _tool("upscale", world, rng)
    out = upscaled(scene.base.pixels, scene.region.mask, world.tools.upscale[tool])
    return _blended(scene, out, tool, {"halved, then doubled by": tool})


def _classical(scene: Scene, world: World, rng: np.random.Generator) -> Forged:
    pixels, region = scene.base.pixels, scene.region.mask
    tool = sorted(FILLS)[int(rng.integers(len(FILLS)))]
    grainy = tool in ("peel", "sheet", "smooth") and rng.random() < 0.5
    try:
        out = FILLS[tool](pixels, region, rng)
    except ForgeError:  # a region that cannot be cloned can still be filled
        tool = "sheet"
        out = FILLS[tool](pixels, region, rng)
    inside: dict[str, Any] = {"filled": tool}
    if grainy:
        out, inside["grain"] = grain(out, pixels, region, rng, float(rng.uniform(0.5, 1.2)))
    return _blended(scene, out, tool, inside)


def _enhanced(scene: Scene, world: World, rng: np.random.Generator) -> Forged:
    given = world.tools.of("enhanced")
    tool = _tool("enhanced", world, rng) if given else DENOISE
    out = world.tools.enhance[tool](scene.base.pixels, rng) if given else denoised(scene.base.pixels, rng)
    return Forged(pixels=out, base=scene.base, tool=tool, inside={"enhanced": tool})


def _copymove(scene: Scene, world: World, rng: np.random.Generator) -> Forged:
    out, offset = copy_move(scene.base.pixels, scene.region.mask, rng, scene.region.offset)
    return Forged(pixels=out, base=scene.base, tool="copy", inside={"copied from (down, right)": list(offset)})


def _splice(scene: Scene, world: World, rng: np.random.Generator) -> Forged:
    return _spliced(scene, world, rng, generated=False)


def _aisplice(scene: Scene, world: World, rng: np.random.Generator) -> Forged:
    return _spliced(scene, world, rng, generated=True)


def _spliced(scene: Scene, world: World, rng: np.random.Generator, *, generated: bool) -> Forged:
    candidates = world.generated if generated else world.real
    for _ in range(_TRIES):
        donor = view(candidates, world, rng, scene.side, apart_from=scene.base.photo.group)
        try:
            out, place = splice(scene.base.pixels, donor.pixels, scene.region.mask, rng)
        except ForgeError:  # too small, which happens where pictures stay whole
            continue
        inside = {"pasted from (top, left)": list(place), "donor": donor.photo.name, "donor's window": donor.box}
        tool = donor.photo.source if generated else "paste"
        return Forged(pixels=out, base=scene.base, tool=tool, donor=donor, inside=inside)
    raise ForgeError("no donor is large enough for the region")


def _blended(scene: Scene, out: NDArray[np.uint8], tool: str, inside: dict[str, Any]) -> Forged:
    pixels = blend(scene.base.pixels, out, scene.region.mask)
    return Forged(pixels=pixels, base=scene.base, tool=tool, inside=inside)


_MAKERS: dict[str, Callable[[Scene, World, np.random.Generator], Forged]] = {
    "untouched": _untouched,
    "inpaint": _inpaint,
    "blend": _blend,
    "copymove": _copymove,
    "splice": _splice,
    "generated": _generated,
    "aisplice": _aisplice,
    "roundtrip": _roundtrip,
    "upscale": _upscale,
    "classical": _classical,
    "enhanced": _enhanced,
}
