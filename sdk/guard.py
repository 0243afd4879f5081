"""Stands between the pipeline and one plugin: whatever the plugin does, each picture gets an answer in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs

from tellsign.schemas import (
    EVIDENCE_KINDS,
    Evidence,
    Failed,
    InvalidValueError,
    MapEvidence,
    Notice,
    ScoreEvidence,
    Unavailable,
    View,
)

from .errors import PluginError, TimeLimitError
from .plugin import DetectorPlugin, UnavailableError
from .runtime import DeviceRuntime
from .worker import Outcome, QuarantinedError, Worker, in_words

T = TypeVar("T")

KINDS: tuple[type[Evidence], ...] = tuple(EVIDENCE_KINDS.values())


@attrs.frozen
class Answer:
    """What one plugin said about one view."""

    evidence: tuple[Evidence, ...]
    notice: Notice | None = None
    """Set where the plugin did something wrong."""

    @property
    def failed(self) -> bool:
        """Whether the plugin should have answered and did not."""
        return any(isinstance(e, Failed) for e in self.evidence)


class BadEvidenceError(Exception):
    """The answer is not what the contract asks for."""


class Guard:
    """Runs one plugin under a time limit and turns all that it does wrong into `Failed` evidence and a notice.

    Parameters
    ----------
    plugin : DetectorPlugin
    runtime : DeviceRuntime
    time_limit : float, optional
        Seconds per picture; by default what the plugin declares.
    strict : bool
        Raise `PluginError` instead.
    """

    def __init__(
        self, plugin: DetectorPlugin, runtime: DeviceRuntime, *, time_limit: float | None = None, strict: bool = False
    ) -> None:
        self.plugin, self.runtime, self.strict = plugin, runtime, strict
        self.declaration = plugin.declaration
        self.name, self.task = self.declaration.name, self.declaration.task
        self.time_limit = time_limit or self.declaration.time_limit
        self._unavailable: str | None = None
        self._why_quarantined = "it hung in an earlier call and is not asked again"
        self._worker = Worker(self.name)

    @property
    def quarantined(self) -> bool:
        """Whether the plugin hung and is not asked any more."""
        return self._worker.hung

    def setup(self) -> None:
        """Let the plugin set itself up; one that says it is unavailable is not asked later.

        Raises
        ------
        PluginError
            It raised something else, or hung.
        """
        try:
            outcome = self._run(lambda: self.plugin.setup(self.runtime), self.time_limit)
        except TimeLimitError as error:
            raise PluginError(self.name, f"its setup did not end within {self.time_limit:g} s") from error
        if isinstance(outcome.error, UnavailableError):
            self._unavailable = outcome.error.reason
        elif outcome.error is not None:
            raise PluginError(self.name, f"its setup raised {in_words(outcome.error)}") from outcome.error

    def ask(self, views: Sequence[View], *, pictures: int = 1) -> tuple[list[Answer], float]:
        """Let the plugin answer.

        Parameters
        ----------
        views : sequence of View
        pictures : int
            Pictures that the views belong to; the time limit grows with it.

        Returns
        -------
        list of Answer
            One for each view.
        float
            Seconds of wall time.

        Raises
        ------
        PluginError
            Only when `strict`.
        """
        if not views:
            return [], 0.0
        if self._unavailable is not None:
            return [self._not_here(self._unavailable)] * len(views), 0.0
        limit = self.time_limit * pictures
        try:
            outcome = self._run(lambda: self._answers(views), limit)
        except TimeLimitError as error:
            message = f"it did not answer within {limit:g} s and is not asked again"
            return [self._failure(error, "plugin_timeout", "TimeLimit", message)] * len(views), limit
        except QuarantinedError as error:
            return [self._failure(error, "plugin_timeout", "TimeLimit", self._why_quarantined)] * len(views), 0.0
        if outcome.value is not None:
            return outcome.value, outcome.seconds
        assert outcome.error is not None
        if self.strict and isinstance(outcome.error, PluginError):  # made in `_answers`
            raise outcome.error
        if isinstance(outcome.error, UnavailableError):
            return [self._not_here(outcome.error.reason)] * len(views), outcome.seconds
        if len(views) == 1 or isinstance(outcome.error, BadEvidenceError | TimeLimitError) or self.strict:
            return [self._raised(outcome.error)] * len(views), outcome.seconds
        return self._one_by_one(views, outcome.seconds)

    def _one_by_one(self, views: Sequence[View], seconds: float) -> tuple[list[Answer], float]:
        """Ask again for each view: one odd picture must not take the others of its batch with it."""
        answers = []
        for view in views:
            (answer,), more = self.ask([view])
            answers.append(answer)
            seconds += more
        return answers, seconds

    def _run(self, work: Callable[[], T], limit: float) -> Outcome[T]:
        try:
            return self._worker.call(work, limit)
        except TimeLimitError:
            self.runtime.give_up(self._worker.thread)
            raise

    def _answers(self, views: Sequence[View]) -> list[Answer]:
        """Call the plugin and check what it says; runs in the plugin's thread."""
        answers = []
        for item in self.call(views):
            try:
                answers.append(Answer(self.checked(item)))
            except BadEvidenceError as error:
                answers.append(self._raised(error))
        return answers

    def call(self, views: Sequence[View]) -> Sequence[object]:
        """What the plugin says, one item for each view, not checked any further.

        Raises
        ------
        BadEvidenceError
            It is no list of that length. What the plugin itself raises goes through.
        """
        said: object = self.plugin.detect(views, self.runtime)
        if not isinstance(said, list | tuple):
            raise BadEvidenceError(f"detect must return a list with one item for each view, got {_kind(said)}")
        if len(said) != len(views):
            raise BadEvidenceError(f"detect must return {len(views)} items, one for each view, got {len(said)}")
        return said

    def checked(self, item: object) -> tuple[Evidence, ...]:
        """The evidence of one item of an answer.

        Raises
        ------
        BadEvidenceError
            It is not what the contract asks for.
        """
        if isinstance(item, BadEvidenceError):  # an isolated plugin's process has looked at it already
            raise item
        if not isinstance(item, list | tuple):
            raise BadEvidenceError(f"the answer to a view must be a list of evidence, got {_kind(item)}")
        names: set[tuple[type, str]] = set()
        for evidence in item:
            if not isinstance(evidence, KINDS):
                raise BadEvidenceError(f"the answer to a view must hold evidence only, got {_kind(evidence)}")
            if evidence.plugin != self.name:
                raise BadEvidenceError(f"evidence must be under the plugin's own name, got {evidence.plugin!r}")
            if evidence.task is not self.task:
                raise BadEvidenceError(f"evidence must be under the declared task {self.task!r}, got {evidence.task!r}")
            try:
                attrs.validate(evidence)  # frozen in Python is a promise that a plugin can break
            except InvalidValueError as error:
                raise BadEvidenceError(str(error)) from error
            if isinstance(evidence, ScoreEvidence | MapEvidence):
                key = (type(evidence), evidence.name)
                if key in names:
                    raise BadEvidenceError(f"two pieces of {evidence.kind} evidence are called {evidence.name!r}")
                names.add(key)
        return tuple(item)

    def _raised(self, error: BaseException) -> Answer:
        """The answer for an exception of the plugin's."""
        if isinstance(error, BadEvidenceError | InvalidValueError):
            return self._failure(error, "plugin_bad_evidence", "BadEvidence", f"it gave a bad answer: {error}")
        if isinstance(error, TimeLimitError):  # it waited for the device in vain, which is not its own fault
            return self._failure(error, "plugin_timeout", "TimeLimit", str(error))
        return self._failure(error, "plugin_failed", type(error).__name__, f"it raised {in_words(error)}")

    def _failure(self, error: BaseException, code: str, kind: str, message: str) -> Answer:
        if self.strict:
            raise PluginError(self.name, message) from error
        failed = Failed(plugin=self.name, task=self.task, model=self.plugin.model, reason=message, error=kind)
        return Answer((failed,), Notice(code=code, message=f"{self.name}: {message}", plugin=self.name))

    def _not_here(self, reason: str) -> Answer:
        reason = str(reason) or "the plugin does not say why"
        return Answer((Unavailable(plugin=self.name, task=self.task, model=self.plugin.model, reason=reason),))

    def could_not_see(self, reason: str) -> Answer:
        """The answer for a picture whose view could not be made, which the plugin has no part in."""
        message = f"its view could not be made: {reason}"
        return self._failure(PluginError(self.name, message), "view_failed", "View", message)

    def close(self) -> None:
        """Let the plugin's thread end."""
        self._worker.close()


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


__all__ = ["Answer", "BadEvidenceError", "Guard"]
