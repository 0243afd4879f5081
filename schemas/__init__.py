"""The vocabulary: frozen value types that flow between the rooms. Needs numpy and attrs only."""

from .checks import InvalidValueError
from .declaration import API_VERSION, HEADS, STATISTICS, Column, Declaration, WeightsFile
from .evidence import (
    EVIDENCE_KINDS,
    Evidence,
    Failed,
    FindingEvidence,
    MapEvidence,
    NotApplicable,
    ProvenanceEvidence,
    ScoreEvidence,
    StatementEvidence,
    Unavailable,
)
from .labels import label_probabilities, most_likely
from .picture import Box, Facts, Picture
from .taxonomy import DEFINITE_LABELS, Category, Label, Level, Task
from .verdict import SCHEMA_VERSION, Contribution, Notice, PredictionSet, UncertainReason, Verdict
from .view import VIEW_OF_TASK, PixelView, ProvenanceView, SegmentationView, SemanticView, View

__all__ = [
    "API_VERSION",
    "DEFINITE_LABELS",
    "EVIDENCE_KINDS",
    "HEADS",
    "SCHEMA_VERSION",
    "STATISTICS",
    "VIEW_OF_TASK",
    "Box",
    "Category",
    "Column",
    "Contribution",
    "Declaration",
    "Evidence",
    "Facts",
    "Failed",
    "FindingEvidence",
    "InvalidValueError",
    "Label",
    "Level",
    "MapEvidence",
    "NotApplicable",
    "Notice",
    "Picture",
    "PixelView",
    "PredictionSet",
    "ProvenanceEvidence",
    "ProvenanceView",
    "ScoreEvidence",
    "SegmentationView",
    "SemanticView",
    "StatementEvidence",
    "Task",
    "Unavailable",
    "UncertainReason",
    "Verdict",
    "View",
    "WeightsFile",
    "label_probabilities",
    "most_likely",
]
