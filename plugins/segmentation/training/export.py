"""From a training run to the weights file that ships."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tellsign.errors import SettingError

from .calibrate import read_shift
from .recipe import Recipe

LARGEST = 15_000_000
"""Bytes that the shipped file may have."""


def export(run: Path, out: Path, *, version: str) -> Path:
    """Write a run's weights in half precision.

    Parameters
    ----------
    run : Path
        Folder of a finished run; a `shift.json` in it goes into the masks' biases.
    out : Path
        Folder that receives `gamma.safetensors`.
    version : str

    Raises
    ------
    SettingError
        The file would be larger than `LARGEST`.
    """
    source = run / "run.safetensors"
    with safe_open(source, "pt") as handle:
        notes = dict(handle.metadata() or {})
    notes |= {"version": version, "recipe": json.dumps(json.loads((run / "recipe.json").read_text()), sort_keys=True)}
    shift = read_shift(run)
    notes["shift"] = json.dumps(shift, sort_keys=True)
    state = load_file(source)
    state = shifted(state, shift)
    state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    size = sum(v.numel() * v.element_size() for v in state.values())
    if size > LARGEST:
        raise SettingError(
            "run", f"a network of at most {LARGEST / 1e6:g} MB in half precision", f"{size / 1e6:.1f} MB"
        )
    out.mkdir(parents=True, exist_ok=True)
    file = out / "gamma.safetensors"
    save_file({k: v.contiguous() for k, v in state.items()}, file, metadata=notes)
    return file


def shifted(state: dict[str, Tensor], by: Mapping[str, float]) -> dict[str, Tensor]:
    """Weights whose masks say so much more, in log-odds; of both paths, where there are two."""
    out = dict(state)
    for path in ("", "traces."):
        for name, value in by.items():
            key = f"{path}decoders.{name}.mask.bias"
            if key in out:
                out[key] = out[key] + value
    return out


def merge(recipe: Recipe, run: Path, traces: Path, out: Path, shifts: Sequence[Mapping[str, float]]) -> None:
    """A run's folder that holds the network of `run` with the path on residuals beside it.

    Parameters
    ----------
    recipe : Recipe
        Of `run`, with `model.trace`.
    run : Path
        Folder of a finished run.
    traces : Path
        What `trace.pretrain` wrote.
    out : Path
        Receives `run.safetensors` and `recipe.json`.
    shifts : sequence of two mappings
        What is added to the masks of the network and of the path, so that neither is louder than the other.
    """
    whole, path = shifted(load_file(run / "run.safetensors"), shifts[0]), shifted(load_file(traces), shifts[1])
    state = {k: v for k, v in whole.items() if not k.startswith("traces.")} | {
        f"traces.{k}": v for k, v in path.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(recipe.dump())
    save_file(
        {k: v.contiguous() for k, v in state.items()},
        out / "run.safetensors",
        metadata={"config": recipe.model.to_json()},
    )
