"""What a detector plugin is: the class to subclass, the hook to implement, and how to say that one cannot answer.

A plugin is a package with an entry point in the group "tellsign.detectors" (name = the plugin's name, value = the
package), a `tellsign.json` beside its `__init__.py`, and in it the hook::

    from tellsign.plugin import hookimpl

    @hookimpl
    def tellsign_detector():
        from .detector import Smudge  # whatever is heavy is imported here
        return Smudge
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
import pluggy
from numpy.typing import ArrayLike

from tellsign.schemas import (
    Box,
    Category,
    Declaration,
    Evidence,
    FindingEvidence,
    MapEvidence,
    NotApplicable,
    ProvenanceEvidence,
    ScoreEvidence,
    StatementEvidence,
    Unavailable,
    View,
)

if TYPE_CHECKING:
    from .runtime import DeviceRuntime

PROJECT = "tellsign"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class UnavailableError(Exception):
    """The detector cannot answer on this machine; becomes `Unavailable` evidence and not a failure.

    Raise it from `setup`, `detect` or a model's `build`, with a reason that says what would help ("the weights of
    clip-vit-b16 are not on this machine: run `tellsign models fetch clip-vit-b16`").
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class DetectorPlugin(ABC):
    """A detector. The host makes one instance per Detector, and never calls it from two threads at once.

    Parameters
    ----------
    declaration : Declaration
        What the plugin's `tellsign.json` says.
    settings : mapping
        What the user set for this plugin; refuse what you do not know with `SettingError`.
    """

    def __init__(self, declaration: Declaration, settings: Mapping[str, object]) -> None:
        self.declaration = declaration
        self.settings = settings

    def setup(self, runtime: DeviceRuntime) -> None:  # noqa: B027 (optional on purpose)
        """Look around once, cheaply: build models in `detect`, through `runtime.use`.

        Raises
        ------
        UnavailableError
            The detector cannot answer here.
        """

    @abstractmethod
    def detect(self, views: Sequence[View], runtime: DeviceRuntime) -> Sequence[Sequence[Evidence]]:
        """Answer for each view.

        Parameters
        ----------
        views : sequence of View
            The view of the declared task, for each of one or more pictures. What is said of one must not depend on
            the others.
        runtime : DeviceRuntime
            The device. Put at most `runtime.batch_size` pictures or crops through a model at once.

        Returns
        -------
        sequence of sequences of Evidence
            As many as views, in their order, each under this plugin's name and task.

        Raises
        ------
        UnavailableError
            The detector cannot answer here.
        """

    @property
    def model(self) -> str:
        """Name and version that evidence carries where no other is given."""
        return f"{self.declaration.name} {self.declaration.version}"

    def _origin(self, model: str | None) -> dict[str, Any]:
        return {"plugin": self.declaration.name, "task": self.declaration.task, "model": model or self.model}

    def score(
        self, name: str, score: SupportsFloat, *, logit: SupportsFloat | None = None, model: str | None = None
    ) -> ScoreEvidence:
        """A score in [0, 1], higher is more suspicious; `logit` keeps what a score near 0 or 1 loses."""
        exact = None if logit is None else float(logit)
        return ScoreEvidence(**self._origin(model), name=name, score=float(score), logit=exact)

    def map(self, name: str, map: ArrayLike, *, box: Box, model: str | None = None) -> MapEvidence:
        """A map (rows, columns) in [0, 1] over the part `box` of the picture; copied and made float32."""
        return MapEvidence(**self._origin(model), name=name, map=np.array(map, np.float32), box=box)

    def finding(
        self,
        category: Category,
        strength: SupportsFloat,
        *,
        region: Box | None = None,
        note: str = "",
        model: str | None = None,
    ) -> FindingEvidence:
        """An artifact of X-AIGD's taxonomy with a strength in [0, 1]; no region means the whole picture."""
        return FindingEvidence(
            **self._origin(model), category=category, strength=float(strength), region=region, note=note
        )

    def statement(
        self,
        statement: str,
        support: SupportsFloat,
        *,
        origin: str,
        category: Category | None = None,
        model: str | None = None,
    ) -> StatementEvidence:
        """A reason in words with its support in [0, 1]; `origin` is "retrieved" or "generated"."""
        return StatementEvidence(
            **self._origin(model), statement=statement, support=float(support), origin=origin, category=category
        )

    def provenance(
        self,
        claim: str,
        *,
        claimant: str,
        verification: str,
        detail: str = "",
        model: str | None = None,
        **more: str,
    ) -> ProvenanceEvidence:
        """A claim that the file makes; `verification` is "verified", "unverified", "broken" or "unknown".

        `more` takes the other fields of `ProvenanceEvidence`: `meaning`, `carrier`, `signer`, `integrity`, `trust`,
        `generator`, `generator_model`, `prompt`, `seed`.
        """
        given: dict[str, Any] = self._origin(model) | more
        return ProvenanceEvidence(**given, claim=claim, claimant=claimant, verification=verification, detail=detail)

    def unavailable(self, reason: str, *, model: str | None = None) -> Unavailable:
        """A part of the detector that cannot answer here, beside what the others say."""
        return Unavailable(**self._origin(model), reason=reason)

    def not_applicable(self, reason: str, *, model: str | None = None) -> NotApplicable:
        """Nothing to say about a picture of this kind, which is neither a failure nor a sign of anything."""
        return NotApplicable(**self._origin(model), reason=reason)


class Hooks:
    """The hooks. There is one, and it registers: detection is never broadcast through hooks."""

    @hookspec
    def tellsign_detector(self) -> type[DetectorPlugin]:
        """Return the detector's class, the one that `detector` in `tellsign.json` names."""
        raise NotImplementedError  # a specification; pluggy never calls it


__all__ = ["PROJECT", "DetectorPlugin", "Hooks", "UnavailableError", "hookimpl", "hookspec"]
