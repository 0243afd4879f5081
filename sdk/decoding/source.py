"""From whatever the caller has to bytes, and from bytes to the name of their format."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, NoReturn

import attrs

from tellsign.errors import DecodeCode, DecodeError
from tellsign.schemas.checks import integer

MAX_SCANS = 500
"""A progressive JPEG has about ten scans; every one costs a pass over the whole picture."""

ALLOWED_SOURCES = "a path, bytes, a binary file object, a PIL image or a numpy array"

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""The containers that are read."""
_READ = ", ".join(FORMATS)

# What else a person may have at hand, to name it instead of saying "unknown".
_REFUSED = (
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"<svg", "SVG"),
    (b"\x00\x00\x01\x00", "icon"),
    (b"\x00\x00\x02\x00", "cursor"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"gimp xcf", "GIMP"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance"),
    (b"SIMPLE  =", "FITS"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"icns", "icon"),
    *((b"P%d" % n + space, "Netpbm") for n in range(1, 8) for space in (b"\n", b" ", b"\r", b"\t")),
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"crx "}
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}


@attrs.frozen(kw_only=True)
class Limits:
    """How large a picture may be; checked before any pixel is decoded.

    Pillow has a ceiling of its own (`PIL.Image.MAX_IMAGE_PIXELS`, twice 89 megapixels unless an app changed it), which
    is left as it is: a larger `max_pixels` helps only with a larger ceiling there.
    """

    max_bytes: int = attrs.field(default=100_000_000, validator=integer(1))
    """Bytes of the file."""
    max_pixels: int = attrs.field(default=100_000_000, validator=integer(1))
    """Width times height."""
    max_side: int = attrs.field(default=20_000, validator=integer(1))
    """Pixels along the longer side."""

    def check_size(self, width: int, height: int, source: str | None = None) -> None:
        """Raise `DecodeError` ("too_wide", "too_many_pixels") where a picture of that size is above the limits."""
        if max(width, height) > self.max_side:
            message = f"the picture is {width} x {height} pixels; at most {self.max_side:,} along a side are read"
            raise DecodeError("too_wide", message, source)
        if width * height > self.max_pixels:
            message = (
                f"the picture is {width} x {height} pixels ({width * height / 1e6:,.0f} megapixels); "
                f"at most {self.max_pixels / 1e6:,.6g} megapixels are read"
            )
            raise DecodeError("too_many_pixels", message, source)


DEFAULT_LIMITS = Limits()


def read_source(source: Any, limits: Limits) -> tuple[bytes, str | None]:
    """Bytes of `source` and its name, None where it has none.

    Raises
    ------
    DecodeError
        "not_found", "not_a_file", "not_readable", "empty", "too_many_bytes" or "bad_source".
    """
    name: str | None = None
    if isinstance(source, bytes | bytearray | memoryview):
        if len(source) > limits.max_bytes:  # before the copy
            _too_many_bytes(len(source), limits, None)
        data = bytes(source)
    elif isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
        data = _read_path(name, limits)
    elif callable(getattr(source, "read", None)):
        label = getattr(source, "name", None)
        name = label if isinstance(label, str) and label else None
        data = _read_file_object(source, name, limits)
    else:
        raise DecodeError("bad_source", f"a picture is {ALLOWED_SOURCES}, got {type(source).__name__}")
    if not data:
        raise DecodeError("empty", "there are no bytes in it", name)
    if len(data) > limits.max_bytes:
        _too_many_bytes(len(data), limits, name)
    return data, name


def _too_many_bytes(size: int, limits: Limits, name: str | None) -> NoReturn:
    allowed = f"at most {limits.max_bytes:,} bytes are read"
    have = f"the file has {size:,} bytes" if size != limits.max_bytes + 1 else "the file is larger than that"
    raise DecodeError("too_many_bytes", f"{allowed}; {have}", name)


def _read_path(name: str, limits: Limits) -> bytes:
    try:
        status = os.stat(name)
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would block or never end
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise DecodeError("not_a_file", f"a picture's path names a file, this is {kind}", name)
        if status.st_size > limits.max_bytes:
            _too_many_bytes(status.st_size, limits, name)
        with open(name, "rb") as file:
            return file.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise DecodeError(*_path_problem(name, error), name or None) from error


