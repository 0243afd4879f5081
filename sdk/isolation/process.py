"""One process, from the side that started it: asked, watched, and ended for good."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from tellsign.deadline import paused
from tellsign.runtime import BUILD_LIMIT

from . import frames
from .errors import MemoryLimitError, ProcessEndedError
from .limits import memory_of

POLL = 0.02
"""Seconds between two looks at the memory while the process works."""

# The parent's own path, so that the child finds what the parent found, and nothing else first.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from tellsign.isolation.child import main; main(json.loads(sys.argv[2]))"
)


class Process:
    """A fresh Python interpreter that answers one message after the other.

    A fresh one, and neither a fork (which would copy locks that other threads hold) nor `multiprocessing` (which
    would import the app's main module again, and pickle).

    Parameters
    ----------
    name : str
        For its messages, and for whoever lists processes.
    memory_limit : int
        Bytes; the process is ended when it has more in memory.
    """

    def __init__(self, name: str, *, memory_limit: int) -> None:
        self.name, self.memory_limit = name, memory_limit
        path = [part for part in sys.path if isinstance(part, str)]
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(path), json.dumps(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=os.name == "posix",  # so that what it starts itself can be ended with it
        )
        self._lock = threading.Lock()
        self._why: ProcessEndedError | None = None
        self._end = weakref.finalize(self, _end, self._popen)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._popen.pid

    @property
    def ended(self) -> bool:
        """Whether it was seen to be gone, or was ended."""
        return not self._end.alive

    def ask(self, message: object, blobs: Sequence[memoryview | bytes] = ()) -> tuple[dict[str, Any], list[bytes]]:
        """Send a message and wait for its answer.

        While the process builds a model or waits for the device, the stopwatch that runs in this thread stands still,
        for `BUILD_LIMIT` seconds in all.

        Raises
        ------
        ProcessEndedError
            There is no answer, and the process is gone.
        """
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        try:
            with self._watched():
                frames.write(self._popen.stdin, message, blobs)  # type: ignore[arg-type]
                return self._answer()
        except (OSError, ValueError) as error:  # the pipe is broken, or was closed by `end`
            raise self._gone() from error
        except frames.FrameError as error:
            raise self._nonsense(str(error)) from error

    def _answer(self) -> tuple[dict[str, Any], list[bytes]]:
        excused = BUILD_LIMIT
        with contextlib.ExitStack() as pause:
            began = 0.0
            while True:
                frame = frames.read(self._popen.stdout)  # type: ignore[arg-type]
                if frame is None:
                    raise self._gone()
                message, blobs = frame
                say = message.get("say") if isinstance(message, dict) else None
                if say == "pause":
                    at_most = message.get("at_most")
                    if not isinstance(at_most, int | float):
                        raise frames.FrameError("a pause without its length")
                    pause.close()
                    began = time.monotonic()
                    pause.enter_context(paused(max(0.0, min(float(at_most), excused))))
                elif say == "resume":
                    pause.close()
                    excused = max(0.0, excused - (time.monotonic() - began))
                elif isinstance(say, str):
                    return message, blobs
                else:
                    raise frames.FrameError("an answer that says nothing")

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Look at the process's memory for the body of a `with`."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(POLL):
                used = memory_of(self.pid)
                if used is not None and used > self.memory_limit:
                    words = f"its process had {_gigabytes(used)} in memory (limit {_gigabytes(self.memory_limit)})"
                    self.end(MemoryLimitError(f"{words} and was ended"))
                    return

        watcher = threading.Thread(target=watch, name=f"tellsign-memory-{self.name}", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _nonsense(self, what: str) -> ProcessEndedError:
        self.end(ProcessEndedError(f"its process sent {what} and was ended"))
        return self._gone()

    def _gone(self) -> ProcessEndedError:
        """Why there is no answer; ends what is left."""
        self.end(None)
        with self._lock:
            if self._why is None:
                self._why = ProcessEndedError(f"its process ended: {_how(self._popen.returncode)}")
            return self._why

    def end(self, why: ProcessEndedError | None = None) -> None:
        """End the process and all that it started, now; `why` is what a call that waits will raise."""
        with self._lock:
            if self._why is None and why is not None:
                self._why = why
        self._end()


def _end(popen: subprocess.Popen[bytes]) -> None:
    # Nothing has waited for the process yet, so its number still means it, even where it is dead already.
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(popen.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        popen.kill()
    popen.wait()
    for pipe in (popen.stdin, popen.stdout):
        # A reader in another thread holds its lock until it sees the end, which is now.
        with contextlib.suppress(OSError, ValueError):
            if pipe is not None:
                pipe.close()


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


__all__ = ["Process"]
