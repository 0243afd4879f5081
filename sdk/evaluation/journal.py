"""A file of answers as they come, so that a run that was killed goes on where it was.

One JSON object a line: the content's hash, the condition, a hash of all else that the answer depends on (versions,
settings, peers), and the answer. The report is made from the data set and never from the lines, so a picture that is
there twice in the file is still one picture; a line that was cut off by the kill is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import attrs

from .items import DataError
from .outcomes import Outcome
from .shortcuts import Traits

FORMAT = 1


def setup_hash(facts: Mapping[str, Any]) -> str:
    """Of everything beside content and condition that an answer depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Journal:
    """Answers on disk, by content, condition and setup.

    Parameters
    ----------
    path : Path
        Made where it is not there; otherwise read and added to.
    setup : mapping
        Versions, settings, names of peers: what an answer depends on. Lines of another setup are kept and not used.

    Raises
    ------
    DataError
        The file is something else.
    """

    def __init__(self, path: Path, setup: Mapping[str, Any]) -> None:
        self.path, self.setup = path, setup_hash(setup)
        self.others = 0
        """Lines of another setup."""
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], int] = {}
        self._file: TextIO | None = None
        end = self._read() if path.exists() else 0
        self._reader = path.open("rb") if path.exists() else None
        self._file = path.open("a", encoding="utf-8", newline="\n")
        # What a kill left half written would spoil the next line.
        os.truncate(path, end)
        if end == 0:
            self._write({"tellsign-eval-journal": FORMAT})
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
                if n == 0 and not (isinstance(line, dict) and line.get("tellsign-eval-journal") == FORMAT):
                    raise DataError(f"{self.path} is no journal of tellsign eval (format {FORMAT}); name another file.")
                if isinstance(line, dict) and "of" in line:
                    if line.get("setup") == self.setup:
                        self._known[line["of"], line["under"]] = end
                    else:
                        self.others += 1
                end += len(raw)
        return end

    def __len__(self) -> int:
        return len(self._known)

    def get(self, content: str, condition: str) -> Outcome | None:
        """The answer on a content under a condition, None where there is none yet."""
        place = self._known.get((content, condition))
        if place is None or self._reader is None:
            return None
        with self._lock:  # several threads ask, and they share one position in the file
            self._reader.seek(place)
            raw = self._reader.readline()
        answer = json.loads(raw)["answer"]
        hits = answer.pop("hits")
        return Outcome(
            **{
                **answer,
                "hits": None if hits is None else tuple(hits),
                "traits": Traits(**answer["traits"]),
                "notices": tuple(answer["notices"]),
            }
        )

    def add(self, content: str, condition: str, outcome: Outcome) -> None:
        """Write an answer down at once."""
        self._write({"of": content, "under": condition, "setup": self.setup, "answer": attrs.asdict(outcome)})

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line, separators=(",", ":"), default=str) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        for file in (self._file, self._reader):
            if file is not None:
                file.close()
        self._file = self._reader = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
