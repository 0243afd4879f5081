"""Reads the weights files that ship with the plugin, and heads that a user trained."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from tellsign.errors import WeightsError

from .model import SemanticHead
from .student import Student

FOLDER = Path(__file__).with_name("weights")
HEAD = FOLDER / "semantic-tower.safetensors"
STUDENT = FOLDER / "semantic-student.safetensors"


def load_head(file: Path = HEAD) -> SemanticHead:
    """Read a head for a tower.

    Raises
    ------
    WeightsError
        The file is missing, damaged, or not of this kind; the error names it.
    """
    state, notes = _read(file)
    try:
        blocks = [int(b) for b in notes["blocks"].split(",")]
        head = SemanticHead(blocks, state["weight"].shape[1])
        head.load_state_dict({k: v.float() for k, v in state.items()})
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise WeightsError(str(file), f"does not hold the semantic plugin's head: {error}") from error
    return head


def load_student(file: Path = STUDENT) -> Student:
    """Read the student.

    Raises
    ------
    WeightsError
        The file is missing, damaged, or not of this kind; the error names it.
    """
    state, _ = _read(file)
    student = Student()
    try:
        student.load_state_dict({k: v.float() for k, v in state.items()})
    except RuntimeError as error:
        raise WeightsError(str(file), f"does not hold the semantic plugin's student: {error}") from error
    return student


@cache
def version_of(file: Path) -> str:
    """Name and version of a weights file, as evidence carries it.

    Raises
    ------
    WeightsError
        The file is missing or damaged.
    """
    return f"{file.stem} {read_notes(file).get('version', '?')}"


def read_notes(file: Path) -> dict[str, str]:
    """What a weights file says of itself.

    Raises
    ------
    WeightsError
        The file is missing or damaged.
    """
    try:
        with safe_open(file, "pt") as handle:
            return dict(handle.metadata() or {})
    except FileNotFoundError as error:
        raise WeightsError(str(file), "the file is not there") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(str(file), f"cannot be read as safetensors: {error}") from error


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    notes = read_notes(file)
    return load_file(file), notes
