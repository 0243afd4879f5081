"""What is known of a picture for certain, and nothing else: the ground that its texts stand on.

Where a picture comes from is known (the data say it), what a forger did and where is known (the manifest of `tellsign
forge` says it), and which artifacts annotators marked is known (X-AIGD). How bright or colourful the picture is can be
measured. Nothing here guesses at what a picture shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from tellsign.schemas import Category

PLACES = (
    "at the top left",
    "at the top",
    "at the top right",
    "on the left",
    "in the middle",
    "on the right",
    "at the bottom left",
    "at the bottom",
    "at the bottom right",
)
"""Where a region's centre of mass can lie: thirds of the picture, row by row."""
WHOLE = ("", "untouched", "generated", "enhanced")
"""Kinds in which no region differs from the rest."""
SYNTHESISED = ("blend", "inpaint", "aisplice", "roundtrip", "upscale")
"""Kinds whose region a network made."""
MOVED = ("copymove", "splice", "classical")
"""Kinds whose region holds no synthesised pixel."""


@attrs.frozen(kw_only=True)
class Facts:
    """What is known of one picture."""

    fake: bool
    """There are synthesised pixels."""
    content: str = ""
    """"photo", "art", "screenshot" or "scan" for real pictures of one kind; empty where it is not known."""
    kind: str = ""
    """Kind of forgery, empty where nobody forged it."""
    region: str = ""
    """Of `PLACES`; empty where no region differs."""
    share: float = 0.0
    """Of the region, 0 to 1."""
    look: Mapping[str, str] = attrs.field(factory=dict)
    """What `look_of` measured."""
    artifacts: tuple[tuple[Category, str], ...] = ()
    """Annotated artifacts with their places."""

    def __attrs_post_init__(self) -> None:
        if self.kind not in (*WHOLE, *SYNTHESISED, *MOVED):
            raise ValueError(f"kind takes a kind of `tellsign forge`, or nothing, got {self.kind!r}")
        if self.region not in ("", *PLACES):
            raise ValueError(f"region takes one of {', '.join(PLACES)}, or nothing, got {self.region!r}")


def place_of(region: NDArray[np.bool_]) -> str:
    """Where a region lies.

    Parameters
    ----------
    region : bool array of (H, W)
        Not empty.
    """
    if not region.any():
        raise ValueError("region takes a mask that is not empty")
    rows, columns = np.nonzero(region)
    row, column = (int(3 * (v.mean() + 0.5) / n) for v, n in zip((rows, columns), region.shape, strict=True))
    return PLACES[3 * row + column]


def look_of(square: NDArray[np.uint8]) -> dict[str, str]:
    """How a picture looks, measured on what the model is shown of it.

    Parameters
    ----------
    square : uint8 array of (s, s, 3)

    Returns
    -------
    dict from str to str
        "light": dark, bright or evenly lit; "colour": nearly grey, strongly coloured or muted; "tint": warm, cool or
        none; "contrast": flat, harsh or moderate; "weight": where most of the detail is.
    """
    x = square.astype(np.float32) / 255
    grey = x.mean(axis=2)
    spread = x.max(axis=2) - x.min(axis=2)
    warm = float((x[..., 0] - x[..., 2]).mean())
    steps = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    thirds = np.array_split(np.arange(len(steps)), 3)
    middle = float(steps[np.ix_(thirds[1], thirds[1])].mean() / max(float(steps.mean()), 1e-6))
    return {
        "light": _step(float(grey.mean()), (0.3, "dark"), (0.65, "evenly lit"), "bright"),
        "colour": _step(float(spread.mean()), (0.06, "nearly grey"), (0.25, "muted in colour"), "strongly coloured"),
        "tint": _step(warm, (-0.06, "cool"), (0.1, "neutral"), "warm"),
        "contrast": _step(float(grey.std()), (0.13, "low"), (0.26, "moderate"), "high"),
        "weight": _step(middle, (0.85, "towards the edges"), (1.35, "spread evenly"), "in the middle"),
    }


def _step(value: float, low: tuple[float, str], high: tuple[float, str], above: str) -> str:
    return low[1] if value < low[0] else high[1] if value < high[0] else above


def annotated(
    polygons: Sequence[Sequence[Sequence[float]]], names: Sequence[str], height: int, width: int
) -> tuple[tuple[Category, str], ...]:
    """X-AIGD's annotations of one picture as facts.

    Parameters
    ----------
    polygons : sequence of sequences of (x, y)
        In pixels; those of fewer than three points are left out.
    names : sequence of str
        The category of each, spelled as in the data set.
    height, width : int

    Raises
    ------
    ValueError
        A name is none of the seven, or there are not as many as polygons.
    """
    if len(polygons) != len(names):
        raise ValueError(f"names takes one name for each of {len(polygons)} polygons, got {len(names)}")
    found: list[tuple[Category, str]] = []
    for points, name in zip(polygons, names, strict=True):
        if len(points) < 3:
            continue
        x, y = np.asarray(points, np.float64).mean(axis=0)
        row, column = (min(2, max(0, int(3 * v / n))) for v, n in ((y, height), (x, width)))
        fact = (Category(name), PLACES[3 * row + column])
        if fact not in found:
            found.append(fact)
    return tuple(found)
