"""From facts to texts, in varied words; and the statements that a verdict may borrow.

A text begins with the label sentence, as in ReAlign. What follows says only what `Facts` hold, and names no generator
and no source. Words vary so that the text encoder's neighbourhood holds the fact and not one phrasing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import numpy as np

from tellsign.schemas import Category

from .facts import MOVED, SYNTHESISED, WHOLE, Facts

REAL_SENTENCE, FAKE_SENTENCE = "This is a real image.", "This is a fake image."
TEXT_KINDS = ("reasoning+label", "caption+label", "reasoning", "caption", "label")
"""What a text is made of; the first is ReAlign's, the others are its ablation."""

_GENERATED = (
    "No camera recorded this scene; all of it was computed.",
    "Every pixel was synthesised, and nothing in the frame stood before a lens.",
    "The whole picture came out of a model, so nothing it shows need ever have existed.",
    "Light and shadow were imagined here and not measured by a sensor.",
    "What looks like a record is an invention from corner to corner.",
    "The scene was put together by a network from what it had learned, and was not observed.",
)
_REAL = {
    "photo": (
        "A camera recorded this scene.",
        "The light came through a lens and was measured by a sensor.",
        "What is shown stood before a camera when the picture was taken.",
        "It is a photograph: shapes, shadows and materials are those of things that were there.",
        "The scene existed and was observed, not invented.",
    ),
    "art": (
        "It was drawn or painted by hand.",
        "A person made this picture with brush, pen or drawing software.",
        "Strokes and shapes were set by an artist.",
    ),
    "screenshot": (
        "It shows a screen: windows, letters and icons were drawn by software.",
        "A program laid out this picture, letter by letter and edge by edge.",
        "It was captured from a display and not from a scene.",
    ),
    "scan": (
        "It was scanned from film or paper.",
        "A scanner read this picture line by line from a print or a negative.",
    ),
    "": (
        "It was not made by a generative model.",
        "Nothing in it was synthesised by a network.",
    ),
}
_PART = {
    "blend": ("was filled in by a network, and the rest was put back as it had been",),
    "inpaint": ("was filled in by a network, through which the whole picture went",),
    "aisplice": ("was cut from a synthesised picture and pasted in",),
    "roundtrip": ("was taken apart and rebuilt by a network",),
    "upscale": ("was made small and enlarged again by a network",),
    "copymove": ("was copied from elsewhere in the same photograph",),
    "splice": ("was pasted in from another photograph",),
    "classical": ("was filled or smoothed over by retouching",),
}
_REST = (
    "Around it the photograph is as the camera left it.",
    "The rest was recorded by a camera.",
)
_ARTIFACT = {
    Category.EDGE_SHAPE: ("an outline is broken or runs together with another", "a shape is bent as no such thing is"),
    Category.TEXTURE: ("a surface has a texture that is smeared or repeats", "a surface looks like no material"),
    Category.COLOR: ("a colour does not belong", "colours shift without a cause"),
    Category.SYMBOL: ("letters or signs cannot be read", "writing dissolves into shapes"),
    Category.SEMANTICS: (
        "a part of a body or object is missing, doubled or misplaced",
        "an object has an impossible part",
    ),
    Category.COMMONSENSE: ("something is where it would not be", "things are together that do not go together"),
    Category.PHYSICS: ("light, shadow or reflection disagree", "something stands or hangs as it could not"),
}


def label_sentence(fake: bool) -> str:
    """What every text begins with: the label, in the paper's words."""
    return FAKE_SENTENCE if fake else REAL_SENTENCE


def caption(facts: Facts, rng: np.random.Generator) -> str:
    """How the picture looks, with no word about where it came from; empty where nothing was measured."""
    look = facts.look
    if not look:
        return ""
    forms = (
        "The picture is {light} and {colour}, with {contrast} contrast; tint is {tint}, most detail {weight}.",
        "It is {colour} and {light}. Contrast is {contrast}, the tint {tint}, and detail lies {weight}.",
        "Seen as a whole it is {light}, {colour}, of {contrast} contrast and {tint} in tint, its detail {weight}.",
    )
    return str(rng.choice(forms)).format(**look)


