"""The reasons in words: generated after the verdict, cut to what may be quoted."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

import torch

from .inputs import encode_batch
from .prompt import verdict_sentence
from .ungrounded import ungrounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from tellsign.towers.vlm import Vlm

NEW_TOKENS = 96
"""Tokens that a rationale may take."""

LONGEST = 400
"""Characters of a rationale that are quoted."""


@torch.inference_mode()
def continue_text(
    vlm: Vlm,
    images: Sequence[Image.Image],
    texts: Sequence[str],
    *,
    new_tokens: int = NEW_TOKENS,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Let the model go on with texts.

    Parameters
    ----------
    vlm : Vlm
    images, texts : sequences of the same length
        One picture each; the texts have the chat template applied.
    new_tokens : int
        At most so many; what was cut there ends in the middle.
    temperature : float
        0 takes the likeliest token each time: the same text at every call.
    seed : int
        For temperatures above 0.

    Returns
    -------
    list of str
        What comes after each text, without special tokens.
    """
    transformers: Any = importlib.import_module("transformers")
    inputs = encode_batch(vlm, images, texts)
    sampling: dict[str, float] = {"temperature": temperature} if temperature > 0 else {}
    config = transformers.GenerationConfig(do_sample=bool(sampling), max_new_tokens=new_tokens, **sampling)
    with torch.random.fork_rng(devices=[vlm.device] if vlm.device.type == "cuda" else []):
        torch.manual_seed(seed)
        out = vlm.model.generate(**inputs, generation_config=config)
    said = out[:, inputs["input_ids"].shape[1] :]
    return [str(t) for t in vlm.processor.tokenizer.batch_decode(said, skip_special_tokens=True)]


def quotable(text: str, *, fake: bool) -> str:
    """The part of a rationale that may stand in a verdict; empty where nothing is left.

    White space is evened out; sentences that claim what the judge cannot know (`ungrounded`) are dropped, for the
    view was made so that they cannot be true; a sentence that was cut short goes, unless it is the only one. A text
    that states the other verdict contradicts the score that it should explain and is dropped whole.

    Parameters
    ----------
    text : str
        What came after the verdict's sentence.
    fake : bool
        The verdict.
    """
    text = " ".join(text.replace("\ufffd", "").split())
    if verdict_sentence(not fake).rstrip(".").lower() in text.lower():
        return ""
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", text) if re.search(r"\w", s)]
    whole = [s for s in sentences if s[-1] in ".!?"]
    kept = ""
    for sentence in whole or [f"{s}..." for s in sentences]:
        if ungrounded(sentence):
            continue
        longer = f"{kept} {sentence}".strip()
        if len(longer) > LONGEST:
            break
        kept = longer
    return kept
