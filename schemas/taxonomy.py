"""The words that everything else is named with: tasks, labels, and X-AIGD's artifact categories."""

from __future__ import annotations

from enum import StrEnum


class Task(StrEnum):
    """What a detector looks at. The task decides the view that it is given."""

    SEMANTIC = "semantic"
    PIXEL = "pixel"
    SEGMENTATION = "segmentation"
    REASONING = "reasoning"
    PROVENANCE = "provenance"


class Label(StrEnum):
    """What a verdict can say."""

    AUTHENTIC = "authentic"
    AI_GENERATED = "ai_generated"
    AI_EDITED = "ai_edited"
    TAMPERED = "tampered"
    UNCERTAIN = "uncertain"


DEFINITE_LABELS = (Label.AUTHENTIC, Label.AI_GENERATED, Label.AI_EDITED, Label.TAMPERED)
"""The labels that a prediction set ranges over, in the order in which they are printed."""


class Level(StrEnum):
    """X-AIGD's three levels of perceptual artifacts (arXiv 2601.19430)."""

    LOW = "low-level"
    HIGH = "high-level"
    COGNITIVE = "cognitive-level"


class Category(StrEnum):
    """X-AIGD's seven categories, spelled as in the published data set."""

    EDGE_SHAPE = "low-level-edge_shape"
    TEXTURE = "low-level-texture"
    COLOR = "low-level-color"
    SYMBOL = "low-level-symbol"
    SEMANTICS = "high-level-semantics"
    COMMONSENSE = "cognitive-level-commonsense"
    PHYSICS = "cognitive-level-physics"

    @property
    def level(self) -> Level:
        """The level that the category belongs to."""
        return Level(self.value.rsplit("-", 1)[0])
