"""The re-encode probe: a verdict that flips when the picture is saved again is no verdict.

Most wrong answers of such detectors come from how the file was saved and not from what it shows. So a picture with a
definite verdict is saved again at two JPEG qualities, and what looks at its pixels or meaning looks at those copies
too. An uncertain one cannot flip and is not looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tellsign.schemas import DEFINITE_LABELS, Label, Notice, Picture, Task

QUALITIES = (85, 70)
"""JPEG qualities of the copies: what a messenger and what a careful web site make of a picture."""

PROBED = frozenset({Task.PIXEL, Task.SEMANTIC})
"""Tasks that look at the copies. The others keep their evidence: provenance is about the file as it came, and
regions and reasons cost too much to be had three times."""

ORIGINAL = "original"
"""Name of the picture as it came, beside the copies' "jpeg85" and "jpeg70"."""


def saved_again(picture: Picture) -> Iterator[tuple[str, Picture]]:
    """The picture's copies, each under its name; they have pixels and no file."""
    from .decoding import reencode

    for quality in QUALITIES:
        whole = picture.overview
        yield (
            f"jpeg{quality}",
            Picture(
                pixels=reencode(picture.pixels, quality=quality),
                source=picture.source,
                overview=None if whole is None else Picture(pixels=reencode(whole.pixels, quality=quality)),
            ),
        )


def flip(label: Label, copies: Mapping[str, Label]) -> Notice | None:
    """Say how the verdict flips, None where it does not.

    Parameters
    ----------
    label : Label
        Of the picture as it came.
    copies : mapping of str to Label
        Of its copies, by name. A definite label that becomes `uncertain` is no flip: saving a picture again takes
        traces away, and less evidence for the same thing is not a contradiction.
    """
    others = {name: other for name, other in copies.items() if other in DEFINITE_LABELS and other is not label}
    if label not in DEFINITE_LABELS or not others:
        return None
    changes = ", ".join(f"{other} as {name}" for name, other in others.items())
    return Notice(
        code="unstable", message=f"the verdict changes when the picture is saved again: {label}, but {changes}"
    )


__all__ = ["ORIGINAL", "PROBED", "QUALITIES", "flip", "saved_again"]
