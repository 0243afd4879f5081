"""Looks at a whole picture through native tiles, coarse to fine, and stitches what the tiles say.

A picture of up to `MOST` tiles is looked at completely. Of a larger one, half of the tiles are spent on an even
selection (coarse), and the rest one by one beside the most suspicious of them (fine); what was never looked at takes
the mean of the nearest tile that was. Pixels are never resampled, so that traces stay what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tellsign.schemas import Box
from tellsign.views import stitch, tiles

from .model import CELL, MASKS

TILE = 320
"""Side of a tile in pixels; a smaller picture is one tile of its own size."""
OVERLAP = 32
"""Pixels that neighbouring tiles share at least."""
MOST = 24
"""Tiles that one picture is given at most; they cover about two megapixels. `training speed` says what they cost."""
MINIMUM = 128
"""Shorter side in pixels below which nothing is said: a handful of cells is no map."""

Forward = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""uint8 tiles (B, H, W, 3) to class logits (B,) and mask probabilities (B, h, w, 2)."""


@attrs.frozen(eq=False)
class Scan:
    """What the tiles said of one picture."""

    logits: NDArray[np.float32]
    """Class logit of each tile that was looked at, (n,)."""
    maps: dict[str, NDArray[np.float32]]
    """By mask: probabilities (rows, columns) of cells of `CELL` px."""
    looked: float
    """Share of the tiles that were looked at; 1 up to about two megapixels."""


def forward_of(model: nn.Module, device: torch.device) -> Forward:
    """A model as `scan` wants it."""

    def forward(batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode():
            out = model(torch.from_numpy(batch).to(device), coarse=True)
            masks = torch.cat([getattr(out, name) for name in MASKS], dim=1).sigmoid()
        return (
            out.logit[:, 0].float().cpu().numpy(),
            masks.permute(0, 2, 3, 1).float().cpu().numpy(),
        )

    return forward


def scan(
    image: NDArray[np.uint8],
    forward: Forward,
    *,
    batch: int = 8,
    tile: int = TILE,
    overlap: int = OVERLAP,
    most: int = MOST,
) -> Scan:
    """Look at a picture.

    Parameters
    ----------
    image : uint8 array of (H, W, 3)
    forward : callable
        See `forward_of`.
    batch : int
        Tiles per forward pass.
    tile, overlap : int
        In pixels, multiples of `CELL`.
    most : int
        Tiles at most, 2 or more.
    """
    grid = (-(-image.shape[0] // CELL), -(-image.shape[1] // CELL))
    # Tiles are laid out in cells, so that what they say lies on one grid.
    empty = np.broadcast_to(np.zeros(1, np.bool_), grid)
    boxes = [box for box, _ in tiles(empty, tile // CELL, overlap // CELL)]
    order, fine = coarse_places(boxes, most)
    said: dict[int, tuple[np.float32, NDArray[np.float32]]] = {}
    _look(image, [boxes[i] for i in order], forward, batch, order, said)
    while fine and len(said) < min(most, len(boxes)):
        chosen = fine_places(boxes, said, min(batch, most - len(said)))
        _look(image, [boxes[i] for i in chosen], forward, batch, chosen, said)
    parts = [said[i][1] if i in said else _guess(boxes, said, i) for i in range(len(boxes))]
    whole = stitch(parts, boxes, (*grid, len(MASKS)))
    return Scan(
        np.array([said[i][0] for i in sorted(said)], np.float32),
        {name: np.ascontiguousarray(whole[..., i]).clip(0, 1) for i, name in enumerate(MASKS)},
        len(said) / len(boxes),
    )


def _look(
    image: NDArray[np.uint8],
    boxes: Sequence[Box],
    forward: Forward,
    batch: int,
    numbers: Sequence[int],
    said: dict[int, tuple[np.float32, NDArray[np.float32]]],
) -> None:
    for start in range(0, len(boxes), batch):
        part = boxes[start : start + batch]
        logits, masks = forward(np.stack([pixels(image, b) for b in part]))
        for number, logit, mask in zip(numbers[start : start + batch], logits, masks, strict=True):
            said[number] = (logit, mask)


def pixels(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The pixels (h, w, 3) under a box of cells; mirrored where the last cells reach beyond the picture."""
    piece = image[box.top * CELL : box.bottom * CELL, box.left * CELL : box.right * CELL]
    missing = (box.height * CELL - piece.shape[0], box.width * CELL - piece.shape[1])
    if any(missing):
        piece = np.pad(piece, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
    return np.ascontiguousarray(piece)


def coarse_places(boxes: Sequence[Box], most: int) -> tuple[list[int], bool]:
    """Numbers of the tiles that are looked at first, and whether a second round follows.

    All of them where there are at most `most`; else about half of `most`, spread evenly.
    """
    if len(boxes) <= most:
        return list(range(len(boxes))), False
    count = max(1, most // 2)
    # A low-discrepancy walk over rows and columns spreads any number of tiles.
    rows = {t: i for i, t in enumerate(sorted({b.top for b in boxes}))}
    columns = {x: i for i, x in enumerate(sorted({b.left for b in boxes}))}
    keys = [
        ((rows[b.top] + 0.5) / len(rows) * 0.7548776662 + (columns[b.left] + 0.5) * 0.5698402910) % 1 for b in boxes
    ]
    walk = sorted(range(len(boxes)), key=lambda i: (keys[i], i))
    return sorted(walk[round(k * len(boxes) / count)] for k in range(count)), True


def fine_places(boxes: Sequence[Box], said: dict[int, tuple[np.float32, NDArray[np.float32]]], count: int) -> list[int]:
    """The next `count` tiles: those beside the most suspicious tile that has a neighbour nobody looked at."""
    suspicion = {i: float(mask.max(axis=-1).mean()) for i, (_, mask) in said.items()}

    def key(i: int) -> tuple[float, int, int]:
        near = _nearest(boxes, suspicion, i)
        return (-suspicion[near], _distance(boxes[i], boxes[near]), i)

    return sorted((i for i in range(len(boxes)) if i not in said), key=key)[:count]


def _nearest(boxes: Sequence[Box], known: dict[int, float], i: int) -> int:
    """The known tile nearest to tile `i`; the most suspicious of several."""
    return min(known, key=lambda j: (_distance(boxes[i], boxes[j]), -known[j], j))


def _distance(one: Box, other: Box) -> int:
    return max(abs(one.top - other.top), abs(one.left - other.left))


def _guess(
    boxes: Sequence[Box], said: dict[int, tuple[np.float32, NDArray[np.float32]]], i: int
) -> NDArray[np.float32]:
    mean = dict.fromkeys(said, 0.0)
    mask = said[_nearest(boxes, mean, i)][1]
    return np.broadcast_to(mask.mean(axis=(0, 1)), (boxes[i].height, boxes[i].width, mask.shape[-1]))
