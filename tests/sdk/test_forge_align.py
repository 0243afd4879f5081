"""Format alignment as GAMMA does it."""

import io

import numpy as np
import pytest
from PIL import Image

from tellsign.forge.align import aligned, jpeg96, png


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def tables(data):
    return {n: sum(t) for n, t in Image.open(io.BytesIO(data)).quantization.items()}


@pytest.mark.parametrize("full_colour", [False, True])
def test_jpeg_96_has_its_tables(full_colour):
    data = jpeg96(picture(), full_colour=full_colour)
    assert tables(data) == {0: 292, 1: 443}
    # The sampling factors of the luma component, in the frame header.
    frame = data.index(b"\xff\xc0")
    assert data[frame + 11] == (0x11 if full_colour else 0x22)


def test_a_generated_png_becomes_jpeg_96(tmp_path):
    file = tmp_path / "made.png"
    Image.fromarray(picture()).save(file)
    data, suffix = aligned(file, picture(), fake=True)
    assert suffix == ".jpg"
    assert tables(data) == {0: 292, 1: 443}


def test_a_real_jpeg_keeps_every_byte(tmp_path):
    file = tmp_path / "photo.JPEG"
    Image.fromarray(picture()).save(file, quality=71)
    assert aligned(file, picture(), fake=False) == (file.read_bytes(), ".jpeg")


def test_a_generated_jpeg_is_not_saved_twice(tmp_path):
    file = tmp_path / "made.jpg"
    Image.fromarray(picture()).save(file, quality=71)
    assert aligned(file, picture(), fake=True) == (file.read_bytes(), ".jpg")


def test_png_keeps_every_bit():
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(picture())))), picture())