def _path_problem(name: str, error: Exception) -> tuple[DecodeCode, str]:
    if isinstance(error, PermissionError):
        return "not_readable", "the file may not be read (no permission)"
    if isinstance(error, IsADirectoryError):
        return "not_a_file", "a picture's path names a file, this is a directory"
    # A path that no file can have: too long, null bytes, a file where a folder should be.
    if isinstance(error, FileNotFoundError | NotADirectoryError | ValueError) or not _exists(name):
        hint = "; addresses are not fetched, download it first" if "://" in name else ""
        return "not_found", "no such file" + hint
    return "not_readable", f"the file could not be read ({error})"


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def _read_file_object(source: Any, name: str | None, limits: Limits) -> bytes:
    try:
        data = source.read(limits.max_bytes + 1)
    except Exception as error:  # a file object is anybody's code
        raise DecodeError("not_readable", f"reading the file object failed ({error!r})", name) from error
    if isinstance(data, bytearray | memoryview):
        data = bytes(data)
    if not isinstance(data, bytes):
        message = f"a file object gives bytes (opened with mode 'rb'), this one gave {type(data).__name__}"
        raise DecodeError("bad_source", message, name)
    return data


def sniff(data: bytes, name: str | None = None) -> str:
    """The container that the first bytes show, one of `FORMATS` but "MPO", which begins as a JPEG.

    Raises
    ------
    DecodeError
        "format_not_allowed" for a format that is known and not read, "unknown_format" for the rest.
    """
    head = data[:64]
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        if head[8:10] == b"CR":
            raise _refused("camera raw", name)
        return "TIFF"
    if head[4:8] == b"ftyp":
        return _sniff_iso(data, name)
    # A file may begin with spaces or an XML declaration before it says <svg.
    opening = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if opening.startswith(b"<?xml") and b"<svg" in data[:4096]:
        raise _refused("SVG", name)
    for signature, known in _REFUSED:
        if head.startswith(signature) or (known == "SVG" and opening.startswith(signature)):
            raise _refused(known, name)
    raise DecodeError(
        "unknown_format", f"the bytes are no picture in a known format; read are {', '.join(FORMATS)}", name
    )


def _refused(known: str, name: str | None) -> DecodeError:
    return DecodeError("format_not_allowed", f"this is {known}; read are {', '.join(FORMATS)}", name)


def _sniff_iso(data: bytes, name: str | None) -> str:
    size = min(int.from_bytes(data[:4], "big"), 512)
    brands = {data[8:12], *(data[i : i + 4] for i in range(16, size, 4))}
    if not brands & {b"avif", b"avis"}:
        raise _refused("HEIF" if brands & _HEIF_BRANDS else "a video", name)
    from PIL import features

    if not features.check("avif"):
        raise DecodeError("format_not_allowed", "this is AVIF, which the installed Pillow was built without", name)
    return "AVIF"


def check_header(container: str, data: bytes, limits: Limits, name: str | None = None) -> None:
    """Refuse what the decoders would spend memory or hours on before anyone can ask them for the size.

    Raises
    ------
    DecodeError
        "too_many_pixels", "too_wide" or "broken".
    """
    if container == "WEBP" and (size := _webp_size(data)):  # its decoder allocates the canvas when it is made
        limits.check_size(*size, name)
    if container == "JPEG" and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        message = f"{scans:,} JPEG scans, far beyond what a camera or an editor writes (at most {MAX_SCANS} are read)"
        raise DecodeError("broken", message, name)


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None


def looks_cut(container: str, data: bytes) -> bool:
    """Whether the file ends before its own structure says so; asked only when decoding has failed."""
    size = len(data)
    if container in ("JPEG", "MPO"):
        return b"\xff\xd9" not in data[-4096:]
    if container == "PNG":
        return b"IEND" not in data[-4096:]
    if container == "GIF":
        return not data.rstrip(b"\x00").endswith(b";")
    if container == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > size
    if container == "BMP":
        return int.from_bytes(data[2:6], "little") > size
    if container == "TIFF":
        order = "little" if data[:2] == b"II" else "big"
        return int.from_bytes(data[4:8], order) + 2 > size  # type: ignore[arg-type]
    if container == "AVIF":
        at = 0
        while at + 8 <= size:
            length = int.from_bytes(data[at : at + 4], "big")
            if length == 0:  # to the end of the file
                return False
            if length < 8 or at + length > size:
                return length >= 8
            at += length
    return False
