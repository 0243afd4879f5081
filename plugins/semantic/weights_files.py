"""Reads the weights files that ship with the plugin, and heads that a user trained."""

from __future__ import annotations

from pathlib import Path

from tellsign.errors import WeightsError
from tellsign.weights.files import read_weights

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
    state, notes = read_weights(file)
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
    state, _ = read_weights(file)
    student = Student()
    try:
        student.load_state_dict({k: v.float() for k, v in state.items()})
    except RuntimeError as error:
        raise WeightsError(str(file), f"does not hold the semantic plugin's student: {error}") from error
    return student
