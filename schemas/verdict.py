"""The answer."""

from __future__ import annotations

from enum import StrEnum

import attrs

from .checks import integer, mapping, member, number, one_of, own_dict, pattern, refuse, several, text
from .declaration import HEADS
from .evidence import EVIDENCE_KINDS, Evidence, FindingEvidence, MapEvidence
from .taxonomy import DEFINITE_LABELS, Label, Task

SCHEMA_VERSION = "1.2"
"""Version of the verdict's JSON. A new field raises the second number, a changed meaning the first."""


class UncertainReason(StrEnum):
    """Why a verdict abstains."""

    SEVERAL_LABELS = "several_labels"
    """At the asked error rate more than one assessed label fits."""
    NOTHING_LIKE_IT = "nothing_like_it"
    """No assessed label fits: nothing like this picture was seen in calibration."""
    TOO_FEW_PLUGINS = "too_few_plugins"
    """Fewer tasks answered than the fusion asks for."""
    UNSTABLE = "unstable"
    """The verdict changes when the picture is saved again."""


@attrs.frozen(kw_only=True)
class Notice:
    """A warning that travels with the verdict."""

    code: str = attrs.field(validator=text())
    """Stable, for programs: "plugin_failed", "plugin_timeout", "no_evidence", ..."""
    message: str = attrs.field(validator=text())
    """For people."""
    plugin: str | None = attrs.field(default=None, validator=text(optional=True))


@attrs.frozen(kw_only=True)
class Contribution:
    """What one plugin added to the log-odds of one head; all rows of a head sum to logit(p) within 1e-5."""

    head: str = attrs.field(validator=one_of(*HEADS))
    plugin: str = attrs.field(validator=text())
    """A plugin's name, or "bias" (where the model starts from), or "prior" (the shift to the asked prior)."""
    task: Task | None = attrs.field(default=None, validator=member(Task, optional=True))
    log_odds: float = attrs.field(validator=number())


@attrs.frozen(kw_only=True)
class PredictionSet:
    """The labels that cannot be ruled out at the asked error rate (class-conditional conformal set)."""

    labels: tuple[Label, ...] = attrs.field(validator=several(Label, unique=True))
    not_assessed: tuple[Label, ...] = attrs.field(default=(), validator=several(Label, unique=True))
    """Labels that stay in every set because too few calibration pictures of them exist; part of `labels`."""
    error_rate: float = attrs.field(validator=number(0, 1))
    """The largest of `error_rates`, which bounds the chance that the set misses the truth."""
    error_rates: dict[str, float] = attrs.field(factory=dict, converter=own_dict, validator=mapping(float))
    """By label: the largest share of the pictures of that label whose set misses it. Empty where one rate is for all.

    They differ: ruling out `authentic` wrongly is an accusation, and a detector that sees only some kinds of tampering
    can rule out `tampered` at no small rate.
    """

    def __attrs_post_init__(self) -> None:
        allowed = f"rates in [0, 1] by label, one of {', '.join(DEFINITE_LABELS)}, none above error_rate"
        for label, rate in self.error_rates.items():
            if label not in DEFINITE_LABELS or not 0 <= rate <= self.error_rate:
                raise refuse(self, "error_rates", allowed, {label: rate})
        for field in ("labels", "not_assessed"):
            if Label.UNCERTAIN in getattr(self, field):
                raise refuse(self, field, "definite labels only", Label.UNCERTAIN)
        outside = [x for x in self.not_assessed if x not in self.labels]
        if outside:
            raise refuse(self, "not_assessed", "labels that are in `labels` too", outside)

    def rate_of(self, label: Label) -> float:
        """The largest share of the pictures of `label` whose set misses it."""
        return self.error_rates.get(label, self.error_rate)

    @property
    def ruled_out(self) -> tuple[Label, ...]:
        """The labels outside the set."""
        return tuple(x for x in DEFINITE_LABELS if x not in self.labels)

    @property
    def assessed(self) -> tuple[Label, ...]:
        """The labels in the set that the calibration speaks about."""
        return tuple(x for x in self.labels if x not in self.not_assessed)


@attrs.frozen(kw_only=True)
class Verdict:
    """What the picture is, how sure that is, why and where."""

    label: Label = attrs.field(validator=member(Label))
    reason: UncertainReason | None = attrs.field(default=None, validator=member(UncertainReason, optional=True))
    """Set exactly when the label is `uncertain`."""
    p_ai: float | None = attrs.field(validator=number(0, 1, optional=True))
    """Calibrated probability that the picture holds pixels synthesised by a neural network; None without evidence."""
    p_tampered: float | None = attrs.field(default=None, validator=number(0, 1, optional=True))
    """Calibrated probability that pixels were moved, pasted or painted; None while no plugin assesses it."""
    prior: float = attrs.field(default=0.5, validator=number(0, 1))
    """The share of AI pictures that `p_ai` assumes."""
    p_ai_at_1_percent: float | None = attrs.field(default=None, validator=number(0, 1, optional=True))
    """What `p_ai` would be where one picture in a hundred is AI."""
    prediction_set: PredictionSet = attrs.field(validator=member(PredictionSet))
    contributions: tuple[Contribution, ...] = attrs.field(default=(), validator=several(Contribution))
    evidence: tuple[Evidence, ...] = attrs.field(default=(), validator=several(tuple(EVIDENCE_KINDS.values())))
    warnings: tuple[Notice, ...] = attrs.field(default=(), validator=several(Notice))
    source: str | None = attrs.field(default=None, validator=text(optional=True))
    width: int = attrs.field(validator=integer(1))
    height: int = attrs.field(validator=integer(1))
    timings: dict[str, float] = attrs.field(factory=dict, converter=own_dict, validator=mapping(float), eq=False)
    """Seconds per stage and per plugin. Not part of equality: two runs of one picture are equal."""
    versions: dict[str, str] = attrs.field(factory=dict, converter=own_dict, validator=mapping(str))
    """Of everything that took part: tellsign, plugins, models, fusion bundle."""
    schema_version: str = attrs.field(
        default=SCHEMA_VERSION, validator=pattern(r"[0-9]+\.[0-9]+", "a version such as 1.0")
    )

    def __attrs_post_init__(self) -> None:
        if (self.label is Label.UNCERTAIN) != (self.reason is not None):
            raise refuse(self, "reason", "a reason exactly when the label is uncertain", self.reason)
        if self.label is not Label.UNCERTAIN and self.p_ai is None:
            raise refuse(self, "p_ai", "a number when the label is definite", self.p_ai)
        if self.label is not Label.UNCERTAIN and self.label not in self.prediction_set.labels:
            raise refuse(self, "label", f"one of its prediction set {self.prediction_set.labels}", self.label)

    @property
    def is_definite(self) -> bool:
        """Whether the verdict names a label other than `uncertain`."""
        return self.label in DEFINITE_LABELS

    @property
    def heat_map(self) -> MapEvidence | None:
        """Where: the finest map among the evidence, None where no plugin gave one.

        Of equally fine ones the one with the highest value.
        """
        maps = [e for e in self.evidence if isinstance(e, MapEvidence)]
        return max(maps, key=lambda e: (e.map.size, float(e.map.max())), default=None)

    @property
    def findings(self) -> tuple[FindingEvidence, ...]:
        """The named artifacts, strongest first."""
        found = [e for e in self.evidence if isinstance(e, FindingEvidence)]
        return tuple(sorted(found, key=lambda e: -e.strength))
