"""Weights files that ship with a plugin: read, and told to its declaration.

A plugin's weights are safetensors, with what they are in the file's own notes; at least `version`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tellsign.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor


def read_notes(file: Path) -> dict[str, str]:
    """What a weights file says of itself.

    Raises
    ------
    WeightsError
        The file is missing or damaged; the error names it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as handle:
            return dict(handle.metadata() or {})
    except FileNotFoundError as error:
        raise WeightsError(str(file), "the file is not there") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(str(file), f"cannot be read as safetensors: {error}") from error


def read_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by name, and what the file says of itself.

    Raises
    ------
    WeightsError
        The file is missing or damaged; the error names it.
    """
    from safetensors.torch import load_file

    notes = read_notes(file)
    return load_file(file), notes


@cache
def version_of(file: Path) -> str:
    """Name and version of a weights file, as evidence carries it: "pixel-tower 0.2.0".

    Raises
    ------
    WeightsError
        The file is missing or damaged.
    """
    return f"{file.stem} {read_notes(file).get('version', '?')}"


def declare(files: Sequence[Path], declaration: Path) -> None:
    """Write the files' names, hashes and sizes into a plugin's declaration.

    Parameters
    ----------
    files : sequence of Path
        In a folder beside the declaration.
    declaration : Path
        The plugin's `tellsign.json`.
    """
    told = json.loads(declaration.read_text(encoding="utf-8"))
    told["weights"] = [
        {
            "file": f"{file.parent.name}/{file.name}",
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "size": file.stat().st_size,
        }
        for file in files
    ]
    part = declaration.with_suffix(".part")
    part.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    os.replace(part, declaration)


__all__ = ["declare", "read_notes", "read_weights", "version_of"]
