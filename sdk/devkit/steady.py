"""Checks that an answer depends on the picture, and not on when, with what and where it was asked for."""

from __future__ import annotations

import threading
from typing import Any

from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Evidence

from .compare import apart, same
from .pictures import ORDINARY
from .report import CheckFailedError, fail_unless, some
from .subject import Subject

TOLERANCE = 1e-5
"""What batches, threads and moved models may change."""

ELSEWHERE = 0.02
"""What another device may change in a score or a map: it adds up in another order, and CUDA in half precision."""


def deterministic(subject: Subject) -> str:
    """Two calls and two instances say exactly the same."""
    small = subject.small
    other = subject.guard(subject.runtime)
    for name, view in small.items():
        for guard, who in ((subject.plugin, "a second call"), (other, "a second instance")):
            (again,) = subject.say(guard, [view])
            if list(again) != list(subject.spoken[name]):
                difference = apart(again, subject.spoken[name])
                raise CheckFailedError(f"{name}: {who} says something else (numbers differ by {difference:.3g})")
    return f"{len(small)} pictures, a second call and a second instance: equal to the last bit"


def batch_equals_single(subject: Subject) -> str:
    """A batch, in another order, says what each picture is told alone."""
    names = list(reversed(subject.spoken))
    most = 0.0
    together = subject.say(subject.plugin, [subject.views[name] for name in names])
    for name, answer in zip(names, together, strict=True):
        most = max(most, same(subject.spoken[name], answer, TOLERANCE, f"{name}, in a batch of {len(names)}"))
    return f"{len(names)} pictures, backwards: differences up to {most:.1e} (allowed {TOLERANCE:g})"


def threads(subject: Subject) -> str:
    """Two Detectors in one process, asked at the same time from threads of their own, do not disturb each other."""
    small, rounds = subject.small, 2
    guards = [subject.plugin, subject.guard(DeviceRuntime(subject.device))]
    start = threading.Barrier(len(guards))
    wrong: list[str] = []
    most: list[float] = [0.0]

    def ask(number: int) -> None:
        guard, names = guards[number], list(small)[:: 1 if number else -1]
        start.wait()
        for _ in range(rounds):
            for name in names:
                try:
                    (answer,) = [guard.checked(item) for item in guard.call([small[name]])]
                    most.append(same(subject.spoken[name], answer, TOLERANCE, name))
                except Exception as error:
                    wrong.append(f"{name}: {type(error).__name__} {error}")

    workers = [threading.Thread(target=ask, args=(n,), daemon=True) for n in range(len(guards))]
    for worker in workers:
        worker.start()
    limit = max(20.0, 3 * subject.declaration.time_limit) * rounds * len(small)
    for worker in workers:
        worker.join(limit)
    fail_unless(not any(w.is_alive() for w in workers), f"they did not come back within {limit:g} s")
    calls = len(guards) * rounds * len(small)
    fail_unless(not wrong, f"{len(wrong)} of {calls} calls went wrong: {some(wrong)}")
    return f"{calls} calls by 2 instances in 2 threads: differences up to {max(most):.1e}"


def device_moves(subject: Subject) -> str:
    """Models are lent by the runtime, may leave the device and come back, and another device says the same."""
    _ = subject.spoken  # asked by now
    used = dict(subject.runtime.counters.builds)
    kept = _models_of(subject.plugin.plugin)
    fail_unless(not kept, f"it keeps a model of its own ({some(kept)}); `runtime.use` would lend it, and could move it")
    if not used:
        return "it uses no model of the runtime, so nothing has to move"
    import torch

    small = dict(list(subject.small.items())[:2])
    tight = DeviceRuntime(subject.device, memory_budget=1)  # one model at a time: the next one pushes it out
    guard = subject.guard(tight)
    most = 0.0
    for _ in range(2):
        for name, view in small.items():
            (answer,) = subject.say(guard, [view])
            most = max(most, same(subject.spoken[name], answer, TOLERANCE, f"{name}, its model having left the device"))
        with tight.use("tellsign-check-filler", lambda: torch.nn.Linear(1, 1)):
            pass
    moved = f"{len(used)} models left the device and came back: differences up to {most:.1e}"
    devices = {subject.runtime.device.type, DeviceRuntime("auto").device.type, "cpu"} - {subject.runtime.device.type}
    for device in sorted(devices):
        elsewhere = subject.guard(DeviceRuntime(device))
        largest = 0.0
        for name in [*small, ORDINARY]:
            (answer,) = subject.say(elsewhere, [subject.views[name]])
            largest = max(largest, apart(subject.spoken[name], answer, ("score", "map", "finding")))
            fail_unless(largest <= ELSEWHERE, f"{name}: {device} differs by {largest:.3g} (allowed {ELSEWHERE})")
        moved += f"; {device} differs by up to {largest:.1e}"
    return moved + ("" if devices else "; no other device is here")


def _models_of(plugin: Any) -> list[str]:
    import sys

    torch = sys.modules.get("torch")
    if torch is None:
        return []
    return [name for name, value in vars(plugin).items() if isinstance(value, torch.nn.Module)]


def answer_of(subject: Subject, name: str) -> tuple[Evidence, ...]:
    """The answer of the main instance, asked again."""
    (answer,) = subject.say(subject.plugin, [subject.views[name]])
    return answer


__all__ = ["TOLERANCE", "answer_of", "batch_equals_single", "deterministic", "device_moves", "threads"]
