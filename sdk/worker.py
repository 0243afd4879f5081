"""One daemon thread per plugin: whoever waits can stop waiting, and the process can still exit."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import copy_context
from typing import Generic, TypeVar

import attrs

from .deadline import Stopwatch
from .errors import TellsignError, TimeLimitError

T = TypeVar("T")

_SHORTEST_WAIT = 0.01  # seconds; while the watch is paused the time left does not shrink, and the loop must not spin


def in_words(error: BaseException | None) -> str:
    """Class and text of an exception, also of one whose text cannot be had."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class QuarantinedError(TellsignError):
    """The thread hung in an earlier call and is not asked again."""


@attrs.frozen
class Outcome(Generic[T]):
    """How a call ended: with a value, or with the exception that it raised. Seconds are of wall time."""

    value: T | None
    error: BaseException | None
    seconds: float


class _Job(Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        self.work = work
        self.context = copy_context()  # carries the runtime's scope into the thread
        self.watch = Stopwatch()
        self.done = threading.Event()
        self.outcome: Outcome[T] | None = None
        self.refused = False

    def run(self) -> None:
        began = time.perf_counter()
        value: T | None = None
        error: BaseException | None = None
        try:
            with self.watch.running():
                value = self.work()
        except BaseException as caught:  # a plugin that calls sys.exit() must not end the thread, nor the app
            error = caught
        self.outcome = Outcome(value, error, time.perf_counter() - began)
        self.done.set()


def _serve(jobs: queue.SimpleQueue[_Job[object] | None]) -> None:
    while (job := jobs.get()) is not None:
        job.context.run(job.run)
        del job  # or the last answer would stay in memory until the next call


class Worker:
    """Runs calls one at a time in a thread of its own, each with a time limit.

    A Python thread cannot be stopped. A call that passes its limit is therefore abandoned: the thread is left behind
    (it is a daemon, so the process can exit), the worker is quarantined, and every later call is refused at once.

    One thread that stays, and not one per call, because torch keeps a pool of threads per calling thread.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job[object] | None] = queue.SimpleQueue()
        self._hung = False
        self.thread = threading.Thread(target=_serve, args=(self._jobs,), name=f"tellsign-{name}", daemon=True)
        self._stop = weakref.finalize(self, self._jobs.put, None)

    @property
    def hung(self) -> bool:
        """Whether a call passed its limit."""
        return self._hung

    def call(self, work: Callable[[], T], limit: float) -> Outcome[T]:
        """Run `work` in the thread and wait for it.

        Parameters
        ----------
        work : callable
            Takes nothing. It sees the caller's context variables.
        limit : float
            Seconds that it may take, counted from its own start and not from its place in the queue, without
            what `deadline.paused` excuses.

        Raises
        ------
        TimeLimitError
            It did not end in time; the worker is quarantined from here on.
        QuarantinedError
            An earlier call hung.
        """
        job: _Job[T] = _Job(work)
        with self._lock:
            if self._hung:
                raise QuarantinedError(f"{self.name} hung in an earlier call and is not asked again")
            if not self.thread.is_alive():
                self.thread.start()
            self._jobs.put(job)  # type: ignore[arg-type]
        while not job.done.wait(max(_SHORTEST_WAIT, limit - job.watch.elapsed())):
            if job.watch.elapsed() >= limit:
                self._give_up()
                raise TimeLimitError(self.name, limit)
        if job.refused:
            raise QuarantinedError(f"{self.name} hung in an earlier call and is not asked again")
        assert job.outcome is not None
        return job.outcome

    def _give_up(self) -> None:
        """Refuse what still waits in the queue, and let the thread end should its call ever return."""
        with self._lock:
            self._hung = True
            while True:
                try:
                    waiting = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if waiting is not None:
                    waiting.refused = True
                    waiting.done.set()
            self._jobs.put(None)

    def close(self) -> None:
        """Let the thread end after the calls that are queued; a later call is refused by whoever owns the worker."""
        self._stop()


__all__ = ["Outcome", "QuarantinedError", "Worker", "in_words"]
