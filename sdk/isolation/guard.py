"""The guard of an isolated plugin: whatever becomes of the process, every other picture still gets its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from tellsign.errors import PluginError, TimeLimitError
from tellsign.guard import Answer, BadEvidenceError, Guard
from tellsign.plugin import UnavailableError
from tellsign.runtime import DeviceRuntime
from tellsign.worker import Outcome, QuarantinedError, Worker, in_words

from .errors import HangError, NotLoadedError, ProcessEndedError, RemoteError
from .remote import RemotePlugin

T = TypeVar("T")

ENDS = 4
"""After so many ends in a row the process is not started again: a batch, and three pictures of it by themselves."""


class IsolatedGuard(Guard):
    """Runs one plugin in its process; the parameters are those of `Guard`.

    Where the process ends, or is ended because it hung or filled the memory, it is started again and the pictures of
    the batch are asked one by one, so that only the one at fault goes without an answer.
    """

    plugin: RemotePlugin

    def __init__(
        self, plugin: RemotePlugin, runtime: DeviceRuntime, *, time_limit: float | None = None, strict: bool = False
    ) -> None:
        super().__init__(plugin, runtime, time_limit=time_limit, strict=strict)
        self._lock = threading.Lock()
        self._ends = 0

    @property
    def quarantined(self) -> bool:
        """Whether the process ended so often that it is not started any more."""
        return self._ends >= ENDS

    def setup(self) -> None:
        """Start the process and set the plugin up in it.

        Raises
        ------
        PluginError
            It cannot be loaded, or its setup failed.
        """
        error = self._run(lambda: self.plugin.setup(self.runtime), self.time_limit).error
        if error is None:
            return
        self.plugin.stop()
        if isinstance(error, UnavailableError):
            self._unavailable = error.reason
        elif isinstance(error, NotLoadedError):
            raise PluginError(self.name, str(error)) from error
        elif isinstance(error, ProcessEndedError):
            raise PluginError(self.name, f"while it was set up, {error}") from error
        else:
            words = error.words if isinstance(error, RemoteError) else in_words(error)
            raise PluginError(self.name, f"its setup raised {words}") from error

    def _run(self, work: Callable[[], T], limit: float) -> Outcome[T]:
        if self.quarantined:
            raise QuarantinedError(self.name)
        while True:
            worker = self._worker
            try:
                outcome = worker.call(work, limit)
            except TimeLimitError:
                self._replace(worker)
                outcome = Outcome(
                    None, HangError(f"it did not answer within {limit:g} s; its process was ended"), limit
                )
            except QuarantinedError:  # a call before this one in the queue hung
                self._replace(worker)
                continue
            with self._lock:
                self._ends = self._ends + 1 if isinstance(outcome.error, ProcessEndedError) else 0
                if self.quarantined:
                    self._why_quarantined = f"its process ended {ENDS} times in a row and is not started again"
            return outcome

    def _replace(self, worker: Worker) -> None:
        """End the process that `worker` waits for, and go on with another one. Once, whoever asks."""
        with self._lock:
            if self._worker is worker:
                self.plugin.stop()
                self._worker = Worker(self.name)

    def _raised(self, error: BaseException) -> Answer:
        if isinstance(error, RemoteError) and error.bad:
            return super()._raised(BadEvidenceError(error.bad))
        if isinstance(error, RemoteError):
            return self._failure(error, "plugin_failed", error.name, f"it raised {error.words}")
        if isinstance(error, ProcessEndedError):
            return self._failure(error, error.code, error.kind, str(error))
        return super()._raised(error)

    def close(self) -> None:
        """End the process."""
        super().close()
        self.plugin.stop()


__all__ = ["ENDS", "IsolatedGuard"]
