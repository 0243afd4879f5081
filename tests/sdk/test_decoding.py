import contextlib
import io
import json
import os
import pickle
import runpy
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms, ImageFile

from tellsign.decoding import FORMATS, Limits, decode, encode_jpeg, estimate_quality, reencode
from tellsign.decoding.quiet import quiet_pillow
from tellsign.errors import DECODE_CODES, DecodeError, SettingError, TellsignError
from tellsign.schemas import InvalidValueError

MALFORMED = Path(__file__).with_name("malformed.py")
make = runpy.run_path(str(MALFORMED))
scene, save, oriented, plain_png = make["scene"], make["save"], make["oriented"], make["plain_png"]

LOSSLESS = {
    "PNG": ("PNG", {}),
    "interlaced PNG": ("PNG", {"interlace": 1}),
    "BMP": ("BMP", {}),
    "TIFF": ("TIFF", {}),
    "TIFF LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "WEBP": ("WEBP", {"lossless": True, "exact": True}),
}


def code_of(source, **options):
    with pytest.raises(DecodeError) as caught:
        decode(source, **options)
    assert caught.value.code in DECODE_CODES
    return caught.value.code


def conversions(data):
    return " ".join(decode(data).facts.conversions)


# ------------------------------------------------------------------------------------------------------------ sources


