"""IPTC's digital source types, and what each amounts to.

The vocabulary is at cv.iptc.org/newscodes/digitalsourcetype; Content Credentials use the same terms and add two.
"""

from __future__ import annotations

import re

MEANINGS = {
    "trainedalgorithmicmedia": "generated",
    "compositewithtrainedalgorithmicmedia": "edited",
    "digitalcapture": "captured",
    "computationalcapture": "captured",
    "negativefilm": "captured",
    "positivefilm": "captured",
    "print": "captured",
}
"""Terms that say generated, edited or captured. All others ("digitalCreation", "algorithmicMedia", "humanEdits",
"compositeSynthetic", "algorithmicallyEnhanced", "screenCapture", ...) speak of pixels that no trained network need have
made."""

_TERM = re.compile(r"digitalsourcetype/([A-Za-z]{3,60})/?\s*$")


def term_of(value: object) -> str:
    """The term of a source type's address or bare name, "" where it is neither."""
    text = str(value).strip()[:300]
    match = _TERM.search(text)
    return match[1] if match else text if re.fullmatch(r"[A-Za-z]{3,60}", text) else ""


def meaning_of(value: object) -> str:
    """One of "generated", "edited", "captured" and "other"."""
    return MEANINGS.get(term_of(value).casefold(), "other")


IN_WORDS = {
    "generated": "made by a trained model",
    "edited": "edited with a trained model",
    "captured": "captured by a camera",
}

__all__ = ["IN_WORDS", "MEANINGS", "meaning_of", "term_of"]
