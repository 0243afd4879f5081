"""The one pipeline that every picture passes, and the rules that must not work behind it."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from tellsign.data.normalise import KERNELS, MINIMUM, SIDES, WINDOW, normalise, normalise_window, reencode, window
from tellsign.data.trivial import (
    GATED,
    LIMIT,
    blockiness,
    luma,
    radial_spectrum,
    separation,
    sharpness,
    spectrum_tail,
    trivial_rules,
)
from tellsign.errors import SettingError


def scene(seed, height=360, width=400):
    """A gradient, a few edges and noise, uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    out = np.zeros((height, width, 3))
    for c in range(3):
        slope = rng.uniform(-0.25, 0.25, 2)
        out[..., c] = 128 + slope[0] * (y - height / 2) + slope[1] * (x - width / 2)
    out += 40 * (np.sin(x * rng.uniform(0.02, 0.2) + y * rng.uniform(0.02, 0.2)) > rng.uniform(-0.5, 0.5))[..., None]
    out += rng.normal(0, rng.uniform(2, 8), out.shape)
    return np.clip(out, 0, 255).astype(np.uint8)


def jpeg_born(pixels, quality):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


# -- normalise ----------------------------------------------------------------------------------------------------


def test_a_seed_gives_one_picture():
    pixels = scene(0)
    assert np.array_equal(normalise(pixels, 3), normalise(pixels.copy(), 3))
    assert not np.array_equal(normalise(pixels, 3), normalise(pixels, 4))


def test_sizes_are_in_range_and_spread():
    sides = set()
    for seed in range(60):
        out = normalise(scene(seed % 4, 330, 350), seed)
        assert out.dtype == np.uint8
        assert out.shape == (out.shape[0], out.shape[0], 3)
        sides.add(out.shape[0])
    assert min(sides) >= SIDES[0]
    assert max(sides) <= SIDES[1]
    assert len(sides) > 30
    assert max(sides) - min(sides) > 60


@pytest.mark.parametrize("shape", [(MINIMUM, MINIMUM), (MINIMUM, 900), (900, MINIMUM), (WINDOW, WINDOW), (1000, 1000)])
def test_every_size_from_the_smallest_on(shape):
    side = normalise(np.full((*shape, 3), 90, np.uint8), 5).shape[0]
    assert SIDES[0] <= side <= SIDES[1]


def test_too_small_a_picture_is_refused_with_its_size():
    with pytest.raises(SettingError, match=rf"pixels takes .* at least {MINIMUM} px, got '500 x {MINIMUM - 1}'"):
        normalise(np.zeros((MINIMUM - 1, 500, 3), np.uint8), 0)


def test_what_is_in_the_picture_decides_nothing():
    """Side and quality follow from the seed: pictures of two classes get the same ones."""
    dark, noisy = np.zeros((400, 500, 3), np.uint8), scene(1, 400, 500)
    for seed in range(20):
        assert normalise(dark, seed).shape == normalise(noisy, seed).shape
    # The draws after the window, too: the generator stands where it stood for the other picture.
    for seed in range(5):
        one, other = np.random.default_rng(seed), np.random.default_rng(seed)
        normalise_window(window(dark, one), one)
        normalise_window(window(noisy, other), other)
        assert one.random() == other.random()


