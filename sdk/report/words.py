"""Plain words for a verdict, shared by the terminal and the page."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from tellsign.schemas import (
    DEFINITE_LABELS,
    Category,
    Contribution,
    Evidence,
    Failed,
    FindingEvidence,
    Label,
    MapEvidence,
    NotApplicable,
    ProvenanceEvidence,
    ScoreEvidence,
    StatementEvidence,
    Unavailable,
    UncertainReason,
    Verdict,
)

LABELS = {
    Label.AUTHENTIC: "authentic",
    Label.AI_GENERATED: "AI-generated",
    Label.AI_EDITED: "AI-edited",
    Label.TAMPERED: "tampered with",
    Label.UNCERTAIN: "uncertain",
}

HEADS = {"p_ai": "AI pixels", "p_tampered": "tampering"}

_HEADLINES = {label: f"Looks {words}" for label, words in LABELS.items()} | {Label.UNCERTAIN: "Cannot tell"}

_REASONS = {
    UncertainReason.SEVERAL_LABELS: "More than one label fits at an error rate of {rate}.",
    UncertainReason.NOTHING_LIKE_IT: "No label fits at an error rate of {rate}: nothing like this picture was seen "
    "when the probabilities were calibrated.",
    UncertainReason.TOO_FEW_PLUGINS: "Too few detectors gave evidence for a verdict.",
    UncertainReason.UNSTABLE: "The verdict changes when the picture is saved again, so neither one can be relied on.",
}

# Bidirectional controls reorder what is written after them: "gpj.exe" can be made to read "exe.jpg".
_BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """`text` with control characters, bidirectional controls and lone surrogates written as escapes.

    File names and metadata are a stranger's: a raw ESC in one could recolour, clear or retitle a terminal.
    """
    if text.isprintable() and not _BIDI.intersection(text):
        return text
    return "".join(
        c.encode("unicode_escape").decode() if c in _BIDI or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c
        for c in text
    )


def clip(text: str, length: int) -> str:
    """`text`, cut to `length` characters with three dots at the end where something is missing."""
    return text if len(text) <= length else text[: max(0, length - 3)] + "..."


def percent(p: float) -> str:
    """A probability in [0, 1] as a percentage that never rounds to certainty: "97 %", "2.4 %", "> 99.9 %"."""
    if p > 0.999:
        return "> 99.9 %"
    if p < 0.001:
        return "< 0.1 %"
    if 0.1 <= p <= 0.9:
        return f"{100 * p:.0f} %"
    return f"{100 * p:.1f}".removesuffix(".0") + " %"


def likelihood(p: float) -> str:
    """A probability in words, on the scale that the IPCC uses (AR5 guidance note on uncertainties, table 1)."""
    for bound, words in ((0.01, "virtually ruled out"), (0.1, "very unlikely"), (0.33, "unlikely")):
        if p < bound:
            return words
    for bound, words in ((0.66, "about as likely as not"), (0.9, "likely"), (0.99, "very likely")):
        if p <= bound:
            return words
    return "virtually certain"


def one_in(share: float) -> str:
    """A share in (0, 1) as "1 in 100", or "30 in 100" where that does not come out even."""
    if 0 < share <= 0.5 and abs(1 / share - round(1 / share)) < 1e-6:
        return f"1 in {round(1 / share)}"
    return f"{100 * share:.4g} in 100"


def listing(words: Sequence[str], last: str = "and") -> str:
    """The words with commas and `last` before the last one."""
    return ", ".join(words[:-1]) + f" {last} {words[-1]}" if len(words) > 1 else "".join(words)


def headline(verdict: Verdict) -> str:
    """The label in a few words."""
    return _HEADLINES[verdict.label]


def explanation(verdict: Verdict) -> str:
    """One sentence: why this label, or why none."""
    chosen = verdict.prediction_set
    asked = sorted({chosen.rate_of(x) for x in DEFINITE_LABELS if x not in chosen.not_assessed} or {chosen.error_rate})
    rate = " to ".join(percent(x) for x in dict.fromkeys((asked[0], asked[-1])))
    if verdict.reason is not None:
        return _REASONS[verdict.reason].format(rate=rate)
    if decided_by_claim(verdict):
        return "The file says so itself, in a claim that is signed, unchanged, and by a signer on your trust list."
    if len(asked) == 1:
        return f"The only label assessed that fits at an error rate of {rate}."
    wrongly = listing([f"{LABELS[x]} {percent(chosen.rate_of(x))}" for x in chosen.ruled_out])
    return f"The only label assessed that fits. How often the others are ruled out wrongly, at most: {wrongly}."


def set_in_words(verdict: Verdict) -> str:
    """The assessed labels that cannot be ruled out."""
    found = [LABELS[x] for x in verdict.prediction_set.assessed]
    return listing(found, "or") if found else "none of the labels assessed"


def not_assessed(verdict: Verdict) -> str | None:
    """What the verdict does not speak about, None where it speaks about everything."""
    missing = [LABELS[x] for x in verdict.prediction_set.not_assessed]
    if not missing:
        return None
    return f"{listing(missing, 'or')}; cannot be ruled out, too few examples to calibrate on"


ARTIFACTS = {
    Category.EDGE_SHAPE: "edges and shapes",
    Category.TEXTURE: "texture",
    Category.COLOR: "colour",
    Category.SYMBOL: "lettering and symbols",
    Category.SEMANTICS: "objects and anatomy",
    Category.COMMONSENSE: "common sense",
    Category.PHYSICS: "physics",
}
"""X-AIGD's seven categories for people."""