def test_every_kind_of_source_gives_the_same_pixels(tmp_path):
    image = scene()
    data = save(image, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for source in (str(path), path, data, bytearray(data), memoryview(data), io.BytesIO(data), Image.open(path), image):
        np.testing.assert_array_equal(decode(source).pixels, image)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(decode(file).pixels, image)
        assert not file.closed


def test_a_path_is_kept_as_source_and_the_bytes_as_original(tmp_path):
    data = save(scene(), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    picture = decode(path)
    assert (picture.source, picture.original) == (str(path), data)
    picture = decode(data)
    assert (picture.source, picture.original) == (None, data)


def test_a_file_object_is_read_from_where_it_stands():
    file = io.BytesIO(b"header" + save(scene(), "PNG"))
    file.seek(6)
    np.testing.assert_array_equal(decode(file).pixels, scene())


def test_arrays_and_pil_images_have_no_file():
    for source in (scene(), Image.fromarray(scene())):
        picture = decode(source)
        assert (picture.facts, picture.original, picture.source) == (None, None, None)


def test_paths_that_are_no_picture_file(tmp_path):
    assert code_of(tmp_path / "missing.jpg") == "not_found"
    assert code_of(tmp_path) == "not_a_file"
    (tmp_path / "empty.jpg").touch()
    assert code_of(tmp_path / "empty.jpg") == "empty"
    assert code_of(tmp_path / "empty.jpg" / "below.jpg") == "not_found"
    assert code_of("a\x00b.jpg") == "not_found"
    assert code_of("x" * 5000) == "not_found"
    assert code_of("") == "not_found"
    with pytest.raises(DecodeError, match="download it first"):
        decode("https://example.org/a.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert code_of(tmp_path / "pipe.jpg") == "not_a_file"


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = tmp_path / "secret.jpg"
    path.write_bytes(save(scene(), "JPEG"))

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DecodeError, match="permission") as caught:
        decode(path)
    assert (caught.value.code, caught.value.source) == ("not_readable", str(path))


def test_file_objects_that_misbehave():
    class Raising:
        name = "remote"

        def read(self, size):
            raise RuntimeError("connection lost")

    assert code_of(Raising()) == "not_readable"
    assert code_of(io.StringIO("text")) == "bad_source"
    assert code_of(io.BytesIO(b"")) == "empty"


@pytest.mark.parametrize("source", [None, 7, 1.5, ["a.jpg"], {"a": 1}, object()])
def test_what_is_no_source(source):
    with pytest.raises(DecodeError, match="a picture is a path, bytes"):
        decode(source)
    assert code_of(source) == "bad_source"


def test_the_error_says_what_and_survives_pickling(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"no picture")
    with pytest.raises(TellsignError) as caught:
        decode(path)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.code, again.source) == ("unknown_format", str(path))
    assert str(again) == str(caught.value)
    assert str(path) in str(again)
    with pytest.raises(SettingError, match=r"DecodeError\.code takes one of"):
        DecodeError("no_such_code", "x")


# ------------------------------------------------------------------------------------------------------------- limits


def test_a_file_above_the_byte_limit_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "large.jpg"
    with open(path, "wb") as file:
        file.truncate(100_000_001)
    monkeypatch.setattr("builtins.open", lambda *a, **k: pytest.fail("the file was opened"))
    assert code_of(path) == "too_many_bytes"


def test_the_byte_limit_is_exact():
    data = save(scene(), "PNG")
    for source in (data, io.BytesIO(data)):
        assert code_of(source, limits=Limits(max_bytes=len(data) - 1)) == "too_many_bytes"
    assert decode(data, limits=Limits(max_bytes=len(data))).width == 64


def test_the_pixel_limits_are_exact_and_come_before_the_pixels():
    data = save(scene(48, 64), "PNG")
    decode(data, limits=Limits(max_pixels=48 * 64, max_side=64))
    broken = data[:60] + b"no pixels at all"
    for source in (data, broken, Image.fromarray(scene(48, 64)), scene(48, 64)):
        assert code_of(source, limits=Limits(max_pixels=48 * 64 - 1)) == "too_many_pixels"
        assert code_of(source, limits=Limits(max_side=63)) == "too_wide"
    assert code_of(broken) == "truncated"


@pytest.mark.parametrize("field", ["max_bytes", "max_pixels", "max_side"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "many", None, True])
def test_limits_are_checked(field, value):
    with pytest.raises(InvalidValueError, match=field):
        Limits(**{field: value})


def test_an_app_s_own_lower_ceiling_in_pillow_is_respected(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert code_of(save(scene(), "PNG")) == "too_many_pixels"


# ------------------------------------------------------------------------------------------------------------- arrays


def test_grey_and_alpha_arrays():
    grey = scene()[..., 0]
    for source in (grey, grey[..., None]):
        np.testing.assert_array_equal(decode(source).pixels, np.repeat(grey[..., None], 3, axis=2))
    alpha = np.dstack([scene(), np.zeros((48, 64), np.uint8)])
    alpha[0, 0, 3] = 255
    pixels = decode(alpha).pixels
    assert (pixels[0, 1:] == 255).all()
    np.testing.assert_array_equal(pixels[0, 0], scene()[0, 0])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((8, 8, 3), np.float32), "multiply values"),
        (np.zeros((8, 8, 3), np.uint16), "got uint16 of shape"),
        (np.zeros((8, 8, 3), np.int64), "got int64"),
        (np.zeros((8, 8, 3), bool), "got bool"),
        (np.zeros((3, 8, 8), np.uint8), "channels to the end"),
        (np.zeros((2, 8, 8, 3), np.uint8), "one by one"),
        (np.zeros((8, 8, 2), np.uint8), "got uint8 of shape"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
        (np.zeros(8, np.uint8), r"\(8,\)"),
        (np.zeros((), np.uint8), r"shape \(\)"),
        (np.array([None]), "got object"),
    ],
)
def test_arrays_that_are_no_picture(array, words):
    with pytest.raises(DecodeError, match=words) as caught:
        decode(array)
    assert caught.value.code == "bad_array"
    assert "uint8 of shape (H, W, 3)" in str(caught.value)


def test_a_picture_does_not_change_with_the_caller_s_array():
    array = scene()
    for source in (array, array[::-1], np.asfortranarray(array), array[..., 0], array[..., :3]):
        picture = decode(source)
        before = picture.pixels.copy()
        array += 1
        np.testing.assert_array_equal(picture.pixels, before)
        with pytest.raises(ValueError, match="read-only"):
            picture.pixels[0, 0] = 0


