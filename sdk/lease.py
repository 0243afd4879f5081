"""The lock on the device: first come, first served, with a deadline, and taken back from a thread that hangs."""

from __future__ import annotations

import threading
import weakref
from collections import deque

from .errors import TimeLimitError


class Lease:
    """A reentrant lock whose holder can be given up.

    An ordinary lock held by a hung thread is lost for the life of the process. This one is taken from the thread:
    its own `release`, should it ever come, does nothing, and it never gets the lock again.
    """

    def __init__(self, what: str = "the device") -> None:
        self.what = what
        self._changed = threading.Condition()
        self._holder: threading.Thread | None = None
        self._depth = 0
        self._line: deque[object] = deque()
        self._given_up: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    def acquire(self, timeout: float) -> None:
        """Take the lock within `timeout` seconds.

        Raises
        ------
        TimeLimitError
            Others held it for that long, or this thread was given up.
        """
        me = threading.current_thread()
        with self._changed:
            self._refuse(me)
            if self._holder is me:
                self._depth += 1
                return
            ticket = object()
            self._line.append(ticket)
            free = self._changed.wait_for(
                lambda: me in self._given_up or (self._holder is None and self._line[0] is ticket), timeout
            )
            self._line.remove(ticket)
            if not free or me in self._given_up:
                self._changed.notify_all()  # whoever stood behind may be first now
                self._refuse(me)
                raise TimeLimitError(f"waiting for {self.what}", timeout)
            self._holder, self._depth = me, 1

    def _refuse(self, thread: threading.Thread) -> None:
        if thread in self._given_up:
            raise TimeLimitError(f"an earlier call in {thread.name}, which does not get {self.what} again,")

    def release(self) -> None:
        """Give the lock back; nothing happens where it was taken away."""
        with self._changed:
            if self._holder is threading.current_thread():
                self._depth -= 1
                if not self._depth:
                    self._holder = None
                    self._changed.notify_all()

    def held(self) -> bool:
        """Whether this thread holds the lock."""
        return self._holder is threading.current_thread()

    def give_up(self, thread: threading.Thread) -> None:
        """Take the lock from `thread`, now and for good."""
        with self._changed:
            self._given_up.add(thread)
            if self._holder is thread:
                self._holder, self._depth = None, 0
            self._changed.notify_all()


__all__ = ["Lease"]
