"""The plugin under test, and what it says of every picture: asked once, and shared by the checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TypeVar

import attrs

from tellsign.deadline import elapsed
from tellsign.decoding import decode
from tellsign.errors import PluginError, TellsignError, TimeLimitError
from tellsign.guard import Guard
from tellsign.host import Host, PluginRecord
from tellsign.plugin import DetectorPlugin, UnavailableError
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Declaration, Evidence, NotApplicable, Unavailable, View
from tellsign.views import build_view
from tellsign.worker import QuarantinedError, Worker, in_words

from .pictures import ORDINARY, PICTURES, Shown
from .report import CheckFailedError, CheckSkippedError
from .watch import changed, drawn, network, settled, shared_weights

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds that a call may take at least before the check gives it up, whatever the plugin declares."""


FEW = 4
"""Pictures that are looked at again and again."""


class HungError(CheckFailedError):
    """The plugin does not come back."""


@attrs.frozen
class Asked:
    """What became of asking about one picture."""

    answer: tuple[Evidence, ...] | None
    error: str
    """Why there is no answer, empty where there is one."""
    seconds: float


class Subject:
    """One plugin as a Detector would have it.

    Parameters
    ----------
    record : PluginRecord
        What the host found.
    settings : mapping
        The plugin's.
    device : str
        As a Detector's.
    """

    def __init__(self, record: PluginRecord, settings: Mapping[str, object], device: str) -> None:
        self.record, self.settings, self.device = record, dict(settings), device
        self.reached: list[str] = []
        """Hosts that the plugin reached for while it answered."""
        self.shared_weights: set[str] = set()
        """Names of the larger weights that it asked for, while it was set up and while it answered."""
        self.changed: list[str] = []
        """State of the process that it changed."""
        self._worker = Worker(f"check-{record.name}")

    @property
    def name(self) -> str:
        """The plugin's."""
        return self.record.name

    @property
    def declaration(self) -> Declaration:
        """The plugin's.

        Raises
        ------
        CheckSkippedError
            It could not be read, which is the failure of another check.
        """
        if self.record.declaration is None:
            raise CheckSkippedError(f"its declaration cannot be read ({self.record.reason})")
        return self.record.declaration

    @cached_property
    def runtime(self) -> DeviceRuntime:
        """The device for `plugin`."""
        return DeviceRuntime(self.device)

    def load(self) -> DetectorPlugin:
        """Another instance, not set up.

        Raises
        ------
        PluginError
            It cannot be loaded.
        """
        if self.record.state != "ok":
            raise PluginError(self.name, f"it is {self.record.state}: {self.record.reason}")
        host = Host(settings={self.name: self.settings})
        made = host.load([self.record])
        if self.name not in made:
            raise PluginError(self.name, host.records[0].reason)
        return made[self.name]

    def guard(self, runtime: DeviceRuntime) -> Guard:
        """Another instance, set up; its `call` and `checked` are used, and not its time limit."""
        plugin = self.load()
        self.within(lambda: plugin.setup(runtime))
        return Guard(plugin, runtime)

    @cached_property
    def unavailable(self) -> str:
        """Why the plugin cannot speak here, in its own words; empty where it can, or where it fails."""
        try:
            _ = self._main
        except UnavailableError as error:
            return error.reason or "it does not say why"
        except Exception:
            return ""
        for asked in self.alone.values():
            silent = [e for e in asked.answer or () if isinstance(e, Unavailable)]
            if silent and len(silent) == len(asked.answer or ()):
                return silent[0].reason
        return ""

    @cached_property
    def _main(self) -> Guard:
        before = self.within(settled)
        try:
            with shared_weights(self.shared_weights):
                return self.guard(self.runtime)
        finally:
            if not self._worker.hung:
                self.changed += changed(before, self.within(settled))

    @property
    def plugin(self) -> Guard:
        """The instance that most checks look at.

        Raises
        ------
        CheckSkippedError
            There is none, which is the failure of another check.
        """
        try:
            return self._main
        except UnavailableError as error:
            raise CheckSkippedError(f"it is unavailable here: {error.reason}") from error
        except (TellsignError, CheckFailedError) as error:
            raise CheckSkippedError(f"it cannot be loaded or set up ({error})") from error
        except Exception as error:
            raise CheckSkippedError(f"its setup raised {in_words(error)}") from error

    def view(self, shown: Shown) -> View:
        """What the plugin is given of a picture."""
        return build_view(self.declaration.task, decode(shown.make()), f"check.{shown.name}")

    @cached_property
    def views(self) -> dict[str, View]:
        """Of every picture, by its name."""
        return {shown.name: self.view(shown) for shown in PICTURES}

    @cached_property
    def small(self) -> dict[str, View]:
        """Of a few pictures that are cheap to look at again: of those that it spoke of, where there are any."""
        cheap = [shown.name for shown in PICTURES if shown.small and shown.name in self.spoken]
        if not cheap:
            raise CheckSkippedError("no picture got an answer")
        cheap = [name for name in cheap if self.speaks_of(name)] or cheap
        return {name: self.views[name] for name in cheap[:FEW]}

    @cached_property
    def alone(self) -> dict[str, Asked]:
        """What it says of each picture, asked one by one, without a network."""
        guard = self.plugin
        views = dict(self.views)
        out = {}
        before = self.within(settled)
        random_before: dict[str, object] = {}
        with network(self.reached), shared_weights(self.shared_weights):
            for name in [ORDINARY, *(n for n in views if n != ORDINARY)]:
                out[name] = self._asked(guard, views[name])
                if not random_before and not self._worker.hung:
                    random_before = self.within(drawn)  # after the first: imports and building a model may draw
        if not self._worker.hung:
            self.changed += changed(before, self.within(settled)) + changed(random_before, self.within(drawn))
        return out

    def _asked(self, guard: Guard, view: View) -> Asked:
        began = time.perf_counter()
        try:
            (answer,) = self.say(guard, [view])
        except UnavailableError as error:
            return Asked((guard.plugin.unavailable(error.reason or "no reason"),), "", 0.0)
        except Exception as error:
            words = str(error) if isinstance(error, CheckFailedError) else in_words(error)
            return Asked(None, words, time.perf_counter() - began)
        return Asked(answer, "", self.took)

    @cached_property
    def spoken(self) -> dict[str, tuple[Evidence, ...]]:
        """The answers, of the pictures that got one.

        Raises
        ------
        CheckSkippedError
            The plugin cannot speak here.
        """
        _ = self.plugin
        if self.unavailable:
            raise CheckSkippedError(f"it is unavailable here: {self.unavailable}")
        return {name: asked.answer for name, asked in self.alone.items() if asked.answer is not None}

    def speaks_of(self, name: str) -> bool:
        """Whether it had something to say about a picture."""
        return not all(isinstance(e, NotApplicable | Unavailable) for e in self.spoken.get(name, ()))

    def say(self, guard: Guard, views: Sequence[View]) -> list[tuple[Evidence, ...]]:
        """Answers, checked as the host checks them, in the plugin's own thread; `took` has the seconds that count."""
        said = self.within(lambda: [guard.checked(item) for item in guard.call(views)], pictures=len(views))
        return list(said)

    took: float = 0.0

    def within(self, work: Callable[[], T], *, pictures: int = 1) -> T:
        """Do something in the plugin's thread, and give it up where it hangs.

        Raises
        ------
        HungError
            It does not come back. Whatever else it raises goes through.
        """
        declared = self.record.declaration.time_limit if self.record.declaration else 0.0
        limit = max(PATIENCE, 3 * declared) * pictures
        counted: list[float] = []

        def timed() -> T:
            try:
                return work()
            finally:
                counted.append(elapsed())

        try:
            outcome = self._worker.call(timed, limit)
        except TimeLimitError as error:
            raise HungError(f"it did not come back within {limit:g} s") from error
        except QuarantinedError as error:
            raise HungError("it did not come back from an earlier call") from error
        self.took = counted[0] if counted else outcome.seconds
        if outcome.error is not None:
            raise outcome.error
        return outcome.value  # type: ignore[return-value]

    def close(self) -> None:
        """Let go of the thread and of the models."""
        self._worker.close()
        self.runtime.close()


__all__ = ["Asked", "HungError", "Subject"]
