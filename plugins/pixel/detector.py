"""The pixel plugin: two strengths behind one interface, and a coarse map of where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from tellsign.errors import SettingError, WeightsError
from tellsign.plugin import DetectorPlugin
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Box, Declaration, Evidence, PixelView, View
from tellsign.towers import CLIP_VIT_B16, ClipTower, LoraSet, clip_vit_b16, clip_vit_b16_is_here

from .model import PixelHead, PixelModel
from .quantise import unpack

WEIGHTS = Path(__file__).with_name("weights")
STRENGTHS = ("auto", "tower", "bundled")
CELLS = 64
"""Longest side of the map in cells."""


class PixelDetector(DetectorPlugin):
    """Scores native crops for the traces that neural decoders leave.

    Settings
    --------
    strength : "auto", "tower" or "bundled"
        The tower model needs the CLIP tower (`tellsign models fetch clip-vit-b16`); the bundled one ships with the
        package. "auto", the default, takes the tower model where the tower is on this machine.
    """

    def __init__(self, declaration: Declaration, settings: Mapping[str, object]) -> None:
        super().__init__(declaration, settings)
        for name in settings:
            if name != "strength":
                raise SettingError(f"settings of {declaration.name}", "strength", name)
        strength = settings.get("strength", "auto")
        if strength not in STRENGTHS:
            raise SettingError("strength", f"one of {', '.join(STRENGTHS)}", strength)
        self.strength = str(strength)

    def setup(self, runtime: DeviceRuntime) -> None:
        """Decide which model speaks."""
        if self.strength == "auto":
            self.strength = "tower" if clip_vit_b16_is_here() else "bundled"

    def detect(self, views: Sequence[View], runtime: DeviceRuntime) -> Sequence[Sequence[Evidence]]:
        """Score each view's crops; a view without crops is not applicable."""
        crops = [c for v in views if isinstance(v, PixelView) for c in v.crops]
        if not crops:
            return [[self._too_small(v)] for v in views]
        logits, patches, name = self._score(crops, runtime)
        out: list[list[Evidence]] = []
        taken = 0
        for view in views:
            if not isinstance(view, PixelView) or not view.crops:
                out.append([self._too_small(view)])
                continue
            mine = slice(taken, taken + len(view.crops))
            taken = mine.stop
            logit = float(np.mean(logits[mine]))
            heat = heat_map(view, patches[mine])
            whole = Box(0, 0, view.width, view.height)
            out.append(
                [
                    self.score(self.strength, _sigmoid(logit), logit=logit, model=name),
                    self.map("traces", heat, box=whole, model=name),
                ]
            )
        return out

    def bench_forward(self, views: Sequence[View], runtime: DeviceRuntime) -> Callable[[], object]:
        """The bare forward passes of `detect` on prepared tensors, for `tellsign bench`."""
        crops = [c for v in views if isinstance(v, PixelView) for c in v.crops]
        batches = [torch.from_numpy(b).to(runtime.device) for b in _batches(crops, runtime.batch_size)]

        def forward() -> object:
            with self._model(runtime) as (model, _), torch.inference_mode():
                return [model(b) for b in batches]

        return forward

    def _too_small(self, view: View) -> Evidence:
        width, height = (view.width, view.height) if isinstance(view, PixelView) else (0, 0)
        return self.not_applicable(f"a picture of {width} x {height} px is too small for pixel evidence")

    def _score(
        self, crops: Sequence[NDArray[np.uint8]], runtime: DeviceRuntime
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]], str]:
        logits: list[NDArray[np.float32]] = []
        patches: list[NDArray[np.float32]] = []
        with self._model(runtime) as (model, name), torch.inference_mode():
            for batch in _batches(crops, runtime.batch_size):
                logit, patch = model(torch.from_numpy(batch).to(runtime.device))
                logits.append(logit.cpu().numpy())
                patches += list(patch.cpu().numpy())
        return np.concatenate(logits), patches, name

    def _model(self, runtime: DeviceRuntime) -> _Lent:
        return _Lent(self.strength, runtime)


