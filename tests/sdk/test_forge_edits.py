"""Each way of forging a region: what it changes, and that it changes nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tellsign.forge.blend import blend, changed_outside
from tellsign.forge.classical import FILLS, grain, membrane
from tellsign.forge.copymove import OVERLAP, copy_move, find_offset, shifted
from tellsign.forge.enhance import denoised, super_resolved
from tellsign.forge.errors import ForgeError
from tellsign.forge.labels import KINDS, TRUTH, masks
from tellsign.forge.roundtrip import RoundTrip
from tellsign.forge.splice import splice
from tellsign.forge.upscale import upscaled


def noise(height=60, width=80, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def box(top, left, tall, wide, shape=(60, 80)):
    region = np.zeros(shape, np.bool_)
    region[top : top + tall, left : left + wide] = True
    return region


# -- labels -------------------------------------------------------------------------------------------------------


def test_the_labels_are_those_of_table_1():
    # GAMMA, Table 1: data set, class, manipulation bg/fg, AI bg/fg.
    table = {
        "untouched": (0, 0, 0, 0, 0),  # COCO
        "inpaint": (1, 0, 1, 1, 1),  # COCO-Inpaint
        "blend": (1, 0, 1, 0, 1),  # COCO-Inpaint-Blended
        "copymove": (0, 0, 1, 0, 0),  # TampCOCO
        "splice": (0, 0, 1, 0, 0),
    }
    region = box(10, 20, 30, 30)
    for kind, (cls, ma_bg, ma_fg, ai_bg, ai_fg) in table.items():
        ai, ma = masks(kind, region)
        assert TRUTH[kind].cls == cls
        assert (set(ma[~region]), set(ma[region])) == ({ma_bg}, {ma_fg}), kind
        assert (set(ai[~region]), set(ai[region])) == ({ai_bg}, {ai_fg}), kind
        assert TRUTH[kind].ma_loss
        assert TRUTH[kind].ai_loss
    assert {k for k in KINDS if TRUTH[k].in_table} == set(table)


def test_beyond_the_table_synthesis_marks_ai_and_arithmetic_does_not():
    region = box(10, 20, 30, 30)
    ai, _ = masks("generated", region)
    assert ai.all()
    assert not TRUTH["generated"].ma_loss
    for kind in ("aisplice", "roundtrip", "upscale"):
        assert all(np.array_equal(m, region) for m in masks(kind, region))
    assert all(TRUTH[k].cls == (TRUTH[k].ai != "none") for k in KINDS)
    ai, ma = masks("classical", region)
    assert not ai.any()
    assert np.array_equal(ma, region)


# -- blend --------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
def test_blending_keeps_every_bit_outside_the_region(seed):
    rng = np.random.default_rng(seed)
    region = rng.random((9, 13)) < rng.random()
    original, forged = noise(9, 13, seed), noise(9, 13, seed + 1)
    out = blend(original, forged, region)
    assert np.array_equal(out[~region], original[~region])
    assert np.array_equal(out[region], forged[region])
    assert changed_outside(original, out, region) == 0


def test_blending_refuses_a_forgery_of_another_size():
    with pytest.raises(ForgeError, match=r"three arrays of one height and width, got \(60, 80, 3\), \(61, 80, 3\)"):
        blend(noise(), noise(61, 80), box(0, 0, 5, 5))


def test_what_changed_outside_is_a_share():
    original = noise()
    forged = original.copy()
    forged[:, 40:] ^= 255
    region = box(0, 0, 60, 20)
    assert changed_outside(original, forged, region) == pytest.approx(40 / 60)
    assert changed_outside(original, forged, np.ones((60, 80), np.bool_)) == 0


# -- copy-move ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
def test_copy_move_keeps_the_multiset_of_the_copied_pixels(seed):
    rng = np.random.default_rng(seed)
    pixels = noise(seed=seed)
    tall, wide = rng.integers(4, 26, 2)
    region = box(int(rng.integers(60 - tall)), int(rng.integers(80 - wide)), tall, wide)
    out, (down, right) = copy_move(pixels, region, rng)
    origin = shifted(region, down, right)
    assert origin.sum() == region.sum()  # nothing left the frame
    assert (origin & region).sum() < OVERLAP * region.sum()
    assert sorted(map(tuple, out[region])) == sorted(map(tuple, pixels[origin]))
    assert np.array_equal(out[~region], pixels[~region])


def test_a_region_that_fills_the_picture_cannot_be_copied():
    region = box(0, 0, 60, 70)
    assert find_offset(region, np.random.default_rng(0)) is None
    assert find_offset(np.zeros((5, 5), np.bool_), np.random.default_rng(0)) is None
    with pytest.raises(ForgeError, match="no place from which a region of 88%"):
        copy_move(noise(), region, np.random.default_rng(0))


def test_a_given_offset_is_taken():
    pixels = noise()
    out, offset = copy_move(pixels, box(0, 0, 10, 10), np.random.default_rng(0), (20, 30))
    assert offset == (20, 30)
    assert np.array_equal(out[:10, :10], pixels[20:30, 30:40])


# -- splice -------------------------------------------------------------------------------------------------------


def test_splicing_pastes_the_donor_in_the_regions_shape():
    pixels, donor = noise(), noise(40, 50, seed=1)
    region = box(20, 30, 25, 30) & (np.random.default_rng(2).random((60, 80)) < 0.7)
    region[20, 30] = region[44, 59] = True
    out, (top, left) = splice(pixels, donor, region, np.random.default_rng(3))
    assert np.array_equal(out[~region], pixels[~region])
    assert np.array_equal(out[region], donor[top : top + 25, left : left + 30][region[20:45, 30:60]])


def test_splicing_refuses_small_donors_and_empty_regions():
    with pytest.raises(ForgeError, match=r"at least 30 x 25 px .*, got 29 x 40"):
        splice(noise(), noise(40, 29), box(20, 30, 25, 30), np.random.default_rng(0))
    with pytest.raises(ForgeError, match="got an empty one"):
        splice(noise(), noise(), box(0, 0, 0, 0), np.random.default_rng(0))


# -- classical ----------------------------------------------------------------------------------------------------


def test_the_membrane_of_a_ramp_is_the_ramp():
    ramp = np.add.outer(np.arange(20.0), 2 * np.arange(30.0))[..., None]
    hidden = ramp.copy()
    region = box(5, 6, 9, 11, (20, 30))
    hidden[region] = 1e6
    np.testing.assert_allclose(membrane(hidden, region), ramp, atol=1e-8)


def test_the_membrane_reaches_the_pictures_edge():
    values = np.full((12, 12, 1), 7.0)
    region = box(0, 0, 12, 5, (12, 12))
    values[region] = -1
    np.testing.assert_allclose(membrane(values, region), 7.0)


@pytest.mark.parametrize("region", [np.zeros((8, 8), np.bool_), np.ones((8, 8), np.bool_)])
def test_nothing_and_everything_cannot_be_filled(region):
    with pytest.raises(ForgeError, match="neither empty nor the whole picture"):
        membrane(np.zeros((8, 8, 1)), region)


@pytest.mark.parametrize("name", FILLS)
def test_a_classical_edit_changes_the_region_the_same_way_each_time(name):
    rng = np.random.default_rng
    pixels, region = noise(), box(15, 20, 20, 25)
    first = FILLS[name](pixels, region, rng(0))
    assert (first.shape, first.dtype) == (pixels.shape, np.uint8)
    assert np.array_equal(first, FILLS[name](pixels, region, rng(0)))
    assert (first != pixels).any(axis=2)[region].mean() > 0.9


@pytest.mark.parametrize("name", ["peel", "sheet"])
def test_a_fill_does_not_read_what_it_covers(name):
    pixels, region = noise(), box(15, 20, 20, 25)
    other = pixels.copy()
    other[region] = 0
    fill = FILLS[name]
    a, b = (fill(p, region, np.random.default_rng(0)) for p in (pixels, other))
    assert np.array_equal(a[region], b[region])


def test_a_clone_meets_its_surroundings():
    y, x = np.mgrid[:60, :80]
    pixels = np.repeat((40 + y + x)[..., None], 3, axis=2).astype(np.uint8)  # a slope: any copy is off by a constant
    region = box(20, 30, 15, 15)
    out = FILLS["clone"](pixels, region, np.random.default_rng(0))
    assert np.abs(out.astype(int) - pixels).max() <= 1


def test_grain_is_as_strong_as_the_pictures_noise():
    rng = np.random.default_rng(0)
    noisy = np.clip(np.rint(120 + rng.normal(0, 6, (120, 160, 3))), 0, 255).astype(np.uint8)
    region = box(30, 40, 60, 80, (120, 160))
    flat = np.where(region[..., None], np.uint8(120), noisy)
    out, sigma = grain(flat, noisy, region, rng)
    assert sigma == pytest.approx(6, rel=0.1)
    assert out[region].std() == pytest.approx(6, rel=0.1)
    assert np.array_equal(out[~region], flat[~region])
    assert np.array_equal(grain(flat, np.full_like(noisy, 9), region, rng)[0], flat)


# -- super-resolved patch -----------------------------------------------------------------------------------------


def doubled(pixels):
    return np.repeat(np.repeat(pixels, 2, axis=0), 2, axis=1)


@given(st.integers(0, 40), st.integers(0, 50), st.integers(1, 20), st.integers(1, 30))
def test_only_the_patch_is_scaled_down_and_up(top, left, tall, wide):
    pixels, region = noise(61, 81), box(top, left, tall, wide, (61, 81))
    out = upscaled(pixels, region, doubled)
    far = np.ones_like(region)
    far[max(top - 16, 0) : top + tall + 16, max(left - 16, 0) : left + wide + 16] = False
    assert np.array_equal(out[far], pixels[far])
    assert (out != pixels).any(axis=2)[region].mean() > 0.5


def test_an_upscaler_that_does_not_double_is_refused():
    with pytest.raises(ForgeError, match=r"uint8 of shape \(42, 62, 3\) here, this one with uint8 of shape \(21, 31"):
        upscaled(noise(), box(16, 16, 10, 30), lambda p: p)
    with pytest.raises(ForgeError, match="got an empty one"):
        upscaled(noise(), box(0, 0, 0, 0), doubled)


# -- round trip ---------------------------------------------------------------------------------------------------


class Pooling:
    """Encodes by averaging 8 x 8 pixels."""

    def encode(self, x):
        import torch

        return torch.nn.functional.avg_pool2d(x, 8)

    def decode(self, latents):
        import torch

        return torch.nn.functional.interpolate(latents, scale_factor=8.0)


class Wrapped(Pooling):
    """As diffusers' autoencoders answer: a distribution in an output object, pictures in [-1, 1]."""

    def encode(self, x):
        latents = super().encode(x)
        assert x.min() < 0
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents, sample=lambda: latents + 1))

    def decode(self, latents):
        return SimpleNamespace(sample=super().decode(latents))


