"""What a file says beside its pixels."""

from __future__ import annotations

import re
from typing import Any

import attrs
from PIL import ExifTags, Image

from tellsign.schemas import Facts

from .jpeg import estimate_quality

MAX_FRAMES = 10_000
"""Where counting frames stops: every further one costs a step, and a file may claim millions."""

MAX_TEXT = 1_000_000
"""Characters kept of one text; what is longer says that it was cut."""

_CAMERA = {
    "Make": 0x010F,
    "Model": 0x0110,
    "DateTime": 0x0132,
    "LensMake": 0xA433,
    "LensModel": 0xA434,
    "DateTimeOriginal": 0x9003,
    "ExposureTime": 0x829A,
    "FNumber": 0x829D,
    "ISOSpeedRatings": 0x8827,
    "FocalLength": 0x920A,
    "FocalLengthIn35mmFilm": 0xA405,
}
_SOFTWARE = (0x0131, 0x000B)  # Software, ProcessingSoftware
_EXIF_TEXTS = {
    "EXIF ImageDescription": 0x010E,
    "EXIF Artist": 0x013B,
    "EXIF Copyright": 0x8298,
    "EXIF UserComment": 0x9286,
}
ORIENTATION = 0x0112
_CREATOR = re.compile(r"xmp:CreatorTool(?:\s*=\s*[\"']([^\"'<>]{1,500})[\"']|\s*>([^<>]{1,500})<)")
_BITS_PER_SAMPLE = 258
_SUBFILE = 254


@attrs.frozen
class Exif:
    """The EXIF fields that are used; all empty where there are none or they cannot be read."""

    orientation: object = None
    fields: dict[str, str] = attrs.field(factory=dict)
    software: tuple[str, ...] = ()
    texts: dict[str, str] = attrs.field(factory=dict)


def read_exif(image: Image.Image, notes: list[str]) -> Exif:
    """Orientation, camera, software and texts; a sentence in `notes` where the metadata cannot be read."""
    try:
        exif = image.getexif()
        values = {**exif.get_ifd(ExifTags.IFD.Exif), **exif}
    except Exception:  # Pillow has raised a dozen types of error on odd EXIF
        notes.append("The EXIF metadata is broken; pixels are as they are stored.")
        return Exif()
    fields = {name: text for name, tag in _CAMERA.items() if (text := plain(values.get(tag)))}
    software = tuple(text for tag in _SOFTWARE if (text := plain(values.get(tag))))
    texts = {name: text for name, tag in _EXIF_TEXTS.items() if (text := plain(values.get(tag)))}
    return Exif(values.get(ORIENTATION), fields, software, texts)


def plain(value: object) -> str:
    """One line of metadata as a clean string: no null bytes, no lone surrogates, of bounded length."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        # An EXIF UserComment says its encoding in its first eight bytes.
        if value.startswith(b"UNICODE\x00"):
            body = value[8:]
            value = body.decode("utf-16-be" if body[:1] == b"\x00" else "utf-16-le", "replace")
        else:
            value = value.removeprefix(b"ASCII\x00\x00\x00").decode("utf-8", "replace")
    elif isinstance(value, tuple):
        value = ", ".join(plain(v) for v in value[:64])
    text = str(value).replace("\x00", "").encode("utf-8", "replace").decode("utf-8").strip()
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + f" ... (cut at {MAX_TEXT:,} characters)"
    return text


def _texts(image: Image.Image) -> dict[str, str]:
    # Not `image.text` for a PNG: that decodes an animation to its end to look for late chunks.
    chunks = image.info.items() if image.format == "PNG" else ()
    found = {plain(key) or "text": plain(value) for key, value in chunks if isinstance(value, str)}
    for key in ("comment", "xmp"):  # JPEG, GIF; JPEG, WebP, TIFF, AVIF
        if key in image.info:
            found.setdefault(key, plain(image.info[key]))
    return {key: value for key, value in found.items() if value}


def _tables(image: Image.Image) -> tuple[tuple[tuple[int, ...], ...], int | None]:
    """Quantisation tables and the quality behind the one of the first component."""
    raw = getattr(image, "quantization", None)
    if not isinstance(raw, dict):
        return (), None
    tables = {key: tuple(int(v) for v in table) for key, table in raw.items() if len(table) == 64}
    if not tables:
        return (), None
    layers = getattr(image, "layer", None)
    luma = tables.get(layers[0][3] if layers else 0, next(iter(tables.values())))
    return tuple(tables.values()), estimate_quality(luma)


def widen_grey_key(container: str, data: bytes, image: Image.Image) -> None:
    """Bring the transparent grey of a 2- or 4-bit PNG to 8 bits; Pillow widens the pixels and leaves the key."""
    bits = data[24] if container == "PNG" and len(data) > 24 else 8
    if image.mode == "L" and bits in (2, 4) and isinstance(key := image.info.get("transparency"), int):
        image.info["transparency"] = key * 255 // ((1 << bits) - 1)


def count_frames(container: str, data: bytes, image: Image.Image) -> int:
    """Frames or pages of the file, at most `MAX_FRAMES`; Pillow's own count is quadratic for TIFF."""
    if container == "GIF":
        return _count_gif(data)
    if container == "TIFF":
        return _count_tiff(data)
    try:
        return max(1, min(int(getattr(image, "n_frames", 1)), MAX_FRAMES))
    except (TypeError, ValueError):
        return 1