# ------------------------------------------------------------------------------------------------------------ formats


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40).map(lambda s: (*s, 3))))
def test_equal_pixels_in_different_containers_give_equal_pixels(image):
    for kind, options in LOSSLESS.values():
        np.testing.assert_array_equal(decode(save(image, kind, **options)).pixels, image)


@settings(max_examples=15, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_equal_grey_in_different_containers_gives_equal_pixels(grey):
    expected = np.repeat(grey[..., None], 3, axis=2)
    for kind in ("PNG", "BMP", "TIFF"):
        np.testing.assert_array_equal(decode(save(grey, kind)).pixels, expected)
    # 16 bits that hold the same 8: scaled back to them, not clipped.
    deep = grey.astype(np.uint16) * 257
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode(save(deep, kind)).pixels, expected)


def test_jpegs_decode_as_pillow_decodes_them():
    data = save(scene(), "JPEG", quality=90)
    np.testing.assert_array_equal(decode(data).pixels, np.array(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_the_container_is_read_from_the_bytes_and_not_from_the_name(tmp_path, kind):
    path = tmp_path / "picture.psd"
    path.write_bytes(save(scene(), kind))
    facts = decode(path).facts
    assert (facts.container, facts.width, facts.height) == (kind, 64, 48)
    assert kind in FORMATS


def test_pixels_are_never_read_by_a_format_that_is_not_allowed():
    # Pillow would open these.
    for kind in ("PPM", "ICO", "TGA", "PCX", "SGI", "JPEG2000", "DDS"):
        assert code_of(save(scene(), kind)) in ("format_not_allowed", "unknown_format")


# ------------------------------------------------------------------------------------------------- colour and samples


def test_sixteen_bits_are_scaled_and_said():
    deep = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    data = save(deep, "PNG")
    np.testing.assert_array_equal(decode(data).pixels[..., 1], deep >> 8)
    assert "16-bit samples reduced" in conversions(data)
    big_endian = make["_grey16_tiff"](deep)
    np.testing.assert_array_equal(decode(big_endian).pixels[..., 1], deep >> 8)
    colour = make["png"](64, 48, bits=16, rows=make["_filtered"](np.stack([deep, deep // 2, deep // 3], -1)))
    np.testing.assert_array_equal(decode(colour).pixels, np.stack([deep, deep // 2, deep // 3], -1) >> 8)
    assert "more than 8 bits reduced" in conversions(colour)


def test_integers_and_floats_are_scaled_by_their_range():
    ramp = np.linspace(-1, 3, 256).reshape(16, 16)
    expected = np.arange(256).reshape(16, 16)
    floats = save(Image.fromarray(ramp.astype(np.float32)), "TIFF")
    np.testing.assert_array_equal(decode(floats).pixels[..., 0], expected)
    assert "from -1 to 3 scaled" in conversions(floats)
    integers = save(Image.fromarray((expected * 1000 - 5000).astype(np.int32)), "TIFF")
    np.testing.assert_array_equal(decode(integers).pixels[..., 2], expected)
    ramp[0, :3] = np.nan, np.inf, -np.inf
    pixels = decode(save(Image.fromarray(ramp.astype(np.float32)), "TIFF")).pixels
    assert pixels[0, 0, 0] == 0
    assert pixels[0, 1, 0] == 255
    signalling = save(Image.fromarray(np.array([[1, 2, 3]], np.float32)), "TIFF")
    signalling = signalling.replace(np.float32(2).tobytes(), b"\x01\x00\x80\x7f")  # a NaN that warns when it is cast
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(signalling).pixels[0, :, 0].tolist() == [0, 0, 255]
    tiny = np.array([[0, 1e-45]], np.float32)
    np.testing.assert_array_equal(decode(save(Image.fromarray(tiny), "TIFF")).pixels[0, :, 0], [0, 255])


def test_alpha_is_laid_over_white_so_hidden_colours_stay_hidden():
    alpha = np.zeros((4, 4, 4), np.uint8)
    alpha[..., 0] = 255  # red that nobody sees
    alpha[0, 0, 3], alpha[0, 1, 3] = 255, 128
    for kind in ("PNG", "TIFF"):
        data = save(alpha, kind)
        pixels = decode(data).pixels
        assert pixels[0, 0].tolist() == [255, 0, 0]
        assert pixels[0, 1].tolist() == [255, 127, 127]
        assert (pixels[1:] == 255).all()
        assert "laid over white" in conversions(data)
    alpha[..., 3] = 255
    data = save(alpha, "PNG")
    assert "opaque alpha" in conversions(data)
    np.testing.assert_array_equal(decode(data).pixels, alpha[..., :3])


def test_transparent_colours_of_every_kind():
    png = make["png"]
    two_bit = png(4, 1, bits=2, colour=0, rows=b"\x00\x1b", before=[(b"tRNS", b"\x00\x00")])  # 0, 1, 2, 3; 0 is clear
    assert decode(two_bit).pixels[0, :, 0].tolist() == [255, 85, 170, 255]
    two_bit = png(4, 1, bits=2, colour=0, rows=b"\x00\x1b", before=[(b"tRNS", b"\x00\x01")])
    assert decode(two_bit).pixels[0, :, 0].tolist() == [0, 255, 170, 255]
    bits = png(2, 1, bits=1, colour=0, rows=b"\x00\x40", before=[(b"tRNS", b"\x00\x00")])
    assert decode(bits).pixels[0, :, 0].tolist() == [255, 255]
    deep = png(2, 1, bits=16, colour=0, rows=b"\x00\x12\x34\x12\x35", before=[(b"tRNS", b"\x12\x34")])
    assert decode(deep).pixels[0, :, 0].tolist() == [255, 0x12]
    rgb = png(2, 1, rows=b"\x00" + bytes([1, 2, 3, 1, 2, 4]), before=[(b"tRNS", bytes([0, 1, 0, 2, 0, 3]))])
    assert decode(rgb).pixels[0].tolist() == [[255, 255, 255], [1, 2, 4]]
    palette = [(b"PLTE", bytes([9, 8, 7, 1, 2, 3]))]
    index = png(2, 1, colour=3, rows=b"\x00\x00\x01", before=[*palette, (b"tRNS", b"\x00")])
    assert decode(index).pixels[0].tolist() == [[255, 255, 255], [1, 2, 3]]
    half = png(2, 1, colour=3, rows=b"\x00\x00\x01", before=[*palette, (b"tRNS", b"\xff\x80")])
    assert decode(half).pixels[0].tolist() == [[9, 8, 7], [128, 128, 129]]


def test_cmyk_without_a_profile_says_that_colours_are_approximate():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    data = save(image, "TIFF")
    assert decode(data).pixels[0, 0].tolist() == [255, 0, 0]
    assert "colours are approximate" in conversions(data)


def test_cmyk_goes_through_its_profile():
    profile = make["cmyk_profile"]()
    for kind in ("TIFF", "JPEG"):
        paper = save(Image.new("CMYK", (8, 8)), kind, icc_profile=profile)
        assert decode(paper).pixels.min() >= 250
        assert "CMYK converted to sRGB through the colour profile" in conversions(paper)
        black = save(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), kind, icc_profile=profile)
        assert decode(black).pixels.max() <= 6
        # This profile's cyan is a dim one; the plain formula would say (0, 255, 255).
        cyan = decode(save(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), kind, icc_profile=profile)).pixels[0, 0]
        assert 150 < cyan[1] < 240


def test_a_profile_that_is_srgb_changes_nothing_and_another_one_does():
    image = scene()
    same = save(image, "PNG", icc_profile=make["srgb_profile"]())
    np.testing.assert_array_equal(decode(same).pixels, image)
    assert "describes sRGB; pixels kept" in conversions(same)
    swapped = save(image, "PNG", icc_profile=make["swapped_profile"]())
    difference = np.abs(decode(swapped).pixels.astype(int) - image[..., [1, 0, 2]])
    assert np.percentile(difference, 99) <= 2  # red and green have changed places
    assert "converted to sRGB through the colour profile" in conversions(swapped)


def test_grey_with_a_linear_profile_gets_brighter():
    grey = np.full((8, 8), 55, np.uint8)
    data = save(grey, "PNG", icc_profile=make["grey_profile"](gamma=1.0))
    assert abs(int(decode(data).pixels[0, 0, 0]) - 128) <= 2  # sRGB's curve of 55 / 255


@pytest.mark.parametrize("profile", [b"no profile at all", make["srgb_profile"]()[:300], make["cmyk_profile"]()])
def test_a_profile_that_cannot_be_used_is_said_and_pixels_stay(profile):
    data = save(scene(), "PNG", icc_profile=profile)
    np.testing.assert_array_equal(decode(data).pixels, scene())
    assert "ignored" in conversions(data)


def test_lab_is_converted():
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    image = np.clip(scene(), 30, 220)
    data = save(ImageCms.applyTransform(Image.fromarray(image), lab), "TIFF")
    assert np.abs(decode(data).pixels.astype(int) - image).mean() < 3


def test_a_conversion_is_said_for_every_other_mode():
    picture = Image.fromarray(scene())
    for image, words in [
        (picture.convert("L"), "Grey repeated"),
        (picture.quantize(16), "Palette"),
        (picture.convert("1"), "Grey repeated"),
    ]:
        assert words in conversions(save(image, "PNG"))
    assert decode(save(picture, "PNG")).facts.conversions == ()
    assert decode(save(picture, "JPEG")).facts.conversions == ()
    gamma = make["_before_pixels"](scene(), b"gAMA", (100_000).to_bytes(4, "big"))
    assert "gamma of 1 was not applied" in conversions(gamma)


# -------------------------------------------------------------------------------------------------------- orientation

ORIENTED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "TIFF LZW"])
def test_exif_orientation(kind, orientation):
    image = scene(48, 64)
    more = {"tiffinfo": {274: orientation}} if "TIFF" in kind else {"exif": oriented(orientation)}
    saver, options = LOSSLESS[kind]
    picture = decode(save(image, saver, **options, **more))
    np.testing.assert_array_equal(picture.pixels, ORIENTED[orientation](image))
    assert (picture.facts.width, picture.facts.height) == (64, 48)
    assert any("EXIF orientation" in c for c in picture.facts.conversions) == (orientation != 1)


def test_exif_orientation_of_a_jpeg_and_of_a_pil_image():
    data = save(scene(), "JPEG", quality=95, exif=oriented(6))
    stored = np.array(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode(data).pixels, np.rot90(stored, -1))
    np.testing.assert_array_equal(decode(Image.open(io.BytesIO(data))).pixels, np.rot90(stored, -1))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_odd_orientation_leaves_the_pixels_and_says_so(orientation):
    data = save(scene(), "PNG", exif=oriented(orientation))
    np.testing.assert_array_equal(decode(data).pixels, scene())
    assert "none of 1 to 8" in conversions(data)


def test_broken_exif_leaves_the_pixels_and_says_so():
    raw = b"Raw profile type exif\x00\nexif\n 4\nzz zz\n"
    data = make["_before_pixels"](scene(), b"tEXt", raw)
    np.testing.assert_array_equal(decode(data).pixels, scene())
    assert "EXIF metadata is broken" in conversions(data)


# -------------------------------------------------------------------------------------------------- frames and facts


@pytest.mark.parametrize(
    ("kind", "options"),
    [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("AVIF", {"speed": 10}), ("MPO", {})],
)
def test_the_first_frame_is_taken_and_said(kind, options):
    frames = [Image.fromarray(np.full((32, 32, 3), level, np.uint8)) for level in (40, 120, 200)]
    data = save(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    picture = decode(data)
    assert np.abs(picture.pixels.astype(int) - 40).max() <= 3
    assert (picture.facts.container, picture.facts.frames) == (kind, 3)
    assert "The first of 3" in picture.facts.conversions[0]


def test_counting_frames_ends():
    assert decode(make["_many_frames"](30_000)).facts.frames == 10_000
    assert "10,000 or more" in conversions(make["_many_frames"](30_000))
    assert decode(make["_many_directories"](20_000)).facts.frames == 10_000
    assert decode(make["_directory_loop"]()).facts.frames == 1


@pytest.mark.parametrize(("quality", "total"), [(90, 736), (95, 369), (96, 292), (100, 64)])
def test_quality_from_the_luma_table(quality, total):
    facts = decode(save(scene(), "JPEG", quality=quality)).facts
    assert sum(facts.quantization[0]) == total
    assert facts.quality == quality


def test_quality_of_every_table_that_libjpeg_makes():
    for quality in range(1, 101):
        facts = decode(save(scene(8, 8), "JPEG", quality=quality)).facts
        again = decode(save(scene(8, 8), "JPEG", quality=facts.quality)).facts
        assert again.quantization[0] == facts.quantization[0]


def test_quality_where_there_is_none():
    assert decode(save(scene(), "PNG")).facts.quality is None
    assert decode(save(scene(), "PNG")).facts.quantization == ()
    assert estimate_quality([16] * 63) is None
    assert estimate_quality([0] * 64) is None
    assert estimate_quality([65535] * 64) == 1


def test_camera_software_and_texts_of_a_jpeg():
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0131] = "Maker\x00", "Model 1", "Editor 2"
    exif[0x010E] = "a description"
    details = exif.get_ifd(0x8769)
    details[0xA434], details[0x829D], details[0x9286] = "Lens 50mm", 2.8, b"UNICODE\x00" + "Größe".encode("utf-16-be")
    xmp = b'<rdf:Description xmp:CreatorTool="Brush 7"/>'
    facts = decode(save(scene(), "JPEG", exif=exif.tobytes(), xmp=xmp, comment=b"hello \xff")).facts
    assert facts.camera == {"Make": "Maker", "Model": "Model 1", "LensModel": "Lens 50mm", "FNumber": "2.8"}
    assert facts.software == ("Editor 2", "Brush 7")
    assert facts.texts["EXIF ImageDescription"] == "a description"
    assert facts.texts["EXIF UserComment"] == "Größe"
    assert facts.texts["comment"] == "hello �"
    assert "Brush 7" in facts.texts["xmp"]


def test_texts_of_a_png_before_and_after_the_pixels():
    late = [(b"tEXt", b"Comment\x00at the end")]
    early = [(b"tEXt", b"parameters\x00a cat, steps: 20"), (b"tEXt", b"Software\x00Painter")]
    facts = decode(make["png"](8, 8, rows=bytes(200), before=early, after=late)).facts
    assert facts.texts == {"parameters": "a cat, steps: 20", "Software": "Painter", "Comment": "at the end"}
    assert facts.software == ("Painter",)


def test_facts_hold_nothing_that_json_cannot():
    for name, data, outcomes in make["corpus"]():
        if len(data) < 50_000 and outcomes == {"picture"}:
            facts = decode(data).facts
            words = [*facts.camera.values(), *facts.software, *facts.texts, *facts.texts.values(), *facts.conversions]
            assert json.loads(json.dumps(words)) == words, name
            assert "\x00" not in "".join(words), name
            "".join(words).encode("utf-8")


# -------------------------------------------------------------------------------------------------- hostile files


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and measured the Linux way")
def test_every_malformed_file_ends_in_its_error_or_a_picture_within_two_gigabytes(tmp_path):
    cases = make["corpus"]()
    assert len(cases) >= 200
    for name, data, _ in cases:
        (tmp_path / name).write_bytes(data)
    # In its own process, because the limit on memory cannot be taken back; warnings are errors there.
    run = subprocess.run(
        [sys.executable, "-W", "error", str(MALFORMED), str(tmp_path), str(2 << 30)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    *lines, peak = map(json.loads, run.stdout.splitlines())
    came = {name: outcome for name, outcome, _ in lines}
    wrong = {n: (came.get(n), sorted(allowed)) for n, _, allowed in cases if came.get(n) not in allowed}
    assert not wrong
    assert peak < 2 * 1024 * 1024  # kB
    assert "Warning" not in run.stderr


def test_damage_of_any_kind_is_a_picture_or_a_decode_error():
    bases = list(make["bases"]().values())

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, len(bases) - 1), st.data())
    def damage(index, data):
        file = bytearray(bases[index])
        for _ in range(data.draw(st.integers(1, 6))):
            at = data.draw(st.integers(0, len(file) - 1))
            file[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
        with contextlib.suppress(DecodeError):
            assert decode(bytes(file)).pixels.dtype == np.uint8

    damage()


# ------------------------------------------------------------------------------------------------- global state


def warning_file():
    """A file at which Pillow itself warns."""
    data = make["_with_chunk"](
        save(Image.fromarray(scene()), "PNG", save_all=True, append_images=[Image.fromarray(scene(seed=1))]),
        b"acTL",
        bytes(8),
    )
    with pytest.warns(UserWarning, match="Invalid APNG"):
        Image.open(io.BytesIO(data))
    return data


def test_pillow_s_warnings_stay_inside_and_settings_stay_as_they_are(monkeypatch):
    data = warning_file()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000_000)
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        decode(data)
        decode(plain_png(8_000, 8_000, colour=0, samples=1))  # above the ceiling at which Pillow warns
    assert seen == []
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


def test_other_warnings_are_not_swallowed():
    with quiet_pillow(), pytest.warns(UserWarning, match="of the app"):
        warnings.warn("of the app", stacklevel=1)


def test_overlapping_threads_leave_the_filters_as_they_were():
    before = list(warnings.filters)
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first():
        with quiet_pillow():
            first_in.set()
            second_in.wait(5)
        first_out.set()

    def second():
        first_in.wait(5)
        with quiet_pillow():
            second_in.set()
            first_out.wait(5)
            assert len(warnings.filters) == len(before) + 1  # still inside

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(first), pool.submit(second)]:
            future.result(timeout=20)
    assert list(warnings.filters) == before


def test_threads_decode_alike():
    cases = [(name, data) for name, data, _ in make["corpus"]() if len(data) < 50_000]

    def outcome(data):
        try:
            picture = decode(data)
        except DecodeError as error:
            return error.code
        return picture.pixels.tobytes(), picture.facts

    alone = [outcome(data) for _, data in cases]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(outcome, [data for _, data in cases]))
    differing = [name for (name, _), a, b in zip(cases, alone, together, strict=True) if a != b]
    assert differing == []


def test_decoding_and_views_import_nothing_heavy():
    heavy = ["torch", "torchvision", "timm", "open_clip", "transformers", "xgboost", "sklearn"]
    code = f"import sys, tellsign.decoding, tellsign.views; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# ------------------------------------------------------------------------------------------------------ saving again


def test_encoding_writes_the_quality_and_subsampling_asked_for():
    for quality, subsampling, factors in [(90, "4:2:0", (2, 2)), (95, "4:2:2", (2, 1)), (60, "4:4:4", (1, 1))]:
        data = encode_jpeg(scene(), quality, subsampling)
        assert decode(data).facts.quality == quality
        assert Image.open(io.BytesIO(data)).layer[0][1:3] == factors
    assert set(Image.open(io.BytesIO(encode_jpeg(scene(), 90))).info) <= {
        "jfif",
        "jfif_version",
        "jfif_unit",
        "jfif_density",
    }


def test_reencoding_is_encoding_and_decoding():
    np.testing.assert_array_equal(reencode(scene(), 80), decode(encode_jpeg(scene(), 80)).pixels)
    assert reencode(scene(), quality=30).shape == scene().shape


def test_encoding_refuses_what_it_cannot_save():
    with pytest.raises(SettingError, match="quality takes an integer from 1 to 100, got 0"):
        encode_jpeg(scene(), 0)
    with pytest.raises(SettingError, match="subsampling takes one of"):
        encode_jpeg(scene(), 90, "4:1:1")
    with pytest.raises(SettingError, match="pixels takes a uint8 array"):
        encode_jpeg(scene().astype(np.float32), 90)
