"""The highest resident memory of this process since a given moment."""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """Watches the peak from its creation on.

    On Linux the kernel's high-water mark is set back first. Elsewhere it cannot be, so the peak is that of the process
    so far; then measure small before large.
    """

    def __init__(self) -> None:
        self.resettable = _reset()
        self.start = _high_water()

    @property
    def megabytes(self) -> float | None:
        """The peak so far, in MB (1e6 bytes); None where the system does not say."""
        return _high_water()


def _reset() -> bool:
    try:
        _CLEAR.write_text("5")  # 5 sets VmHWM back to what is resident now (man 5 proc)
    except OSError:
        return False
    return True


def _high_water() -> float | None:
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
