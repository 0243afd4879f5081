"""One thing that a file says, and one thing that could not be looked at."""

from __future__ import annotations

import attrs

LONGEST = {"prompt": 2000, "detail": 1000}
"""Characters kept of a field; of all others `SHORT`."""
SHORT = 200


def clip(text: object, length: int = SHORT) -> str:
    """`text` as one line of at most `length` characters, without lone surrogates."""
    found = str(text)[: 4 * length].encode("utf-8", "replace").decode("utf-8")
    line = " ".join(found.split())
    return line if len(line) <= length else line[: length - 3] + "..."


@attrs.frozen(kw_only=True)
class Claim:
    """A claim, with the fields of `ProvenanceEvidence` that are its own."""

    claim: str
    claimant: str
    carrier: str
    meaning: str = "other"
    verification: str = "unverified"
    detail: str = ""
    signer: str = ""
    integrity: str = ""
    trust: str = ""
    generator: str = ""
    generator_model: str = ""
    prompt: str = ""
    seed: str = ""

    def fields(self) -> dict[str, str]:
        """Every field as clean text of bounded length."""
        return {name: clip(value, LONGEST.get(name, SHORT)) for name, value in attrs.asdict(self).items()}


@attrs.frozen
class Unchecked:
    """Something that is in the file, or was asked for, and could not be looked at here."""

    reason: str
    library: str


def unknown(what: str, carrier: str, why: object) -> Claim:
    """What is there and cannot be read. It counts neither way."""
    text = f"{type(why).__name__}: {why}" if isinstance(why, BaseException) else str(why)
    return Claim(
        claim=f"{what}: unknown",
        claimant="the file",
        carrier=carrier,
        verification="unknown",
        detail=f"it is there and could not be read ({clip(text, 160)})",
    )


__all__ = ["Claim", "Unchecked", "clip", "unknown"]
