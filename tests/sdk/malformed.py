"""A corpus of 200 and more files that go wrong, or look as if, made on the spot and the same every time.

`corpus()` gives (name, bytes, outcomes): `outcomes` are the error codes that are right for the file, and "picture"
where it may be read. As a script it decodes every file of a folder under a memory limit and prints what came.
"""

import functools
import io
import json
import random
import struct
import sys
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

OK = {"picture"}
CUT = {"truncated"}
ANY_DAMAGE = {"picture", "truncated", "broken", "too_many_pixels", "too_wide", "unknown_format", "format_not_allowed"}


# ---------------------------------------------------------------------------------------------------- building blocks


def scene(height=48, width=64, seed=0):
    """Smooth colours with some grain, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(x / (9 + 3 * c) + c) * np.cos(y / (7 + 2 * c)) for c in range(3)]
    return np.clip(np.stack(waves, -1) + rng.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)


def save(image, kind, **options):
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, *, bits=8, colour=2, rows=b"", before=(), after=()):
    """A PNG from parts; `rows` is the filtered, uncompressed image data or a ready zlib stream."""
    data = rows if rows[:1] == b"\x78" else zlib.compress(rows, 1)
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))]
    parts += [chunk(k, b) for k, b in before]
    parts += [chunk(b"IDAT", data)]
    parts += [chunk(k, b) for k, b in after]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def plain_png(width, height, *, bits=8, colour=2, samples=3, value=0, **more):
    """A PNG of one value, of any size, without its pixels ever being in memory."""
    row = b"\x00" + bytes([value]) * (width * samples * bits // 8)
    packer, parts = zlib.compressobj(1), []
    block = row * max(1, (1 << 22) // len(row))
    left = len(row) * height
    while left > 0:
        parts.append(packer.compress(block[: min(left, len(block))]))
        left -= len(block)
    return png(width, height, bits=bits, colour=colour, rows=b"".join(parts) + packer.flush(), **more)


def srgb_profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile():
    """An RGB profile that is not sRGB: its red and green primaries have changed places."""
    return srgb_profile().replace(b"rXYZ", b"XXXX", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"XXXX", b"gXYZ", 1)


def grey_profile(gamma=1.0):
    """A grey profile with a plain gamma curve."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    return _profile(b"GRAY", b"XYZ ", [(b"wtpt", white), (b"kTRC", curve)])


def cmyk_profile():
    """A CMYK profile as a table with two grid points per ink: white paper, and inks that darken to Lab's black."""
    lab = []
    for corner in range(16):
        inks = [corner >> 3 & 1, corner >> 2 & 1, corner >> 1 & 1, corner & 1]
        light = 0 if inks[3] else 255 - 70 * sum(inks[:3])
        lab += [light, 128 + 60 * (inks[1] - inks[0]) * (not inks[3]), 128 + 60 * (inks[2]) * (not inks[3])]
    ramp = bytes(range(256))
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + bytes(lab) + ramp * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    return _profile(b"CMYK", b"Lab ", [(b"wtpt", white), (b"A2B0", table)], kind=b"prtr")


def _profile(space, connection, tags, kind=b"mntr"):
    offset, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags:
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", offset + len(body), b"lcms", 0x02400000, kind, space, connection)
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return head + table + body


def exif(*entries, order="<"):
    """An EXIF block of raw entries (tag, type, count, value or offset)."""
    head = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", 8)
    body = b"".join(struct.pack(order + "HHII", *e) for e in entries)
    return b"Exif\x00\x00" + head + struct.pack(order + "H", len(entries)) + body + bytes(4)


def oriented(value):
    return exif((0x0112, 3, 1, value))


def tiff(tags, data=b"", next_offset=0, order="<"):
    """A TIFF with one directory; `tags` are (tag, type, count, value), the data follow at offset 8."""
    at = 8 + len(data)
    head = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", at)
    body = struct.pack(order + "H", len(tags)) + b"".join(struct.pack(order + "HHII", *t) for t in sorted(tags))
    return head + data + body + struct.pack(order + "I", next_offset)


def grey_tiff(width, height, data=b"", extra=(), **more):
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, len(data))]
    return tiff([*tags, *extra], data, **more)