def test_windows_are_native_and_lie_everywhere():
    pixels = np.zeros((700, 500, 3), np.uint8)
    pixels[..., 0] = np.arange(700)[:, None] % 256
    pixels[..., 1] = np.arange(500)[None, :] % 256
    pixels[..., 2] = (np.arange(700)[:, None] // 256) * 16 + np.arange(500)[None, :] // 256
    places = set()
    for seed in range(40):
        got = window(pixels, np.random.default_rng(seed))
        assert got.shape == (WINDOW, WINDOW, 3)
        top = int(got[0, 0, 0]) + 256 * int(got[0, 0, 2] // 16)
        left = int(got[0, 0, 1]) + 256 * int(got[0, 0, 2] % 16)
        assert np.array_equal(got, pixels[top : top + WINDOW, left : left + WINDOW])
        places.add((top, left))
    tops, lefts = zip(*places, strict=True)
    assert min(tops) < 60
    assert max(tops) > 320
    assert min(lefts) < 30
    assert max(lefts) > 150
    assert window(pixels, np.random.default_rng(0), side=100).shape == (100, 100, 3)
    assert window(pixels[:250], np.random.default_rng(0)).shape == (250, 250, 3)


def test_every_kernel_is_used(monkeypatch):
    seen = set()
    resize = Image.Image.resize

    def watched(image, size, kernel, **options):
        seen.add(kernel)
        return resize(image, size, kernel, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    pixels = scene(2, 200, 200)
    for seed in range(40):
        normalise_window(pixels, np.random.default_rng(seed))
    assert seen == set(KERNELS)


def test_re_encoding_is_jpeg_of_that_quality():
    pixels = scene(3, 200, 240)
    assert np.array_equal(reencode(pixels, 80, 0), np.asarray(Image.open(_saved(pixels, 80, 0))))
    error = [np.square(reencode(pixels, q).astype(float) - pixels).mean() for q in (95, 75, 40)]
    assert error[0] < error[1] < error[2]


def _saved(pixels, quality, subsampling):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer


def test_behind_the_pipeline_nobody_tells_jpeg_born_from_png_born():
    """The trivial rule that works on pictures as they come must not work on what is trained and scored on."""
    rng = np.random.default_rng(0)
    pictures, labels = [], []
    for i in range(60):
        pixels = scene(i)
        labels.append(i % 2)
        pictures.append(jpeg_born(pixels, int(rng.integers(60, 90))) if labels[-1] else pixels)
    before = separation([blockiness(p) for p in pictures], labels)
    # Sixty pictures alone give an AUC with a standard deviation of .07: the mean over other draws is what counts.
    after = [
        roc_auc_score(labels, [blockiness(normalise(p, 60 * turn + i)) for i, p in enumerate(pictures)])
        for turn in range(3)
    ]
    assert before > 0.9
    assert 0.40 <= np.mean(after) <= 0.60


def test_behind_the_pipeline_a_pictures_own_jpeg_twin_looks_the_same():
    """The same contents in both births: nothing but the old block grid could tell them apart."""
    values, labels = [], []
    for i in range(30):
        pixels = scene(100 + i)
        for label, birth in enumerate((pixels, jpeg_born(pixels, 70))):
            values.append(blockiness(normalise(birth, i)))
            labels.append(label)
    assert separation(values, labels) <= LIMIT


# -- the rules ----------------------------------------------------------------------------------------------------


def test_an_eight_pixel_grid_is_found_at_every_phase():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 4, (128, 128, 1))
    plain = blockiness(_grey(128 + noise))
    assert plain < 1.3
    blocks = np.kron(rng.normal(0, 12, (18, 18)), np.ones((8, 8)))[..., None]
    for top in range(8):
        for left in range(8):
            grid = blocks[top : top + 128, left : left + 128]
            assert blockiness(_grey(128 + grid + noise)) > 2.0
    other = np.kron(rng.normal(0, 12, (22, 22)), np.ones((6, 6)))[:128, :128, None]
    assert blockiness(_grey(128 + other + noise)) < 1.9  # not any grid


def _grey(values):
    return np.clip(np.rint(np.broadcast_to(values, (*values.shape[:2], 3))), 0, 255).astype(np.uint8)


def test_a_real_jpeg_has_more_grid_than_before_and_harder_ones_have_more():
    pixels = scene(5)
    values = [blockiness(pixels)] + [blockiness(jpeg_born(pixels, q)) for q in (90, 70, 40)]
    assert values == sorted(values)
    assert values[-1] > 1.2 * values[0]


def test_flat_pictures_have_finite_numbers():
    flat = np.full((64, 64, 3), 7, np.uint8)
    values = [blockiness(flat), sharpness(flat), spectrum_tail(flat), *radial_spectrum(flat)]
    assert np.isfinite(values).all()


def test_white_noise_has_a_flat_spectrum():
    rng = np.random.default_rng(1)
    spectrum = radial_spectrum(_grey(rng.normal(128, 20, (256, 256, 1))), bins=16)
    assert spectrum.dtype == np.float32
    assert spectrum.shape == (16,)
    assert np.abs(spectrum[1:] - spectrum[1:].mean()).max() < 0.25  # the lowest ring holds a handful of values
    ramp = radial_spectrum(_grey(np.cumsum(rng.normal(0, 2, (256, 256, 1)), axis=1) + 128))
    assert ramp[1] - ramp[-1] > 2  # a random walk is not white


def test_a_sine_shows_in_its_own_ring():
    x = np.arange(256)
    for cycles in (20, 60, 100):
        picture = _grey(np.broadcast_to(128 + 60 * np.sin(2 * np.pi * cycles * x / 256)[None, :, None], (256, 256, 1)))
        # The lowest ring keeps what the window leaks.
        assert 1 + radial_spectrum(picture)[1:].argmax() == cycles * 16 // 128


def test_blur_is_less_sharp_and_has_less_tail():
    pixels = scene(6)
    soft = np.asarray(Image.fromarray(pixels).resize((200, 180)).resize((400, 360)))
    assert sharpness(soft) < sharpness(pixels)
    assert spectrum_tail(soft) < spectrum_tail(pixels)


def test_luma_by_hand():
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert luma(pixels)[0].tolist() == pytest.approx([76.245, 149.685, 29.07, 255.0], abs=1e-3)


def test_rules_count_in_their_better_direction():
    labels = [0, 0, 1, 1]
    assert separation([1, 2, 3, 4], labels) == separation([4, 3, 2, 1], labels) == 1.0
    assert separation([1, 2, 1, 2], labels) == 0.5
    assert separation([1, 2, 3, 4], [1, 1, 1, 1]) == 0.5
    assert separation([1, 3, 2, 4], labels) == 0.75
    rules = trivial_rules({name: [0, 1, 0, 1] for name in GATED}, labels)
    assert rules == dict.fromkeys(GATED, 0.5)
