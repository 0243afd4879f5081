"""Long texts for encoders that read 77 tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

LIMIT = 75
"""Tokens of a chunk: CLIP reads 77, two of which mark beginning and end."""


def chunks(text: str, prefix: str, count: Callable[[str], int], *, limit: int = LIMIT) -> list[str]:
    """Split a text so that every part, with the prefix before it, fits the encoder.

    Parameters
    ----------
    text : str
        Without the prefix.
    prefix : str
        The label sentence; each part begins with it, so that no part forgets the label.
    count : callable
        Tokens of a text, marks of beginning and end not counted.
    limit : int

    Returns
    -------
    list of str
        At least one. Parts end at sentences where that fits, else between words; a single word that is too long by
        itself is left to the encoder to cut.

    Raises
    ------
    ValueError
        The prefix alone leaves no room.
    """
    if prefix and count(prefix) >= limit:
        raise ValueError(f"prefix takes a text of fewer than {limit} tokens, got {count(prefix)}")

    def joined(parts: Sequence[str]) -> str:
        return " ".join(p for p in (prefix, *parts) if p)

    out: list[str] = []
    now: list[str] = []
    for sentence in re.findall(r"\S.*?(?:[.!?]+(?=\s|$)|$)", text, re.DOTALL):
        pieces = [sentence] if count(joined([sentence])) <= limit else sentence.split()
        for piece in pieces:
            if now and count(joined([*now, piece])) > limit:
                out.append(joined(now))
                now = []
            now.append(piece)
    if now or not out:
        out.append(joined(now))
    return out
