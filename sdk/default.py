"""`detect` and `detect_many` for those who want no object: one Detector with every default, made on first call."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tellsign.schemas import Picture, Verdict

from .detector import Detector
from .stream import OnError, Progress, Unreadable

if TYPE_CHECKING:
    from .decoding import Source

_default: Detector | None = None
_default_lock = threading.Lock()


def default_detector() -> Detector:
    """The Detector behind `detect` and `detect_many`; made on first call, with every default."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Detector()
        return _default


def detect(source: Source | Picture, *, prior: float | None = None) -> Verdict:
    """Say what a picture is, with a Detector that is made on the first call and kept. See `Detector.detect`."""
    return default_detector().detect(source, prior=prior)


def detect_many(
    sources: Iterable[Source | Picture],
    *,
    prior: float | None = None,
    batch_size: int | None = None,
    progress: Progress = False,
    on_error: OnError = "raise",
) -> Iterator[Verdict | Unreadable]:
    """Say what many pictures are, with the same Detector as `detect`. See `Detector.detect_many`."""
    return default_detector().detect_many(
        sources, prior=prior, batch_size=batch_size, progress=progress, on_error=on_error
    )


__all__ = ["default_detector", "detect", "detect_many"]
