"""The file's own texts by key, with Pillow's readers, each apart so that one that breaks takes no other with it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import attrs
from PIL import ExifTags, Image, IptcImagePlugin

from tellsign.schemas import Facts

LONGEST_NOTE = 400
"""Bytes of a maker note that are read as text."""

_XMP_KEYS = ("xmp", "XML:com.adobe.xmp")
_CREDIT = (2, 110)
_MAKER_NOTE = 0x927C


@attrs.frozen(kw_only=True)
class Container:
    """What the parsers read."""

    texts: Mapping[str, str]
    """By key: PNG's own keys, "comment", "EXIF UserComment", "IPTC Credit", ..."""
    xmp: str = ""
    maker_note: bytes = b""
    exif: Mapping[int, Any] = attrs.field(factory=dict)
    """Main and Exif directory by tag."""
    thumbnail: bytes = b""
    """The JPEG in EXIF's second directory."""
    trouble: str = ""
    """Why the EXIF could not be read."""


def opened(original: bytes, facts: Facts) -> Image.Image:
    """The file, opened and not decoded. It has been decoded once before, so its size is within the limits."""
    container = "JPEG" if facts.container == "MPO" else facts.container
    return Image.open(io.BytesIO(original), formats=(container,))


def read(original: bytes, facts: Facts) -> Container:
    """Everything that the parsers read, from the facts where they have it."""
    texts = {key: text for key, text in facts.texts.items() if key not in _XMP_KEYS}
    xmp = next((facts.texts[key] for key in _XMP_KEYS if key in facts.texts), "")
    if facts.software:
        texts.setdefault("EXIF Software", facts.software[0])
    for name in ("Make", "Model"):
        if name in facts.camera:
            texts[f"EXIF {name}"] = facts.camera[name]
    exif: dict[int, Any] = {}
    note = thumbnail = b""
    trouble = ""
    try:
        with opened(original, facts) as image:
            found = image.getexif()
            exif = {**found, **found.get_ifd(ExifTags.IFD.Exif)}
            note = _bytes(exif.get(_MAKER_NOTE))
            with suppress(Exception):  # a thumbnail that cannot be had is one that is not there
                thumbnail = _thumbnail(image, found)
            if credit := _credit(image):
                texts["IPTC Credit"] = credit
    except Exception as error:  # Pillow has raised a dozen types of error on odd EXIF
        trouble = f"{type(error).__name__}: {error}"
    if note[:1].isalnum() and note[:LONGEST_NOTE].rstrip(b"\x00").isascii():
        texts.setdefault("EXIF MakerNote", note[:LONGEST_NOTE].rstrip(b"\x00").decode("ascii"))
    return Container(texts=texts, xmp=xmp, maker_note=note, exif=exif, thumbnail=thumbnail, trouble=trouble)


def _bytes(value: object) -> bytes:
    """Pillow gives a maker note as bytes, and as text where the tag was written as such."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return value if isinstance(value, bytes) else b""


def _thumbnail(image: Image.Image, exif: Image.Exif) -> bytes:
    directory = exif.get_ifd(ExifTags.IFD.IFD1)
    start, length = directory.get(0x0201), directory.get(0x0202)
    block = image.info.get("exif", b"")
    if not (isinstance(start, int) and isinstance(length, int) and isinstance(block, bytes)):
        return b""
    base = 6 if block.startswith(b"Exif\x00\x00") else 0
    found = block[base + start : base + start + length]
    return found if found.startswith(b"\xff\xd8") else b""


def _credit(image: Any) -> str:
    """IPTC-IIM's credit line, "" where there is none or it cannot be read."""
    try:
        found = IptcImagePlugin.getiptcinfo(image)
    except Exception:
        return ""
    line = (found or {}).get(_CREDIT, b"")
    return line.decode("utf-8", "replace").strip() if isinstance(line, bytes) else ""


__all__ = ["Container", "opened", "read"]
