"""The models that may speak for the plugin, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
import torch

from tellsign.runtime import DeviceRuntime
from tellsign.schemas import SemanticView
from tellsign.towers import CLIP_VIT_B16, ClipTower, clip_tower, semantic_square, semantic_tokens
from tellsign.weights.files import version_of

from .model import SemanticHead
from .student import SIDE, Student
from .weights_files import HEAD, STUDENT, load_head, load_student


@attrs.frozen(kw_only=True)
class Answer:
    """What a model says of one picture."""

    logit: float | None
    """Log-odds that the picture is made by AI; None where the model gave no answer that could be read, which becomes
    missing evidence and not a score."""
    rationale: str = ""
    """Reasons in the model's own words; empty where it has none."""
    why_not: str = ""
    """Why there is no logit."""


class Strength(ABC):
    """One model behind the plugin."""

    name: str
    """The score's name in the evidence, and the column's in the declaration."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Name and version of the weights."""

    @abstractmethod
    def answer(self, views: Sequence[SemanticView], runtime: DeviceRuntime) -> Sequence[Answer]:
        """Look at each view.

        Parameters
        ----------
        views : sequence of SemanticView
        runtime : DeviceRuntime
            Models come through `runtime.use`; at most `runtime.batch_size` pictures go through one at once.

        Returns
        -------
        sequence of Answer
            As many as views, in their order; what is said of one does not depend on the others.

        Raises
        ------
        UnavailableError
            The model cannot be had on this machine.
        WeightsError
            Its weights are damaged; the error names the file.
        """


class Tower(Strength):
    """A trained head on a shared CLIP tower.

    Parameters
    ----------
    key : str
        The tower's key in the runtime.
    head : Path
        The head's weights file.
    """

    name = "tower"

    def __init__(self, key: str = CLIP_VIT_B16, head: Path = HEAD) -> None:
        self.key, self.head = key, head

    @property
    def version(self) -> str:
        """Of the head; the tower's own weights are told by `tellsign models list`."""
        return version_of(self.head)

    def answer(self, views: Sequence[SemanticView], runtime: DeviceRuntime) -> Sequence[Answer]:
        """One forward pass of the tower per view, shared with whoever else looks at the view."""
        with (
            runtime.use(self.key, lambda: clip_tower(self.key)) as tower,
            runtime.use(f"semantic:{self.head}", lambda: load_head(self.head)) as head,
        ):
            assert isinstance(tower, ClipTower)
            assert isinstance(head, SemanticHead)
            head.fits(tower, self.head)
            tokens = semantic_tokens(views, tower, runtime, key=self.key)
            with torch.inference_mode():
                logits = head(torch.stack(tokens)).cpu().tolist()
        return [Answer(logit=float(x)) for x in logits]


class Distilled(Strength):
    """The small network that ships with the package."""

    name = "student"

    @property
    def version(self) -> str:
        """Of the shipped file."""
        return version_of(STUDENT)

    def answer(self, views: Sequence[SemanticView], runtime: DeviceRuntime) -> Sequence[Answer]:
        """One forward pass per view."""
        squares = np.stack([semantic_square(v.image, SIDE) for v in views])
        logits: list[float] = []
        with runtime.use("semantic-student", load_student) as student, torch.inference_mode():
            assert isinstance(student, Student)
            for start in range(0, len(squares), runtime.batch_size):
                part = torch.from_numpy(squares[start : start + runtime.batch_size]).to(runtime.device)
                logits += student(part).cpu().tolist()
        return [Answer(logit=x) for x in logits]