def jpeg_resized(data, width, height):
    """A JPEG whose header declares another size."""
    at = next(i for i in range(len(data)) if data[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


# ------------------------------------------------------------------------------------------------------------- corpus


def bases():
    """One good file per way of coding."""
    image = scene()
    return {
        "baseline.jpg": save(image, "JPEG", quality=90),
        "progressive.jpg": save(image, "JPEG", quality=80, progressive=True),
        "plain.png": save(image, "PNG"),
        "lossy.webp": save(image, "WEBP", quality=80),
        "lossless.webp": save(image, "WEBP", lossless=True),
        "still.gif": save(Image.fromarray(image).quantize(64), "GIF"),
        "plain.bmp": save(image, "BMP"),
        "raw.tif": save(image, "TIFF"),
        "lzw.tif": save(image, "TIFF", compression="tiff_lzw"),
        "still.avif": save(image, "AVIF", quality=70, speed=10),
    }


@functools.cache
def corpus():
    """Every (name, bytes, outcomes) of the corpus, names unique."""
    cases = [*_whole(), *_cut(), *_flipped(), *_bombs(), *_foreign(), *_odd(), *_metadata()]
    names = [name for name, _, _ in cases]
    assert len(set(names)) == len(names)
    return cases


def _whole():
    for name, data in bases().items():
        yield f"whole-{name}", data, OK
    wrong = {"baseline.jpg": "png", "plain.png": "jpg", "lossy.webp": "jpg", "still.gif": "png", "raw.tif": "bmp"}
    for name, ending in wrong.items():
        yield f"wrong-extension-{name}.{ending}", bases()[name], OK
    yield "no-extension", bases()["plain.png"], OK
    yield "trailing-junk.jpg", bases()["baseline.jpg"] + b"junk" * 999, OK
    yield "trailing-junk.png", bases()["plain.png"] + b"junk" * 999, OK


def _cut():
    for name, data in bases().items():
        for share in (0.3, 0.5, 0.7, 0.9):
            # A TIFF keeps its directory at either end; cut before it, nothing says how much is missing.
            yield f"cut-{share}-{name}", data[: int(len(data) * share)], CUT
        yield f"cut-at-24-{name}", data[:24], {"truncated", "broken"}
        yield f"cut-at-12-{name}", data[:12], {"truncated", "broken", "unknown_format"}
        yield f"cut-at-1-{name}", data[:1], {"unknown_format"}
        yield f"cut-last-byte-{name}", data[:-1], {"picture", "truncated", "broken"}


def _flipped():
    for name, data in bases().items():
        for seed in range(5):
            rng = random.Random(seed)
            damaged = bytearray(data)
            for _ in range(1 + 3 * seed):
                damaged[rng.randrange(16, len(data))] ^= 1 << rng.randrange(8)
            yield f"flipped-{seed}-{name}", bytes(damaged), ANY_DAMAGE


def _bombs():
    good = bases()
    many, wide = {"too_many_pixels"}, {"too_wide"}
    yield "bomb-50000.png", png(50_000, 50_000, rows=bytes(1000)), {*many, *wide}
    yield "bomb-65500.jpg", jpeg_resized(good["baseline.jpg"], 65_500, 65_500), {*many, *wide}
    yield "bomb-19000.jpg", jpeg_resized(good["progressive.jpg"], 12_000, 12_000), many
    yield "bomb-65535.gif", b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + good["still.gif"][10:], {*many, *wide}
    yield "bomb-frame.gif", _gif_with_frame(60_000, 60_000), {*many, *wide, "broken"}
    bitmap = good["plain.bmp"]
    yield "bomb-50000.bmp", bitmap[:18] + struct.pack("<ii", 50_000, 50_000) + bitmap[26:], {*many, *wide}
    yield "bomb-19000.tif", grey_tiff(19_000, 19_000, bytes(100)), many
    yield "bomb-50000.tif", grey_tiff(50_000, 50_000, bytes(100)), {*many, *wide}
    canvas = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\x3f\x00\xff\x3f\x00"
    yield "bomb-16384.webp", b"RIFF" + struct.pack("<I", len(canvas)) + canvas, many
    lossless = good["lossless.webp"]
    yield "bomb-vp8l.webp", lossless[:21] + struct.pack("<I", 0x0FFFFFFF) + lossless[25:], many
    still = good["still.avif"]
    at = still.index(b"ispe") + 8
    yield "bomb.avif", still[:at] + struct.pack(">II", 60_000, 60_000) + still[at + 8 :], {*many, *wide, "broken"}
    yield "wide-30000.png", plain_png(30_000, 20), wide
    yield "high-30000.png", plain_png(20, 30_000), wide
    yield "wide-30000.jpg", save(Image.new("RGB", (30_000, 16)), "JPEG"), wide
    yield "wide-30000.tif", grey_tiff(30_000, 2, bytes(60_000)), wide
    yield "wide-20000.png", plain_png(20_000, 20), OK
    yield "above-100-megapixels.png", plain_png(10_001, 10_000, colour=0, samples=1), many
    yield "text-bomb.png", png(8, 8, rows=bytes(200), before=[(b"zTXt", _inflating(b"a\x00\x00"))]), {"broken"}
    international = b"a\x00\x01\x00\x00\x00"
    yield "text-bomb-late.png", png(8, 8, rows=bytes(200), after=[(b"iTXt", _inflating(international))]), {"broken"}
    yield "profile-bomb.png", png(8, 8, rows=bytes(200), before=[(b"iCCP", _inflating(b"a\x00\x00"))]), {"broken"}
    texts = [(b"zTXt", _inflating(b"k%d\x00\x00" % i, 999_000)) for i in range(80)]
    yield "many-texts.png", png(8, 8, rows=bytes(200), before=texts), {"broken"}
    yield "pixels-beyond-size.png", png(8, 8, rows=bytes(50_000_000)), {*OK, "broken"}
    progressive = good["progressive.jpg"]
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    yield "scans.jpg", progressive[:-2] + scan * 5000 + b"\xff\xd9", {"broken"}
    yield "tile.tif", _huge_tile(), many
    yield "directory-loop.tif", _directory_loop(), OK
    yield "directories.tif", _many_directories(20_000), OK
    yield "frames.gif", _many_frames(30_000), OK
    yield "tag-count.tif", tiff([(256, 4, 1, 8), (257, 4, 1, 8), (273, 4, 0xFFFFFFFF, 8)], bytes(64)), {"broken"}
    yield "strip-offset.tif", grey_tiff(64, 64, bytes(64)), CUT
    # Within every limit, and as dear as a picture can be: four channels, none of them opaque.
    yield "legal-giant.png", plain_png(10_000, 9_990, colour=6, samples=4, value=90), OK


def _inflating(prefix, size=60_000_000):
    return prefix + zlib.compress(b"x" * size, 9)


def _gif_with_frame(width, height):
    data = bases()["still.gif"]
    at = data.index(b",", 13 + 192)
    return data[: at + 5] + struct.pack("<HH", width, height) + data[at + 9 :]


def _huge_tile():
    tags = [(256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1), (277, 3, 1, 1)]
    tags += [(322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8), (325, 4, 1, 64)]
    return tiff(tags, bytes(64))


def _directory_loop():
    data = grey_tiff(8, 8, bytes(64))
    return data[:-4] + data[4:8]


def _many_directories(count):
    first = grey_tiff(8, 8, bytes(64))
    at, parts = len(first), [first[:-4] + struct.pack("<I", len(first))]
    for _ in range(count):
        at += 2 + 12 + 4
        parts.append(struct.pack("<HHHII", 1, 256, 4, 1, 8) + struct.pack("<I", at))
    return b"".join(parts)[:-4] + bytes(4)


def _many_frames(count):
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\x00\x00\x00\xff\xff\xff" + frame * count + b";"


def _foreign():
    unknown, refused = {"unknown_format"}, {"format_not_allowed"}
    yield "empty.jpg", b"", {"empty"}
    yield "text.jpg", b"This is not a picture.\n" * 40, unknown
    yield "text-that-begins-as-a-bitmap.bmp", b"BMW builds cars, and this is a text about them.", unknown
    yield "zeros.png", bytes(5000), unknown
    yield "noise.jpg", random.Random(7).randbytes(5000), unknown
    yield "page.html", b"<!DOCTYPE html><html><body>404</body></html>", unknown
    yield "archive.zip", b"PK\x03\x04" + bytes(200), unknown
    yield "sound.webp", b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(40), unknown
    yield "drawing.svg", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', refused
    yield "bare.svg", b"  <svg width='9' height='9'></svg>", refused
    yield "paper.pdf", b"%PDF-1.7\n" + bytes(99), refused
    yield "page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", refused
    yield "layers.psd", b"8BPS\x00\x01" + bytes(99), refused
    yield "phone.heic", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(99), refused
    yield "film.mp4", b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41" + bytes(99), refused
    yield "new.jxl", b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(99), refused
    yield "cinema.jp2", save(scene(), "JPEG2000"), refused
    yield "icon.ico", save(scene(), "ICO"), refused
    yield "netpbm.ppm", save(scene(), "PPM"), refused
    yield "raw.cr2", b"II*\x00\x10\x00\x00\x00CR\x02\x00" + bytes(99), refused
    yield "only-magic.jpg", b"\xff\xd8\xff", {"truncated", "broken"}
    yield "only-magic.png", b"\x89PNG\r\n\x1a\n", {"truncated", "broken"}
    yield "only-magic.gif", b"GIF89a", {"truncated", "broken"}
    yield "only-magic.webp", b"RIFF\x00\x01\x00\x00WEBP", {"truncated", "broken"}
    yield "only-magic.avif", b"\x00\x00\x00\x14ftypavif\x00\x00\x00\x00avif", {"truncated", "broken"}
    yield "no-size.png", png(0, 0, rows=b""), {"broken"}
    yield "no-size.bmp", bases()["plain.bmp"][:18] + bytes(8) + bases()["plain.bmp"][26:], {"broken", "truncated"}
    yield "bad-checksum.png", bases()["plain.png"].replace(b"IDAT", b"IDAT", 1)[:-5] + b"\x00" * 5, {*OK, "broken"}
    yield "no-pixels.png", b"\x89PNG\r\n\x1a\n" + png(8, 8)[8:33] + chunk(b"IEND", b""), {"broken", "truncated"}
    yield "colour-type-9.png", png(8, 8, colour=9, rows=bytes(400)), {"broken"}


def _odd():
    image = scene()
    picture = Image.fromarray(image)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        yield f"one-pixel.{kind.lower()}", save(image[:1, :1], kind), OK
    deep = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    yield "grey16.png", save(deep, "PNG"), OK
    yield "grey16.tif", save(deep, "TIFF"), OK
    yield "grey16-big-endian.tif", _grey16_tiff(deep), OK
    yield "rgb16.png", png(64, 48, bits=16, rows=_filtered(np.stack([deep] * 3, -1))), OK
    yield "rgba16.png", png(64, 48, bits=16, colour=6, rows=_filtered(np.stack([deep] * 4, -1))), OK
    yield "grey-alpha16.png", png(64, 48, bits=16, colour=4, rows=_filtered(np.stack([deep] * 2, -1))), OK
    key16 = [(b"tRNS", struct.pack(">HHH", 1, 2, 3))]
    yield "rgb16-key.png", png(64, 48, bits=16, rows=_filtered(np.stack([deep] * 3, -1)), before=key16), OK
    yield "grey16-key.png", png(64, 48, bits=16, colour=0, rows=_filtered(deep), before=[(b"tRNS", b"\x00\x00")]), OK
    yield "grey2-key.png", png(4, 1, bits=2, colour=0, rows=b"\x00\x1b", before=[(b"tRNS", b"\x00\x03")]), OK
    yield "integers.tif", save(Image.fromarray(deep.astype(np.int32) * 1000), "TIFF"), OK
    floats = deep.astype(np.float32) / 65535
    floats[0, :3] = np.nan, np.inf, -np.inf
    yield "floats.tif", save(Image.fromarray(floats), "TIFF"), OK
    yield "all-nan.tif", save(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"), OK
    yield "bits.png", save(picture.convert("1"), "PNG"), OK
    yield "fax.tif", save(picture.convert("1"), "TIFF", compression="group4"), OK
    cmyk = picture.convert("CMYK")
    yield "cmyk.jpg", save(cmyk, "JPEG"), OK
    yield "cmyk-profile.jpg", save(cmyk, "JPEG", icc_profile=cmyk_profile()), OK
    yield "cmyk-rgb-profile.jpg", save(cmyk, "JPEG", icc_profile=srgb_profile()), OK
    yield "cmyk.tif", save(cmyk, "TIFF"), OK
    yield "ycbcr.tif", save(picture.convert("YCbCr"), "TIFF"), OK
    lab = ImageCms.applyTransform(
        picture, ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    )
    yield "lab.tif", save(lab, "TIFF"), OK
    alpha = np.dstack([image, np.arange(64, dtype=np.uint8)[None].repeat(48, 0) * 4])
    yield "alpha.png", save(alpha, "PNG"), OK
    yield "alpha.webp", save(alpha, "WEBP", lossless=True), OK
    yield "alpha.tif", save(alpha, "TIFF"), OK
    yield "alpha.avif", save(alpha, "AVIF", speed=10), OK
    yield "opaque.png", save(np.dstack([image, np.full((48, 64), 255, np.uint8)]), "PNG"), OK
    yield "grey-alpha.png", save(Image.fromarray(alpha).convert("LA"), "PNG"), OK
    palette = picture.quantize(16)
    yield "palette.png", save(palette, "PNG"), OK
    yield "palette-key.png", save(palette, "PNG", transparency=3), OK
    yield "palette-alphas.png", save(palette, "PNG", transparency=bytes(range(0, 256, 16))), OK
    yield "palette-key.gif", save(palette, "GIF", transparency=3), OK
    yield "palette.bmp", save(palette, "BMP"), OK
    yield "palette.tif", save(palette, "TIFF"), OK
    rows = b"".join(b"\x00" + bytes([c % 9 for c in range(8)]) for _ in range(8))
    yield "palette-too-short.png", png(8, 8, colour=3, rows=rows, before=[(b"PLTE", bytes(9))]), {*OK, "broken"}
    yield "no-palette.png", png(8, 8, colour=3, rows=rows), {*OK, "broken"}
    yield "rgb-key.png", save(picture, "PNG", transparency=tuple(int(v) for v in image[0, 0])), OK
    frames = [Image.fromarray(scene(seed=s)).quantize(32) for s in range(4)]
    yield "animated.gif", save(frames[0], "GIF", save_all=True, append_images=frames[1:]), OK
    colour = [Image.fromarray(scene(seed=s)) for s in range(4)]
    yield "animated.webp", save(colour[0], "WEBP", save_all=True, append_images=colour[1:]), OK
    yield "animated.png", save(colour[0], "PNG", save_all=True, append_images=colour[1:]), OK
    yield "default-image.png", save(colour[0], "PNG", save_all=True, append_images=colour[1:], default_image=True), OK
    yield "animated.avif", save(colour[0], "AVIF", save_all=True, append_images=colour[1:], speed=10), OK
    apng = save(colour[0], "PNG", save_all=True, append_images=colour[1:])
    yield "apng-no-frames.png", _with_chunk(apng, b"acTL", struct.pack(">II", 0, 0)), {*OK, "broken"}
    yield "apng-too-many.png", _with_chunk(apng, b"acTL", struct.pack(">II", 0x80000000, 0)), {*OK, "broken"}
    yield "pair.mpo", save(colour[0], "MPO", save_all=True, append_images=colour[1:2]), OK
    colour = [Image.fromarray(scene(seed=s)) for s in range(4)]  # saving as MPO leaves its settings on a PIL image
    yield "pages.tif", save(colour[0], "TIFF", save_all=True, append_images=colour[1:]), OK
    yield "small-frame.gif", _small_frame(), OK
    yield "interlaced.png", save(picture, "PNG", interlace=1), OK
    yield "rle.bmp", _rle_bitmap(), {*OK, "broken"}
    yield "no-restart.jpg", save(image, "JPEG", restart_marker_rows=1), OK
    yield "grey.jpg", save(picture.convert("L"), "JPEG"), OK


def _filtered(values):
    """16-bit big-endian PNG rows without filter."""
    rows = values.astype(">u2").reshape(len(values), -1)
    return b"".join(b"\x00" + row.tobytes() for row in rows)


def _grey16_tiff(values):
    data = values.astype(">u2").tobytes()
    height, width = values.shape
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16 << 16), (259, 3, 1, 1 << 16), (262, 3, 1, 1 << 16)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1 << 16), (278, 4, 1, height), (279, 4, 1, len(data))]
    return tiff(tags, data, order=">")


