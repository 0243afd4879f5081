"""The reasoning plugin: a detector that learned from texts and needs none, and what it may borrow of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tellsign.errors import SettingError
from tellsign.plugin import DetectorPlugin
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Declaration, Evidence, SemanticView, View
from tellsign.towers import CLIP_TOWERS, CLIP_VIT_B16
from tellsign.weights import locate

from .strengths import Answer, Distilled, Strength, Tower
from .weights_files import TOWER

STRENGTHS = ("auto", "tower", "student")
SETTINGS = ("strength", "tower", "weights", "statements")
MINIMUM = 64
"""Shorter side in pixels below which a picture shows too little to be judged."""


class ReasoningDetector(DetectorPlugin):
    """Judges what a picture shows with a model that was drawn to reasons in words (ReAlign).

    Settings
    --------
    strength : "auto", "tower" or "student"
        As of the semantic plugin, with which the tower and its forward pass are shared. "auto", the default, takes the
        tower where its weights are on this machine.
    tower : "clip-vit-b16" or "clip-vit-l14-336"
        Which tower; what ships is for the first.
    weights : path
        Other updates than those that ship, written by `python -m tellsign.plugins.reasoning.training export`.
    statements : bool
        Whether reasons are retrieved; default yes.
    """

    def __init__(self, declaration: Declaration, settings: Mapping[str, object]) -> None:
        super().__init__(declaration, settings)
        for name in settings:
            if name not in SETTINGS:
                raise SettingError(f"settings of {declaration.name}", ", ".join(SETTINGS), name)
        asked = settings.get("strength", "auto")
        if asked not in STRENGTHS:
            raise SettingError("strength", f"one of {', '.join(STRENGTHS)}", asked)
        tower = settings.get("tower", CLIP_VIT_B16)
        if tower not in CLIP_TOWERS:
            raise SettingError("tower", f"one of {', '.join(CLIP_TOWERS)}", tower)
        weights = settings.get("weights", TOWER)
        if not isinstance(weights, str | Path):
            raise SettingError("weights", "a path", weights)
        if tower != CLIP_VIT_B16 and "weights" not in settings:
            raise SettingError("weights", f"weights that were trained on {tower}; those that ship are not", None)
        statements = settings.get("statements", True)
        if not isinstance(statements, bool):
            raise SettingError("statements", "true or false", statements)
        self._asked, self._statements = str(asked), statements
        self._tower = Tower(str(tower), Path(weights))
        self.strength: Strength = Distilled() if asked in ("auto", "student") else self._tower

    def setup(self, runtime: DeviceRuntime) -> None:
        """Decide which model speaks; look for weights, and never wait for a download."""
        if self._asked == "auto" and locate(self._tower.key) is not None:
            self.strength = self._tower

    def detect(self, views: Sequence[View], runtime: DeviceRuntime) -> Sequence[Sequence[Evidence]]:
        """Judge each view; to a tiny picture the plugin does not apply."""
        mine = self._views(views)
        large = [v for v in mine if min(v.width, v.height) >= MINIMUM]
        answers = iter(self.strength.answer(large, runtime) if large else ())
        return [
            self._evidence(next(answers)) if min(v.width, v.height) >= MINIMUM else [self._too_small(v)] for v in mine
        ]

    def bench_tower(self, views: Sequence[View], runtime: DeviceRuntime) -> Callable[[], object] | None:
        """The shared tower's bare forward pass, for `tellsign bench`; None where the tower does not speak."""
        if not isinstance(self.strength, Tower):
            return None
        return self.strength.bare(self._views(views), runtime)

    def _views(self, views: Sequence[View]) -> list[SemanticView]:
        mine = [v for v in views if isinstance(v, SemanticView)]
        if len(mine) != len(views):
            raise TypeError("the reasoning plugin takes SemanticView only")
        return mine

    def _evidence(self, answer: Answer) -> list[Evidence]:
        model = self.strength.version
        score = float(1 / (1 + np.exp(-np.clip(answer.logit, -30, 30))))
        found: list[Evidence] = [self.score(self.strength.name, score, logit=answer.logit, model=model)]
        for entry in answer.statements if self._statements else ():
            found.append(
                self.statement(entry.text, entry.precision, origin="retrieved", category=entry.category, model=model)
            )
        if self._asked == "auto" and self.strength is not self._tower:
            missing = f"the small model judged what the picture shows: the weights of {self._tower.key} are not on this"
            cure = f"machine (`tellsign models fetch {self._tower.key}`)"
            found.append(self.unavailable(f"{missing} {cure}", model=self._tower.key))
        return found

    def _too_small(self, view: SemanticView) -> Evidence:
        return self.not_applicable(f"a picture of {view.width} x {view.height} px is too small to be judged")
