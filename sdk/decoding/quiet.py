"""Keeps Pillow's warnings inside, from any number of threads."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# The group makes the filter unlike any that an app would set, so that removing it never removes the app's own.
_PATTERN = r"(?:PIL)\."
_lock = threading.Lock()
_inside = 0


def _is_ours(entry: tuple[object, ...]) -> bool:
    return entry[0] == "ignore" and getattr(entry[3], "pattern", None) == _PATTERN


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore warnings that Pillow's modules raise; every other module's go their way.

    `warnings.catch_warnings` swaps the whole filter list and puts it back, and two threads that overlap put back the
    wrong one. Here one filter, for Pillow's modules only, is put in by whoever comes and taken out by the last to go.
    """
    global _inside
    with _lock:
        _inside += 1
        warnings.filterwarnings("ignore", module=_PATTERN)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                for entry in [e for e in warnings.filters if _is_ours(e)]:
                    warnings.filters.remove(entry)  # type: ignore[attr-defined]
