"""What the EXIF says of a camera, and whether the file agrees with it.

All of it can be written by anyone, so none of it clears a picture, and a disagreement is no sign of synthesis: every
editor leaves some. It is told for people who ask what happened to a file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellsign.schemas import Facts

from .claim import Claim
from .container import Container, opened

SAME = 0.8
"""Correlation of a thumbnail with the picture from which on they show the same (docs/provenance.md: measured)."""

LARGEST_THUMBNAIL = 1_000_000
"""Pixels."""

# How makers' notes begin, by the make that writes them; the forms are those that readers of EXIF document.
_NOTES = (
    (b"Nikon\x00", ("nikon",)),
    (b"OLYMP\x00", ("olympus",)),
    (b"OLYMPUS\x00", ("olympus",)),
    (b"OM SYSTEM", ("om digital", "olympus")),
    (b"FUJIFILM", ("fuji",)),
    (b"Panasonic\x00", ("panasonic", "leica")),
    (b"SONY ", ("sony",)),
    (b"Apple iOS\x00", ("apple",)),
    (b"AOC\x00", ("pentax", "asahi", "ricoh", "samsung")),
    (b"PENTAX \x00", ("pentax", "ricoh")),
    (b"SIGMA\x00", ("sigma",)),
    (b"LEICA\x00", ("leica",)),
    (b"KDK", ("kodak",)),
    (b"QVC\x00", ("casio",)),
    (b"EPSON\x00", ("epson",)),
    (b"SANYO\x00", ("sanyo",)),
    (b"MINOL\x00", ("minolta",)),
    (b"DJI", ("dji",)),
)
_WIDTH, _HEIGHT = 0xA002, 0xA003
_ADOBE = ("adobe photoshop", "adobe lightroom")
"""Programs with tables of their own."""
_LIBJPEG = ("imagemagick", "graphicsmagick", "darktable", "rawtherapee", "digikam", "pillow", "libvips")
"""Programs that hand their pictures to libjpeg, with its tables."""
_EDITORS = (
    *("photoshop", "lightroom", "gimp", "picasa", "photos ", "snapseed", "acdsee", "paint", "shotwell"),
    *("capture one", "aperture", "iphoto"),
)
"""Other programs that save a picture again; some with the tables that it had."""

MAKES = {
    "apple": (0, 26),
    "canon": (3, 42),
    "dji": (18, 18),
    "konica minolta photo imaging, inc.": (20, 20),
    "nikon": (12, 13),
    "nikon corporation": (1, 12),
    "sony": (4, 10),
}
"""Make, as EXIF has it -> real pictures with libjpeg's tables, and all, of those that look as they were taken. Makes
with at least ten of them (docs/provenance.md names the command)."""


def claim(container: Container, facts: Facts, original: bytes) -> Claim | None:
    """The camera's claim, with what agrees and what does not; None where no camera is named."""
    make, model = facts.camera.get("Make", ""), facts.camera.get("Model", "")
    graph = any(text.lstrip().startswith(("prompt:", "workflow:")) for text in (make, model))
    if not (make or model) or graph:
        return None
    name = model if model.lower().startswith(make.lower()) else f"{make} {model}".strip()
    notes = [
        *maker_note(container.maker_note, make),
        *size(container, facts),
        *thumbnail(container, facts, original),
        *tables(facts),
    ]
    if facts.software:
        notes.append(f"software: {facts.software[0]}")
    return Claim(
        claim=f"taken with {name}",
        claimant="EXIF camera fields",
        carrier="exif",
        meaning="captured",
        generator=name,
        detail="; ".join(notes),
    )


def as_it_was_taken(container: Container, facts: Facts) -> bool:
    """Whether nothing says that the file was saved since: EXIF's size, a maker note, and no editor's name.

    What a camera writes as its software is its firmware's version, which has digits and no program's name.
    """
    said = sorted((container.exif.get(_WIDTH, 0), container.exif.get(_HEIGHT, 0)), key=str)
    named = facts.software[0].lower() if facts.software else ""
    editor = any(program in named for program in (*_ADOBE, *_LIBJPEG, *_EDITORS))
    return bool(container.maker_note) and said == sorted((facts.width, facts.height)) and not editor


def maker_note(note: bytes, make: str) -> Iterator[str]:
    """Whether there is a maker note, and of whose form."""
    if not note:
        yield "no maker note"
        return
    owners = next((owners for start, owners in _NOTES if note.startswith(start)), None)
    if owners is None:
        yield "a maker note of no form that is known here"
    elif any(owner in make.lower() for owner in owners):
        yield "the maker note has the make's own form"
    else:
        yield f"the maker note has another make's form ({owners[0]})"


