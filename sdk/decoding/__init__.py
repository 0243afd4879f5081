"""Safe decoding: from a path, bytes, a file object, a PIL image or an array to a `Picture`, once.

Files are hostile until decoded: only the formats in `FORMATS` are opened, by their first bytes and never by their name;
bytes and pixels are limited before any pixel is decoded; whatever goes wrong is a `DecodeError` with a code. Nothing
global is set in Pillow, so an app's own settings hold, and threads may decode at the same time.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

# Imported for what they register: `Image.open` would otherwise import every format that Pillow has.
from PIL import (
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from tellsign.errors import DecodeError
from tellsign.schemas import Picture

from . import colour, facts
from .jpeg import encode_jpeg, estimate_quality, reencode
from .quiet import quiet_pillow
from .source import DEFAULT_LIMITS, FORMATS, Limits, check_header, looks_cut, read_source, sniff

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | NDArray[np.uint8]
"""What a picture can come as."""


def decode(source: Source, *, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """Decode a picture to sRGB pixels.

    Parameters
    ----------
    source : path, bytes, binary file object, PIL.Image.Image or numpy.ndarray
        A file is read by its content, whatever its name ends in; a file object from where it stands, and it stays
        open. A PIL image is converted like a file (its EXIF orientation, colour profile and transparency are applied)
        but has no file, so `facts` is None. An array is uint8: (H, W, 3) is taken as sRGB, (H, W) and (H, W, 1) are
        repeated in three channels, (H, W, 4) is laid over white by its alpha in [0, 255].
    limits : Limits
        Bytes, pixels and side length above which nothing is decoded.

    Returns
    -------
    Picture
        `pixels` RGB uint8 (H, W, 3) after EXIF orientation, colour profile to sRGB, alpha over white, 16 bits to 8,
        first frame. Each of these that was done is a sentence in `facts.conversions`.

    Raises
    ------
    DecodeError
        With `code` one of `tellsign.errors.DECODE_CODES`, and nothing else.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, limits)
    if isinstance(source, Image.Image):
        return _from_pil(source, limits)
    data, name = read_source(source, limits)
    return _from_bytes(data, name, limits)


def _from_bytes(data: bytes, name: str | None, limits: Limits) -> Picture:
    container = sniff(data, name)
    check_header(container, data, limits, name)
    with quiet_pillow(), _only_decode_errors(container, data, name), io.BytesIO(data) as file:
        image = Image.open(file, formats=(container,))
        container = image.format or container
        limits.check_size(*image.size, name)
        _check_tiles(image, limits, name)
        facts.widen_grey_key(container, data, image)
        frames = facts.count_frames(container, data, image)
        notes = facts.format_notes(container, data, image, frames)
        mode, size = image.mode, facts.stored_size(image)
        # A TIFF is turned while it loads, and its tags are gone afterwards; a PNG may have its EXIF behind the pixels.
        exif = facts.read_exif(image, notes) if container == "TIFF" else None
        orientation = exif.orientation if exif else None
        image.load()
        if exif is None:
            exif = facts.read_exif(image, notes)
            orientation = exif.orientation
        elif colour.orientation_note(orientation) is not None:
            orientation = image.getexif().get(facts.ORIENTATION)  # what Pillow did not turn itself
        if note := colour.orientation_note(exif.orientation):
            notes.append(note)
        pixels = colour.to_srgb(image, orientation, notes)
        found = facts.collect(
            image, container=container, mode=mode, size=size, frames=frames, exif=exif, conversions=notes
        )
    return Picture(pixels=pixels, source=name, facts=found, original=data)


def _from_pil(image: Image.Image, limits: Limits) -> Picture:
    if 0 in image.size:
        raise DecodeError(
            "bad_source", f"a PIL image has at least one pixel, this one is {image.width} x {image.height}"
        )
    limits.check_size(*image.size)
    with quiet_pillow(), _only_decode_errors(None, b"", None):
        image.load()
        notes: list[str] = []
        pixels = colour.to_srgb(image, facts.read_exif(image, notes).orientation, notes)
    return Picture(pixels=pixels)


def _from_array(array: NDArray[Any], limits: Limits) -> Picture:
    shape = array.shape
    fits = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    if array.dtype != np.uint8 or not fits or 0 in shape:
        allowed = "an array is uint8 of shape (H, W, 3) in RGB, (H, W) or (H, W, 4)"
        hint = ""
        if array.dtype.kind == "f":
            hint = "; multiply values in [0, 1] by 255, round and cast"
        elif len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4):
            hint = "; move the channels to the end"
        elif len(shape) == 4:
            hint = "; pass the pictures of a batch one by one"
        raise DecodeError("bad_array", f"{allowed}, got {array.dtype} of shape {shape}{hint}")
    limits.check_size(shape[1], shape[0])
    if len(shape) == 3 and shape[2] == 4:
        return _from_pil(Image.fromarray(np.ascontiguousarray(array)), limits)
    # Always a copy, because the caller may go on writing; locked, so that `Picture` makes no second one.
    grey = len(shape) == 2 or shape[2] == 1
    pixels = np.repeat(array.reshape(*shape[:2], 1), 3, axis=2) if grey else np.array(array, order="C")
    pixels.flags.writeable = False
    return Picture(pixels=pixels)


def _check_tiles(image: Image.Image, limits: Limits, name: str | None) -> None:
    """A TIFF's tiles may be declared far larger than the picture, and one whole tile is allocated."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return
    width, height = tags.get(322), tags.get(323)
    if isinstance(width, int) and isinstance(height, int) and width * height > limits.max_pixels:
        message = f"its TIFF tiles are declared as {width} x {height} pixels; at most {limits.max_pixels:,} are read"
        raise DecodeError("too_many_pixels", message, name)


@contextmanager
def _only_decode_errors(container: str | None, data: bytes, name: str | None) -> Iterator[None]:
    """Turn whatever a decoder raises into a `DecodeError`.

    Decoders of hostile bytes raise nearly every type there is (OSError, SyntaxError, ValueError, struct.error,
    EOFError, IndexError, KeyError, OverflowError, zlib.error, ...), and the list changes with Pillow's version.
    """
    try:
        yield
    except DecodeError:
        raise
    except Image.DecompressionBombError as error:
        count = re.search(r"\d+", str(error))
        size = f"{int(count[0]) / 1e6:,.0f} megapixels" if count else "more pixels than allowed"
        message = f"the header declares {size}, above Pillow's own ceiling (PIL.Image.MAX_IMAGE_PIXELS)"
        raise DecodeError("too_many_pixels", message, name) from error
    except MemoryError as error:
        raise DecodeError("too_many_pixels", "there is not enough memory to decode it", name) from error
    except Exception as error:
        what = "the PIL image" if container is None else f"the {container} file"
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        # Pillow names the buffer that it was given, which tells a person nothing.
        why = f" ({why})" if "BytesIO" not in why else ""
        ended = isinstance(error, EOFError) or "truncated" in str(error).lower()
        if ended or (container is not None and looks_cut(container, data)):
            raise DecodeError("truncated", f"{what} ends too early{why}", name) from error
        raise DecodeError("broken", f"{what} is broken{why}", name) from error


__all__ = [
    "DEFAULT_LIMITS",
    "FORMATS",
    "DecodeError",
    "Limits",
    "Source",
    "decode",
    "encode_jpeg",
    "estimate_quality",
    "reencode",
]
