"""The models that may speak for the plugin, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tellsign.runtime import DeviceRuntime
from tellsign.schemas import PixelView
from tellsign.towers import CLIP_VIT_B16, ClipTower, clip_vit_b16
from tellsign.weights.files import version_of

from .dda import dda_version, load_dda
from .model import PixelModel
from .weights_files import BUNDLED, RESIDUAL, TOWER, Adapter, load_adapter, load_bundled, load_residual

Forward = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""uint8 crops (B, H, W, 3) to logits (B,) and patch logits (B, rows, columns), or None where a model has no map."""


class Strength(ABC):
    """One model: which crops it looks at, and how it is brought onto the device."""

    name: str
    """The score's name in the evidence, and the column's in the declaration."""
    alone = False
    """Whether it speaks as it was published, without the probe on residuals beside it."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Name and version of the weights."""

    def crops(self, view: PixelView) -> Sequence[NDArray[np.uint8]]:
        """The crops of a view that it scores; the view's own unless the model was published with others."""
        return view.crops

    @abstractmethod
    def lent(self, runtime: DeviceRuntime) -> AbstractContextManager[Forward]:
        """The model's forward pass, for the body of a `with` that holds the device."""


class Tower(Strength):
    """Updates and head on the shared CLIP tower."""

    name = "tower"

    @property
    def version(self) -> str:
        """Of the updates and head; the tower's own weights are told by `tellsign models list`."""
        return version_of(TOWER)

    @contextmanager
    def lent(self, runtime: DeviceRuntime) -> Iterator[Forward]:
        """Hold the shared tower and the adapter."""
        with runtime.use(CLIP_VIT_B16, clip_vit_b16) as tower, runtime.use("pixel-tower", load_adapter) as adapter:
            assert isinstance(tower, ClipTower)
            assert isinstance(adapter, Adapter)
            yield PixelModel(tower, adapter.lora, adapter.head)


class Bundled(Strength):
    """The first blocks in four bits; ships with the package."""

    name = "bundled"

    @property
    def version(self) -> str:
        """Of the bundled file."""
        return version_of(BUNDLED)

    @contextmanager
    def lent(self, runtime: DeviceRuntime) -> Iterator[Forward]:
        """Hold the bundled model."""
        with runtime.use("pixel-bundled", load_bundled) as model:
            yield model


class Residual(Strength):
    """The probe on residual statistics, which speaks beside whichever model speaks; it has no map."""

    name = "residual"

    @property
    def version(self) -> str:
        """Of the probe's file."""
        return version_of(RESIDUAL)

    @contextmanager
    def lent(self, runtime: DeviceRuntime) -> Iterator[Forward]:
        """Hold the probe."""
        with runtime.use("pixel-residual", load_residual) as probe:
            yield lambda crops: (probe(crops), None)


class Dda(Strength):
    """The published pixel branch of AlignGemini, on one centre crop; see `dda`."""

    name = "dda"
    alone = True

    def __init__(self, file: Path | None, *, download: bool) -> None:
        self.file, self.download = file, download

    @property
    def version(self) -> str:
        """The hub's revision or the file's name."""
        return dda_version(self.file)

    def crops(self, view: PixelView) -> Sequence[NDArray[np.uint8]]:
        """The centre crop, as published."""
        return () if view.centre is None else (view.centre,)

    @contextmanager
    def lent(self, runtime: DeviceRuntime) -> Iterator[Forward]:
        """Hold DINOv2 with the published updates."""
        with runtime.use(f"pixel-dda:{self.file}", lambda: load_dda(self.file, download=self.download)) as model:
            yield model


def batches(crops: Sequence[NDArray[np.uint8]], size: int) -> list[NDArray[np.uint8]]:
    """Stacks of at most `size` neighbouring crops of one shape; views of small pictures have smaller crops."""
    out: list[list[NDArray[np.uint8]]] = []
    for crop in crops:
        if not out or len(out[-1]) == size or out[-1][0].shape != crop.shape:
            out.append([])
        out[-1].append(crop)
    return [np.stack(b) for b in out]


def run(
    strength: Strength, crops: Sequence[NDArray[np.uint8]], runtime: DeviceRuntime
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Score crops.

    Returns
    -------
    logits : float32 array of (n,)
    patches : list of float32 arrays of (rows, columns)
        Empty where the model has no map.
    """
    logits: list[NDArray[np.float32]] = []
    patches: list[NDArray[np.float32]] = []
    with strength.lent(runtime) as forward, torch.inference_mode():
        for batch in batches(crops, runtime.batch_size):
            logit, patch = forward(torch.from_numpy(batch).to(runtime.device))
            logits.append(logit.float().cpu().numpy())
            if patch is not None:
                patches += list(patch.float().cpu().numpy())
    return np.concatenate(logits), patches
