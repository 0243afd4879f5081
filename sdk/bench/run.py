"""Every line of `tellsign bench`, from one process."""

from __future__ import annotations

import os
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import Any

import attrs
import numpy as np

from tellsign.decoding import decode
from tellsign.detector import Detector
from tellsign.errors import SettingError
from tellsign.schemas import Task
from tellsign.views import build_view

from .memory import Peak
from .null import DECLARATION, NullDetector
from .parts import settle, take_apart, with_plugin
from .pictures import made_up
from .shared import LIMIT as SHARED_LIMIT
from .shared import shared_cost
from .start import first_verdict
from .timing import Estimate, Floats, Judgement, alternate, estimate, judge, neighbours, overhead

ONE_LIMIT = 0.10
"""Aim for one picture: overhead over bare forward passes."""
MANY_LIMIT = 0.05
"""Aim for many: time beyond the sum of the parts, over that sum."""
MEMORY_LIMIT = 0.10
"""How much more than 64 pictures 512 may take, over what is resident after loading."""
MEMORY_GRAIN = 16.0
"""MB by which allocators differ from run to run: growth below it cannot be told from theirs."""
BIG_LIMIT = 8.0
"""Seconds for 12 megapixels, on two cores."""
START_LIMIT = 5.0
"""Seconds to a first verdict, from the start of the process, with files that were read before."""
PIECES = ("start", "one", "many", "shared", "memory", "curve", "floor", "probe", "big")
"""What can be measured by itself, in the order in which it is."""
Tick = Callable[[str], None]


@attrs.frozen(kw_only=True)
class Plan:
    """How much is measured."""

    pairs: int = 60
    warmup: int = 3
    many: int = 64
    memory: tuple[int, int] = (64, 512)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    side: tuple[int, int] = (1024, 768)
    """Of the pictures."""
    small: tuple[int, int] = (320, 240)
    """Of the many: with so little for the models to do, what the host does shows most."""
    big: tuple[int, int] = (4000, 3000)
    repeats: int = 5
    """Of the lines that are no pairs."""
    pieces: tuple[str, ...] = PIECES

    def __attrs_post_init__(self) -> None:
        for piece in self.pieces:
            if piece not in PIECES:
                raise SettingError("pieces", f"some of {', '.join(PIECES)}", piece)
        if self.pairs < 3:
            raise SettingError("pairs", "an integer of at least 3", self.pairs)

    @classmethod
    def quick(cls, pairs: int = 8, pieces: tuple[str, ...] = PIECES) -> Plan:
        """A few minutes on a laptop; fewer pairs and pictures than the aims are stated for."""
        return cls(pairs=pairs, warmup=1, many=16, memory=(16, 64), batches=(1, 4, 8), repeats=2, pieces=pieces)


@attrs.frozen(kw_only=True)
class Line:
    """One line of the bench."""

    name: str
    summary: str
    value: Estimate | None
    """None where this system cannot say."""
    unit: str
    """"share", "s" or "MB"."""
    aa: Estimate | None = None
    limit: float | None = None
    judgement: Judgement
    note: str = ""


def bench(
    make: Callable[..., Detector] = Detector,
    *,
    plan: Plan | None = None,
    device: str = "auto",
    tick: Tick | None = None,
) -> dict[str, Any]:
    """Measure everything that the plan names.

    Parameters
    ----------
    make : callable, default Detector
        Called with `device`, `stability_probe` and `plugins`.
    plan : Plan, optional
    device : str, default "auto"
    tick : callable, optional
        Called with what is measured now, once per turn.

    Returns
    -------
    dict
        Only what JSON holds: lines, batch_curve, settings, machine, versions, seconds.

    Raises
    ------
    NothingToMeasureError
        No plugin is loaded.
    """
    plan, tick = plan or Plan(), tick or (lambda what: None)
    began = time.perf_counter()
    picture = made_up(*plan.side, seed=0)
    small = [made_up(*plan.small, seed=i) for i in range(8)]
    many = list(islice(cycle(small), plan.many))
    lines: list[Line] = []
    curve: list[dict[str, float]] = []
    # Without the probe: its copies are work of their own, and have a line of their own.
    with make(device=device, stability_probe=False) as detector:
        measured: dict[str, Callable[[], list[Line]]] = {
            "start": lambda: [_start(plan, tick)],
            "one": lambda: _one(detector, picture, plan, tick),
            "many": lambda: _many(detector, many, plan, tick),
            "shared": lambda: _shared(detector, picture, plan, tick),
            "memory": lambda: [_memory(detector, small, plan, tick)],
        }
        for piece, measure in measured.items():
            if piece in plan.pieces:
                lines += measure()
        if "curve" in plan.pieces:
            curve = _curve(detector, small, plan, tick)
        machine = _machine(detector)
        versions = dict(detector.versions)
    if "floor" in plan.pieces:
        with make(device="cpu", stability_probe=False, plugins=()) as detector:
            lines.append(_floor(with_plugin(detector, NullDetector(DECLARATION, {})), picture, plan, tick))
    if {"probe", "big"} & set(plan.pieces):
        with make(device=device, stability_probe=True) as detector:
            lines += [_probe(detector, picture, plan, tick)] if "probe" in plan.pieces else []
            lines += [_big(detector, plan, tick)] if "big" in plan.pieces else []
    return {
        "lines": [attrs.asdict(line) for line in lines],
        "batch_curve": curve,
        "settings": {**attrs.asdict(plan), "device": device},
        "machine": machine,
        "versions": versions,
        "seconds": time.perf_counter() - began,
    }


