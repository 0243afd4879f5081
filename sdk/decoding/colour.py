"""Whatever Pillow decoded, to sRGB pixels; every step that changes a pixel leaves a sentence."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_BAND = 1 << 20
"""Pixels per band where a conversion needs more bytes per pixel than the picture itself."""

_TURNS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, "mirrored"),
    3: (Image.Transpose.ROTATE_180, "turned by 180 degrees"),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, "mirrored and turned by 180 degrees"),
    5: (Image.Transpose.TRANSPOSE, "mirrored and turned left by 90 degrees"),
    6: (Image.Transpose.ROTATE_270, "turned right by 90 degrees"),
    7: (Image.Transpose.TRANSVERSE, "mirrored and turned right by 90 degrees"),
    8: (Image.Transpose.ROTATE_90, "turned left by 90 degrees"),
}


def orientation_note(orientation: object) -> str | None:
    """What is said about an EXIF orientation; None where the pixels lie as they are stored."""
    if orientation is None or orientation == 1:
        return None
    if isinstance(orientation, int) and orientation in _TURNS:
        return f"Pixels {_TURNS[orientation][1]}, as the EXIF orientation {orientation} asks."
    return "The EXIF orientation is none of 1 to 8 and was ignored."


def to_srgb(image: Image.Image, orientation: object, notes: list[str]) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) in sRGB of a loaded image, alpha over white, turned by `orientation`.

    Appends to `notes` what was done.
    """
    profile = image.info.get("icc_profile")
    colour, alpha = _split(image, notes)
    del image
    colour = _apply_profile(colour, profile, notes)
    if alpha is not None:
        colour = _over_white(colour, alpha, notes)
        del alpha
    if isinstance(orientation, int) and orientation in _TURNS:
        colour = colour.transpose(_TURNS[orientation][0])
    return _to_array(colour)


