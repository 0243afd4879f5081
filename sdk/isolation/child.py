"""What runs in the process of an isolated plugin: it loads the one plugin and answers until nobody asks any more."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tellsign.deadline import Stopwatch
from tellsign.errors import TimeLimitError
from tellsign.guard import BadEvidenceError, Guard
from tellsign.host import Host, PluginRecord
from tellsign.plugin import UnavailableError
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import VIEW_OF_TASK, Declaration, InvalidValueError
from tellsign.schemas.codec import from_json, from_parts, to_parts
from tellsign.worker import in_words

from . import frames

_TEXT = 2000
"""Characters of an error that are told."""


class _Watch(Stopwatch):
    """Tells the parent when its own watch should stand still: only here is known that a model is being built."""

    def __init__(self, out: _Out) -> None:
        super().__init__()
        self._out = out

    @contextmanager
    def paused(self, at_most: float) -> Iterator[None]:
        with super().paused(at_most):
            self._out.say({"say": "pause", "at_most": at_most})
            try:
                yield
            finally:
                self._out.say({"say": "resume"})


class _Out:
    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe, self._lock = pipe, threading.Lock()

    def say(self, message: object, blobs: Any = ()) -> None:
        with self._lock:
            frames.write(self._pipe, message, blobs)


class _Child:
    """The plugin and what is done with it."""

    def __init__(self, out: _Out) -> None:
        self.out = out
        self.guard: Guard | None = None

    def answer(self, message: dict[str, Any], blobs: list[bytes]) -> tuple[object, Any]:
        """The answer to a message and its blobs."""
        do = {"load": self._load, "setup": self._setup, "detect": self._detect}[message["do"]]
        try:
            with _Watch(self.out).running():
                return do(message, blobs)
        except UnavailableError as error:
            return _error("unavailable", error, reason=error.reason), ()
        except BadEvidenceError as error:
            return _error("bad", error, reason=str(error)), ()
        except TimeLimitError as error:
            return _error("late", error, reason=error.what, limit=error.limit), ()
        except InvalidValueError as error:  # a helper such as `score` refused a value; as in a thread, no exception
            return _error("raised", error, bad=str(error)), ()
        except BaseException as error:  # as in a thread: a plugin that calls sys.exit() has raised SystemExit
            return _error("raised", error), ()

    def _load(self, message: dict[str, Any], _: list[bytes]) -> tuple[object, Any]:
        declaration = from_json(message["declaration"], Declaration)
        file = message["file"]
        record = PluginRecord(
            declaration.name, "", "", message["module"], "ok", "", declaration, None if file is None else Path(file)
        )
        host = Host(settings={declaration.name: message["settings"]})
        plugin = host.load([record]).get(declaration.name)
        if plugin is None:
            return {"say": "not_loaded", "reason": host.records[0].reason[:_TEXT]}, ()
        self.guard = Guard(plugin, DeviceRuntime(**message["runtime"]))
        return {"say": "done"}, ()

    def _setup(self, message: dict[str, Any], _: list[bytes]) -> tuple[object, Any]:
        assert self.guard is not None
        self.guard.plugin.setup(self.guard.runtime)
        return {"say": "done"}, ()

    def _detect(self, message: dict[str, Any], blobs: list[bytes]) -> tuple[object, Any]:
        assert self.guard is not None
        kind = VIEW_OF_TASK[self.guard.task]
        views = [from_parts(view, blobs, kind) for view in message["views"]]
        with self.guard.runtime.scope():
            said = self.guard.call(views)
        items: list[Any] = []
        bad: dict[int, str] = {}
        for place, item in enumerate(said):
            try:
                items.append(self.guard.checked(item))
            except BadEvidenceError as error:
                items.append(())
                bad[place] = str(error)[:_TEXT]
        told, back = to_parts([list(item) for item in items])
        return {"say": "answers", "items": told, "bad": [[place, why] for place, why in bad.items()]}, back


def _error(kind: str, error: BaseException, **more: object) -> dict[str, object]:
    told = {key: value[:_TEXT] if isinstance(value, str) else value for key, value in more.items()}
    return {"say": "error", "kind": kind, "name": type(error).__name__, "words": in_words(error)[:_TEXT], **told}


def main(parent: int) -> None:
    """Answer on what was stdout to what comes on stdin; a plugin's own prints go to stderr."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    faulthandler.enable()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    child = _Child(_Out(replies))
    while (frame := frames.read(requests, blob_limit=None)) is not None:
        message, blobs = frame
        child.out.say(*child.answer(message, blobs))
        del frame, message, blobs  # or the last batch would stay in memory until the next one
    os._exit(0)  # without waiting for threads that a plugin may have left


def _end_with(parent: int) -> None:
    """Go when the parent is gone, even where the plugin hangs: nobody would end this process any more."""
    while os.name == "posix" and os.getppid() == parent:
        time.sleep(1)
    if os.name == "posix":
        os._exit(1)


__all__ = ["main"]
