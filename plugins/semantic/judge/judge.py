"""Puts the question to the model: pictures in, verdicts with their logits and reasons out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tellsign.towers.vlm import Vlm

from .inputs import encode_batch, render
from .prompt import verdict_sentence
from .rationale import NEW_TOKENS, continue_text, quotable
from .verdict_tokens import VerdictTokens, verdict_logit, verdict_tokens

LEAST_MASS = 0.05
"""Probability that the two verdicts must have together for an answer to count as one. Chosen without a full model at
hand; a random guess among 150,000 tokens is below it by three orders of magnitude."""


@attrs.frozen(kw_only=True)
class Judgement:
    """What the model said of one picture."""

    logit: float | None
    """log P(fake) - log P(real); None where it gave no verdict."""
    mass: float
    """P(real) + P(fake) at the verdict's position, in [0, 1]."""
    rationale: str = ""
    """Reasons in words; empty where none were asked for or none may be quoted."""

    @property
    def confidence(self) -> float:
        """Probability of the verdict that was given, in [0.5, 1]; 0 where there is none."""
        return 0.0 if self.logit is None else 1 / (1 + math.exp(-min(abs(self.logit), 700)))


def judge(
    vlm: Vlm,
    images: Sequence[NDArray[np.uint8]],
    *,
    rationale: bool = True,
    batch_size: int = 1,
    least_mass: float = LEAST_MASS,
    new_tokens: int = NEW_TOKENS,
) -> list[Judgement]:
    """Ask the model about pictures.

    Parameters
    ----------
    vlm : Vlm
    images : sequence of uint8 arrays of (h, w, 3)
        Semantic views; `inputs.too_narrow` ones raise.
    rationale : bool
        Generate reasons, which takes most of the time.
    batch_size : int
        Pictures per forward pass. Weights in half precision see one at a time: there, what a picture is padded with
        would move its score.
    least_mass : float
        Below it an answer is no verdict.
    new_tokens : int
        Of a rationale, at most.

    Returns
    -------
    list of Judgement
        One for each picture.
    """
    prompt = render(vlm.processor)
    tokens = verdict_tokens(vlm.processor.tokenizer.encode, prompt)
    out: list[Judgement] = []
    for batch in _batches([Image.fromarray(i) for i in images], batch_size if vlm.exact else 1):
        logits, masses = _score(vlm, batch, prompt, tokens)
        said = [Judgement(logit=a if m >= least_mass else None, mass=m) for a, m in zip(logits, masses, strict=True)]
        out += _with_reasons(vlm, batch, said, new_tokens) if rationale else said
    return out


@torch.inference_mode()
def _score(
    vlm: Vlm, images: Sequence[Image.Image], prompt: str, tokens: VerdictTokens
) -> tuple[list[float], list[float]]:
    inputs = encode_batch(vlm, images, [prompt] * len(images), tokens.forced)
    # Only the last position's logits: all of them would be gigabytes for a vocabulary of 150,000.
    logits = vlm.model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
    logit, mass = verdict_logit(logits, tokens)
    if not bool(logit.isfinite().all() and mass.isfinite().all()):
        raise ArithmeticError(f"{vlm.name} gave logits that are no numbers")
    return logit.tolist(), mass.clamp(0, 1).tolist()


def _with_reasons(
    vlm: Vlm, images: Sequence[Image.Image], said: Sequence[Judgement], new_tokens: int
) -> list[Judgement]:
    spoke = [i for i, j in enumerate(said) if j.logit is not None]
    if not spoke:
        return list(said)
    fakes = {i: (said[i].logit or 0.0) > 0 for i in spoke}
    texts = [render(vlm.processor, answer=verdict_sentence(fakes[i])) for i in spoke]
    words = continue_text(vlm, [images[i] for i in spoke], texts, new_tokens=new_tokens)
    out = list(said)
    for i, text in zip(spoke, words, strict=True):
        out[i] = attrs.evolve(said[i], rationale=quotable(text, fake=fakes[i]))
    return out


def _batches(images: Sequence[Image.Image], size: int) -> Iterator[list[Image.Image]]:
    for start in range(0, len(images), size):
        yield list(images[start : start + size])
