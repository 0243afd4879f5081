"""Checks that a detector speaks of its task's cues: that what is not one of them does not move its answer.

They are necessary and not sufficient, for they know nothing of labels; how well a detector keeps to its task on real
pictures is measured on data.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.decoding import decode
from tellsign.schemas import Box, Evidence, PixelView, ProvenanceEvidence, ProvenanceView, SemanticView, Task, View
from tellsign.views import build_view

from .compare import apart, same
from .pictures import scene
from .report import fail_unless
from .steady import TOLERANCE
from .subject import Subject

NOISE = 0.15
"""What noise of one grey level may change in a score of meaning, in [0, 1]."""


def task_alignment(subject: Subject) -> str:
    """What is no cue of its task does not move its answer: file format, picture size, order of crops, faint noise."""
    task = subject.declaration.task
    _ = subject.spoken
    done = []
    if task is Task.PROVENANCE:
        return _provenance(subject)
    pixels = scene(400, 300, 1)
    view = build_view(task, decode(pixels), "check.plain")
    (plain,) = subject.say(subject.plugin, [view])
    for name, other in _alike(task, pixels, view):
        (answer,) = subject.say(subject.plugin, [other])
        if name == "the size":
            difference = apart(plain, answer, ("score", "logit"))
            fail_unless(difference <= TOLERANCE, f"the picture's size alone moves a score by {difference:.3g}")
        else:
            same(plain, answer, TOLERANCE, name)
        done.append(name)
    if isinstance(view, SemanticView):
        (answer,) = subject.say(subject.plugin, [_noisy(view, 1)])
        difference = apart(plain, answer, ("score",))
        words = f"noise of one grey level moves a score by {difference:.3g} (allowed {NOISE}): it reads pixel traces"
        fail_unless(difference <= NOISE, words)
        done.append("noise of one grey level")
    return f"{len(done)} comparisons ({', '.join(dict.fromkeys(done))}): the answer stays"


def _alike(task: Task, pixels: NDArray[np.uint8], view: View) -> Iterator[tuple[str, View]]:
    """Views that must be answered alike, each under what differs in it."""
    for container in ("PNG", "TIFF"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, container)
        yield f"the same pixels as {container}", build_view(task, decode(file.getvalue()), "check.plain")
    yield "another key", attrs.evolve(view, key="check.another")
    if isinstance(view, PixelView):
        back = slice(None, None, -1)
        turned = attrs.evolve(view, crops=view.crops[back], boxes=view.boxes[back], kinds=view.kinds[back])
        yield "the crops in another order", turned
        boxes = tuple(Box(b.left + 512, b.top + 256, b.right + 512, b.bottom + 256) for b in view.boxes)
        yield "the size", attrs.evolve(view, boxes=boxes, width=1024, height=1024)
    elif isinstance(view, SemanticView):
        yield "the size", attrs.evolve(view, width=1024, height=1024)


def _noisy(view: SemanticView, seed: int) -> SemanticView:
    rng = np.random.default_rng(seed)
    noise = rng.integers(-1, 2, view.image.shape)
    return attrs.evolve(view, key="check.noisy", image=np.clip(view.image + noise, 0, 255).astype(np.uint8))


def _provenance(subject: Subject) -> str:
    """Without a file there is no claim, and what the pixels show does not change what the same file says."""
    bare = ProvenanceView(key="check.bare", original=None, facts=None)
    (answer,) = subject.say(subject.plugin, [bare])
    _no_claim(answer, "a picture without a file")
    done = 1
    for seed in (1, 2):
        file = io.BytesIO()
        Image.fromarray(scene(320, 240, seed)).save(file, "PNG")
        view = build_view(Task.PROVENANCE, decode(file.getvalue()), f"check.{seed}")
        (answer,) = subject.say(subject.plugin, [view])
        _no_claim(answer, "a file that says nothing about itself")
        done += 1
    return f"{done} pictures that claim nothing, 1 of them without a file: no claim was found"


def _no_claim(answer: tuple[Evidence, ...], what: str) -> None:
    claims = [e.claim for e in answer if isinstance(e, ProvenanceEvidence)]
    fail_unless(not claims, f"of {what} it says: {claims[:1]}")


__all__ = ["task_alignment"]