class _Lent:
    """The model of one strength for the body of a `with`; the tower itself is shared with other plugins."""

    def __init__(self, strength: str, runtime: DeviceRuntime) -> None:
        self.strength, self.runtime = strength, runtime

    def __enter__(self) -> tuple[PixelModel, str]:
        from contextlib import ExitStack

        self.stack = ExitStack()
        with self.stack as stack:
            if self.strength == "bundled":
                model = stack.enter_context(self.runtime.use("pixel-bundled", load_bundled))
                assert isinstance(model, PixelModel)
            else:
                tower = stack.enter_context(self.runtime.use(CLIP_VIT_B16, clip_vit_b16))
                adapter = stack.enter_context(self.runtime.use("pixel-tower", load_adapter))
                assert isinstance(tower, ClipTower)
                assert isinstance(adapter, Adapter)
                model = PixelModel(tower, adapter.lora, adapter.head)
            self.stack = stack.pop_all()
        return model, version_of(self.strength)

    def __exit__(self, *error: object) -> None:
        self.stack.close()


class Adapter(nn.Module):
    """Updates and head of the tower model, without the tower."""

    def __init__(self, lora: LoraSet, head: PixelHead) -> None:
        super().__init__()
        self.lora, self.head = lora, head


def load_adapter(file: Path | None = None) -> Adapter:
    """Read the tower model's updates and head (`weights/pixel-tower.safetensors` unless said otherwise).

    Raises
    ------
    WeightsError
        The file is missing, damaged, or not of this kind.
    """
    state, notes = _read(file or WEIGHTS / "pixel-tower.safetensors")
    return Adapter(*_adapter(state, notes))


def load_bundled(file: Path | None = None) -> PixelModel:
    """Read the bundled model (`weights/pixel-bundled.safetensors` unless said otherwise).

    Raises
    ------
    WeightsError
        The file is missing, damaged, or not of this kind.
    """
    state, notes = _read(file or WEIGHTS / "pixel-bundled.safetensors")
    lora, head = _adapter(state, notes)
    trunk = unpack({k.removeprefix("tower."): v for k, v in state.items() if k.startswith("tower.")})
    return PixelModel(ClipTower.from_state_dict(trunk), lora, head)


def version_of(strength: str) -> str:
    """Name and version of the weights of one strength, as evidence carries it."""
    with safe_open(WEIGHTS / f"pixel-{strength}.safetensors", "pt") as file:
        return f"pixel-{strength} {(file.metadata() or {}).get('version', '?')}"


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, "pt") as handle:
            notes = dict(handle.metadata() or {})
        return load_file(file), notes
    except FileNotFoundError as error:
        raise WeightsError(str(file), "the file is not there") from error
    except Exception as error:  # safetensors raises its own class for a damaged header, OSError for the rest
        raise WeightsError(str(file), f"cannot be read as safetensors: {error}") from error


def _adapter(state: Mapping[str, Tensor], notes: Mapping[str, str]) -> tuple[LoraSet, PixelHead]:
    blocks = [int(b) for b in notes["blocks"].split(",")]
    width = state["head.weight"].shape[2]
    lora = LoraSet.for_tower(width, range(1, max(blocks) + 1), rank=int(notes["rank"]), alpha=float(notes["alpha"]))
    head = PixelHead(blocks, width)
    lora.load_state_dict({k.removeprefix("lora."): v.float() for k, v in state.items() if k.startswith("lora.")})
    head.load_state_dict({k.removeprefix("head."): v.float() for k, v in state.items() if k.startswith("head.")})
    return lora, head


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
        Mean patch probability per cell; 0 where no crop lies, since nothing was looked at there.
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
        np.add.at(total, np.ix_(i, j), 1 / (1 + np.exp(-np.clip(patch, -30, 30))))
        np.add.at(count, np.ix_(i, j), 1)
    return (total / np.maximum(count, 1)).astype(np.float32)


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(x, -30, 30))))


def _batches(crops: Sequence[NDArray[np.uint8]], size: int) -> list[NDArray[np.uint8]]:
    """Stacks of at most `size` crops of one shape; views of small pictures have smaller crops."""
    out: list[list[NDArray[np.uint8]]] = []
    for crop in crops:
        if not out or len(out[-1]) == size or out[-1][0].shape != crop.shape:
            out.append([])
        out[-1].append(crop)
    return [np.stack(b) for b in out]
