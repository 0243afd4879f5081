"""Task-model alignment as a mechanism: each task is shown the cues that are its own, and not the others'.

A semantic model that sees pixel traces learns them instead of meaning, and a pixel model that sees resampled pixels
sees the resampler's traces. So the semantic view erases the finest scale, and the pixel view never resamples
(Task-Model Alignment, arXiv 2512.06746). Both are functions of the pixels alone: the same picture gives the same view,
whatever file it came in.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tellsign.decoding.quiet import quiet_pillow  # for plugins that open a file's bytes again
from tellsign.errors import SettingError
from tellsign.schemas import (
    Box,
    Picture,
    PixelView,
    ProvenanceView,
    SegmentationView,
    SemanticView,
    Task,
    View,
)

CROP_KINDS = ("texture", "smooth", "random", "texture", "random")
"""Why the first, second, ... crop is taken; begins anew for more crops."""

MAX_ASPECT = 4
"""The semantic view's longer side is at most this many times its size; a strip is scaled down further."""

CENTRE = 336
"""Side of the centre crop in pixels, with which DDA, AlignGemini's pixel branch (arXiv 2512.06746), is published."""

_STRIDE = 4
"""Detail is measured at every fourth pixel both ways, between neighbours at native resolution."""

_MOST_SHARED = 0.5
"""Share of a crop's area that a crop taken before may cover, in pictures that are too small for disjoint crops."""


def build_view(task: Task, picture: Picture, key: str) -> View:
    """The view that `task` is given, at its default size.

    Parameters
    ----------
    task : Task
        What the plugin looks at; reasoning is shown what semantic is shown.
    picture : Picture
        The decoded picture.
    key : str
        Identifies the view within one call.

    Returns
    -------
    View
        Of the class that `tellsign.schemas.VIEW_OF_TASK` names.
    """
    builders: dict[Task, Callable[..., View]] = {
        Task.SEMANTIC: semantic_view,
        Task.REASONING: semantic_view,
        Task.PIXEL: pixel_view,
        Task.SEGMENTATION: segmentation_view,
        Task.PROVENANCE: provenance_view,
    }
    if not isinstance(task, Task):
        raise SettingError("task", "one of " + ", ".join(Task), task)
    return builders[task](picture, key=key)


def segmentation_view(picture: Picture, *, key: str) -> SegmentationView:
    """Native pixels as they are; see `tiles`."""
    return SegmentationView(key=key, image=picture.pixels)


def provenance_view(picture: Picture, *, key: str) -> ProvenanceView:
    """The file's bytes and facts; both None for a picture that had no file."""
    return ProvenanceView(key=key, original=picture.original, facts=picture.facts)


