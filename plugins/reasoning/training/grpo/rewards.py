"""The two rewards of AIGI-R1, in the form that trl calls: R = R_det + R_format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .answer import judgment, well_formed

Completion = str | Sequence[Mapping[str, Any]]
"""An answer: text, or trl's conversation with one message."""


def detection_reward(completions: Sequence[Completion], fake: Sequence[bool], **_: object) -> list[float]:
    """1 where the judgment that can be read is the picture's label, else 0.

    Parameters
    ----------
    completions : sequence of Completion
    fake : sequence of bool
        The labels; the column of that name.
    """
    return [float(judgment(_text(c)) is bool(f)) for c, f in zip(completions, fake, strict=True)]


def format_reward(completions: Sequence[Completion], **_: object) -> list[float]:
    """1 where an answer is one thought and one judgment, else 0.

    Parameters
    ----------
    completions : sequence of Completion
    """
    return [float(well_formed(_text(c))) for c in completions]


def _text(completion: Completion) -> str:
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content)
