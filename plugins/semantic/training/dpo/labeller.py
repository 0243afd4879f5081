"""A vision-language model as the one who justifies verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from tellsign.plugins.semantic.judge.inputs import MOST_ASPECT, render, too_narrow
from tellsign.plugins.semantic.judge.rationale import continue_text
from tellsign.towers.vlm import Vlm

from .pairs import Labeller

NEW_TOKENS = 160


def vlm_labeller(vlm: Vlm, *, new_tokens: int = NEW_TOKENS, temperature: float = 0.0, seed: int = 0) -> Labeller:
    """Let a loaded model justify whatever verdict its answer begins with.

    The question is the judge's own, which asks for semantic cues only and says why others are void.

    Parameters
    ----------
    vlm : Vlm
        Better a large one (a 72B model in the reading of the paper that this follows).
    new_tokens : int
        Of a justification, at most. One that is cut off loses its unfinished sentence.
    temperature, seed : float, int
        See `continue_text`.
    """

    def label(images: Sequence[Image.Image], sentences: Sequence[str]) -> list[str]:
        narrow = [i.size for i in images if too_narrow(*i.size)]
        if narrow:
            raise ValueError(f"images take sides that differ by at most {MOST_ASPECT} times, got {narrow[0]}")
        texts = [render(vlm.processor, answer=s) for s in sentences]
        options: dict[str, Any] = {"new_tokens": new_tokens, "temperature": temperature, "seed": seed}
        said = continue_text(vlm, images, texts, **options)
        return [finished(t) for t in said]

    return label


def finished(text: str) -> str:
    """A text without the sentence that was cut off at its end; whole where it has one sentence only."""
    text = text.strip()
    end = max(text.rfind(mark) for mark in ".!?")
    return text[: end + 1] if end > 0 else text
