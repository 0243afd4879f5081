"""A plugin whose code is in another process, as the host sees it: an ordinary plugin."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tellsign.deadline import paused
from tellsign.errors import SettingError, TimeLimitError
from tellsign.guard import BadEvidenceError
from tellsign.host import LOAD_LIMIT, PluginRecord
from tellsign.plugin import DetectorPlugin, UnavailableError
from tellsign.schemas import Evidence, View
from tellsign.schemas.codec import CodecError, from_parts, to_json, to_parts

from .errors import NotLoadedError, ProcessEndedError, RemoteError
from .process import Process

if TYPE_CHECKING:
    from tellsign.runtime import DeviceRuntime


class RemotePlugin(DetectorPlugin):
    """Stands for a plugin that lives in a process of its own, and starts that process again where it has ended.

    Parameters
    ----------
    record : PluginRecord
        With its declaration. Nothing of the plugin is imported here.
    settings : mapping
        The plugin's; they travel as JSON, paths as text.
    memory_limit : int
        Bytes that the process may have in memory.

    Raises
    ------
    SettingError
        A setting is nothing that JSON has.
    """

    def __init__(self, record: PluginRecord, settings: Mapping[str, object], *, memory_limit: int) -> None:
        assert record.declaration is not None
        super().__init__(record.declaration, settings)
        self.memory_limit = memory_limit
        self.starts = 0
        """How often the process was started."""
        self._load = {
            "do": "load",
            "declaration": to_json(record.declaration),
            "module": record.module,
            "file": None if record.file is None else str(record.file),
            "settings": {name: _plain(value, f"{record.name}.{name}") for name, value in settings.items()},
        }
        self._lock = threading.Lock()
        self._process: Process | None = None
        self._era = 0

    def setup(self, runtime: DeviceRuntime) -> None:
        """Start the process, load the plugin in it and set it up."""
        self._running(runtime)

    def detect(self, views: Sequence[View], runtime: DeviceRuntime) -> Sequence[Sequence[Evidence]]:
        """Let the process answer; an answer that did not pass the check there is an error in its place."""
        process = self._running(runtime)
        told, blobs = to_parts(list(views))
        message, back = self._asked(process, {"do": "detect", "views": told}, blobs)
        items: list[Any] = message.get("items") if isinstance(message.get("items"), list) else []
        bad = message.get("bad")
        try:
            found: list[Any] = [[from_parts(e, back, Evidence) for e in item] for item in items]
            for place, why in bad if isinstance(bad, list) else ():
                found[place] = BadEvidenceError(str(why))
        except (CodecError, TypeError, ValueError, IndexError) as error:
            process.end(ProcessEndedError(f"its process sent what is no evidence and was ended ({error})"[:500]))
            raise ProcessEndedError(f"its process sent what is no evidence and was ended ({error})"[:500]) from None
        return found

    def stop(self) -> None:
        """End the process; the next call starts another one."""
        with self._lock:
            self._era += 1
            process, self._process = self._process, None
        if process is not None:
            process.end()

    def _running(self, runtime: DeviceRuntime) -> Process:
        with self._lock:
            process, era = self._process, self._era
        if process is not None and not process.ended:
            return process
        with paused(LOAD_LIMIT):  # as in the host, what loading takes is not counted against the plugin's own limit
            process = Process(self.declaration.name, memory_limit=self.memory_limit)
            with self._lock:
                if era == self._era:
                    self._process = process
                    self.starts += 1
            if self._process is not process:  # given up meanwhile
                process.end()
            self._asked(process, self._load | {"runtime": runtime.options})
        self._asked(process, {"do": "setup"})
        return process

    def _asked(self, process: Process, message: object, blobs: Sequence[memoryview] = ()) -> tuple[Any, list[bytes]]:
        answer, back = process.ask(message, blobs)
        if answer["say"] == "error":
            _raise(answer)
        if answer["say"] == "not_loaded":
            process.end()
            raise NotLoadedError(_text(answer, "reason", "it does not say why"))
        return answer, back


def _raise(answer: Mapping[str, object]) -> NoReturn:
    kind, words = answer.get("kind"), _text(answer, "words", "an error without words")
    if kind == "unavailable":
        raise UnavailableError(_text(answer, "reason", ""))
    if kind == "bad":
        raise BadEvidenceError(_text(answer, "reason", words))
    if kind == "late":
        limit = answer.get("limit")
        raise TimeLimitError(_text(answer, "reason", words), limit if isinstance(limit, int | float) else None)
    raise RemoteError(_text(answer, "name", "Exception"), words, _text(answer, "bad", ""))


def _text(answer: Mapping[str, object], key: str, otherwise: str) -> str:
    value = answer.get(key)
    return value[:4000] if isinstance(value, str) and value else otherwise


def _plain(value: object, name: str) -> object:
    """A setting as JSON has it."""
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(v, name) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v, name) for k, v in value.items()}
    raise SettingError(
        name, "text, a number, true, false, a list or a mapping of those, where the plugin is isolated", value
    )


__all__ = ["RemotePlugin"]
