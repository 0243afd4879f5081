"""Many pictures: decoding runs ahead in threads while the device works, in order and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count, islice
from typing import Any, Literal, TypeVar

import attrs

from .errors import SettingError, TellsignError

P = TypeVar("P")
R = TypeVar("R")

OnError = Literal["raise", "return"]
Progress = bool | Callable[[int, int | None], None]
"""Whether to show a bar (tqdm, on stderr), or what to call with (pictures done, pictures in all if known)."""

THREADS = min(4, os.cpu_count() or 1)
"""Decoding more than four pictures at once fills memory faster than any device here empties it."""


@attrs.frozen
class Unreadable:
    """Stands in for the verdict on a picture that could not be read."""

    source: str | None
    """Its path, None for what had none."""
    error: TellsignError


def run_ahead(
    sources: Iterable[Any],
    prepare: Callable[[Any, str], P],
    finish: Callable[[Sequence[P]], Sequence[R]],
    *,
    batch_size: int,
    on_error: OnError,
    progress: Progress,
) -> Iterator[R | Unreadable]:
    """Prepare each source in threads, finish them in batches, yield in order.

    Parameters
    ----------
    sources : iterable
        Read `batch_size` ahead of the batch that is worked on, never further, and in the caller's thread.
    prepare : callable
        Called in a thread with a source and its number as text.
    finish : callable
        Called in the caller's thread with the prepared sources of a batch.
    batch_size : int
    on_error : "raise" or "return"
        What to do with a source whose `prepare` raises `TellsignError`: raise it in its turn, or yield `Unreadable`.
    progress : bool or callable
    """
    iterator, numbers = iter(sources), count()
    waiting: deque[tuple[Any, Future[P]]] = deque()
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="tellsign-decode")

    def refill() -> None:
        for source in islice(iterator, batch_size):
            waiting.append((source, pool.submit(prepare, source, str(next(numbers)))))

    try:
        with _reporter(progress, len(sources) if isinstance(sources, Sized) else None) as report:
            refill()
            while waiting:
                batch = list(waiting)
                waiting.clear()
                refill()
                for item in _finish(batch, finish, on_error):
                    report()
                    yield item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _finish(
    batch: Sequence[tuple[Any, Future[P]]], finish: Callable[[Sequence[P]], Sequence[R]], on_error: OnError
) -> Iterator[R | Unreadable]:
    ready: list[P] = []
    unreadable: dict[int, Unreadable] = {}
    stop: TellsignError | None = None
    for place, (source, future) in enumerate(batch):
        try:
            ready.append(future.result())
        except TellsignError as error:
            if on_error == "raise":
                stop = error
                break  # those before it are still answered
            unreadable[place] = Unreadable(_path(source), error)
    results = iter(finish(ready) if ready else [])
    for place in range(len(ready) + len(unreadable)):
        yield unreadable[place] if place in unreadable else next(results)
    if stop is not None:
        raise stop


def _path(source: object) -> str | None:
    return os.fsdecode(source) if isinstance(source, str | os.PathLike) else None


@contextmanager
def _reporter(progress: Progress, total: int | None) -> Iterator[Callable[[], object]]:
    """What to call after each picture."""
    if callable(progress):
        done = count(1)
        yield lambda: progress(next(done), total)
    elif progress:
        from tqdm.auto import tqdm

        with tqdm(total=total, unit="picture") as bar:
            yield bar.update
    else:
        yield lambda: None


def check_sources(sources: object) -> None:
    """Refuse what is one picture and not many: a path would otherwise be read letter by letter."""
    if isinstance(sources, str | bytes | os.PathLike) or not isinstance(sources, Iterable):
        raise SettingError("sources", "an iterable of pictures (for one picture there is `detect`)", sources)


__all__ = ["OnError", "Progress", "Unreadable", "check_sources", "run_ahead"]
