"""Reads an answer of the form <think>...</think><answer>...</answer>."""

from __future__ import annotations

import re

_FORM = re.compile(r"\s*<think>.+?</think>\s*<answer>.+?</answer>\s*", re.DOTALL)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)

_FAKE = {"ai", "fake", "synthetic", "generated"}  # "AI-generated" is two words here
_REAL = {"real", "authentic", "photo", "camera-captured"}
_NEGATIONS = {"not", "no", "non", "never", "neither", "nor", "cannot", "isn't", "doesn't", "isnt", "without"}
_REACH = 3
"""Words that a negation reaches over: "not a real photo" negates both, "no doubt that this is fake" does not."""


def well_formed(text: str) -> bool:
    """Whether an answer is one thought and one judgment, in that order, and nothing else.

    Each tag must stand once. The pattern alone would let a second judgment hide in the first: its lazy quantifier goes
    on over a closing tag until the end fits.
    """
    return _FORM.fullmatch(text) is not None and all(text.count(tag) == 1 for tag in _TAGS)


def judgment(text: str) -> bool | None:
    """Read the judgment of an answer.

    Parameters
    ----------
    text : str
        The whole answer.

    Returns
    -------
    bool or None
        True for AI-generated, False for camera-captured. None where there is not one <answer>, or it says neither, or
        both. What a negation stands before counts as not said: "not AI-generated" is neither.
    """
    found = _ANSWER.findall(text)
    if len(found) != 1 or text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    said = _said(found[0])
    fake, real = bool(said & _FAKE), bool(said & _REAL)
    return None if fake == real else fake


def _said(text: str) -> set[str]:
    """The words of a text that no negation stands before, in lower case; clauses end a negation's reach."""
    text = text.lower().replace("\u2019", "'")
    text = re.sub(r"camera[\s-]+captured", "camera_captured", text)
    said: set[str] = set()
    for clause in re.split(r"[.,;:!?\n]|\bbut\b|\brather\b", text):
        words = re.findall(r"[a-z_']+", clause)
        for i, word in enumerate(words):
            if not _NEGATIONS & set(words[max(0, i - _REACH) : i]):
                said.add(word.replace("_", "-"))
    return said
