"""Garbled lettering: large lines that are read well and hold words of no language."""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from .lexicon import is_word, words
from .reading import Line

MOST_LINES = 6
"""Lines above which a picture is a document or a screen: old spelling, handwriting, and names of programs."""
SURE = 0.8
"""How sure the reading of a line must be: letters that cannot be made out may be any script."""
LONG = 5
"""Letters of the shortest unknown word that counts."""
LETTERS = 9
"""Letters in unknown words that it takes: one short word may be a name."""
_ADDRESS = re.compile(r"\w\.\w|[@/\\_=#<>{}|]|\d")
"""In a line that looks like an address, a path or code every word may be made up."""
_INNER_CAPITAL = re.compile(r"[a-z][A-Z]")
"""Products and programs write their names so."""


@attrs.frozen(kw_only=True)
class Garbled:
    """What was found."""

    unknown: tuple[str, ...]
    known: tuple[str, ...]
    box: tuple[float, float, float, float]
    """Around the lines with unknown words; left, top, right, bottom."""

    @property
    def strength(self) -> float:
        """Share of letters that are in unknown words, in [0, 1]."""
        wrong = sum(map(len, self.unknown))
        return float(wrong / (wrong + sum(map(len, self.known))))


def garbled(lines: Sequence[Line], *, sure: float = SURE, letters: int = LETTERS) -> Garbled | None:
    """Whether lettering is garbled.

    Parameters
    ----------
    lines : sequence of Line
        Of one picture, as `read` gives them.
    sure, letters
        See `SURE` and `LETTERS`.

    Returns
    -------
    Garbled or None
        None where there is no such lettering, or the picture is a document or a screen.

    Raises
    ------
    UnavailableError
        The extra `lettering` is not installed.
    """
    if len(lines) > MOST_LINES:
        return None
    # Rare words take seconds to load, and can only make a word known.
    common = _judged(lines, sure, letters, rare=False)
    return None if common is None else _judged(lines, sure, letters, rare=True)


def _judged(lines: Sequence[Line], sure: float, letters: int, *, rare: bool) -> Garbled | None:
    unknown: list[str] = []
    known: list[str] = []
    boxes = []
    for line in lines:
        if line.sure < sure or _ADDRESS.search(line.text):
            continue
        told = words(line.text)
        wrong = [w for w in told if not is_word(w, rare=rare)]
        known += [w for w in told if w not in wrong]
        long = [w for w in wrong if len(w) >= LONG]
        if long and not _INNER_CAPITAL.search(line.text):
            unknown += long
            boxes.append(line.box)
    wrong_letters = sum(map(len, dict.fromkeys(unknown)))
    if wrong_letters < letters or sum(map(len, known)) >= wrong_letters:
        return None
    left, top, right, bottom = zip(*boxes, strict=True)
    return Garbled(
        unknown=tuple(dict.fromkeys(unknown)),
        known=tuple(dict.fromkeys(known)),
        box=(min(left), min(top), max(right), max(bottom)),
    )


__all__ = ["LETTERS", "LONG", "MOST_LINES", "SURE", "Garbled", "garbled"]
