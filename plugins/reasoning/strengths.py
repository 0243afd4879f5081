"""The models that may speak for the plugin, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from torch import Tensor

from tellsign.runtime import DeviceRuntime
from tellsign.schemas import SemanticView
from tellsign.towers import CLIP_VIT_B16, ClipTower, clip_tower, run_blocks, semantic_pass, semantic_square
from tellsign.towers.lite import SIDE
from tellsign.weights.files import version_of

from .bank import Entry
from .model import Head, TowerModel
from .weights_files import STUDENT, TOWER, SmallModel, load_bank, load_student, load_tower_model


@attrs.frozen(kw_only=True)
class Answer:
    """What a model says of one picture."""

    logit: float
    """Log-odds that the picture is made by AI; zero is the model's own threshold."""
    statements: Sequence[Entry] = ()
    """What is borrowed from the bank."""


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
    """Low-rank updates of a shared tower's last blocks, and a head.

    Parameters
    ----------
    key : str
        The tower's key in the runtime, which other plugins that share it use too.
    weights : Path
    """

    name = "tower"

    def __init__(self, key: str = CLIP_VIT_B16, weights: Path = TOWER) -> None:
        self.key, self.weights = key, weights

    @property
    def version(self) -> str:
        """Of the updates and the head; the tower's own weights are told by `tellsign models list`."""
        return version_of(self.weights)

    def answer(self, views: Sequence[SemanticView], runtime: DeviceRuntime) -> Sequence[Answer]:
        """One forward pass per view, shared with whoever else looks, and the last blocks once more with the updates."""
        out: list[Answer] = []
        with (
            runtime.use(self.key, lambda: clip_tower(self.key)) as tower,
            runtime.use(f"reasoning:{self.weights}", lambda: load_tower_model(self.weights)) as model,
            torch.inference_mode(),
        ):
            assert isinstance(tower, ClipTower)
            assert isinstance(model, TowerModel)
            model.fits(tower, self.weights)
            passed = semantic_pass(views, tower, runtime, key=self.key)
            for start in range(0, len(passed), runtime.batch_size):
                v = model.embed(tower, passed[start : start + runtime.batch_size])
                out += _answers(v, model.head, self.weights)
        return out

    def bare(self, views: Sequence[SemanticView], runtime: DeviceRuntime) -> Callable[[], object]:
        """The tower's forward pass and nothing else, on prepared squares."""
        with runtime.use(self.key, lambda: clip_tower(self.key)) as tower:
            assert isinstance(tower, ClipTower)
            squares = np.stack([semantic_square(v.image, tower.grid * tower.patch) for v in views])

        def forward() -> object:
            with runtime.use(self.key, lambda: clip_tower(self.key)) as lent:
                assert isinstance(lent, ClipTower)
                return run_blocks(lent, squares)[0]

        return forward


class Distilled(Strength):
    """The small network that ships with the package."""

    name = "student"

    @property
    def version(self) -> str:
        """Of the shipped file."""
        return version_of(STUDENT)

    def answer(self, views: Sequence[SemanticView], runtime: DeviceRuntime) -> Sequence[Answer]:
        """One forward pass per view."""
        # By way of the tower's square, which is what the student was taught on.
        squares = np.stack([semantic_square(semantic_square(v.image), SIDE) for v in views])
        out: list[Answer] = []
        with runtime.use("reasoning-student", load_student) as small, torch.inference_mode():
            assert isinstance(small, SmallModel)
            for start in range(0, len(squares), runtime.batch_size):
                part = torch.from_numpy(squares[start : start + runtime.batch_size]).to(runtime.device)
                v = small.model.embed(small.trunk.features(part))
                out += _answers(v, small.model.head, STUDENT)
        return out


def _answers(v: Tensor, head: Head, weights: Path) -> list[Answer]:
    logits = head(v).float().cpu().tolist()
    found = load_bank(weights).retrieve(v)
    return [Answer(logit=x, statements=tuple(s)) for x, s in zip(logits, found, strict=True)]