def test_a_round_trip_is_the_autoencoders_whatever_its_form():
    pytest.importorskip("torch")
    pixels = noise(48, 64)
    small = np.asarray(Image.fromarray(pixels).resize((8, 6), Image.Resampling.BOX), int)
    plain = RoundTrip(Pooling())(pixels, np.random.default_rng(0))
    assert np.abs(plain[::8, ::8].astype(int) - small).max() <= 1
    signed = RoundTrip(Wrapped(), signed=True)(pixels, np.random.default_rng(0))
    assert np.abs(signed.astype(int) - plain).max() <= 1


def test_a_round_trip_keeps_sides_that_are_no_multiples_of_8_and_draws_its_noise_from_the_generator():
    trip = RoundTrip(Pooling(), noise=(0.5, 0.5))
    pixels = noise(45, 61)
    out = [trip(pixels, np.random.default_rng(s)) for s in (0, 0, 1)]
    assert out[0].shape == pixels.shape
    assert np.array_equal(out[0], out[1])
    assert not np.array_equal(out[0], out[2])


def test_an_autoencoder_that_changes_the_size_is_refused():
    class Halving(Pooling):
        def decode(self, latents):
            return super().decode(latents)[:, :, ::2]

    with pytest.raises(ForgeError, match=r"gave \(1, 3, 24, 64\) for a picture of \(1, 3, 48, 64\)"):
        RoundTrip(Halving())(noise(48, 64), np.random.default_rng(0))


# -- enhanced photographs -----------------------------------------------------------------------------------------


def test_an_enhanced_photograph_is_no_ai_picture_and_trains_no_mask():
    truth = TRUTH["enhanced"]
    assert (truth.cls, truth.ai_loss, truth.ma_loss) == (0, False, False)


def test_denoising_takes_noise_and_leaves_edges_and_levels():
    rng = np.random.default_rng(0)
    step = np.full((48, 64, 3), 60, np.uint8)
    step[:, 32:] = 180
    grainy = np.clip(step + rng.normal(0, 5, step.shape), 0, 255).astype(np.uint8)
    out = denoised(grainy, np.random.default_rng(1)).astype(float)
    flat = (slice(6, 42), slice(6, 24))
    assert out[flat].std() < 0.8 * grainy[flat].std()
    assert out[flat].mean() == pytest.approx(60, abs=1)
    # The step is as steep as it was: a blur would halve it.
    assert (out[:, 33] - out[:, 30]).mean() > 100


def test_super_resolution_takes_the_whole_picture():
    pixels = noise(41, 60)
    out = super_resolved(doubled)(pixels, np.random.default_rng(0))
    assert out.shape == pixels.shape
    assert (out != pixels).any(axis=2).mean() > 0.9