def semantic_view(
    picture: Picture, *, key: str, size: int = 336, quality: int = 70, blur: float = 0.7, noise: float = 0.0
) -> SemanticView:
    """The whole picture with its meaning kept and its pixel traces erased.

    Antialiased down to at most half its native resolution, brought to `size`, lightly blurred, and saved once as JPEG
    (4:2:0). Halving takes the upper half of the spectrum with it, where up-sampling and sensor traces live, from small
    pictures too: those are enlarged again afterwards.

    Parameters
    ----------
    picture : Picture
        The decoded picture; its overview where it has one.
    key : str
        Identifies the view within one call.
    size : int
        Pixels of the shorter side, 16 or more. The aspect is kept; where it is above `MAX_ASPECT` the longer side is
        `MAX_ASPECT * size` and the shorter one less than `size`.
    quality : int
        JPEG quality from 1 to 100.
    blur : float
        Standard deviation of the Gaussian blur in pixels of the view; 0 is none.
    noise : float
        Standard deviation of additive Gaussian noise in grey levels, drawn from the picture's content; 0 is none.

    Returns
    -------
    SemanticView
        `image` uint8 RGB (h, w, 3); `width` and `height` are the picture's own.
    """
    if not isinstance(size, int) or size < 16:
        raise SettingError("size", "an integer of at least 16", size)
    if not isinstance(quality, int) or not 1 <= quality <= 100:
        raise SettingError("quality", "an integer from 1 to 100", quality)
    for name, value in (("blur", blur), ("noise", noise)):
        if not 0 <= value < 100:
            raise SettingError(name, "a number from 0 to below 100", value)
    picture = picture.whole
    width, height = picture.width, picture.height
    scale = min(size / min(width, height), MAX_ASPECT * size / max(width, height))
    image = Image.fromarray(picture.pixels)
    if scale > 0.5:
        half = (max(1, width // 2), max(1, height // 2))
        image = image.resize(half, Image.Resampling.BICUBIC)
    target = (max(1, round(width * scale)), max(1, round(height * scale)))
    # reducing_gap: whole blocks are averaged first, down to twice the target; a fifth of the time on a large picture.
    image = image.resize(target, Image.Resampling.BICUBIC, reducing_gap=2.0)
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    if noise:
        small = np.asarray(image, np.float32)
        drawn = _rng(small.astype(np.uint8), 0).normal(0, noise, small.shape)
        image = Image.fromarray(np.clip(np.rint(small + drawn), 0, 255).astype(np.uint8))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file, formats=("JPEG",)) as saved:
        pixels = np.array(saved)
    return SemanticView(key=key, image=pixels, width=width, height=height)


def pixel_view(
    picture: Picture, *, key: str, size: int = 224, count: int = 5, minimum: int = 128, seed: int = 0
) -> PixelView:
    """Native-resolution crops, never resampled.

    The kinds take turns as in `CROP_KINDS`: texture-rich crops, where synthesis has most to invent; a smooth one, where
    noise shows bare, but not a flat or clipped one while there are others; and random ones, each the farthest from the
    crops before it of a few drawn places, so that the crops are spread. Crops do not overlap in pictures that hold
    `count` disjoint ones. Places depend on the pixels and `seed` alone.

    Parameters
    ----------
    picture : Picture
        The decoded picture.
    key : str
        Identifies the view within one call.
    size : int
        Side of a crop in pixels; where the picture's shorter side is below it, that side.
    count : int
        Crops at most. Fewer where further ones would nearly repeat those before.
    minimum : int
        Shorter side in pixels below which there are no crops.
    seed : int
        Another seed gives other random crops.

    Returns
    -------
    PixelView
        `crops` uint8 RGB (s, s, 3) each with s = min(size, width, height), or none.
    """
    for name, value in (("size", size), ("count", count), ("minimum", minimum)):
        if not isinstance(value, int) or value < 1:
            raise SettingError(name, "an integer of at least 1", value)
    pixels = picture.pixels
    height, width = pixels.shape[:2]
    side = min(size, width, height)
    chosen: list[tuple[int, int]] = []
    kinds: list[str] = []
    if min(width, height) >= minimum:
        places = _places(width, height, side, count)
        detail, plain = _measure(pixels, places, side)
        rng = _rng(pixels[:: 4 * _STRIDE, :: 4 * _STRIDE], seed)
        free = np.ones(len(places), bool)
        while free.any() and len(chosen) < count:
            kind = CROP_KINDS[len(chosen) % len(CROP_KINDS)]
            index = _choose(kind, places, detail, plain, free, chosen, rng)
            chosen.append((int(places[index, 0]), int(places[index, 1])))
            kinds.append(kind)
            free &= _shared(places, places[index], side) <= _MOST_SHARED
    boxes = tuple(Box(x, y, x + side, y + side) for x, y in chosen)
    return PixelView(
        key=key,
        crops=tuple(pixels[b.top : b.bottom, b.left : b.right].copy() for b in boxes),
        boxes=boxes,
        kinds=tuple(kinds),
        width=width,
        height=height,
        centre=_centre(pixels) if boxes else None,
    )


def _centre(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle (h, w, 3) of a picture, at most `CENTRE` px a side."""
    # Rounded as torchvision's CenterCrop does it, with which DDA is published.
    top, left = (round(max(0, n - CENTRE) / 2) for n in pixels.shape[:2])
    return pixels[top : top + CENTRE, left : left + CENTRE].copy()


def _rng(pixels: NDArray[np.uint8], seed: int) -> np.random.Generator:
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=8, key=str(seed).encode()[:64])
    return np.random.default_rng(int.from_bytes(digest.digest(), "little"))


def _places(width: int, height: int, side: int, count: int) -> NDArray[np.int64]:
    """Upper left corners (x, y) that crops may have, (n, 2)."""
    columns, rows = width // side, height // side
    if columns * rows >= count:
        # Cells of a grid that reaches both edges: disjoint whichever are taken.
        xs = np.linspace(0, width - side, columns).astype(int)
        ys = np.linspace(0, height - side, rows).astype(int)
    else:
        step = max(1, side // 4)
        xs = np.unique(np.append(np.arange(0, width - side + 1, step), width - side))
        ys = np.unique(np.append(np.arange(0, height - side + 1, step), height - side))
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    return grid.astype(np.int64)


def _measure(
    pixels: NDArray[np.uint8], places: NDArray[np.int64], side: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean absolute difference between neighbours in green, and the share without any, for each place."""
    rows = pixels[::_STRIDE]
    left = rows[:, :-1:_STRIDE, 1].astype(np.int16)
    difference = np.abs(rows[:, 1::_STRIDE, 1][:, : left.shape[1]] - left)
    at = np.minimum(places // _STRIDE, np.array(difference.shape[::-1]) - 1)
    end = np.minimum(at + max(1, side // _STRIDE), np.array(difference.shape[::-1]))
    area = np.maximum((end - at).prod(axis=1), 1)

    def means(values: NDArray[Any]) -> NDArray[np.float64]:
        sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1), np.int64)
        np.cumsum(np.cumsum(values, axis=0, dtype=np.int64), axis=1, out=sums[1:, 1:])
        (x0, y0), (x1, y1) = at.T, end.T
        total: NDArray[np.float64] = (sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]) / area
        return total

    return means(difference), means(difference == 0)


def _choose(
    kind: str,
    places: NDArray[np.int64],
    detail: NDArray[np.float64],
    plain: NDArray[np.float64],
    free: NDArray[np.bool_],
    chosen: list[tuple[int, int]],
    rng: np.random.Generator,
) -> int:
    """Index of the next crop's place among those that are free."""
    candidates = np.flatnonzero(free)
    if kind == "texture":
        return int(candidates[np.argmax(detail[candidates])])
    if kind == "smooth":
        lively = candidates[plain[candidates] <= 0.5]
        candidates = lively if len(lively) else candidates
        return int(candidates[np.argmin(detail[candidates])])
    drawn = rng.choice(candidates, size=min(8, len(candidates)), replace=False)
    if not chosen:
        return int(drawn[0])
    distances = np.abs(places[drawn][:, None] - np.array(chosen)[None]).max(axis=2).min(axis=1)
    return int(drawn[np.argmax(distances)])


def _shared(places: NDArray[np.int64], place: NDArray[np.int64], side: int) -> NDArray[np.float64]:
    """Share of a crop's area that the crop at `place` covers, for a crop at each place."""
    overlap = np.maximum(0, side - np.abs(places - place)).prod(axis=1)
    return np.asarray(overlap / side**2)


def tiles(image: NDArray[Any], size: int = 512, overlap: int = 64) -> Iterator[tuple[Box, NDArray[Any]]]:
    """Cut an image or a map into square tiles at native resolution.

    Parameters
    ----------
    image : numpy.ndarray
        (H, W) or (H, W, C) of any dtype.
    size : int
        Side of a tile in pixels.
    overlap : int
        Pixels that neighbours share at least, from 0 to below `size`.

    Yields
    ------
    box : Box
        The part of the image that the tile shows, inside the image.
    tile : numpy.ndarray
        (size, size) or (size, size, C). Where the image is smaller than a tile it is mirrored on the right and below,
        and the box is smaller than the tile.
    """
    if not isinstance(size, int) or size < 1:
        raise SettingError("size", "an integer of at least 1", size)
    if not isinstance(overlap, int) or not 0 <= overlap < size:
        raise SettingError("overlap", f"an integer from 0 to below size ({size})", overlap)
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise SettingError("image", "an array (H, W) or (H, W, C) that is not empty", f"shape {image.shape}")
    height, width = image.shape[:2]
    for top in _starts(height, size, overlap):
        for left in _starts(width, size, overlap):
            box = Box(left, top, min(left + size, width), min(top + size, height))
            tile = image[box.top : box.bottom, box.left : box.right]
            if tile.shape[:2] != (size, size):
                missing = [(0, size - tile.shape[0]), (0, size - tile.shape[1])] + [(0, 0)] * (image.ndim - 2)
                tile = np.pad(tile, missing, mode="symmetric")
            yield box, tile


def _starts(length: int, size: int, overlap: int) -> list[int]:
    """Where tiles begin along one axis: evenly, the last one flush with the end."""
    if length <= size:
        return [0]
    steps = -(-(length - size) // (size - overlap))
    return [round(i * (length - size) / steps) for i in range(steps + 1)]


def stitch(parts: Iterable[NDArray[Any]], boxes: Iterable[Box], shape: tuple[int, ...]) -> NDArray[Any]:
    """Put tiles, or what a model made of each, together again.

    Where tiles overlap they are averaged with weights that fall towards a tile's edges, so that no seam shows.
    `stitch` of what `tiles` gave is the image.

    Parameters
    ----------
    parts : iterable of numpy.ndarray
        (h, w) or (h, w, C) each, at least as large as its box; what is beyond the box is padding and is cut off.
    boxes : iterable of Box
        As many, in the same order.
    shape : tuple of int
        (H, W) or (H, W, C) of the whole.

    Returns
    -------
    numpy.ndarray
        Of `shape` and the parts' dtype; integers are rounded.
    """
    total = np.zeros(shape, np.float64)
    weights = np.zeros(shape[:2], np.float64)
    dtype: Any = None
    for part, box in zip_longest(parts, boxes):
        if part is None or box is None:
            missing = "box" if box is None else "part"
            raise SettingError("parts", "as many arrays as there are boxes", f"one {missing} too few")
        if part.ndim != len(shape) or part.shape[0] < box.height or part.shape[1] < box.width:
            need = (box.height, box.width, *shape[2:])
            raise SettingError("parts", f"an array of at least {need} for {box}", f"shape {part.shape}")
        if box.right > shape[1] or box.bottom > shape[0]:
            raise SettingError("boxes", f"boxes inside {shape[:2]}", box)
        dtype = part.dtype if dtype is None else dtype
        weight = _ramp(box.height)[:, None] * _ramp(box.width)[None]
        where = (slice(box.top, box.bottom), slice(box.left, box.right))
        inside = part[: box.height, : box.width]
        total[where] += inside * (weight if len(shape) == 2 else weight[..., None])
        weights[where] += weight
    if dtype is None or not weights.all():
        bare = int((weights == 0).sum())
        raise SettingError("boxes", f"boxes that cover {shape[:2]} together", f"{bare} pixels without a tile")
    total /= weights if len(shape) == 2 else weights[..., None]
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
        np.rint(total, out=total)
    return total.astype(dtype)


def _ramp(length: int) -> NDArray[np.float64]:
    """1 at both ends of a tile, rising towards its middle."""
    rise = np.arange(1, length + 1)
    return np.minimum(rise, rise[::-1]).astype(np.float64)


__all__ = [
    "CROP_KINDS",
    "MAX_ASPECT",
    "build_view",
    "pixel_view",
    "provenance_view",
    "quiet_pillow",
    "segmentation_view",
    "semantic_view",
    "stitch",
    "tiles",
]
