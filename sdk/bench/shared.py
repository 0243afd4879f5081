"""What plugins that share one view and one tower cost together, against one bare pass of the tower."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tellsign.decoding import decode
from tellsign.detector import Detector
from tellsign.schemas import VIEW_OF_TASK
from tellsign.views import build_view

from .parts import settle
from .timing import Floats, alternate, neighbours

LIMIT = 1.15
"""Aim: their detect, over the tower's bare forward pass."""


def shared_cost(
    detector: Detector, picture: bytes, *, pairs: int, warmup: int, tick: Callable[[], object] = lambda: None
) -> tuple[tuple[str, ...], Floats, Floats] | None:
    """Time the plugins that share a tower.

    Parameters
    ----------
    detector : Detector
    picture : bytes
        A file; decoding and the view are done before the clock starts.
    pairs, warmup : int
    tick : callable

    Returns
    -------
    plugins : tuple of str
        Those that are given the view of a plugin that offers `bench_tower(views, runtime)`.
    ratio, aa : float arrays of (pairs,), (pairs - 1,)
        Their detect over the bare pass; and the bare pass over itself, less one.

    None where no loaded plugin offers a bare pass of a shared tower.
    """
    runtime = detector.runtime
    guards = detector._pipeline.guards
    decoded = decode(picture)
    for guard in guards:
        plugin: Any = guard.plugin
        kind = VIEW_OF_TASK[guard.task]
        views = [build_view(guard.task, decoded, "0")]
        bare = plugin.bench_tower(views, runtime) if hasattr(plugin, "bench_tower") else None
        if bare is None:
            continue
        sharers = [g for g in guards if VIEW_OF_TASK[g.task] is kind]

        def together(sharers: Any = sharers, views: Any = views) -> None:
            with runtime.scope():
                for one in sharers:
                    one.plugin.detect(views, runtime)

        samples = alternate(together, {"forward": bare}, pairs=pairs, warmup=warmup, settle=settle(runtime), tick=tick)
        forward = samples.parts["forward"]
        aa = np.asarray(forward[1:-1] / ((forward[:-2] + forward[2:]) / 2) - 1)
        return tuple(g.name for g in sharers), np.asarray(samples.whole / neighbours(forward)), aa
    return None
