"""Checks of how a plugin behaves: after a failure, towards its surroundings, and with time and memory."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import numpy as np

from tellsign.bench.memory import Peak
from tellsign.plugin import UnavailableError
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import View

from .compare import same
from .report import CheckFailedError, fail_unless, some
from .steady import answer_of
from .subject import HungError, Subject

ROUNDS = 5
"""Calls over which memory may not grow."""

GROWTH = 0.25
"""Share of what it was shown that a plugin may keep on average; more means that it keeps the pictures."""


class _MadeByCheckError(Exception):
    """Raised on purpose, by a check."""


class _FlakyRuntime(DeviceRuntime):
    """Fails the first time that a model is asked for, as a device without memory does."""

    failed = 0

    @contextmanager
    def use(self, key: str, build: Callable[[], Any]) -> Iterator[Any]:
        if not self.failed:
            self.failed += 1
            raise _MadeByCheckError("no memory is left on the device (made by the check)")
        with super().use(key, build) as model:
            yield model


def _broken(view: View) -> View:
    """A view of the same class and key that raises whatever is read off it."""
    kind = type(view)
    fields = {f.name for f in attrs.fields(kind)} - {"key"}

    def read(self: object, name: str) -> object:
        if name in fields:
            raise _MadeByCheckError(f"reading {name} fails (made by the check)")
        return object.__getattribute__(self, name)

    broken: Any = object.__new__(type(f"Broken{kind.__name__}", (kind,), {"__getattribute__": read}))
    object.__setattr__(broken, "key", f"{view.key}.broken")
    return broken  # type: ignore[no-any-return]


def failures_isolated(subject: Subject) -> str:
    """After a failure, of a picture or of the device, it answers the next picture as if nothing had been."""
    small = subject.small
    name = next(iter(reversed([n for n in small if subject.speaks_of(n)] or list(small))))
    view = small[name]
    try:
        said = subject.say(subject.plugin, [view, _broken(view), view])
    except HungError:
        raise
    except Exception:
        pass
    else:
        told = [e.kind for e in said[1]]
        fail_unless(
            set(told) <= {"not_applicable", "unavailable"},
            f"of a picture that cannot be read it says {some(told)}, where it should have raised",
        )
    try:
        again = answer_of(subject, name)
    except Exception as error:
        raise CheckFailedError(f"{name}: after a picture that cannot be read it fails: {error}") from error
    same(subject.spoken[name], again, 0.0, f"{name}, after a picture that cannot be read")
    flaky = _FlakyRuntime(subject.device)
    guard = subject.guard(flaky)
    done = "1 picture that cannot be read"
    for call in ("first", "second"):
        try:
            (answer,) = subject.say(guard, [view])
        except Exception as error:
            if call == "first" and flaky.failed:
                continue
            words = error.reason if isinstance(error, UnavailableError) else error
            raise CheckFailedError(f"{name}: after a device that was out of memory once it fails: {words}") from error
        if call == "second" or not flaky.failed:
            same(subject.spoken[name], answer, 0.0, f"{name}, after a device that was out of memory once")
    return done + (" and 1 device out of memory" if flaky.failed else "") + ": the next answer is the same"


def globals_untouched(subject: Subject) -> str:
    """It leaves the process as it was: working directory, random states, loggers, signal handlers, Pillow, torch."""
    asked = len(subject.spoken)
    fail_unless(not subject.changed, f"it changed {some(sorted(set(subject.changed)))}")
    return f"19 settings of the process compared before and after loading and {asked} pictures"


def offline(subject: Subject) -> str:
    """Answering reaches for no other machine."""
    asked = len(subject.spoken)
    fail_unless(not subject.reached, f"it reached out {len(subject.reached)} times: {some(subject.reached)}")
    return f"{asked} pictures answered with every connection refused, and none was tried"


def time(subject: Subject) -> str:
    """Each picture is answered within the declared time limit; building a model does not count."""
    limit = subject.declaration.time_limit
    took = {name: subject.alone[name].seconds for name in subject.spoken}
    slowest = max(took, key=lambda name: took[name])
    fail_unless(
        took[slowest] <= limit, f"{slowest} took {took[slowest]:.2f} s, and the declared time_limit is {limit:g} s"
    )
    most = f"the slowest ({slowest}) {took[slowest]:.2f} s of {limit:g} s"
    return f"{len(took)} pictures in {sum(took.values()):.2f} s, {most}"


def memory(subject: Subject) -> str:
    """Memory does not grow with the number of pictures seen."""
    views = list(subject.small.values())[:2]
    shown = sum(_size(view) for view in views)
    subject.say(subject.plugin, views)
    peak = Peak()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(ROUNDS):
            subject.say(subject.plugin, [_fresh(view, number) for view in views])
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    allowed = max(GROWTH * ROUNDS * shown, 500_000)
    words = f"{grown / 1e6:+.2f} MB after {ROUNDS} x {len(views)} pictures of {shown / 1e6:.1f} MB together"
    fail_unless(grown <= allowed, f"{words}: it keeps what it was shown")
    high = peak.megabytes
    return words + ("" if high is None else f"; the process's peak is {high:.0f} MB")


def _size(view: View) -> int:
    return sum(_bytes(getattr(view, f.name)) for f in attrs.fields(type(view)))


def _bytes(value: object) -> int:
    if isinstance(value, tuple):
        return sum(map(_bytes, value))
    return value.nbytes if isinstance(value, np.ndarray) else len(value) if isinstance(value, bytes) else 0


def _fresh(view: View, number: int) -> View:
    """The view in memory of its own, under a key of its own."""

    def own(value: object) -> object:
        if isinstance(value, tuple) and value and isinstance(value[0], np.ndarray):
            return tuple(v.copy() for v in value)
        if isinstance(value, bytes):
            return bytes(bytearray(value))
        return value.copy() if isinstance(value, np.ndarray) else value

    fields = {f.name: own(getattr(view, f.name)) for f in attrs.fields(type(view))}
    return type(view)(**fields | {"key": f"{view.key}.{number}"})  # type: ignore[arg-type]


__all__ = ["failures_isolated", "globals_untouched", "memory", "offline", "time"]
