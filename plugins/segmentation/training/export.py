"""From a training run to the weights file that ships."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tellsign.errors import SettingError

from .calibrate import read_shift

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
    for name, by in shift.items():
        state[f"decoders.{name}.mask.bias"] += by
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


def declare(file: Path, declaration: Path) -> None:
    """Write the file's name, hash and size into the plugin's declaration beside its folder."""
    told = json.loads(declaration.read_text())
    told["weights"] = [
        {
            "file": f"{file.parent.name}/{file.name}",
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "size": file.stat().st_size,
        }
    ]
    declaration.write_text(json.dumps(told, indent=2) + "\n")