def _count_gif(data: bytes) -> int:
    size, frames = len(data), 0
    at = 13 + (3 << (data[10] & 7) + 1 if size > 10 and data[10] & 0x80 else 0)
    while at < size and frames < MAX_FRAMES:
        block = data[at]
        if block == 0x21:  # extension: label, then sub-blocks
            at += 2
        elif block == 0x2C and at + 9 < size:  # a frame: position, flags, colours, code size, then sub-blocks
            frames += 1
            at += 11 + (3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0)
        else:
            break
        while at < size and data[at]:
            at += data[at] + 1
        at += 1
    return max(1, frames)


def _count_tiff(data: bytes) -> int:
    order: Any = "little" if data[:2] == b"II" else "big"
    big = data[2:4] in (b"+\x00", b"\x00+")
    count_bytes, entry, offset_bytes, at = (8, 20, 8, 8) if big else (2, 12, 4, 4)
    offset = int.from_bytes(data[at : at + offset_bytes], order)
    seen: set[int] = set()
    while offset and offset + count_bytes <= len(data) and offset not in seen and len(seen) < MAX_FRAMES:
        seen.add(offset)
        end = offset + count_bytes + entry * int.from_bytes(data[offset : offset + count_bytes], order)
        offset = int.from_bytes(data[end : end + offset_bytes], order)
    return max(1, len(seen))


def format_notes(container: str, data: bytes, image: Image.Image, frames: int) -> list[str]:
    """Sentences about what the container holds and the pixels do not keep."""
    notes: list[str] = []
    if frames > 1:
        many = f"{frames:,}" if frames < MAX_FRAMES else f"{frames:,} or more"
        thing = {"TIFF": "pages", "MPO": "pictures"}.get(container, "frames")
        notes.append(f"The first of {many} {thing} was taken.")
    if container == "PNG":
        gamma = image.info.get("gamma")
        bare = "icc_profile" not in image.info and "srgb" not in image.info
        if bare and isinstance(gamma, int | float) and abs(gamma - 0.45455) > 0.01:
            notes.append(f"The file's gamma of {gamma:g} was not applied; pixels were taken as sRGB.")
    if _is_deep(container, data, image):
        notes.append("Samples of more than 8 bits reduced to 8.")
    tags = getattr(image, "tag_v2", None)
    if container == "TIFF" and tags is not None and isinstance(kind := tags.get(_SUBFILE), int) and kind & 1:
        notes.append("The first page says that it is a smaller copy of another one.")
    return notes


def _is_deep(container: str, data: bytes, image: Image.Image) -> bool:
    """Whether Pillow itself reduced the samples; deep grey is told where it is reduced."""
    if image.mode not in ("RGB", "RGBA", "RGBX", "LA", "CMYK", "L"):
        return False
    if container == "PNG":
        return data[24:25] == b"\x10"
    if container == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE)
        return isinstance(bits, tuple) and any(isinstance(b, int) and b > 8 for b in bits)
    if container == "AVIF":
        at = data.find(b"av1C")
        return at >= 0 and bool(data[at + 6 : at + 7] and data[at + 6] & 0x40)
    return False


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as they are stored; Pillow turns a TIFF's before it is asked to."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        width, height = tags.get(256), tags.get(257)
        if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
            return width, height
    return image.size


def collect(
    image: Image.Image,
    *,
    container: str,
    mode: str,
    size: tuple[int, int],
    frames: int,
    exif: Exif,
    conversions: list[str],
) -> Facts:
    """Everything above as `Facts`."""
    texts = _texts(image) | exif.texts
    tables, quality = _tables(image)
    xmp = texts.get("xmp") or texts.get("XML:com.adobe.xmp") or ""
    software = [*exif.software, *(v for k, v in texts.items() if k.lower() == "software")]
    if match := _CREATOR.search(xmp):
        software.append(plain(match[1] or match[2]))
    return Facts(
        container=container,
        mode=mode,
        width=size[0],
        height=size[1],
        frames=frames,
        quantization=tables,
        quality=quality,
        camera=exif.fields,
        software=tuple(dict.fromkeys(s for s in software if s)),
        texts=texts,
        conversions=tuple(conversions),
    )
