"""What looking at a large picture costs."""

from __future__ import annotations

import resource
import sys
import time
from typing import NamedTuple

import numpy as np
from PIL import Image

from tellsign.plugins.segmentation.scan import Forward, scan


class Cost(NamedTuple):
    """Of one picture."""

    tiles: int
    looked: float
    """Share of the tiles that were looked at."""
    seconds: float
    cpu: float
    """Seconds of all threads."""
    memory: float
    """Most bytes that the process has held so far."""


def measure(width: int, height: int, forward: Forward, most: int) -> Cost:
    """Look at a noisy drawn picture of that size with at most `most` tiles."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (-(-height // 40), -(-width // 40), 3), dtype=np.uint8)
    image = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    for top in range(0, height, 256):
        rows = image[top : top + 256]
        noise = rng.integers(-8, 8, rows.shape, dtype=np.int16)
        rows[:] = np.clip(rows.astype(np.int16) + noise, 0, 255)
    wall, cpu = time.monotonic(), time.process_time()
    seen = scan(image, forward, most=most)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Cost(len(seen.logits), seen.looked, wall, cpu, float(peak))
