"""What the readers share: JSON that may be anything, and a claim in one shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tellsign.plugins.provenance.claim import Claim

LONGEST = 1_000_000
"""Characters of a text that is parsed; ComfyUI's graphs are the longest, some hundred thousand."""


def parsed(text: str | None) -> Mapping[str, Any]:
    """A JSON object, empty where the text is none, or too long, or nested beyond reason."""
    if text is None or len(text) > LONGEST or not text.lstrip().startswith("{"):
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def word(value: object) -> str:
    """A text or number as text, "" for anything else (a list, an object, nothing)."""
    if isinstance(value, bool) or value is None:
        return ""
    return str(value) if isinstance(value, str | int | float) else ""


def first(found: Mapping[str, Any], *keys: str) -> str:
    """The first of these keys that holds a text or number."""
    return next((text for key in keys if (text := word(found.get(key)))), "")


def generated(
    generator: str, *, key: str, model: str = "", prompt: str = "", seed: str = "", detail: str = "", carrier: str = ""
) -> Claim:
    """The claim of a generator's own parameters under `key`."""
    return Claim(
        claim=f"parameters of {generator}",
        claimant=f"the file's text {key!r}",
        carrier=carrier or ("exif" if key.startswith("EXIF") else "text"),
        meaning="generated",
        generator=generator,
        generator_model=model,
        prompt=prompt,
        seed=seed,
        detail=detail,
    )


__all__ = ["LONGEST", "first", "generated", "parsed", "word"]