def _one(detector: Detector, picture: bytes, plan: Plan, tick: Tick) -> list[Line]:
    parts = take_apart(detector, [picture])
    samples = alternate(
        lambda: detector.detect(picture),
        parts.named(),
        pairs=plan.pairs,
        warmup=plan.warmup,
        settle=settle(detector.runtime),
        tick=lambda: tick("one picture"),
    )
    forward = samples.parts["forward"]
    value, aa = overhead(samples, forward)
    name = "one picture: host over forward"
    whose = ", ".join(parts.bare) or "no plugin"
    others = f", detect of {', '.join(parts.whole)}" if parts.whole else ""
    return [
        Line(
            name=name,
            summary="(detect - decode - views - bare forwards) / bare forwards",
            value=value,
            aa=aa,
            unit="share",
            limit=ONE_LIMIT,
            judgement=judge(value, aa, ONE_LIMIT),
            note=f"bare forwards of {whose}{others}; fusion and what those with bare forwards do beside them count "
            "as overhead",
        ),
        _seconds("one picture: detect", "wall time", samples.whole),
        _seconds("one picture: bare forwards", "wall time", forward),
        _ratio("decode over forward", samples.parts["decode"], forward),
        _ratio("views over forward", samples.parts["views"], forward),
    ]


def _many(detector: Detector, pictures: list[bytes], plan: Plan, tick: Tick) -> list[Line]:
    n = len(pictures)
    parts = take_apart(detector, pictures)
    samples = alternate(
        lambda: deque(detector.detect_many(pictures), maxlen=0),
        parts.named(),
        pairs=plan.pairs,
        warmup=1,
        settle=settle(detector.runtime),
        tick=lambda: tick(f"{n} pictures"),
    )
    value, aa = overhead(samples, samples.total)
    medians = {name: float(np.median(seconds)) for name, seconds in samples.parts.items()}
    longest = max(medians, key=lambda name: medians[name])
    apart = sum(medians.values()) / medians[longest] - 1
    against = estimate(samples.whole / neighbours(samples.parts[longest]) - 1)
    return [
        Line(
            name=f"{n} pictures: over the sum of parts",
            summary="(detect_many - decode - views - bare forwards) / their sum",
            value=value,
            aa=aa,
            unit="share",
            limit=MANY_LIMIT,
            judgement=judge(value, aa, MANY_LIMIT),
            note="below zero: decoding and views ran beside the forward passes",
        ),
        Line(
            name=f"{n} pictures: over the longest stage",
            summary=f"detect_many / {longest} - 1",
            value=against,
            unit="share",
            judgement="info",
            note=f"zero would be perfect overlap; the parts' sum stands at {apart:.1%}",
        ),
        _seconds(f"{n} pictures: per picture", "wall time of detect_many / pictures", samples.whole / n),
    ]


def _start(plan: Plan, tick: Tick) -> Line:
    seconds = first_verdict(plan.repeats, tick=lambda: tick("a first verdict"))
    value = estimate(seconds.wall)
    return Line(
        name="first verdict",
        summary="wall time of `tellsign detect FILE` in a new process, all installed detectors, files read before",
        value=value,
        unit="s",
        limit=START_LIMIT,
        judgement=judge(value, None, START_LIMIT),
        note=f"{float(np.median(seconds.cpu)):.1f} s of CPU time",
    )


def _shared(detector: Detector, picture: bytes, plan: Plan, tick: Tick) -> list[Line]:
    found = shared_cost(
        detector, picture, pairs=plan.pairs, warmup=plan.warmup, tick=lambda: tick("plugins that share a tower")
    )
    if found is None:
        return []
    plugins, ratio, aa = found
    value, own = estimate(ratio), estimate(aa)
    return [
        Line(
            name="plugins that share a tower",
            summary=f"detect of {', '.join(plugins)} after decode and view / one bare forward pass of the tower",
            value=value,
            aa=own,
            unit="share",
            limit=SHARED_LIMIT,
            judgement=judge(value, own, SHARED_LIMIT),
        )
    ]


