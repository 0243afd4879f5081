"""A Detector taken apart: decode, views and bare forward passes, as the whole does them but without the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from tellsign.decoding import decode
from tellsign.detector import Detector
from tellsign.errors import TellsignError
from tellsign.guard import Guard
from tellsign.plugin import DetectorPlugin
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import VIEW_OF_TASK, Picture, Task, View
from tellsign.views import build_view


class NothingToMeasureError(TellsignError):
    """No loaded plugin offers `bench_forward`."""


@attrs.frozen
class Parts:
    """Callables that do one part each, over and over, for the same pictures.

    Attributes
    ----------
    decode, views, forward : callable
        `views` starts from decoded pictures, `forward` from tensors on the device; both were made once, before.
    plugins : tuple of str
        Whose forward passes `forward` runs.
    """

    decode: Callable[[], object]
    views: Callable[[], object]
    forward: Callable[[], object]
    plugins: tuple[str, ...]

    def named(self) -> dict[str, Callable[[], object]]:
        """The parts by name, in the order of a picture's way."""
        return {"decode": self.decode, "views": self.views, "forward": self.forward}


def take_apart(detector: Detector, sources: Sequence[bytes], *, batch_size: int | None = None) -> Parts:
    """The parts of `detect_many(sources)`; of `detect` where there is one source.

    Parameters
    ----------
    detector : Detector
        Its models are built by this.
    sources : sequence of bytes
        Files.
    batch_size : int, optional
        Pictures that the plugins see at once; by default the device's.

    Raises
    ------
    NothingToMeasureError
        No plugin offers a method `bench_forward(views, runtime)` that returns a callable.
    """
    runtime = detector.runtime
    guards = [guard for guard in detector._pipeline.guards if hasattr(guard.plugin, "bench_forward")]
    if not guards:
        raise NothingToMeasureError(
            "no loaded plugin offers bench_forward(views, runtime), so there is no bare forward pass to measure against"
        )
    tasks = {VIEW_OF_TASK[guard.task]: guard.task for guard in detector._pipeline.guards}

    def decode_all() -> list[Picture]:
        return [decode(source) for source in sources]

    pictures = decode_all()

    def view_all() -> dict[Task, list[View]]:
        return {task: [build_view(task, p, str(i)) for i, p in enumerate(pictures)] for task in tasks.values()}

    views = view_all()
    size = batch_size or runtime.batch_size
    forwards: list[Callable[[], object]] = []
    for guard in guards:
        plugin: Any = guard.plugin
        own = views[tasks[VIEW_OF_TASK[guard.task]]]
        forwards += [plugin.bench_forward(own[i : i + size], runtime) for i in range(0, len(own), size)]

    def forward_all() -> None:
        for forward in forwards:
            forward()

    return Parts(decode_all, view_all, forward_all, tuple(guard.name for guard in guards))


def with_plugin(detector: Detector, plugin: DetectorPlugin) -> Detector:
    """The detector itself, with `plugin` in the place of its own: for plugins that are nowhere installed."""
    pipeline = detector._pipeline
    guard = Guard(plugin, pipeline.runtime)
    guard.setup()
    detector._pipeline = attrs.evolve(pipeline, guards=(guard,), notices=())
    return detector


def settle(runtime: DeviceRuntime) -> Callable[[], object]:
    """What waits until the device has done all that it was told to."""
    import torch

    if runtime.device.type == "cuda":
        return lambda: torch.cuda.synchronize(runtime.device)
    if runtime.device.type == "mps":
        return torch.mps.synchronize
    return lambda: None
