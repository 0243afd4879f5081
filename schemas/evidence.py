"""What a detector answers: a closed union of small frozen values."""

from __future__ import annotations

from typing import ClassVar

import attrs
import numpy as np
from numpy.typing import NDArray

from .checks import array, member, number, one_of, read_only, same_array, text
from .picture import Box
from .taxonomy import Category, Task

MEANINGS = ("generated", "edited", "captured", "other")
"""What a claim about a picture's origin can amount to."""

CARRIERS = ("content_credentials", "xmp", "iptc", "text", "exif", "watermark", "other")
"""Where a claim can stand: a signed manifest, XMP, IPTC-IIM, a generator's text, EXIF, the pixels themselves."""


@attrs.frozen(kw_only=True)
class _Origin:
    plugin: str = attrs.field(validator=text())
    """Name of the plugin that says so."""
    task: Task = attrs.field(validator=member(Task))
    model: str = attrs.field(validator=text())
    """Name and version of the model that spoke ("pixel-bundled 1.0.0")."""


@attrs.frozen(kw_only=True)
class ScoreEvidence(_Origin):
    """How strongly the picture looks synthesised (or tampered with) to one model."""

    kind: ClassVar[str] = "score"
    name: str = attrs.field(validator=text())
    """Which score; unique within the plugin, named in its declaration's columns."""
    score: float = attrs.field(validator=number(0, 1))
    """In [0, 1]; higher is more suspicious. Not calibrated: that is the fusion's work."""
    logit: float | None = attrs.field(default=None, validator=number(optional=True))
    """The score in log-odds where the model has it; kept because a score near 0 or 1 loses it."""


@attrs.frozen(kw_only=True)
class MapEvidence(_Origin):
    """Where: a coarse or fine map over the picture."""

    kind: ClassVar[str] = "map"
    name: str = attrs.field(validator=text())
    map: NDArray[np.float32] = attrs.field(
        converter=read_only, eq=same_array, validator=array((None, None), np.float32, unit=True)
    )
    """float32 (rows, columns) in [0, 1]; higher is more suspicious."""
    box: Box = attrs.field(validator=member(Box))
    """The part of the picture that the map's grid covers, evenly."""


@attrs.frozen(kw_only=True)
class FindingEvidence(_Origin):
    """One perceptual artifact, named with X-AIGD's taxonomy."""

    kind: ClassVar[str] = "finding"
    category: Category = attrs.field(validator=member(Category))
    strength: float = attrs.field(validator=number(0, 1))
    region: Box | None = attrs.field(default=None, validator=member(Box, optional=True))
    """None where the finding is about the whole picture."""
    note: str = attrs.field(default="", validator=text(empty=True))


@attrs.frozen(kw_only=True)
class StatementEvidence(_Origin):
    """A reason in words."""

    kind: ClassVar[str] = "statement"
    statement: str = attrs.field(validator=text())
    support: float = attrs.field(validator=number(0, 1))
    """Measured precision or the model's own confidence, as the plugin's card says."""
    origin: str = attrs.field(validator=one_of("retrieved", "generated"))
    category: Category | None = attrs.field(default=None, validator=member(Category, optional=True))


@attrs.frozen(kw_only=True)
class ProvenanceEvidence(_Origin):
    """What the file claims about its own origin."""

    kind: ClassVar[str] = "provenance"
    claim: str = attrs.field(validator=text())
    claimant: str = attrs.field(validator=text())
    """Who says it."""
    verification: str = attrs.field(validator=one_of("verified", "unverified", "broken", "unknown"))
    """verified: signed, unchanged since, and by a signer on the asked trust list. unverified: anyone can write it.
    broken: signed for other bytes than these. unknown: it is there and could not be read."""
    detail: str = attrs.field(default="", validator=text(empty=True))
    meaning: str = attrs.field(default="other", validator=one_of(*MEANINGS))
    """What the claim amounts to. "generated" and "edited" (generated regions in something else) are explicit claims of
    synthesis, and the only ones that can move a probability; "captured" and "other" never do."""
    carrier: str = attrs.field(default="other", validator=one_of(*CARRIERS))
    """Where the claim stands."""
    signer: str = attrs.field(default="", validator=text(empty=True))
    """Who signed it, by the certificate; empty where nobody did."""
    integrity: str = attrs.field(default="", validator=one_of("", "intact", "broken", "unknown"))
    """Whether the file is what was signed; empty where nothing is signed."""
    trust: str = attrs.field(default="", validator=one_of("", "trusted", "untrusted", "unknown"))
    """Whether the signer is on the asked trust list; "unknown" where none was asked. Empty where nothing is signed."""
    generator: str = attrs.field(default="", validator=text(empty=True))
    """The program or service that made the picture."""
    generator_model: str = attrs.field(default="", validator=text(empty=True))
    """The model that it ran."""
    prompt: str = attrs.field(default="", validator=text(empty=True))
    seed: str = attrs.field(default="", validator=text(empty=True))


@attrs.frozen(kw_only=True)
class NotApplicable(_Origin):
    """The detector has nothing to say about a picture of this kind."""

    kind: ClassVar[str] = "not_applicable"
    reason: str = attrs.field(validator=text())


@attrs.frozen(kw_only=True)
class Failed(_Origin):
    """The detector should have answered and did not."""

    kind: ClassVar[str] = "failed"
    reason: str = attrs.field(validator=text())
    error: str = attrs.field(validator=text())
    """Name of the error's class, "TimeLimit" or "BadEvidence"."""


@attrs.frozen(kw_only=True)
class Unavailable(_Origin):
    """The detector cannot answer here (its weights are not on this machine, an extra is not installed)."""

    kind: ClassVar[str] = "unavailable"
    reason: str = attrs.field(validator=text())


Evidence = (
    ScoreEvidence
    | MapEvidence
    | FindingEvidence
    | StatementEvidence
    | ProvenanceEvidence
    | NotApplicable
    | Failed
    | Unavailable
)

EVIDENCE_KINDS: dict[str, type[Evidence]] = {
    c.kind: c
    for c in (
        ScoreEvidence,
        MapEvidence,
        FindingEvidence,
        StatementEvidence,
        ProvenanceEvidence,
        NotApplicable,
        Failed,
        Unavailable,
    )
}
"""Every kind of evidence by the tag that it carries in JSON."""
