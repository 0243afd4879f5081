"""How much memory a process may fill, and how much it fills now."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup/memory.max")

WITHOUT_A_WORD = 4 * 2**30
"""The limit where the system does not say how much memory it has."""


def half_of_the_machine() -> int:
    """Bytes: half of the machine's memory, or of what this control group may use where that is less."""
    found = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(OSError, ValueError):  # not there, or "max"
        found.append(int(_CGROUP.read_text()))
    return min(found) // 2 if found else WITHOUT_A_WORD


def memory_of(pid: int) -> int | None:
    """Bytes of a process in memory and in swap; None where the system does not say (only Linux does) or it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS:", "VmSwap:"))]
    return sum(found) if found else None


__all__ = ["half_of_the_machine", "memory_of"]
