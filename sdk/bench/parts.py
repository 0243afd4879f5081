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
    """No plugin is loaded."""


@attrs.frozen
class Parts:
    """Callables that do one part each, over and over, for the same pictures.

    Attributes
    ----------
    decode, views, forward : callable
        `views` starts from decoded pictures, `forward` from tensors on the device; both were made once, before.
    bare : tuple of str
        Plugins whose forward passes `forward` runs: those that offer `bench_forward`.
    whole : tuple of str
        The others; `forward` calls their `detect`, so that what they do beside a forward pass is theirs and not the
        host's.
    """

    decode: Callable[[], object]
    views: Callable[[], object]
    forward: Callable[[], object]
    bare: tuple[str, ...]
    whole: tuple[str, ...] = ()

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
        No plugin is loaded.
    """
    runtime = detector.runtime
    guards = detector._pipeline.guards
    if not guards:
        raise NothingToMeasureError("no plugin is loaded, so there is no forward pass to measure against")
    tasks = {VIEW_OF_TASK[guard.task]: guard.task for guard in guards}

    def decode_all() -> list[Picture]:
        return [decode(source) for source in sources]

    pictures = decode_all()

    def view_all() -> dict[Task, list[View]]:
        return {task: [build_view(task, p, str(i)) for i, p in enumerate(pictures)] for task in tasks.values()}

    views = view_all()
    size = batch_size or runtime.batch_size
    batches = [
        [_forward(guard, views[tasks[VIEW_OF_TASK[guard.task]]][i : i + size], runtime) for guard in guards]
        for i in range(0, len(pictures), size)
    ]

    def forward_all() -> None:
        for batch in batches:
            # Plugins that share a tower do so here too.
            with runtime.scope():
                for forward in batch:
                    forward()

    bare = tuple(guard.name for guard in guards if hasattr(guard.plugin, "bench_forward"))
    whole = tuple(guard.name for guard in guards if guard.name not in bare)
    return Parts(decode_all, view_all, forward_all, bare, whole)


def _forward(guard: Guard, views: Sequence[View], runtime: DeviceRuntime) -> Callable[[], object]:
    plugin: Any = guard.plugin
    if hasattr(plugin, "bench_forward"):
        forward: Callable[[], object] = plugin.bench_forward(views, runtime)
        return forward
    return lambda: plugin.detect(views, runtime)


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
