"""What CI asks of the host: CPU time and counts, which do not depend on what else the machine is doing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import attrs

from tellsign.detector import Detector
from tellsign.runtime import Counters

from .parts import take_apart
from .timing import Estimate, alternate, overhead


@attrs.frozen(kw_only=True)
class Gate:
    """What `cpu_gate` found."""

    overhead: Estimate
    """CPU time of detect beyond its parts, as a share of the bare forward passes' CPU time."""
    aa: Estimate
    problems: tuple[str, ...]
    """Sentences; empty where the gate is passed."""


def cpu_gate(
    detector: Detector,
    sources: Sequence[bytes],
    *,
    limit: float,
    views_per_key: Mapping[str, int] | None = None,
    pairs: int = 10,
) -> Gate:
    """Measure `detect_many` against its parts in CPU time of all threads, and count builds and forward passes.

    Parameters
    ----------
    detector : Detector
        Fresh: nothing was detected with it. Its plugins' `bench_forward` must not use `shared_forwards`, or their
        passes would be counted as the host's.
    sources : sequence of bytes
        Files.
    limit : float
        Highest median overhead, as a share of the forward passes.
    views_per_key : mapping from str to int, optional
        Forward passes that one `detect_many(sources)` may make, by the runtime's key.
    pairs : int, default 10

    Returns
    -------
    Gate
    """
    # Counted before anything is taken apart, since taking apart builds models too.
    list(detector.detect_many(sources))
    first = detector.runtime.counters
    list(detector.detect_many(sources))
    second = detector.runtime.counters
    problems = count_problems(first, second, views_per_key or {})
    parts = take_apart(detector, sources)
    samples = alternate(
        lambda: list(detector.detect_many(sources)), parts.named(), pairs=pairs, warmup=1, clock=time.process_time
    )
    value, aa = overhead(samples, samples.parts["forward"])
    if value.median > limit:
        problems.append(f"the host costs {value.median:.1%} of the forward passes' CPU time, allowed are {limit:.1%}")
    return Gate(overhead=value, aa=aa, problems=tuple(problems))


def count_problems(first: Counters, second: Counters, views_per_key: Mapping[str, int]) -> list[str]:
    """What is wrong with the counts after one and after two equal runs.

    Parameters
    ----------
    first, second : Counters
        The runtime's, after one run and after two.
    views_per_key : mapping from str to int
        Forward passes that one run may make.
    """
    problems = [f"{key} was built {n} times" for key, n in sorted(second.builds.items()) if n != 1]
    if not second.builds:
        problems.append("no model was built")
    again = Counter(second.forwards)
    again.subtract(first.forwards)
    for key, allowed in sorted(views_per_key.items()):
        for run, made in (("first", first.forwards[key]), ("second", again[key])):
            if made != allowed:
                problems.append(f"{key} made {made} forward passes in the {run} run, allowed are {allowed}")
    return problems
