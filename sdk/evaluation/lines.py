"""A file of answers as they come: one JSON object a line, found again by content, condition and setup.

A line that was cut off by a kill is left out and overwritten. Answers stay on disk until they are asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from .items import DataError

FORMAT = 1


def setup_hash(facts: Mapping[str, Any]) -> str:
    """Of everything beside content and condition that an answer depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Lines:
    """Answers on disk, by content, condition and setup.

    Parameters
    ----------
    path : Path
        Made where it is not there; otherwise read and added to.
    setup : mapping
        What an answer depends on (versions, settings). Lines of another setup are kept and not used.

    Raises
    ------
    DataError
        The file is something else.
    """

    KIND = ""
    """First key of the file's first line."""
    WORDS = ""
    """What such a file is called in errors."""
    FINDS_NEW = False
    """Whether an answer can be found as soon as it is put; otherwise the memory does not grow with what is put."""

    def __init__(self, path: Path, setup: Mapping[str, Any]) -> None:
        self.path, self.setup = path, setup_hash(setup)
        self.others = 0
        """Lines of another setup."""
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], int] = {}
        self._file: TextIO | None = None
        end = self._read() if path.exists() else 0
        self._file = path.open("a", encoding="utf-8", newline="\n")
        self._reader = path.open("rb")
        # What a kill left half written would spoil the next line.
        os.truncate(path, end)
        if end == 0:
            self._write({self.KIND: FORMAT})
        self._write({"setup": self.setup, "is": dict(setup)})

    def _read(self) -> int:
        """Note where each answer lies; the end of the last whole line. Answers themselves stay on disk."""
        end = 0
        with self.path.open("rb") as file:
            for n, raw in enumerate(file):
                if not raw.endswith(b"\n"):
                    break
                try:
                    line = json.loads(raw)
                except ValueError:
                    line = None
                if n == 0 and not (isinstance(line, dict) and line.get(self.KIND) == FORMAT):
                    raise DataError(f"{self.path} is no {self.WORDS} (format {FORMAT}); name another file.")
                if isinstance(line, dict) and "of" in line:
                    if line.get("setup") == self.setup:
                        self._known[line["of"], line["under"]] = end
                    else:
                        self.others += 1
                end += len(raw)
        return end

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._known

    def find(self, content: str, condition: str) -> Any:
        """The answer on a content under a condition, as JSON; None where there is none yet."""
        with self._lock:  # several threads ask, and they share one position in the file
            place = self._known.get((content, condition))
            if place is None:
                return None
            self._reader.seek(place)
            raw = self._reader.readline()
        return json.loads(raw)["answer"]

    def put(self, content: str, condition: str, answer: object) -> None:
        """Write an answer down at once."""
        with self._lock:
            if self.FINDS_NEW:
                self._known[content, condition] = self.path.stat().st_size
            self._write({"of": content, "under": condition, "setup": self.setup, "answer": answer})

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line, separators=(",", ":"), default=str) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._reader.close()
        self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