def _bands(image: Image.Image) -> list[tuple[int, int]]:
    rows = max(1, _BAND // image.width)
    return [(top, min(top + rows, image.height)) for top in range(0, image.height, rows)]


def _to_array(image: Image.Image) -> NDArray[np.uint8]:
    # In bands: three times as fast as np.asarray(image), and without its second copy of all bytes.
    out = np.empty((image.height, image.width, len(image.getbands())), np.uint8)
    for top, bottom in _bands(image):
        band = np.asarray(image.crop((0, top, image.width, bottom)))
        out[top:bottom] = band.reshape(out[top:bottom].shape)
    out.flags.writeable = False  # a value type then keeps it without a copy
    return out


def _split(image: Image.Image, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    """Colour in L, RGB, CMYK or LAB, and alpha in L."""
    mode = image.mode
    key = image.info.get("transparency")
    if mode.startswith("I") or mode == "F":
        return _deep_grey(image, key, notes)
    if mode in ("L", "1"):
        grey = image.convert("L")
        grey.info.pop("transparency", None)  # it would make Pillow look for its colour in later conversions
        if not isinstance(key, int):
            return grey, None
        see_through = 255 * bool(key) if mode == "1" else key
        return grey, grey.point([0 if value == see_through else 255 for value in range(256)])
    if mode in ("P", "PA"):
        return _from_palette(image, key, notes)
    if mode in ("LA", "La"):
        image = image.convert("LA")
        return image.getchannel("L"), image.getchannel("A")
    if mode in ("RGBA", "RGBa"):
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        return image.convert("RGB"), alpha
    if mode == "RGB":
        return image, _key_mask(image, key, notes)
    if mode in ("CMYK", "LAB"):
        return image, None
    if mode not in ("RGBX", "YCbCr"):
        notes.append(f"{mode} converted to RGB.")
    return image.convert("RGB"), None


def _from_palette(image: Image.Image, key: object, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    notes.append("Palette colours written out as RGB.")
    if key is not None and not isinstance(key, bytes | int):
        notes.append("The transparent colour is no entry of the palette and was ignored.")
        image = image.copy()
        del image.info["transparency"]
        key = None
    if key is None and image.mode == "P" and not (image.palette and image.palette.mode.endswith("A")):
        return image.convert("RGB"), None
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    return image.convert("RGB"), alpha


def _key_mask(image: Image.Image, key: object, notes: list[str]) -> Image.Image | None:
    """Alpha of an RGB picture in which one colour is declared transparent."""
    if key is None:
        return None
    usable = isinstance(key, tuple) and len(key) == 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in key)
    if not usable:  # 16-bit keys: the low bytes that would decide are gone
        notes.append("The transparent colour is not one of 8-bit RGB and was ignored.")
        return None
    mask = np.empty((image.height, image.width), np.uint8)
    for top, bottom in _bands(image):
        band = np.asarray(image.crop((0, top, image.width, bottom)))
        mask[top:bottom] = np.where((band == np.array(key)).all(axis=2), 0, 255)
    return Image.fromarray(mask)


def _deep_grey(image: Image.Image, key: object, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    """Grey of more than 8 bits to L, by scaling; Pillow's own conversion clips at 255."""
    shape = (image.height, image.width)
    grey = np.empty(shape, np.uint8)
    mask = np.full(shape, 255, np.uint8) if isinstance(key, int) else None
    low, high = 0.0, 65535.0
    if not image.mode.startswith("I;16"):
        low, high = _range(image)
        kind = "32-bit integers" if image.mode == "I" else "Floating-point values"
        notes.append(f"{kind} from {low:g} to {high:g} scaled to 0 to 255.")
    for top, bottom in _bands(image):
        band = np.asarray(image.crop((0, top, image.width, bottom)))
        if mask is not None:
            mask[top:bottom][band == key] = 0
        if image.mode.startswith("I;16"):
            grey[top:bottom] = band >> 8  # the high byte, as Pillow does with 16-bit RGB
        else:
            with np.errstate(invalid="ignore"):  # a signalling NaN warns when it is widened
                wide = np.nan_to_num(band.astype(np.float64), nan=low, posinf=high, neginf=low)
            grey[top:bottom] = np.rint((wide - low) / (high - low) * 255) if high > low else 0
    if image.mode.startswith("I;16"):
        notes.append("16-bit samples reduced to their high 8 bits.")
    return Image.fromarray(grey), None if mask is None else Image.fromarray(mask)


def _range(image: Image.Image) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for top, bottom in _bands(image):
        band = np.asarray(image.crop((0, top, image.width, bottom)))
        band = band[np.isfinite(band)]
        if band.size:
            low, high = min(low, float(band.min())), max(high, float(band.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _over_white(colour: Image.Image, alpha: Image.Image, notes: list[str]) -> Image.Image:
    if alpha.getextrema() == (255, 255):
        notes.append("A fully opaque alpha channel was dropped.")
        return colour
    notes.append("Transparent pixels laid over white.")
    white = Image.new("RGB", colour.size, (255, 255, 255))
    white.paste(colour, (0, 0), alpha)
    return white


def _apply_profile(colour: Image.Image, data: object, notes: list[str]) -> Image.Image:
    """To RGB, through the colour profile where there is a usable one."""
    if isinstance(data, bytes) and data:
        try:
            converted = _through(colour, data, notes)
        except Exception as error:  # profiles come from anywhere, and littlecms answers with several error types
            notes.append(f"The colour profile is broken and was ignored ({_first_line(error)}).")
        else:
            if converted is not None:
                return converted
    if colour.mode == "CMYK":
        notes.append("CMYK without a usable profile converted by the plain formula; colours are approximate.")
    elif colour.mode == "LAB":
        notes.append("CIELAB converted to RGB.")
    elif colour.mode == "L":
        notes.append("Grey repeated in all three channels.")
    return colour if colour.mode == "RGB" else colour.convert("RGB")


def _through(colour: Image.Image, data: bytes, notes: list[str]) -> Image.Image | None:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
    space = profile.profile.xcolor_space.strip()
    if colour.mode == "L" and space == "RGB":
        colour = colour.convert("RGB")
    fits = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}.get(colour.mode) == space
    if not fits:
        notes.append(
            f"The colour profile is for {space or 'an unknown space'} and the pixels are {colour.mode}; ignored."
        )
        return None
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), colour.mode, "RGB")
    if colour.mode in ("RGB", "L") and _changes_nothing(transform, colour.mode):
        notes.append("The colour profile describes sRGB; pixels kept.")
        return colour if colour.mode == "RGB" else colour.convert("RGB")
    converted = transform.apply(colour)
    notes.append(f"{colour.mode} converted to sRGB through the colour profile{_profile_name(profile)}.")
    return converted


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a profile is sRGB by any name: no colour of a lattice moves by more than one step."""
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    if mode == "L":
        before = np.repeat(steps[None, :, None], 3, axis=2)
        probe = Image.fromarray(np.ascontiguousarray(steps[None]))
    else:
        before = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        probe = Image.fromarray(before)
    after = np.asarray(transform.apply(probe))
    return int(np.abs(after.astype(int) - before).max()) <= 1


def _profile_name(profile: ImageCms.ImageCmsProfile) -> str:
    try:
        name = ImageCms.getProfileDescription(profile).strip()
    except Exception:  # a profile without a name still converts
        return ""
    return f' "{name[:80]}"' if name else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
