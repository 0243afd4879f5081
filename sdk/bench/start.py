"""How long a person waits for the first verdict: whole processes, one after another."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np

from tellsign.errors import TellsignError

from .pictures import made_up
from .timing import Floats

SIDE = (602, 400)


class FirstVerdictError(TellsignError):
    """A process ended without a verdict."""


@attrs.frozen
class Starts:
    """What `first_verdict` measured.

    Attributes
    ----------
    wall, cpu : float64 arrays of (n,)
        Seconds from the start of a process to its end, and what all its threads took of the processors (NaN where the
        system does not tell).
    """

    wall: Floats
    cpu: Floats


def first_verdict(repeats: int, *, tick: Callable[[], object] = lambda: None) -> Starts:
    """Time `tellsign detect FILE --json` in new processes.

    Parameters
    ----------
    repeats : int
        Processes that count; one before them reads the files from the disk.
    tick : callable
        Called after each.

    Raises
    ------
    FirstVerdictError
        A process failed; its last words are in the message.
    """
    wall, cpu = [], []
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "photo.jpg"
        picture.write_bytes(made_up(*SIDE))
        for turn in range(repeats + 1):
            before, began = _of_children(), time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "tellsign", "detect", str(picture), "--json"], capture_output=True, text=True
            )
            if turn:
                wall.append(time.perf_counter() - began)
                cpu.append(_of_children() - before)
            if done.returncode:
                raise FirstVerdictError(f"a process ended with {done.returncode}: {done.stderr.strip()[-500:]}")
            tick()
    return Starts(np.array(wall), np.array(cpu))


def _of_children() -> float:
    if os.name == "nt":
        return float("nan")
    told = os.times()
    return told.children_user + told.children_system
