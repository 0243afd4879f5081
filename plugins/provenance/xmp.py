"""XMP: the digital source type, what the IPTC adds for AI, credits, and texts that generators put there.

Parsed as a stream with defusedxml: no document type, no entities, no tree, and an end to depth and number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from .claim import Claim, Unchecked, unknown
from .source_types import IN_WORDS, meaning_of, term_of

DEEPEST = 64
MOST = 20_000
"""Elements."""
LONGEST = 1_000_000
"""Characters of XMP that are parsed."""

WANTED = (
    "DigitalSourceType",
    "AISystemUsed",
    "AISystemVersionUsed",
    "AIPromptInformation",
    "Credit",
    "CreatorTool",
    "UserComment",
    "AIGC",
)
"""Local names of the properties that are kept; each is unambiguous without its namespace."""


class TooMuchError(ValueError):
    """More XML than any program writes."""


class _Kept:
    """A parser's target that keeps the wanted properties' texts and nothing else."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}
        self._path: list[str] = []
        self._elements = 0
        self._inside = ""
        self._depth = 0
        self._text: list[str] = []

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._elements += 1
        self._depth += 1
        if self._elements > MOST or self._depth > DEEPEST:
            raise TooMuchError("the XMP is nested too deeply or has too many elements")
        for key, value in attributes.items():
            self._keep(_local(key), value)
            if _local(key) == "resource":
                self._keep(_local(tag), value)
        if not self._inside and _local(tag) in WANTED:
            self._inside, self._at = _local(tag), self._depth
            self._text = []

    def end(self, tag: str) -> None:
        if self._inside and self._depth == self._at:
            self._keep(self._inside, "".join(self._text))
            self._inside = ""
        self._depth -= 1

    def data(self, text: str) -> None:
        if self._inside:
            self._text.append(text)

    def close(self) -> None:
        pass

    def _keep(self, name: str, value: str) -> None:
        if name in WANTED and value.strip():
            kept = self.found.setdefault(name, [])
            if len(kept) < 20:
                kept.append(value.strip())


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def installed() -> bool:
    """Whether defusedxml is here."""
    return find_spec("defusedxml") is not None


def properties(xmp: str) -> dict[str, list[str]]:
    """The wanted properties of an XMP packet.

    Raises
    ------
    Exception
        Whatever the parser raises for what is no XML, has a document type, or is too much.
    """
    from defusedxml.ElementTree import DefusedXMLParser

    if len(xmp) > LONGEST:
        raise TooMuchError(f"the XMP is longer than {LONGEST:,} characters")
    kept = _Kept()
    parser = DefusedXMLParser(target=kept, forbid_dtd=True)
    for at in range(0, len(xmp), 1 << 16):
        parser.feed(xmp[at : at + (1 << 16)])
    parser.close()
    return kept.found


def look(xmp: str) -> tuple[dict[str, list[str]], list[Claim | Unchecked]]:
    """The wanted properties, and why they could not be had."""
    if not any(name in xmp for name in WANTED):
        return {}, []
    if not installed():
        why = Unchecked("the XMP is there and was not read: pip install 'tellsign[provenance]'", library="defusedxml")
        return {}, [unknown("XMP", "xmp", "defusedxml is not installed"), why]
    try:
        return properties(xmp), []
    except Exception as error:  # expat's, defusedxml's and our own: none of it says anything of the picture
        return {}, [unknown("XMP", "xmp", error)]


def claims(found: Mapping[str, list[str]]) -> Iterator[Claim]:
    """The claims of the IPTC's own properties."""
    system = " ".join([*found.get("AISystemUsed", ())[:1], *found.get("AISystemVersionUsed", ())[:1]])
    prompt = next(iter(found.get("AIPromptInformation", ())), "")
    who = system or next(iter(found.get("CreatorTool", ())), "") or "XMP"
    types = list(dict.fromkeys(found.get("DigitalSourceType", ())))
    for value in types[:3]:
        meaning = meaning_of(value)
        yield Claim(
            claim=f"digital source type {term_of(value) or 'of no known form'}: "
            + IN_WORDS.get(meaning, "says nothing of trained models"),
            claimant=who,
            carrier="xmp",
            meaning=meaning,
            generator=system if meaning in ("generated", "edited") else "",
            prompt=prompt,
        )
    if system and not types:
        yield Claim(
            claim=f"an AI system was used: {system}", claimant=who, carrier="xmp", generator=system, prompt=prompt
        )


__all__ = ["WANTED", "TooMuchError", "claims", "installed", "look", "properties"]
