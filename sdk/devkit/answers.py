"""Checks of what a plugin says."""

from __future__ import annotations

import math
from collections import Counter

from tellsign.fusion.features import feature_row
from tellsign.schemas import (
    HEADS,
    Evidence,
    FindingEvidence,
    MapEvidence,
    NotApplicable,
    PixelView,
    ScoreEvidence,
    SegmentationView,
    SemanticView,
    Task,
    Unavailable,
)
from tellsign.schemas.codec import dumps, loads

from .pictures import ORDINARY, PICTURES
from .report import fail_unless, some
from .subject import Subject


def every_picture(subject: Subject) -> str:
    """Pictures of every mode and size get an answer, an ordinary one more than `not applicable`."""
    spoken = subject.spoken
    wrong = [f"{name}: {asked.error}" for name, asked in subject.alone.items() if asked.answer is None]
    fail_unless(not wrong, f"{len(wrong)} of {len(PICTURES)} pictures got no valid answer: {some(wrong)}")
    empty = [name for name, answer in spoken.items() if not answer]
    fail_unless(not empty, f"an empty answer, where `not_applicable` would say why: {some(empty)}")
    about = [name for name in spoken if subject.speaks_of(name)]
    if subject.declaration.task is not Task.PROVENANCE:
        fail_unless(
            ORDINARY in about, f"it has nothing to say about an ordinary picture of 1200 x 900 px: {_why(subject)}"
        )
    return f"{len(spoken)} pictures answered; {len(about)} spoken of, {len(spoken) - len(about)} not applicable"


def _why(subject: Subject) -> str:
    return some(e.reason for e in subject.spoken[ORDINARY] if isinstance(e, NotApplicable | Unavailable))


def evidence(subject: Subject) -> str:
    """Evidence is in its ranges, inside its picture, consistent in itself, and the same after JSON."""
    count: Counter[str] = Counter()
    for name, answer in subject.spoken.items():
        silent = [isinstance(e, NotApplicable) for e in answer]
        fail_unless(all(silent) or not any(silent), f"{name}: it does not apply and has something to say all the same")
        for e in answer:
            count[e.kind] += 1
            fail_unless(e.kind != "failed", f"{name}: it says itself that it failed, instead of raising")
            fail_unless(loads(dumps(e), Evidence) == e, f"{name}: {e.kind} evidence is another one after JSON")
            if isinstance(e, ScoreEvidence) and e.logit is not None:
                score = 1 / (1 + math.exp(-max(-500.0, min(500.0, e.logit))))
                words = f"{name}: score {e.score:.4f} of {e.name!r}, but its logit {e.logit:.4f} is {score:.4f}"
                fail_unless(abs(score - e.score) <= 0.01, words)
            box = e.box if isinstance(e, MapEvidence) else e.region if isinstance(e, FindingEvidence) else None
            size = _size(subject, name)
            if box is not None and size is not None:
                inside = box.right <= size[0] and box.bottom <= size[1]
                fail_unless(inside, f"{name}: {e.kind} evidence over {box}, in a picture of {size[0]} x {size[1]}")
    return "; ".join(f"{n} {kind}" for kind, n in sorted(count.items()))


def _size(subject: Subject, name: str) -> tuple[int, int] | None:
    view = subject.views[name]
    if isinstance(view, PixelView | SemanticView):
        return view.width, view.height
    return (view.image.shape[1], view.image.shape[0]) if isinstance(view, SegmentationView) else None


def columns(subject: Subject) -> str:
    """Every score is declared, and what is declared reaches the fusion."""
    told = subject.declaration
    declared = {c.evidence for c in told.columns}
    filled: Counter[str] = Counter()
    for name, answer in subject.spoken.items():
        loose = sorted({e.name for e in answer if isinstance(e, ScoreEvidence)} - declared)
        fail_unless(
            not loose, f"{name}: no column takes the score {some(loose)}; declared are {some(sorted(declared))}"
        )
        for head in HEADS:
            row = feature_row(answer, {told.name: told}, head)
            filled.update(key for key, value in row.items() if not math.isnan(value))
    ours = [f"{told.name}.{c.name}" for c in told.columns]
    never = [key for key in ours if not filled[key]]
    if told.task is not Task.PROVENANCE:
        fail_unless(len(never) < len(ours), f"no column was filled by any picture: {some(never)}")
    empty = f"; never filled here: {some(never)}" if never else ""
    return f"{len(ours) - len(never)} of {len(ours)} columns filled, by {sum(filled.values())} numbers{empty}"


__all__ = ["columns", "every_picture", "evidence"]
