"""The pixel plugin: several strengths behind one interface, and a coarse map of where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tellsign.errors import SettingError
from tellsign.plugin import DetectorPlugin
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Box, Declaration, Evidence, PixelView, View
from tellsign.towers import clip_vit_b16_is_here

from .strengths import Bundled, Dda, Residual, Strength, Tower, batches, run

STRENGTHS = ("auto", "tower", "bundled", "dda")
SETTINGS = ("strength", "dda_weights", "download")
CELLS = 64
"""Longest side of the map in cells."""


class PixelDetector(DetectorPlugin):
    """Scores native crops for the traces that neural decoders leave.

    Two scores: that of the model which speaks, and beside it ("dda" excepted) that of a probe on high-pass residuals.

    Settings
    --------
    strength : "auto", "tower", "bundled" or "dda"
        The tower model needs the CLIP tower (`tellsign models fetch clip-vit-b16`); the bundled one ships with the
        package. "auto", the default, takes the tower model where the tower is on this machine. "dda" is the published
        pixel branch of AlignGemini; the default fusion knows no calibration for it.
    dda_weights : path
        The published checkpoint; by default the one in the model hub's cache.
    download : bool
        Let "dda" fetch its 1.3 GB; default no.
    """

    def __init__(self, declaration: Declaration, settings: Mapping[str, object]) -> None:
        super().__init__(declaration, settings)
        for name in settings:
            if name not in SETTINGS:
                raise SettingError(f"settings of {declaration.name}", ", ".join(SETTINGS), name)
        asked = settings.get("strength", "auto")
        if asked not in STRENGTHS:
            raise SettingError("strength", f"one of {', '.join(STRENGTHS)}", asked)
        file = settings.get("dda_weights")
        if not isinstance(file, str | Path | None):
            raise SettingError("dda_weights", "a path", file)
        download = settings.get("download", False)
        if not isinstance(download, bool):
            raise SettingError("download", "true or false", download)
        self._dda = Dda(None if file is None else Path(file), download=download)
        self._asked = asked
        self.residual = Residual()
        self.strength: Strength = self._dda if asked == "dda" else Tower() if asked == "tower" else Bundled()

    def setup(self, runtime: DeviceRuntime) -> None:
        """Decide which model speaks."""
        if self._asked == "auto" and clip_vit_b16_is_here():
            self.strength = Tower()

    def detect(self, views: Sequence[View], runtime: DeviceRuntime) -> Sequence[Sequence[Evidence]]:
        """Score each view's crops; to a view without crops the plugin does not apply."""
        mine = [v for v in views if isinstance(v, PixelView)]
        if len(mine) != len(views):
            raise TypeError("the pixel plugin takes PixelView only")
        counts = [len(self.strength.crops(v)) for v in mine]
        if not sum(counts):
            return [[self._too_small(v)] for v in mine]
        logits, patches = run(self.strength, [c for v in mine for c in self.strength.crops(v)], runtime)
        residuals = [None] * len(mine) if self.strength.alone else self._residuals(mine, runtime)
        out: list[list[Evidence]] = []
        start = 0
        for view, count, residual in zip(mine, counts, residuals, strict=True):
            part = slice(start, start + count)
            start = part.stop
            if count:
                said = self._evidence(view, logits[part], patches[part])
                out.append(said if residual is None else [*said, self._score(self.residual, residual)])
            else:
                out.append([self._too_small(view)])
        return out

    def _residuals(self, views: Sequence[PixelView], runtime: DeviceRuntime) -> Sequence[float | None]:
        """Mean logit of the residual probe over each view's crops; 0 for a view without crops."""
        logits, _ = run(self.residual, [c for v in views for c in v.crops], runtime)
        ends = np.cumsum([len(v.crops) for v in views])
        parts = np.split(logits.astype(np.float64), ends[:-1])
        return [float(p.mean()) if len(p) else 0.0 for p in parts]

    def _score(self, strength: Strength, logit: float) -> Evidence:
        return self.score(strength.name, _probability(logit), logit=logit, model=strength.version)

    def _evidence(
        self, view: PixelView, logits: NDArray[np.float32], patches: Sequence[NDArray[np.float32]]
    ) -> list[Evidence]:
        logit = float(logits.astype(np.float64).mean())
        found: list[Evidence] = [self._score(self.strength, logit)]
        if patches:
            whole = Box(0, 0, view.width, view.height)
            found.append(self.map("traces", heat_map(view, patches), box=whole, model=self.strength.version))
        return found

    def _too_small(self, view: PixelView) -> Evidence:
        return self.not_applicable(f"a picture of {view.width} x {view.height} px is too small for pixel evidence")

    def bench_forward(self, views: Sequence[View], runtime: DeviceRuntime) -> Callable[[], object]:
        """The bare forward passes of `detect` on prepared tensors, for `tellsign bench`."""
        mine = [v for v in views if isinstance(v, PixelView)]
        work = []
        for strength in (self.strength,) if self.strength.alone else (self.strength, self.residual):
            crops = [c for v in mine for c in strength.crops(v)]
            tensors = [torch.from_numpy(b).to(runtime.device) for b in batches(crops, runtime.batch_size)]
            work.append((strength, tensors))

        def forward() -> object:
            out = []
            for strength, tensors in work:
                with strength.lent(runtime) as model, torch.inference_mode():
                    out += [model(t) for t in tensors]
            return out

        return forward


def heat_map(view: PixelView, patches: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Lay the crops' patch logits over the whole picture.

    Parameters
    ----------
    view : PixelView
    patches : sequence of float32 arrays of (rows, columns)
        Patch logits of each crop.

    Returns
    -------
    float32 array of (rows, columns), at most 64 a side
        Mean probability of the smoothed patch logits per cell; 0 where no crop lies: nothing was looked at there.
    """
    cell = max(16.0, max(view.width, view.height) / CELLS)
    shape = (max(1, round(view.height / cell)), max(1, round(view.width / cell)))
    total, count = np.zeros(shape), np.zeros(shape)
    for box, patch in zip(view.boxes, patches, strict=True):
        rows, columns = patch.shape
        y = box.top + (np.arange(rows) + 0.5) * box.height / rows
        x = box.left + (np.arange(columns) + 0.5) * box.width / columns
        i = np.minimum((y / view.height * shape[0]).astype(int), shape[0] - 1)
        j = np.minimum((x / view.width * shape[1]).astype(int), shape[1] - 1)
        np.add.at(total, np.ix_(i, j), _probability(smooth(patch)))
        np.add.at(count, np.ix_(i, j), 1)
    return (total / np.maximum(count, 1)).astype(np.float32)


def smooth(patch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each patch logit averaged with its neighbours, (rows, columns): a single patch of 16 px says little."""
    padded = np.pad(patch, 1, mode="edge")
    rows, columns = patch.shape
    windows = [padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return np.asarray(np.mean(windows, axis=0), np.float32)


def _probability(logit: float | NDArray[np.float32]) -> NDArray[np.float64]:
    """The logistic function, without overflow."""
    return np.asarray(1 / (1 + np.exp(-np.clip(np.asarray(logit, np.float64), -30, 30))))