def size(container: Container, facts: Facts) -> Iterator[str]:
    """EXIF's own size against the picture's."""
    width, height = container.exif.get(_WIDTH), container.exif.get(_HEIGHT)
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        return
    said = width, height
    have = facts.width, facts.height
    if sorted(said) == sorted(have):  # turned ones included
        yield "the size is the one that EXIF says"
    else:
        yield f"EXIF says {said[0]} x {said[1]} pixels, the file has {have[0]} x {have[1]}: resized or cropped since"


def thumbnail(container: Container, facts: Facts, original: bytes) -> Iterator[str]:
    """Whether EXIF's thumbnail shows the picture."""
    if not container.thumbnail:
        return
    likeness = likeness_of(container.thumbnail, facts, original)
    if likeness is None:
        yield "the thumbnail cannot be compared"
    elif likeness >= SAME:
        yield "the thumbnail shows the same picture"
    else:
        yield "the thumbnail shows another picture, or this one before it was changed"


def likeness_of(small: bytes, facts: Facts, original: bytes) -> float | None:
    """Correlation of a thumbnail with the picture in [-1, 1], the best over quarter turns; None where it has none."""
    try:
        with Image.open(io.BytesIO(small), formats=("JPEG",)) as image:
            if image.width * image.height > LARGEST_THUMBNAIL or min(image.size) < 16:
                return None
            one = np.asarray(image.convert("L"), np.float32)
        with opened(original, facts) as image:
            image.draft("L", (320, 320))  # a JPEG is decoded at an eighth
            whole = image.convert("L")
        whole.thumbnail((320, 320))
    except Exception:  # a broken thumbnail is hostile or unlucky, and neither says anything
        return None
    return max((_correlation(one, np.rot90(np.asarray(whole, np.float32), turn)) for turn in range(4)), default=None)


def _correlation(small: NDArray[np.float32], picture: NDArray[np.float32]) -> float:
    """Of luminance, inside the bars that cameras add to make a picture 4:3."""
    height, width = small.shape
    scale = min(width / picture.shape[1], height / picture.shape[0])
    inner = max(8, round(picture.shape[0] * scale)), max(8, round(picture.shape[1] * scale))
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    part = small[top : top + inner[0], left : left + inner[1]]
    resized = Image.fromarray(picture).resize((part.shape[1], part.shape[0]), Image.Resampling.BOX)
    other = np.asarray(resized, np.float32)
    a, b = part - part.mean(), other - other.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / norm) if norm > 0 else 0.0


def tables(facts: Facts) -> Iterator[str]:
    """Whose quantisation tables they are: libjpeg's, which software writes and some cameras, or others."""
    if not facts.quantization or facts.quality is None:
        return
    own = standard(facts)
    words = f"are libjpeg's at quality {facts.quality}" if own else "are not libjpeg's"
    yield f"quantisation tables {words}{_expected(facts, own)}"


def _expected(facts: Facts, own: bool) -> str:
    """What the claimed program, or else the claimed camera, would have written."""
    program = facts.software[0].lower() if facts.software else ""
    if own and program.startswith(_ADOBE):
        return ": saved again since by another program, Adobe's has its own"
    if not own and program.startswith(_LIBJPEG):
        return f": saved again since by another program, {program.split()[0]} writes libjpeg's"
    libjpegs, files = MAKES.get(facts.camera.get("Make", "").lower(), (0, 0))
    if not files:
        return ""
    alike = libjpegs if own else files - libjpegs
    unusual = ", which is unusual" if alike <= files / 10 else ""
    return f"{unusual}: {alike} of {files} unchanged files of this make had such"


def standard(facts: Facts) -> bool:
    """Whether every table is one of libjpeg's at the estimated quality, in any order of its numbers."""
    if not facts.quantization or facts.quality is None:
        return False
    return all(tuple(sorted(table)) in _libjpeg(facts.quality) for table in facts.quantization)


@lru_cache(maxsize=100)
def _libjpeg(quality: int) -> frozenset[tuple[int, ...]]:
    """Libjpeg's two tables at a quality, sorted, as Pillow writes them."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    with Image.open(file, formats=("JPEG",)) as image:
        written = getattr(image, "quantization", {})
    return frozenset(tuple(sorted(table)) for table in written.values())


__all__ = [
    "MAKES",
    "SAME",
    "as_it_was_taken",
    "claim",
    "likeness_of",
    "maker_note",
    "size",
    "standard",
    "tables",
    "thumbnail",
]
