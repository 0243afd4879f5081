"""A plugin that does nothing: what is left of a verdict's time is the host's own."""

from __future__ import annotations

from collections.abc import Sequence

from tellsign.plugin import DetectorPlugin
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import API_VERSION, Declaration, Evidence, Task, View

DECLARATION = Declaration(
    name="null",
    version="1.0.0",
    api_version=API_VERSION,
    task=Task.PIXEL,
    detector="tellsign.bench.null:NullDetector",
    summary="Answers nothing, at once.",
    columns=(),
    code_licence="Apache-2.0",
    weights_licence="none",
    commercial_use=True,
)


class NullDetector(DetectorPlugin):
    """Says of every picture that it has nothing to say."""

    def detect(self, views: Sequence[View], runtime: DeviceRuntime) -> Sequence[Sequence[Evidence]]:
        """One `NotApplicable` for each view."""
        return [[self.not_applicable("the null plugin never answers")] for _ in views]
