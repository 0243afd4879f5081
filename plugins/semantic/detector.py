"""The semantic plugin: a tower with a head, a small student, or a vision-language judge, behind one interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tellsign.errors import SettingError
from tellsign.plugin import DetectorPlugin
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Declaration, Evidence, SemanticView, View
from tellsign.towers import CLIP_TOWERS, CLIP_VIT_B16
from tellsign.weights import locate

from .strengths import Answer, Distilled, Strength, Tower
from .weights_files import HEAD

STRENGTHS = ("auto", "tower", "student", "vlm")
SETTINGS = ("strength", "tower", "head", "vlm", "download", "rationale")
MINIMUM = 64
"""Shorter side in pixels below which a picture shows too little to be judged."""


class SemanticDetector(DetectorPlugin):
    """Judges what a picture shows; pixel traces are erased from its view.

    Settings
    --------
    strength : "auto", "tower", "student" or "vlm"
        The tower model needs a CLIP tower (`tellsign models fetch clip-vit-b16`); the student ships with the package.
        "auto", the default, takes the tower where its weights are on this machine and the student elsewhere. "vlm" is
        a vision-language model; the default fusion knows no calibration for it.
    tower : "clip-vit-b16" or "clip-vit-l14-336"
        Which tower; the head that ships is for the first.
    head : path
        Another head than the one that ships, written by `python -m tellsign.plugins.semantic.training export`.
    vlm : str
        Name on the hub, or folder, of the vision-language model.
    download : bool
        Let "vlm" fetch its model; default no.
    rationale : bool
        Let "vlm" give its reasons in words, which takes most of its time; default yes.
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
        head = settings.get("head", HEAD)
        if not isinstance(head, str | Path):
            raise SettingError("head", "a path", head)
        if tower != CLIP_VIT_B16 and "head" not in settings:
            raise SettingError("head", f"a head that was trained on {tower}; the one that ships is not", None)
        download, rationale = settings.get("download", False), settings.get("rationale", True)
        for switch, value in (("download", download), ("rationale", rationale)):
            if not isinstance(value, bool):
                raise SettingError(switch, "true or false", value)
        if asked == "vlm" and "vlm" not in settings:
            raise SettingError("vlm", "a folder, or a repository of the model hub, where strength is vlm", None)
        self._asked = str(asked)
        self._tower = Tower(str(tower), Path(head))
        self.strength: Strength = Distilled() if asked in ("auto", "student") else self._tower
        if asked == "vlm":
            from .judge.strength import VlmJudge  # transformers come with it

            self.strength = VlmJudge(_path_or_name(settings["vlm"]), download=bool(download), rationale=bool(rationale))

    def setup(self, runtime: DeviceRuntime) -> None:
        """Decide which model speaks; look for weights, and never wait for a download."""
        if self._asked == "auto" and locate(self._tower.key) is not None:
            self.strength = self._tower

    def detect(self, views: Sequence[View], runtime: DeviceRuntime) -> Sequence[Sequence[Evidence]]:
        """Judge each view; to a tiny picture the plugin does not apply."""
        mine = [v for v in views if isinstance(v, SemanticView)]
        if len(mine) != len(views):
            raise TypeError("the semantic plugin takes SemanticView only")
        large = [v for v in mine if min(v.width, v.height) >= MINIMUM]
        answers = iter(self.strength.answer(large, runtime) if large else ())
        return [
            self._evidence(next(answers)) if min(v.width, v.height) >= MINIMUM else [self._too_small(v)] for v in mine
        ]

    def _evidence(self, answer: Answer) -> list[Evidence]:
        model = self.strength.version
        if answer.logit is None:
            return [self.not_applicable(answer.why_not or "the model gave no answer that can be read", model=model)]
        score = float(1 / (1 + np.exp(-np.clip(answer.logit, -30, 30))))
        found: list[Evidence] = [self.score(self.strength.name, score, logit=answer.logit, model=model)]
        if self._asked == "auto" and self.strength is not self._tower:
            missing = f"the small model judged what the picture shows: the weights of {self._tower.key} are not on this"
            cure = f"machine (`tellsign models fetch {self._tower.key}`)"
            found.append(self.unavailable(f"{missing} {cure}", model=self._tower.key))
        if answer.rationale:
            # The reasons are for the verdict that was given, whichever it was.
            support = max(score, 1 - score)
            found.append(self.statement(answer.rationale, support, origin="generated", model=model))
        return found

    def _too_small(self, view: SemanticView) -> Evidence:
        return self.not_applicable(f"a picture of {view.width} x {view.height} px is too small to be judged")


def _path_or_name(value: object) -> str | Path:
    if not isinstance(value, str | Path) or not str(value):
        raise SettingError("vlm", "a folder, or a repository of the model hub", value)
    return value