def reasoning(facts: Facts, rng: np.random.Generator) -> str:
    """Why the label is what it is: origin, forged region, annotated artifacts; two to four sentences."""
    parts: list[str] = []
    if facts.kind in WHOLE:
        parts += _some(_GENERATED if facts.fake else _REAL[facts.content if facts.content in _REAL else ""], 2, rng)
    else:
        parts.append(f"{_amount(facts.share, rng)} {facts.region} {rng.choice(_PART[facts.kind])}.".replace("  ", " "))
        parts += _some(_REST, 1, rng)
    for category, place in facts.artifacts:
        parts.append(f"{str(rng.choice(_ARTIFACT[category])).capitalize()} {place}.")
    if facts.look and rng.random() < 0.5:
        parts.append(f"The picture is {facts.look['light']} and {facts.look['colour']}.")
    return " ".join(parts)


def text_of(facts: Facts, kind: str, rng: np.random.Generator) -> str:
    """One text about a picture.

    Parameters
    ----------
    facts : Facts
    kind : str
        One of `TEXT_KINDS`.
    rng : numpy.random.Generator
        Chooses the words, never the facts.
    """
    if kind not in TEXT_KINDS:
        raise ValueError(f"kind takes one of {', '.join(TEXT_KINDS)}, got {kind!r}")
    body = reasoning(facts, rng) if kind.startswith("reasoning") else caption(facts, rng) if "caption" in kind else ""
    label = label_sentence(facts.fake) if "label" in kind else ""
    return f"{label} {body}".strip()


def _some(choices: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    drawn = rng.choice(len(choices), min(count, len(choices)), replace=False)
    return [choices[int(i)] for i in drawn]


def _amount(share: float, rng: np.random.Generator) -> str:
    size = "A small part" if share < 0.08 else "A part" if share < 0.25 else "A large part"
    return str(rng.choice((size, f"{size} of the picture")))


Holds = Callable[[Facts], bool | None]


@attrs.frozen(kw_only=True)
class Statement:
    """A sentence that a verdict may borrow where it proves right often enough."""

    name: str
    text: str
    """As a reader sees it."""
    holds: Holds
    """Whether it is true of a picture; None where that is not known."""
    category: Category | None = None


def _kind(*kinds: str) -> Holds:
    # Whether a picture that nobody forged was edited before it was collected is not known.
    return lambda f: f.kind in kinds if f.kind else (None if not f.fake else False)


def _artifact(category: Category) -> Holds:
    # Pictures without annotations are no evidence of absence.
    return lambda f: any(c is category for c, _ in f.artifacts) if f.artifacts else (False if not f.fake else None)


def _content(content: str) -> Holds:
    return lambda f: (not f.fake and f.content == content) if f.kind in WHOLE else None


STATEMENTS: tuple[Statement, ...] = (
    Statement(
        name="computed",
        text="Pictures like this one were computed as a whole; no camera recorded the scene.",
        holds=lambda f: f.fake if f.kind in WHOLE else False,
    ),
    Statement(
        name="recorded",
        text="Pictures like this one were recorded by a camera.",
        holds=lambda f: not f.fake and f.content == "photo" if f.kind in WHOLE else None,
    ),
    Statement(name="drawn", text="Pictures like this one were drawn or painted by hand.", holds=_content("art")),
    Statement(name="screen", text="Pictures like this one were captured from a screen.", holds=_content("screenshot")),
    Statement(name="scanned", text="Pictures like this one were scanned.", holds=_content("scan")),
    Statement(
        name="part-synthesised",
        text="In pictures like this one a part was made by a network and the rest recorded by a camera.",
        holds=_kind(*SYNTHESISED),
    ),
    Statement(
        name="part-moved",
        text="In pictures like this one a part was copied, pasted or retouched.",
        holds=_kind(*MOVED),
    ),
    *(
        Statement(
            name=category.value,
            text=f"In pictures like this one {_ARTIFACT[category][0]}.",
            holds=_artifact(category),
            category=category,
        )
        for category in Category
    ),
)
"""The bank before it is measured."""