def artifacts_found(verdict: Verdict) -> str | None:
    """Categories of artifacts that a detector found, None without any."""
    found = [words for category, words in ARTIFACTS.items() if category in {f.category for f in verdict.findings}]
    return listing(found) if found else None


def artifacts_not_assessed(verdict: Verdict) -> str | None:
    """Categories that nothing was found of: that is no statement that the picture is free of them."""
    found = {f.category for f in verdict.findings}
    missing = [words for category, words in ARTIFACTS.items() if category not in found]
    return listing(missing) if missing else None


def contributor(row: Contribution) -> str:
    """Name of a contribution's row."""
    return {"bias": "starting point", "prior": "asked prior"}.get(row.plugin, printable(row.plugin))


def log_odds(value: float) -> str:
    """A log-odds number with its sign: "+1.20", "-0.52"."""
    return f"{value:+.2f}"


def place(evidence: MapEvidence) -> str:
    """Where in the picture's covered part the map is strongest, in a grid of three by three ("upper left")."""
    rows, columns = evidence.map.shape
    row, column = np.unravel_index(int(evidence.map.argmax()), evidence.map.shape)
    vertical = ("upper", "", "lower")[min(2, int(3 * (row + 0.5) / rows))]
    horizontal = ("left", "", "right")[min(2, int(3 * (column + 0.5) / columns))]
    return f"{vertical} {horizontal}".strip() or "middle"


def said(evidence: Evidence) -> str:
    """One line of what a piece of evidence says."""
    match evidence:
        case ScoreEvidence():
            return f"{evidence.name}: {evidence.score:.2f} of 1, not calibrated"
        case MapEvidence():
            rows, columns = evidence.map.shape
            peak = f"{float(evidence.map.max()):.2f}"
            return f"{evidence.name}: map of {rows} x {columns} cells, strongest {place(evidence)} ({peak} of 1)"
        case FindingEvidence():
            note = f": {evidence.note}" if evidence.note else ""
            return f"{evidence.category.value}{note} (strength {evidence.strength:.2f})"
        case StatementEvidence():
            return f"{evidence.statement} ({evidence.origin}, support {evidence.support:.2f})"
        case ProvenanceEvidence():
            return "; ".join([evidence.claim, *(f"{name.lower()}: {text}" for name, text in claim_in_words(evidence))])
        case NotApplicable():
            return f"has nothing to say here: {evidence.reason}"
        case Failed():
            return f"failed: {evidence.reason} ({evidence.error})"
        case Unavailable():
            return f"not available: {evidence.reason}"


_WORTH = {
    "verified": "verified: signed, unchanged since, by a signer on your trust list",
    "unverified": "not verified: anyone can write this",
    "broken": "broken: it was signed for other bytes than these",
    "unknown": "unknown: it is there and could not be read",
}


def claim_in_words(evidence: ProvenanceEvidence) -> list[tuple[str, str]]:
    """What a file claims, as rows of a name and a text: who says it, signed by whom, verified how, and the rest."""
    worth = _WORTH[evidence.verification]
    if evidence.verification == "unverified" and evidence.signer:
        why = "no trust list was given" if evidence.trust == "unknown" else "not on your trust list"
        whole = "unchanged since it was signed" if evidence.integrity == "intact" else "not shown to be unchanged"
        worth = f"not verified: {whole}, but the signer is believed by nobody here ({why})"
    made = evidence.generator + (f", model {evidence.generator_model}" if evidence.generator_model else "")
    rows = [
        ("Says", evidence.claimant),
        ("Signed by", evidence.signer),
        ("Worth", worth),
        ("Made with", made if evidence.meaning in ("generated", "edited") else ""),
        ("Prompt", clip(evidence.prompt, 200)),
        ("Seed", evidence.seed),
        ("More", evidence.detail),
    ]
    return [(name, text) for name, text in rows if text]


def decided_by_claim(verdict: Verdict) -> bool:
    """Whether the label is what a verified claim of the file says, and not what the conformal sets leave."""
    meant = {Label.AI_GENERATED: "generated", Label.AI_EDITED: "edited"}.get(verdict.label)
    return any(
        isinstance(e, ProvenanceEvidence) and e.verification == "verified" and e.meaning == meant
        for e in verdict.evidence
    )


def name_of(verdict: Verdict) -> str:
    """The picture's name for people."""
    return printable(verdict.source) if verdict.source is not None else "picture without a name"
