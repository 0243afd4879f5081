"""Tokens of a middle block of the frozen tower, kept on disk in half precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray

from tellsign.alignment.saliency import salient
from tellsign.towers import ClipTower, clip_input

from .cues import CUES
from .pictures import Sample, window
from .setting import Setting


@attrs.frozen(kw_only=True, eq=False)
class Tokens:
    """What the networks learn from: n pictures, each without and with the cue."""

    tokens: NDArray[np.float16]
    """(n, 2, 1 + rows * columns, width), the class token first; index 1 of the second axis has the cue."""
    region: NDArray[np.bool_]
    """(n, side, side)"""
    salient: NDArray[np.bool_]
    """(n, side, side)"""


def cached(
    samples: Sequence[Sample],
    setting: Setting,
    tower: ClipTower,
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Tokens:
    """Tokens of the samples; those that are on disk are not computed again.

    Parameters
    ----------
    samples : sequence of n Sample
    setting : Setting
    tower : ClipTower
        In eval mode, with at least `setting.block` blocks.
    folder : Path
        One file per picture; of one tower, side, block and cue alone.
    progress : callable, optional
        Called with (done, all).
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for n, sample in enumerate(samples):
        file = folder / f"{sample.folder.name}-{sample.row.id}.npz"
        if not file.is_file():
            half = file.with_suffix(".part")
            with half.open("wb") as handle:
                np.savez(handle, **_computed(sample, setting, tower))
            half.replace(file)
        with np.load(file) as stored:
            parts.append({name: stored[name] for name in ("tokens", "region", "salient")})
        if progress is not None:
            progress(n + 1, len(samples))
    return Tokens(**{name: np.stack([p[name] for p in parts]) for name in parts[0]})


def _computed(sample: Sample, setting: Setting, tower: ClipTower) -> dict[str, Any]:
    pixels, region = window(sample, setting.side)
    both = np.stack([CUES[setting.cue](pixels, on) for on in (False, True)])
    with torch.inference_mode():
        seen = tower.tokens(clip_input(torch.from_numpy(both)), (setting.block,))[setting.block]
    return {"tokens": seen.half().numpy(), "region": region, "salient": salient(pixels)}
