"""The one table that turns two probabilities and a mask share into label probabilities and a label."""

from __future__ import annotations

from .checks import InvalidValueError, is_number
from .taxonomy import DEFINITE_LABELS, Label

WHOLE = 0.9
"""A picture whose AI mask covers at least this share counts as generated, below it as edited."""

# (p_ai >= .5, p_tampered >= .5 or None, AI mask covers the whole picture or None) -> label.
# None means that no plugin gave evidence. Without a mask a picture with synthesised pixels is called generated:
# where nobody looked for the place, the whole picture is the only place that can be named. AI wins over tampering,
# because pasting a generated region into a photograph is an AI edit that happens to be pasted.
TABLE: dict[tuple[bool, bool | None, bool | None], Label] = {
    (ai, tampered, whole): (
        (Label.AI_EDITED if whole is False else Label.AI_GENERATED)
        if ai
        else (Label.TAMPERED if tampered else Label.AUTHENTIC)
    )
    for ai in (False, True)
    for tampered in (None, False, True)
    for whole in (None, False, True)
}


def whole_picture(ai_share: float | None) -> bool | None:
    """Whether a mask share in [0, 1] counts as the whole picture; None where there is no mask."""
    return None if ai_share is None else ai_share >= WHOLE


def _check(owner: str, p_ai: float, p_tampered: float | None, ai_share: float | None) -> None:
    for field, value in (("p_ai", p_ai), ("p_tampered", p_tampered), ("ai_share", ai_share)):
        optional = field != "p_ai"
        if not (optional and value is None) and not (is_number(value) and 0 <= (value or 0) <= 1):
            raise InvalidValueError(owner, field, "a number in [0, 1]" + (" or None" if optional else ""), value)


def most_likely(p_ai: float, p_tampered: float | None = None, ai_share: float | None = None) -> Label:
    """The label of `TABLE` for these probabilities (.5 counts as yes).

    Raises
    ------
    InvalidValueError
        When a number is not in [0, 1]. A NaN must not read as "authentic".
    """
    _check("most_likely", p_ai, p_tampered, ai_share)
    tampered = None if p_tampered is None else p_tampered >= 0.5
    return TABLE[p_ai >= 0.5, tampered, whole_picture(ai_share)]


def label_probabilities(
    p_ai: float, p_tampered: float | None = None, ai_share: float | None = None
) -> dict[Label, float]:
    """Probability of each definite label; the four sum to one.

    `p_ai` goes to generated or edited, whichever the mask says; the rest is shared between tampered and authentic
    by `p_tampered`, which counts as 0 where no plugin gave evidence (the label then stands as not assessed).

    The largest of the four is the label of `TABLE` wherever `p_ai` is .5 or more or no plugin assessed tampering.
    Below .5 the table asks its two questions one after the other, and so may name a label that is less likely than AI
    (.4 AI, .3 tampered, .3 authentic is "tampered", because "not AI" is the likelier answer to the first question).

    Raises
    ------
    InvalidValueError
        When a number is not in [0, 1].
    """
    _check("label_probabilities", p_ai, p_tampered, ai_share)
    p_of = dict.fromkeys(DEFINITE_LABELS, 0.0)
    p_of[Label.AI_EDITED if whole_picture(ai_share) is False else Label.AI_GENERATED] = p_ai
    p_of[Label.TAMPERED] = (1 - p_ai) * (p_tampered or 0.0)
    p_of[Label.AUTHENTIC] = (1 - p_ai) * (1 - (p_tampered or 0.0))
    return p_of
