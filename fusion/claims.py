"""What a file's explicit claim of synthesis does to a verdict: one rule, after the learned fusion and never in it.

The learned fusion knows pixels only. A claim is another kind of evidence: it is exact where it is there, and its
absence says nothing, because every upload strips it. So the rule only ever raises `p_ai`; claims of a camera, claims
that could not be read, claims signed for other bytes, and missing claims change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from tellsign.schemas import (
    DEFINITE_LABELS,
    Evidence,
    Label,
    Notice,
    PredictionSet,
    ProvenanceEvidence,
    Task,
    UncertainReason,
)
from tellsign.schemas.evidence import CARRIERS

CLAIM_RAISE = 4.5
"""Log-odds that an unsigned claim adds.

How much more often generated pictures carry such a claim than others: the share of generated pictures that do, over the
95 % upper bound of the share of real ones that do (`python -m tellsign.plugins.provenance.measure claims`, see
docs/provenance.md). The logarithm, rounded down.
"""

VERIFIED_FLOOR = 9.2
"""Log-odds at even odds that a verified claim raises to at least: one wrong in 10,000. A choice and no measurement: who
signs, and whose signatures count, is the user's own trust list."""

_EXPLICIT = ("generated", "edited")
_AI = (Label.AI_GENERATED, Label.AI_EDITED)


def strongest_claim(evidence: Sequence[Evidence]) -> ProvenanceEvidence | None:
    """The explicit claim of synthesis that counts, None where there is none.

    Claims about one file are seldom independent, so they do not add up: a verified one comes before an unsigned one,
    then "edited", which says more than "generated", then the order of `CARRIERS`.
    """
    found = [
        e
        for e in evidence
        if isinstance(e, ProvenanceEvidence)
        and e.task is Task.PROVENANCE
        and e.meaning in _EXPLICIT
        and e.verification in ("verified", "unverified")
    ]
    return min(
        found,
        key=lambda e: (e.verification != "verified", e.meaning != "edited", CARRIERS.index(e.carrier), e.plugin),
        default=None,
    )


def raised(base: float, claim: ProvenanceEvidence | None) -> float:
    """Log-odds of `p_ai` at even odds with the claim; never below `base`.

    Parameters
    ----------
    base : float
        Of the learned fusion.
    claim : ProvenanceEvidence or None
        From `strongest_claim`.
    """
    if claim is None:
        return base
    return max(base + CLAIM_RAISE, VERIFIED_FLOOR) if claim.verification == "verified" else base + CLAIM_RAISE


def names_the_place(claim: ProvenanceEvidence | None) -> bool:
    """Whether the claim, and no mask, says if the whole picture is synthesised or a part.

    An unsigned "generated" does not: generators write the same parameters where they only paint into a photograph.
    """
    return claim is not None and (claim.verification == "verified" or claim.meaning == "edited")


def settle(
    claim: ProvenanceEvidence | None,
    p_ai: float,
    label: Label,
    reason: UncertainReason | None,
    chosen: PredictionSet,
) -> tuple[Label, UncertainReason | None, PredictionSet]:
    """Label, reason and set with the claim's own words.

    Parameters
    ----------
    claim : ProvenanceEvidence or None
    p_ai : float
        With the claim and the prior. Below .5 no claim names the label.
    label, reason, chosen
        What the conformal sets make of the raised log-odds, where AI pixels count as `ai_generated`.

    Returns
    -------
    label, reason, prediction set
        A verified claim is the label, whatever the calibration could assess. An unsigned one leaves the conformal
        answer as it is; where it says "edited", that is what AI pixels are called.
    """
    if claim is None:
        return label, reason, chosen
    said, other = _AI if claim.meaning == "generated" else _AI[::-1]
    if claim.verification == "verified" and p_ai >= 0.5:
        kept = [x for x in chosen.not_assessed if x not in _AI]
        return said, None, _set({said, *kept}, kept, chosen)
    if claim.meaning == "edited" and other in chosen.assessed:
        kept = [x for x in chosen.not_assessed if x is not said]
        labels = {*chosen.labels, said} - {other}
        return (said if label is other else label), reason, _set(labels, kept, chosen)
    return label, reason, chosen


def _set(labels: set[Label], not_assessed: Sequence[Label], like: PredictionSet) -> PredictionSet:
    return PredictionSet(
        labels=tuple(x for x in DEFINITE_LABELS if x in labels),
        not_assessed=tuple(x for x in DEFINITE_LABELS if x in not_assessed),
        error_rate=like.error_rate,
        error_rates=like.error_rates,
    )


def told(claim: ProvenanceEvidence, raise_: float) -> Notice:
    """Say that a claim moved the probability, by how much, and what that is worth."""
    worth = (
        f"signed by {claim.signer or claim.claimant}, verified"
        if claim.verification == "verified"
        else "nobody vouches for it, and anyone can write such a thing into a file"
    )
    how = "generated" if claim.meaning == "generated" else "edited with generated parts"
    text = f"the file says that the picture was {how} ({worth}); that raised the log-odds by {raise_:.2f}"
    return Notice(code="file_claim", message=text, plugin=claim.plugin)


__all__ = ["CLAIM_RAISE", "VERIFIED_FLOOR", "names_the_place", "raised", "settle", "strongest_claim", "told"]
