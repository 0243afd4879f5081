"""The decoder of invisible-watermark's "dwtDct" scheme, in numpy.

The scheme is Qingquan Wang's (invisible-watermark 0.2.0, MIT). A picture is taken to YUV; U is halved by one level of
the Haar transform; in every 4 x 4 block of the low band the largest value but the first is moved so that its remainder
by 36 is 9 or 27, which is one bit; bits repeat over the blocks in rows. The package itself needs OpenCV, PyWavelets and
torch for what is thirty lines here; a test holds the two against each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from .messages import MESSAGES, Message

SCALE = 36.0
BLOCK = 4
SMALLEST = 256 * 256
"""Pixels below which the scheme hides nothing."""
ENOUGH = 2_000_000
"""Pixels that are looked at, in whole rows from the top: beyond that every bit has been read hundreds of times."""


ASKED = 5.5
"""Standard deviations above chance at which a message counts as found. Chosen on real pictures of all splits but test,
of which one reached 4.8 (docs/provenance.md has what each split gives)."""


@attrs.frozen
class Match:
    """How well one message fits."""

    message: Message
    correlation: float
    """Of the blocks' votes for each bit with the message, in [-1, 1]."""

    @property
    def deviations(self) -> float:
        """The correlation in standard deviations of chance (Fisher's transform)."""
        return math.atanh(min(self.correlation, 1 - 1e-9)) * math.sqrt(len(self.message.bits) - 3)

    @property
    def found(self) -> bool:
        """Whether that is enough."""
        return self.deviations >= ASKED


def votes(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The bit that each block shows, row by row.

    Parameters
    ----------
    pixels : uint8 array (H, W, 3)
        RGB, as stored: a watermark does not survive being turned or resized.

    Returns
    -------
    bool array (blocks,)
        Empty for pictures below `SMALLEST`.
    """
    height, width = pixels.shape[:2]
    if height * width < SMALLEST or min(height, width) < 2 * BLOCK:
        return np.zeros(0, bool)
    rows = min(height, max(2 * BLOCK, ENOUGH // width))
    whole = pixels[: rows // 8 * 8, : width // 8 * 8].astype(np.float32)
    red, green, blue = whole[..., 0], whole[..., 1], whole[..., 2]
    luma = np.rint(0.299 * red + 0.587 * green + 0.114 * blue)
    u = np.clip(np.rint((blue - luma) * np.float32(0.492) + 128), 0, 255)
    low = (u[0::2, 0::2] + u[0::2, 1::2] + u[1::2, 0::2] + u[1::2, 1::2]) / 2
    down, across = low.shape[0] // BLOCK, low.shape[1] // BLOCK
    blocks = low.reshape(down, BLOCK, across, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK * BLOCK)[:, 1:]
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.asarray(np.abs(largest) % SCALE > SCALE / 2)


def shares(votes: NDArray[np.bool_], length: int) -> NDArray[np.float64]:
    """Share of the blocks that show a one, for each of `length` bits.

    The package's own decoder takes the majority, share above one half. A picture that was saved again leans to one
    side in all its bits, and the majority loses what the differences between them still say.
    """
    places = np.arange(votes.size) % length
    ones = np.bincount(places, weights=votes, minlength=length)
    return np.asarray(ones / np.maximum(np.bincount(places, minlength=length), 1))


def matches(pixels: NDArray[np.uint8], messages: Sequence[Message] = MESSAGES) -> list[Match]:
    """How well each message fits; empty where there is too little to read."""
    seen = votes(pixels)
    return [
        Match(m, _correlation(shares(seen, len(m.bits)), m.array)) for m in messages if seen.size >= 4 * len(m.bits)
    ]


def _correlation(shares: NDArray[np.float64], bits: NDArray[np.bool_]) -> float:
    a, b = shares - shares.mean(), bits - bits.mean()
    norm = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / norm if norm > 1e-9 else 0.0


__all__ = ["ASKED", "ENOUGH", "SMALLEST", "Match", "matches", "shares", "votes"]
