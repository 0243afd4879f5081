"""A stopwatch that does not charge a plugin for waiting on others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[Stopwatch | None] = ContextVar("tellsign_stopwatch", default=None)


class Stopwatch:
    """Seconds that a plugin's call has taken, less what it spent waiting for the device or building a model.

    Without the allowance a plugin that waits behind another one's hang would count as hanging too, and one that
    loads a large model for the first time would never get past its limit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began: float | None = None
        self._excused = 0.0
        self._pause: tuple[float, float] | None = None  # (when it began, how long it may count)

    def elapsed(self) -> float:
        """Seconds since `running` was entered that count; 0 before."""
        with self._lock:
            if self._began is None:
                return 0.0
            now = time.monotonic()
            return now - self._began - self._excused - self._paused_for(now)

    def _paused_for(self, now: float) -> float:
        if self._pause is None:
            return 0.0
        began, at_most = self._pause
        return min(now - began, at_most)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start the watch and make it the one that `paused` finds in this thread."""
        token = _current.set(self)
        with self._lock:
            self._began = time.monotonic()
        try:
            yield
        finally:
            _current.reset(token)

    @contextmanager
    def paused(self, at_most: float) -> Iterator[None]:
        """Stop the watch for the body, for `at_most` seconds; a pause inside a pause changes nothing."""
        with self._lock:
            nested = self._pause is not None
            if not nested:
                self._pause = (time.monotonic(), at_most)
        try:
            yield
        finally:
            if not nested:
                with self._lock:
                    self._excused += self._paused_for(time.monotonic())
                    self._pause = None


@contextmanager
def paused(at_most: float) -> Iterator[None]:
    """Stop the watch that runs in this thread, if one does, for at most `at_most` seconds."""
    watch = _current.get()
    if watch is None:
        yield
    else:
        with watch.paused(at_most):
            yield


def elapsed() -> float:
    """Seconds that count so far on the watch that runs in this thread; 0 where none does."""
    watch = _current.get()
    return 0.0 if watch is None else watch.elapsed()


__all__ = ["Stopwatch", "elapsed", "paused"]