def _with_chunk(data, kind, body):
    at = data.index(kind) - 4
    return data[:at] + chunk(kind, body) + data[at + 12 + struct.unpack(">I", data[at : at + 4])[0] :]


def _small_frame():
    data = bases()["still.gif"]
    return data[:6] + struct.pack("<HH", 100, 90) + data[10:]


def _rle_bitmap():
    head = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, 0, 0, 0, 2, 0)
    body = bytes(8) + b"\x08\x01\x00\x00" * 8 + b"\x00\x01"
    return b"BM" + struct.pack("<IHHI", 14 + 40 + len(body), 0, 0, 14 + 40 + 8) + head + body


def _metadata():
    image = scene()
    for value in range(10):
        yield f"orientation-{value}.jpg", save(image, "JPEG", exif=oriented(value)), OK
    for kind in ("PNG", "WEBP", "TIFF", "AVIF"):
        more = {"tiffinfo": {274: 6}} if kind == "TIFF" else {"exif": oriented(6)}
        yield f"orientation-6.{kind.lower()}", save(image, kind, **more), OK
    yield "orientation-as-text.jpg", save(image, "JPEG", exif=exif((0x0112, 2, 4, 0x00363636))), OK
    yield "orientation-as-two.jpg", save(image, "JPEG", exif=exif((0x0112, 3, 2, 0x00060006))), OK
    yield "orientation-as-text.tif", grey_tiff(8, 8, bytes(64), extra=[(274, 2, 4, 0x00363636)]), {*OK, "broken"}
    yield "orientation-9.tif", grey_tiff(8, 8, bytes(64), extra=[(274, 3, 1, 9)]), OK
    yield "exif-noise.jpg", save(image, "JPEG", exif=b"Exif\x00\x00" + random.Random(1).randbytes(300)), OK
    yield "exif-cut.jpg", save(image, "JPEG", exif=oriented(3)[:14]), OK
    yield "exif-empty.jpg", save(image, "JPEG", exif=b"Exif\x00\x00"), OK
    yield (
        "exif-offset.jpg",
        save(image, "JPEG", exif=exif((0x010F, 2, 4000, 0x7FFFFFFF), (0x8769, 4, 1, 0xFFFFFFF0))),
        OK,
    )
    yield "exif-loop.jpg", save(image, "JPEG", exif=exif((0x8769, 4, 1, 8))), OK
    yield (
        "exif-types.jpg",
        save(image, "JPEG", exif=exif((0x0110, 5, 1, 2), (0x8769, 2, 4, 65), (0x0131, 99, 1, 1))),
        OK,
    )
    yield "exif-zero-rational.jpg", save(image, "JPEG", exif=exif((0x829A, 5, 1, 8), (0x8769, 4, 1, 8))), OK
    yield "exif-noise.png", save(image, "PNG", exif=random.Random(2).randbytes(300)), OK
    yield "exif-noise.webp", save(image, "WEBP", exif=random.Random(3).randbytes(300)), OK
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" xmp:CreatorTool="Brush 7"/></x:xmpmeta>'
    yield "xmp-orientation.jpg", save(image, "JPEG", xmp=xmp), OK
    raw = b"Raw profile type exif\x00\nexif\n 4\nzz zz\n"
    yield "raw-profile.png", _before_pixels(image, b"tEXt", raw), OK
    for key in (b"transparency", b"icc_profile", b"gamma", b"exif", b"xmp", b"comment", b"loop", b"XML:com.adobe.xmp"):
        yield f"text-named-{key.decode().replace(':', '-')}.png", _before_pixels(image, b"tEXt", key + b"\x00zz"), OK
    for name, profile in {
        "noise": random.Random(4).randbytes(400),
        "cut": srgb_profile()[:300],
        "empty-tags": srgb_profile()[:128] + bytes(4),
        "flipped": srgb_profile()[:140] + bytes(40) + srgb_profile()[180:],
        "grey": grey_profile(),
        "cmyk": cmyk_profile(),
        "srgb": srgb_profile(),
        "swapped": swapped_profile(),
    }.items():
        yield f"profile-{name}.jpg", save(image, "JPEG", icc_profile=profile), OK
    grey = Image.fromarray(image).convert("L")
    yield "grey-with-grey-profile.jpg", save(grey, "JPEG", icc_profile=grey_profile()), OK
    yield "grey-with-rgb-profile.jpg", save(grey, "JPEG", icc_profile=swapped_profile()), OK
    yield "gamma.png", _before_pixels(image, b"gAMA", struct.pack(">I", 100_000)), OK


def _before_pixels(image, kind, body):
    data = save(image, "PNG")
    return data[:33] + chunk(kind, body) + data[33:]


# ------------------------------------------------------------------------------------------------------------- script


def main(folder, limit):
    """Decode everything below `limit` bytes of memory; one JSON line per file, then one with the peak."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    from tellsign.decoding import decode
    from tellsign.errors import DecodeError
    from tellsign.schemas import Task
    from tellsign.views import build_view

    for path in sorted(Path(folder).iterdir()):
        began = time.perf_counter()
        try:
            picture = decode(path)
        except DecodeError as error:
            outcome = error.code if str(path) in str(error) else f"an error without its path: {error}"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
        else:
            for task in Task:
                build_view(task, picture, "k")
            outcome = "picture"
            del picture
        print(json.dumps([path.name, outcome, time.perf_counter() - began]))
    # Not getrusage: its maximum is handed down from the process that started this one, here a large pytest.
    status = Path("/proc/self/status").read_text()
    print(json.dumps(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