def _floor(detector: Detector, picture: bytes, plan: Plan, tick: Tick) -> Line:
    decoded = decode(picture)
    samples = alternate(
        lambda: detector.detect(decoded),
        {"views": lambda: build_view(Task.PIXEL, decoded, "0")},
        pairs=plan.pairs,
        warmup=plan.warmup,
        tick=lambda: tick("null plugin"),
    )
    return _seconds(
        "host's floor", "null plugin, decoded picture: detect - views", samples.whole - neighbours(samples.total)
    )


def _memory(detector: Detector, pictures: list[bytes], plan: Plan, tick: Tick) -> Line:
    few, many = plan.memory

    def peak(count: int) -> Peak:
        watch = Peak()
        sources: Iterator[bytes] = islice(cycle(pictures), count)
        for _ in detector.detect_many(sources):
            tick(f"memory, {count} pictures")
        return watch

    name, summary = f"memory: {many} against {few} pictures", f"(peak({many}) - peak({few})) / (peak({few}) - loaded)"
    loaded = Peak().start
    small, large = peak(few).megabytes, peak(many).megabytes
    if loaded is None or small is None or large is None:
        return Line(
            name=name,
            summary=summary,
            value=None,
            unit="share",
            limit=MEMORY_LIMIT,
            judgement="inconclusive",
            note="this system does not say how much memory a process takes",
        )
    return memory_line(name, summary, loaded, small, large)


def memory_line(name: str, summary: str, loaded: float, small: float, large: float) -> Line:
    """Judge peaks in MB: after loading, over a small run, over a large run."""
    growth = large - small
    share = growth / max(small - loaded, 1.0)
    judgement: Judgement = "pass" if share <= MEMORY_LIMIT else "fail"
    note = f"{loaded:.0f} MB after loading, {small:.0f} and {large:.0f} MB at the peak"
    if judgement == "fail" and growth <= MEMORY_GRAIN:
        judgement, note = "inconclusive", f"{note}; growth below {MEMORY_GRAIN:.0f} MB may be the allocator's"
    return Line(
        name=name,
        summary=summary,
        value=Estimate(median=share, low=share, high=share),
        unit="share",
        limit=MEMORY_LIMIT,
        judgement=judgement,
        note=note,
    )


def _curve(detector: Detector, pictures: list[bytes], plan: Plan, tick: Tick) -> list[dict[str, float]]:
    wait = settle(detector.runtime)
    out = []
    for size in plan.batches:
        sources = list(islice(cycle(pictures), max(2 * size, 8)))
        seconds = []
        for _ in range(plan.repeats + 1):
            wait()
            began = time.perf_counter()
            deque(detector.detect_many(sources, batch_size=size), maxlen=0)
            wait()
            seconds.append((time.perf_counter() - began) / len(sources))
            tick(f"batches of {size}")
        value = estimate(np.array(seconds[1:]))
        out.append({"batch_size": size, "seconds_per_picture": value.median, "low": value.low, "high": value.high})
    return out


def _probe(detector: Detector, picture: bytes, plan: Plan, tick: Tick) -> Line:
    # Called by hand: a picture that is made up may well be uncertain, and then it is not looked at again.
    pipeline = detector._pipeline
    shares = []
    for i in range(plan.repeats + plan.warmup):
        began = time.perf_counter()
        gathered = pipeline.run([pipeline.prepare(picture, probe=True)])
        seen = time.perf_counter()
        pipeline.look_again(gathered)
        done = time.perf_counter()
        tick("stability probe")
        if i >= plan.warmup:
            shares.append((done - seen) / (done - began))
    return Line(
        name="stability probe",
        summary="share of detect's time that the re-encode probe takes where the verdict is definite (on by default)",
        value=estimate(np.array(shares)),
        unit="share",
        judgement="info",
    )


def _big(detector: Detector, plan: Plan, tick: Tick) -> Line:
    picture = made_up(*plan.big)
    seconds = []
    for i in range(plan.repeats + 1):
        began = time.perf_counter()
        detector.detect(picture)
        if i:
            seconds.append(time.perf_counter() - began)
        tick("a big picture")
    value = estimate(np.array(seconds))
    megapixels = plan.big[0] * plan.big[1] / 1e6
    return Line(
        name=f"{megapixels:.0f} megapixels",
        summary="wall time of detect, JPEG bytes to verdict, probe included",
        value=value,
        unit="s",
        limit=BIG_LIMIT,
        judgement=judge(value, None, BIG_LIMIT),
        note=f"the aim is for two cores; here are {os.cpu_count()}",
    )


def _seconds(name: str, summary: str, values: Floats) -> Line:
    return Line(name=name, summary=summary, value=estimate(values), unit="s", judgement="info")


def _ratio(name: str, part: Floats, over: Floats) -> Line:
    return Line(name=f"one picture: {name}", summary=name, value=estimate(part / over), unit="share", judgement="info")


def _machine(detector: Detector) -> dict[str, Any]:
    import torch

    device = detector.runtime.device
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "batch_size": detector.runtime.batch_size,
        "system": platform.system(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
