"""How the pixel plugin's weights are made, on a tiny tower, tiny pictures and tiny autoencoders."""

import csv
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from tellsign.data.normalise import WINDOW
from tellsign.data.rows import PictureRow
from tellsign.data.trivial import radial_spectrum
from tellsign.plugins.pixel.model import PixelModel
from tellsign.plugins.pixel.training import crossfit, export, prepare, probe, train
from tellsign.plugins.pixel.training.__main__ import app
from tellsign.plugins.pixel.training.autoencoders import NAMES, Autoencoder, read_stack
from tellsign.plugins.pixel.training.balance import Balance
from tellsign.plugins.pixel.training.gate import LIMIT, LeakyPairsError, check_pairs, probe_auc
from tellsign.plugins.pixel.training.pairs import (
    SHRINK,
    SIDE,
    draw_augmentation,
    erase_history,
    frequency_mix,
    match_spectrum,
    pixel_mix,
    round_trip,
    twin,
)
from tellsign.plugins.pixel.training.score import score_run
from tellsign.plugins.pixel.training.train import CROP, PARTS, Recipe, Run, Windows
from tellsign.plugins.pixel.weights_files import load_adapter, load_bundled, load_residual
from tellsign.schemas import Declaration
from tellsign.schemas.codec import loads
from tellsign.towers import ClipTower

SHARED = Path(__file__).parents[3] / "shared"


def scene(seed, height=SIDE, width=SIDE, noise=4.0):
    """Soft colours, a few edges and noise, uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 216, (6, 6, 3), dtype=np.uint8))
    out = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float)
    y, x = np.mgrid[0:height, 0:width]
    out += 30 * (np.sin(x * rng.uniform(0.03, 0.2) + y * rng.uniform(0.03, 0.2)) > 0.3)[..., None]
    return np.clip(out + rng.normal(0, noise, out.shape), 0, 255).astype(np.uint8)


def checkerboard(pixels, period=32, strength=45):
    y, x = np.mgrid[0 : pixels.shape[0], 0 : pixels.shape[1]]
    sign = np.where((y // (period // 2) + x // (period // 2)) % 2, 1.0, -1.0)[..., None]
    return np.clip(pixels + strength * sign, 0, 255).astype(np.uint8)


# -- the augmentation of pairs ------------------------------------------------------------------------------------


def test_an_augmentation_does_the_same_to_both_members():
    pixels = scene(0)
    kinds = Counter()
    for seed in range(40):
        augment = draw_augmentation(np.random.default_rng(seed))
        one, other = augment(pixels), augment(pixels.copy())
        assert one.dtype == np.uint8
        assert one.shape == (CROP, CROP, 3)
        assert np.array_equal(one, other)
        kinds[one.tobytes()] += 1
    assert max(kinds.values()) == 1  # and no two draws do the same


def test_members_that_are_equal_stay_equal_through_mixing_twins_and_augmentation():
    pixels = scene(1)
    for seed in range(25):
        real, fake = train.pair_members(pixels, pixels.copy(), np.random.default_rng(seed))
        assert np.array_equal(real, fake)


def test_members_that_differ_keep_differing():
    for seed in range(10):
        real, fake = train.pair_members(scene(seed), checkerboard(scene(seed)), np.random.default_rng(seed))
        assert real.shape == fake.shape == (CROP, CROP, 3)
        assert np.abs(real.astype(int) - fake).mean() > 1


# -- bases and mixes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(370, 369), (400, 1200), (1500, 700)])
def test_a_base_is_scaled_down_from_inside_the_picture(monkeypatch, shape):
    boxes = []
    resize = Image.Image.resize

    def watched(image, size, kernel, box):
        boxes.append(box)
        return resize(image, size, kernel, box=box)

    monkeypatch.setattr(Image.Image, "resize", watched)
    pixels = np.zeros((*shape, 3), np.uint8)
    for seed in range(30):
        base = erase_history(pixels, np.random.default_rng(seed))
        assert base.shape == (SIDE, SIDE, 3)
        assert base.dtype == np.uint8
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= shape[1]
        assert 0 <= top < bottom <= shape[0]
        assert right - left == pytest.approx(bottom - top)
        assert SHRINK[0] - 1e-9 <= SIDE / (right - left) <= SHRINK[1] + 1e-9
    assert len({round(b[0] % 1, 3) for b in boxes}) > 10  # phases between pixels


@pytest.mark.parametrize("shape", [(368, 5000), (300, 300), (10, 10)])
def test_a_picture_that_cannot_be_scaled_down_gives_no_base(shape):
    assert erase_history(np.zeros((*shape, 3), np.uint8), np.random.default_rng(0)) is None


def ring_power(channel):
    """Mean power by whole-numbered radius, with every frequency counted by itself."""
    side = channel.shape[0]
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    radius = np.minimum((np.hypot(fy, fx) * side).astype(int), side // 2)
    power = np.abs(np.fft.rfft2(channel.astype(float))) ** 2
    return np.array([power[radius == r].mean() for r in range(side // 2 + 1)])


@pytest.mark.parametrize("small", [150, 200, 240])
def test_a_matched_picture_has_the_references_spectrum_and_its_own_phase(small):
    reference = scene(2) // 2 + 64  # nothing is clipped
    pixels = np.asarray(Image.fromarray(reference).resize((small, small)).resize((SIDE, SIDE)))
    matched = match_spectrum(pixels, reference, limit=100.0)
    assert matched.dtype == np.uint8
    for c in range(3):
        want, before, after = (ring_power(p[..., c]) for p in (reference, pixels, matched))
        assert np.abs(np.log(before / want)).max() > 0.3
        assert np.abs(np.log(after / want)).max() < 0.05
    # By the gate's ruler, which does not see the leap from one border to the other, it comes half as near or nearer.
    gap = [np.abs(radial_spectrum(p) - radial_spectrum(reference))[4:].mean() for p in (pixels, matched)]
    assert gap[1] < 0.6 * gap[0]
    # Where its own phases were heard they are as they were.
    before, after = (np.fft.fft2(p.astype(float).mean(axis=2)) for p in (pixels, matched))
    loud = np.abs(before) > np.quantile(np.abs(before), 0.5)
    assert np.cos(np.angle(before) - np.angle(after))[loud].mean() > 0.95


def test_the_gain_is_bounded():
    rng = np.random.default_rng(0)
    quiet = np.clip(128 + rng.normal(0, 2, (64, 64, 3)), 0, 255).astype(np.uint8)
    loud = np.clip(128 + rng.normal(0, 30, (64, 64, 3)), 0, 255).astype(np.uint8)
    assert match_spectrum(quiet, loud).std() / quiet.std() == pytest.approx(3, rel=0.15)
    assert match_spectrum(quiet, loud, limit=5).std() / quiet.std() == pytest.approx(5, rel=0.15)
    assert match_spectrum(loud, quiet).std() / loud.std() == pytest.approx(1 / 3, rel=0.15)


def test_a_picture_matched_to_itself_stays():
    pixels = scene(4)
    assert np.array_equal(match_spectrum(pixels, pixels), pixels)


def test_twins_are_the_picture_smoothed_in_several_ways():
    pixels = scene(5, noise=8)
    sharpness, seen = [], set()
    for seed in range(24):
        out = twin(pixels, np.random.default_rng(seed))
        assert out.shape == pixels.shape
        assert out.dtype == np.uint8
        assert np.array_equal(out, twin(pixels, np.random.default_rng(seed)))
        assert 0 < np.abs(out.astype(int) - pixels).mean() < 12
        sharpness.append(radial_spectrum(out)[-1] - radial_spectrum(pixels)[-1])
        seen.add(int(np.random.default_rng(seed).integers(4)))
    assert seen == {0, 1, 2, 3}
    assert np.median(sharpness) < -0.5


def test_a_pixel_mix_lies_between_and_keeps_a_fifth_of_the_trace():
    real, fake = scene(6), checkerboard(scene(6))
    shares = []
    for seed in range(40):
        mixed = pixel_mix(fake, real, np.random.default_rng(seed)).astype(float)
        assert (mixed >= np.minimum(real, fake)).all()
        assert (mixed <= np.maximum(real, fake)).all()
        shares.append(np.abs(mixed - fake).sum() / np.abs(real.astype(float) - fake).sum())
    assert max(shares) <= 0.81
    assert max(shares) > 0.6
    assert min(shares) < 0.15


def test_a_frequency_mix_keeps_a_fifth_of_the_trace():
    real, fake = scene(7) // 2 + 60, checkerboard(scene(7) // 2 + 60, strength=20)
    whole = np.linalg.norm(real.astype(float) - fake)
    for seed in range(5):
        mixed = frequency_mix(fake, real, np.random.default_rng(seed)).astype(float)
        rounding = 0.3 * np.sqrt(mixed.size)
        assert np.linalg.norm(mixed - fake) <= 0.8 * whole + rounding
        assert np.linalg.norm(mixed - real) >= 0.2 * whole - rounding
        assert 0.2 < np.linalg.norm(mixed - fake) / whole < 0.75
    assert np.array_equal(frequency_mix(fake, real, np.random.default_rng(0), most=0.0), fake)
    assert np.array_equal(frequency_mix(real, real.copy(), np.random.default_rng(0)), real)


# -- the gate -----------------------------------------------------------------------------------------------------


def test_blurred_members_do_not_pass_the_gate():
    reals = [scene(i, 64, 64) for i in range(24)]
    fakes = [np.asarray(Image.fromarray(p).resize((48, 48)).resize((64, 64))) for p in reals]
    with pytest.raises(LeakyPairsError, match=r"above AUC 0\.60 .*radial spectrum") as caught:
        check_pairs(reals, fakes)
    assert caught.value.auc["radial spectrum"] > 0.9
    assert set(caught.value.auc) == {"blockiness", "radial spectrum"}


def test_members_with_a_block_grid_do_not_pass_the_gate():
    rng = np.random.default_rng(0)
    reals = [scene(i, 64, 64) for i in range(24)]
    grid = [np.kron(rng.normal(0, 10, (8, 8)), np.ones((8, 8)))[..., None] for _ in reals]
    with pytest.raises(LeakyPairsError) as caught:
        check_pairs(reals, [np.clip(p + g, 0, 255).astype(np.uint8) for p, g in zip(reals, grid, strict=True)])
    assert caught.value.auc["blockiness"] > 0.9


def test_members_without_a_ruler_between_them_pass():
    reals = [scene(i, 64, 64) for i in range(24)]
    auc = check_pairs(reals, [p[::-1] for p in reals])  # upside down: other pixels, the same grid and spectrum
    assert max(auc.values()) <= LIMIT


@pytest.mark.parametrize(("reals", "fakes"), [(19, 19), (20, 21), (0, 0)])
def test_the_gate_takes_pairs_and_enough_of_them(reals, fakes):
    picture = scene(0, 32, 32)
    with pytest.raises(ValueError, match=f"at least 20 .*, got {reals}, {fakes}"):
        check_pairs([picture] * reals, [picture] * fakes)


def test_the_probe_never_sees_a_pairs_other_member():
    """Content alone, however loud, tells the members of held-out pairs no better than chance."""
    rng = np.random.default_rng(0)
    content = rng.normal(size=(40, 30))
    features = np.concatenate([content, content]) + rng.normal(0, 1e-3, (80, 30))
    labels, pair = np.repeat([0, 1], 40), np.tile(np.arange(40), 2)
    assert probe_auc(features, labels, pair) < 0.6
    features[:, 0] += 3 * labels
    assert probe_auc(features, labels, pair) > 0.9


# -- tiny autoencoders --------------------------------------------------------------------------------------------


def conv(name, outputs, inputs, *, bias=True, size=3):
    out = {f"{name}.weight": torch.randn(outputs, inputs, size, size) * (0.6 / np.sqrt(inputs * size * size))}
    return out | ({f"{name}.bias": torch.randn(outputs) * 0.1} if bias else {})


def block(index, width, pooled):
    out = {k: v for i in (0, 2, 4) for k, v in conv(f"{index}.conv.{i}", width, width).items()}
    if pooled:
        out |= conv(f"{index}.pool.0", pooled, width, bias=False, size=1)
        out |= conv(f"{index}.pool.3", width, pooled, bias=False, size=1)
        out |= {f"{index}.pool.1.weight": torch.ones(pooled), f"{index}.pool.1.bias": torch.zeros(pooled)}
    return out


def published(width=8, latents=4, *, pooled=None):
    """State dicts of an encoder and a decoder, numbered as madebyollin's."""
    torch.manual_seed(0)
    encoder = conv(0, width, 3) | block(1, width, pooled)
    index = 2
    for _ in range(3):
        encoder |= conv(index, width, width, bias=False) | block(index + 1, width, pooled)
        index += 2
    encoder |= conv(index, latents, width)
    decoder = conv(1, width, latents)
    index = 3
    for _ in range(3):
        decoder |= block(index, width, pooled) | conv(index + 2, width, width, bias=False)
        index += 3
    decoder |= block(index, width, pooled) | conv(index + 1, 3, width)
    return encoder, decoder


def by_hand(state, x, *, decoder):
    """The stack written with functions: what the numbering means."""

    def run_conv(name, x, stride=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state.get(f"{name}.bias"), stride, weight.shape[-1] // 2)

    def run_block(i, x):
        if f"{i}.pool.0.weight" in state:
            y = run_conv(f"{i}.pool.0", x)
            y = F.group_norm(y, 4, state[f"{i}.pool.1.weight"], state[f"{i}.pool.1.bias"])
            x = x + run_conv(f"{i}.pool.3", F.relu(y))
        y = x
        for k in (0, 2, 4):
            y = run_conv(f"{i}.conv.{k}", y)
            y = F.relu(y) if k < 4 else y
        return F.relu(x + y)

    if not decoder:
        x = run_block(1, run_conv(0, x))
        for i in (2, 4, 6):
            x = run_block(i + 1, run_conv(i, x, stride=2))
        return run_conv(8, x)
    x = F.relu(run_conv(1, 3 * torch.tanh(x / 3)))
    for i in (3, 6, 9):
        x = run_conv(i + 2, F.interpolate(run_block(i, x), scale_factor=2))
    return run_conv(13, run_block(12, x))


@pytest.mark.parametrize("pooled", [None, 4])
def test_a_stack_is_what_its_numbering_says(pooled):
    encoder, decoder = published(pooled=pooled)
    x = torch.rand(2, 3, 32, 40)
    latents = read_stack(encoder, decoder=False)(x)
    assert latents.shape == (2, 4, 4, 5)  # halved thrice
    torch.testing.assert_close(latents, by_hand(encoder, x, decoder=False))
    out = read_stack(decoder, decoder=True)(10 * latents)
    assert out.shape == (2, 3, 32, 40)  # doubled thrice
    torch.testing.assert_close(out, by_hand(decoder, 10 * latents, decoder=True))


def write_autoencoders(folder, **sizes):
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        encoder, decoder = published(**sizes)
        save_file({k: v.half() for k, v in encoder.items()}, folder / f"{name}_encoder.safetensors")
        save_file({k: v.half() for k, v in decoder.items()}, folder / f"{name}_decoder.safetensors")
    return folder


def test_an_autoencoder_keeps_the_shape_and_the_range(tmp_path):
    model = Autoencoder.load(write_autoencoders(tmp_path, pooled=4), "taef2")
    assert (model.name, model.training) == ("taef2", True)
    assert not any(p.requires_grad for p in model.parameters())
    out = model(torch.rand(1, 3, 16, 24))
    assert out.shape == (1, 3, 16, 24)
    assert 0 <= out.min() <= out.max() <= 1


def test_an_autoencoder_that_is_not_one_of_them_is_refused(tmp_path):
    with pytest.raises(ValueError, match="name takes one of taesd, taesdxl, taesd3, taef1, taef2, got 'taesd2'"):
        Autoencoder.load(tmp_path, "taesd2")


def test_a_round_trip_is_the_models_with_noise_where_asked(tmp_path):
    model = Autoencoder.load(write_autoencoders(tmp_path), "taesd")
    bases = [scene(i, 32, 48) for i in range(3)]
    plain = round_trip(bases, model, np.random.default_rng(0))
    assert [(p.shape, p.dtype) for p in plain] == [((32, 48, 3), np.uint8)] * 3
    with torch.no_grad():
        want = model(torch.from_numpy(bases[1]).permute(2, 0, 1)[None] / 255)[0].permute(1, 2, 0) * 255
    assert np.abs(plain[1] - want.numpy()).max() <= 0.51
    noisy = [round_trip(bases, model, np.random.default_rng(s), noise=0.5) for s in (0, 0, 1)]
    assert np.array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2])
    assert not np.array_equal(noisy[0], plain)


@pytest.mark.parametrize("name", NAMES)
def test_the_published_weights_bring_a_photograph_back(name):
    weights = SHARED / "weights" / "taesd"
    photos = sorted((SHARED / "data" / "crop" / "real" / "kodak").glob("*.jpg"))
    if not photos or not (weights / f"{name}_encoder.safetensors").is_file():
        pytest.skip("the project's pictures and autoencoders are not beside this clone")
    base = np.asarray(Image.open(photos[0]).convert("RGB"))[:128, :128]
    (trip,) = round_trip([base], Autoencoder.load(weights, name), np.random.default_rng(0))
    error = np.square(trip.astype(float) - base).mean()
    assert 10 * np.log10(255**2 / error) >= 24
    assert error > 1  # a network was at work


# -- what is prepared ---------------------------------------------------------------------------------------------


def picture_row(folder, label, source, number, split, pixels):
    path = folder / f"{source}-{number}.png"
    Image.fromarray(pixels).save(path)
    group = f"{source}/{number}"
    return PictureRow(path=path, label=label, source=source, content="photo", group=group, split=split)


def test_windows_are_cut_and_what_cannot_be_used_is_listed(tmp_path):
    twice = scene(90, 330, 340)
    rows = [
        picture_row(tmp_path, 0, "a", 1, "fit", scene(1, 400, 500)),
        picture_row(tmp_path, 1, "b", 1, "fit", scene(2, 256, 256)),
        picture_row(tmp_path, 1, "b", 2, "fuse", scene(3, 350, 350)),
        picture_row(tmp_path, 0, "a", 2, "fit", scene(4, 100, 500)),
        picture_row(tmp_path, 0, "a", 3, "fit", twice),
        picture_row(tmp_path, 0, "c", 1, "test", twice[::1, ::1]),
    ]
    rows.append(attrs.evolve(rows[0], path=tmp_path / "broken.png"))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    out = tmp_path / "out"
    assert prepare.windows(rows, out) == 2 + 4 + 1 + 1
    made = Windows(out)
    assert made.pixels.shape == (8, WINDOW, WINDOW, 3)
    assert [(r["source"], r["split"], r["side"]) for r in made.rows] == (
        [("a", "fit", "320")] * 2 + [("b", "fit", "256")] * 4 + [("b", "fuse", "320"), ("c", "test", "320")]
    )
    assert np.array_equal(made.window(2), np.asarray(Image.open(rows[1].path)))  # native, whole
    assert made.window(2).shape == (256, 256, 3)
    with (out / "skipped.csv").open(newline="") as handle:
        skipped = {Path(p).name: why for p, why in list(csv.reader(handle))[1:]}
    assert skipped.keys() == {"a-2.png", "a-3.png", "broken.png"}
    assert skipped["a-2.png"] == "too_small"
    assert skipped["a-3.png"] == "near-duplicate in a later split"
    # Called again it cuts the same.
    prepare.windows(rows, tmp_path / "again")
    assert np.array_equal(Windows(tmp_path / "again").pixels, made.pixels)


def test_of_near_duplicates_the_earlier_split_gives_way():
    hashes = np.array([0, 1, 3, 2**40 - 1, 2**40 - 2, 255 << 50, 254 << 50], np.uint64)
    splits = ["fit", "test", "fit", "user", "fuse", "fit", "fit"]
    assert prepare.crossers(splits, hashes) == {0, 2, 4}


def test_crops_alone_are_too_small_for_pairs_and_that_is_no_error(tmp_path):
    weights = write_autoencoders(tmp_path / "weights", pooled=4)
    rows = [picture_row(tmp_path, 0, "a", i, "fit", scene(i, 320, 320)) for i in range(3)]
    assert prepare.pairs(rows, weights, tmp_path, count=8) == 0
    assert not (tmp_path / "pairs_real.npy").exists()


def test_pairs_are_made_of_fits_real_pictures_and_every_autoencoder(tmp_path):
    weights = write_autoencoders(tmp_path / "weights", pooled=4)
    rows = [picture_row(tmp_path, 0, "ab"[i % 2], i, "fit", scene(i, 380, 400)) for i in range(22)]
    rows += [
        picture_row(tmp_path, 1, "fake", 0, "fit", scene(50, 380, 400)),
        picture_row(tmp_path, 0, "other", 0, "fuse", scene(51, 380, 400)),
        picture_row(tmp_path, 0, "small", 0, "fit", scene(52, 300, 300)),
    ]
    assert prepare.pairs(rows, weights, tmp_path, count=40, per_source=11) == 40
    reals, fakes = np.load(tmp_path / "pairs_real.npy"), np.load(tmp_path / "pairs_fake.npy")
    assert reals.shape == fakes.shape == (40, SIDE, SIDE, 3)
    assert reals.dtype == fakes.dtype == np.uint8
    with (tmp_path / "pairs.csv").open(newline="") as handle:
        made = list(csv.DictReader(handle))
    assert {r["source"] for r in made} == {"a", "b"}
    assert Counter(r["autoencoder"] for r in made) == dict.fromkeys(NAMES, 8)
    assert all(np.abs(r.astype(int) - f).mean() > 1 for r, f in zip(reals, fakes, strict=True))


# -- batches ------------------------------------------------------------------------------------------------------

TINY = Recipe(
    steps=30, reals=3, fakes=3, pairs=1, deep=(2, 3), early=(1, 2), rank=2, alpha=2.0, lora_rate=3e-3,
    head_rate=0.01, warmup=2, average=0.8,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `prepare` would write; the fakes have a checkerboard."""
    out = tmp_path_factory.mktemp("prepared")
    spec = [(label, source, split) for split in ("fit", "fuse") for label in (0, 1) for source in "xyzw"]
    spec = [s for s in spec for _ in range({"x": 6, "y": 3}.get(s[1], 2))]
    store = np.zeros((len(spec), WINDOW, WINDOW, 3), np.uint8)
    lines = [",".join(prepare.FIELDS)]
    for i, (label, source, split) in enumerate(spec):
        side = WINDOW if i % 3 else 256
        pixels = scene(i, side, side)
        store[i, :side, :side] = checkerboard(pixels) if label else pixels
        name = f"{'fake' if label else 'real'}_{source}_{split}"
        lines.append(f"{i},{side},{label},{name},photo,{name}/{i},{split},{i}.png,{i}")
    np.save(out / "windows.npy", store)
    (out / "windows.csv").write_text("\n".join(lines) + "\n")
    reals = np.stack([scene(200 + i) for i in range(20)])
    np.save(out / "pairs_real.npy", reals)
    # Equal members: twenty pairs of anything else would pass the gate or not by chance.
    np.save(out / "pairs_fake.npy", reals)
    return out


@pytest.fixture
def windows(folder):
    return Windows(folder)


def test_a_batch_depends_on_seed_and_step_alone(windows, folder):
    reals = np.load(folder / "pairs_real.npy")
    pairs = (reals, np.zeros_like(reals))
    crops, labels = train.batch(TINY, windows, pairs, 4)
    again, _ = train.batch(TINY, windows, pairs, 4)
    assert crops.shape == (3 + 3 + 2, CROP, CROP, 3)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 0, 1]  # the pair last, its real member first
    assert crops[-1].mean() < 0.9 * crops[-2].mean()
    assert np.array_equal(crops, again)
    assert not np.array_equal(crops, train.batch(TINY, windows, pairs, 5)[0])
    assert not np.array_equal(crops, train.batch(attrs.evolve(TINY, seed=1), windows, pairs, 4)[0])
    assert len(train.batch(TINY, windows, None, 4)[0]) == 6


def test_sources_count_by_the_square_root_of_their_pictures(windows):
    index, p = windows.balanced("fit", 1)
    sources = [windows.rows[i]["source"] for i in index]
    assert {int(windows.rows[i]["label"]) for i in index} == {1}
    assert {windows.rows[i]["split"] for i in index} == {"fit"}
    share = {s: sum(v for v, name in zip(p, sources, strict=True) if name == s) for s in set(sources)}
    assert share["fake_x_fit"] / share["fake_y_fit"] == pytest.approx(2**0.5)
    assert p.sum() == pytest.approx(1)


def test_a_recipe_comes_back_from_json(tmp_path):
    chosen = Recipe.parse('{"steps": 7, "deep": [2, 3]}')
    assert chosen == Recipe(steps=7, deep=(2, 3))
    (tmp_path / "recipe.json").write_text(json.dumps(attrs.asdict(chosen)))
    assert Recipe.read(tmp_path) == chosen
    with pytest.raises(TypeError, match="stepps"):
        Recipe.parse('{"stepps": 7}')
    # How `fit` made the heads is told beside the recipe and is no part of it.
    assert Recipe.parse('{"rank": 0, "heads": {"deep": {"blocks": [7, 8]}}}') == Recipe(rank=0)
    with pytest.raises(TypeError, match="head"):
        Recipe.parse('{"head": {}}')


def test_without_a_rank_there_are_no_updates(make_tower, windows):
    plain = Run(attrs.evolve(TINY, rank=0), 64)
    assert plain.lora is None
    assert {k.split(".")[0] for k in plain.state_dict()} == {"deep", "early"}
    assert Run(TINY, 64).lora is not None
    with torch.no_grad():
        for p in plain.parameters():
            p.add_(0.05 * torch.randn_like(p))
        crops = np.stack([windows.window(i)[:CROP, :CROP] for i in range(2)])
        tower = ClipTower.from_state_dict(make_tower())
        tokens = tower.tokens(train.clip_input(torch.from_numpy(crops)), (1, 2, 3))
        for got, head in zip(train.forward(tower, plain, crops), (plain.deep, plain.early), strict=True):
            torch.testing.assert_close(got, head(tokens)[0], atol=1e-4, rtol=1e-4)


def test_without_a_rank_only_the_heads_are_trained(folder, make_tower, tmp_path):
    recipe = attrs.evolve(TINY, rank=0, steps=4, pairs=0)
    run = load_file(train.train(recipe, folder=folder, out=tmp_path, tower=ClipTower.from_state_dict(make_tower())))
    assert {k.split(".")[0] for k in run} == {"deep", "early"}
    for head in ("deep", "early"):
        assert run[f"{head}.weight"][:, 0].abs().max() > 1e-3
        assert run[f"{head}.bias"].abs() > 1e-5
    assert not (tmp_path / "gate.json").exists()  # a recipe without pairs asks no gate
    found = score_run(Windows(folder), tmp_path, make_tower(), head="deep", split="fuse", quantised=False)
    assert set(found) == {"auc native", "auc jpeg90", "mean logit"}


# -- the loss -----------------------------------------------------------------------------------------------------


def test_the_loss_by_hand():
    recipe = Recipe(pairs=1, ranking=0.5, distil=0.25)
    deep, early = torch.tensor([0.0, 2.0, -1.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    labels = torch.tensor([0.0, 1.0, 0.0, 1.0])
    parts = {k: v.item() for k, v in train.loss_of(recipe, deep, early, labels).items()}

    def cross(logits, targets):
        return np.mean([np.log1p(np.exp(a)) - t * a for a, t in zip(logits, targets, strict=True)])

    # Without marked pictures there is nothing to align with.
    assert set(parts) == set(PARTS) - {"align", "marked"}
    assert parts["deep"] == pytest.approx(cross([0, 2, -1, 1], [0, 1, 0, 1]))
    assert parts["early"] == pytest.approx(cross([1, 1, 0, 0], [0, 1, 0, 1]))
    taught = 1 / (1 + np.exp([0.0, -2, 1, -1]))
    assert parts["distil"] == pytest.approx(0.25 * cross([1, 1, 0, 0], taught))
    # the pair's fake member leads by 2 in the deep head and by nothing in the early one
    assert parts["ranking"] == pytest.approx(0.5 * (np.log1p(np.exp(-2)) + np.log(2)))
    assert set(train.loss_of(Recipe(pairs=0), deep, early, labels)) == {"deep", "early", "distil"}


def test_the_deep_head_does_not_learn_from_the_early_one():
    deep, early = (torch.zeros(4, requires_grad=True) for _ in range(2))
    train.loss_of(Recipe(pairs=1), deep, early, torch.tensor([0.0, 1, 0, 1]))["distil"].backward()
    assert deep.grad is None
    assert early.grad is not None


def test_only_updates_and_heads_learn(make_tower, windows):
    tower = train.half_precision(ClipTower.from_state_dict(make_tower()))
    assert tower.conv1.weight.dtype == torch.float32
    assert {p.dtype for p in tower.transformer.parameters()} == {torch.bfloat16}
    run = Run(TINY, tower.width)
    with torch.no_grad():
        for p in run.parameters():
            p.add_(0.05 * torch.randn_like(p))
    crops = np.stack([windows.window(i)[:CROP, :CROP] for i in range(2)])
    sum(x.sum() for x in train.forward(tower, run, crops)).backward()
    assert all(p.grad is None for p in tower.parameters())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in run.parameters())
    # The loss reads logits, and those read class tokens only: what the map says stays as the probe made it.
    for head in (run.deep, run.early):
        assert head.weight.grad[:, 1].abs().max() == 0
        assert head.weight.grad[:, 0].abs().amax(dim=1).min() > 0


def test_the_heads_logits_are_the_models(make_tower, windows):
    """Training and detecting compute one thing, up to half precision."""
    state = make_tower()
    run = Run(TINY, 64)
    with torch.no_grad():
        for p in run.parameters():
            p.add_(0.05 * torch.randn_like(p))
        crops = np.stack([windows.window(i)[:CROP, :CROP] for i in range(4)])
        trained = train.forward(train.half_precision(ClipTower.from_state_dict(state)), run, crops)
        for got, head in zip(trained, (run.deep, run.early), strict=True):
            want = PixelModel(ClipTower.from_state_dict(state), run.lora, head)(torch.from_numpy(crops))[0]
            torch.testing.assert_close(got, want, atol=0.1, rtol=0.05)
            only = "deep" if head is run.deep else "early"
            tower = train.half_precision(ClipTower.from_state_dict(state, depth=max(head.blocks)))
            torch.testing.assert_close(train.forward(tower, run, crops, only=only)[0], got, atol=1e-4, rtol=1e-4)


def test_the_rate_rises_and_then_falls_to_nothing():
    recipe = Recipe(steps=100, warmup=10)
    rates = [train._rate(recipe, s) for s in range(101)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)


# -- training -----------------------------------------------------------------------------------------------------


def curve(out):
    with (out / "curve.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def finished(folder, make_tower, tmp_path_factory):
    """A run of 30 steps without an interruption."""
    out = tmp_path_factory.mktemp("run")
    train.train(TINY, folder=folder, out=out, tower=ClipTower.from_state_dict(make_tower()))
    return out


def test_the_loss_falls_and_the_curve_tells_it(finished):
    rows = curve(finished)
    assert [int(r["step"]) for r in rows] == list(range(30))
    assert list(rows[0]) == ["step", "seconds", *PARTS]
    assert float(rows[0]["deep"]) == pytest.approx(np.log(2), abs=1e-3)  # heads start at nothing
    for part in ("deep", "early"):
        values = [float(r[part]) for r in rows]
        assert np.mean(values[-8:]) < 0.9 * values[0], part  # pairs of equal members keep it from falling further
    assert Recipe.read(finished) == TINY
    assert max(json.loads((finished / "gate.json").read_text()).values()) <= LIMIT


def test_the_run_tells_the_checkerboard_in_pictures_it_never_saw(finished, windows, make_tower):
    for head in ("deep", "early"):
        found = score_run(windows, finished, make_tower(), head=head, split="fuse", quantised=False)
        assert found["auc native"] > 0.8
        assert found["auc jpeg90"] > 0.8
        means = found["mean logit"]
        assert min(v for k, v in means.items() if k.startswith("1 ")) > max(
            v for k, v in means.items() if k.startswith("0 ")
        )


class CutOffError(Exception):
    pass


def test_an_interrupted_run_ends_in_the_same_weights(finished, folder, make_tower, tmp_path, monkeypatch):
    def go():
        return train.train(TINY, folder=folder, out=tmp_path, tower=ClipTower.from_state_dict(make_tower()))

    told = []
    original = train.loss_of

    def cut(recipe, *args):
        told.append(1)
        if len(told) == 28:  # past the checkpoint after 25 steps
            raise CutOffError
        return original(recipe, *args)

    monkeypatch.setattr(train, "loss_of", cut)
    with pytest.raises(CutOffError):
        go()
    assert not (tmp_path / "run.safetensors").exists()
    monkeypatch.setattr(train, "loss_of", original)
    done = load_file(go())
    want = load_file(finished / "run.safetensors")
    assert done.keys() == want.keys()
    assert all(torch.equal(done[k], want[k]) for k in want)
    # The steps between checkpoint and interruption were done twice and are told once.
    assert [int(r["step"]) for r in curve(tmp_path)] == list(range(30))
    assert [r["deep"] for r in curve(tmp_path)] == [r["deep"] for r in curve(finished)]


def test_a_finished_run_that_is_called_again_stays(finished, folder, make_tower, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    before = (out / "run.safetensors").read_bytes()
    train.train(TINY, folder=folder, out=out, tower=ClipTower.from_state_dict(make_tower()))
    assert (out / "run.safetensors").read_bytes() == before
    assert len(curve(out)) == 30


def test_nothing_is_trained_on_leaky_pairs(folder, make_tower, tmp_path):
    leaky = tmp_path / "prepared"
    shutil.copytree(folder, leaky)
    reals = np.load(leaky / "pairs_real.npy")
    soft = [np.asarray(Image.fromarray(p).resize((96, 96)).resize((SIDE, SIDE))) for p in reals]
    np.save(leaky / "pairs_fake.npy", np.stack(soft))
    with pytest.raises(LeakyPairsError):
        train.train(TINY, folder=leaky, out=tmp_path / "run", tower=ClipTower.from_state_dict(make_tower()))
    assert not (tmp_path / "run" / "run.safetensors").exists()


def test_from_a_run_to_the_bundled_model(finished, folder, make_tower, tmp_path):
    """Fine-tuning on the four-bit trunk, export, and what the plugin reads."""
    state = make_tower()
    recipe = attrs.evolve(TINY, steps=4)
    student = export.quantised_tower(state, max(recipe.early))
    train.finetune_early(
        recipe, folder=folder, run=finished, out=tmp_path / "early",
        teacher=ClipTower.from_state_dict(state), student=student,
    )  # fmt: skip
    before, after = (load_file(f / "run.safetensors") for f in (finished, tmp_path / "early"))
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert {"early.weight", "early.bias"} <= changed
    assert {k.split(".", 2)[2][0] for k in changed if k.startswith("lora.")} == {"1", "2"}
    assert not [k for k in changed if k.startswith("deep") or k.endswith((".mean", ".std"))]
    assert {r["deep"] for r in curve(tmp_path / "early")} == {""}
    file = export.export_bundled(tmp_path / "early", state, tmp_path, version="9.9")
    model = load_bundled(file).eval()
    crops = np.stack([probe.scored_crop(Windows(folder), i) for i in range(4)])
    run = Run(recipe, 64)
    run.load_state_dict(after)
    with torch.no_grad():
        got, patches = model(torch.from_numpy(crops))
        want = train.forward(train.half_precision(export.quantised_tower(state, 2)), run, crops, only="early")[0]
    torch.testing.assert_close(got, want, atol=0.15, rtol=0.05)
    assert patches.shape == (4, 14, 14)
    # The bundled model has learned it too, through four bits.
    scores = score_run(Windows(folder), tmp_path / "early", state, head="early", split="fuse", quantised=True)
    assert scores["auc native"] > 0.8
    adapter = load_adapter(export.export_tower(finished, tmp_path, version="9.9"))
    assert torch.equal(adapter.head.weight, before["deep.weight"])


# -- the yardstick ------------------------------------------------------------------------------------------------


def test_weights_give_classes_one_total_and_sources_the_root_of_their_size():
    labels = np.array([0] * 9 + [0] + [1] * 4)
    sources = ["a"] * 9 + ["b"] + ["a"] * 4
    weight = probe.source_weights(labels, sources)
    assert weight.mean() == pytest.approx(1)
    assert weight[labels == 0].sum() == pytest.approx(weight[labels == 1].sum())
    assert weight[:9].sum() / weight[9] == pytest.approx(3)
    assert np.ptp(weight[10:]) == 0


def auc_over_folds(scores, labels, sources, *, seed):
    """Mean AUC over the folds of held-out sources: the yardstick's first column, by hand."""
    fold = probe.source_folds(labels, sources, seed=seed, folds=4)
    return np.mean([roc_auc_score(labels[fold == f], scores[fold == f]) for f in range(4)])


def test_held_out_families_do_not_reward_knowing_the_sources():
    rng = np.random.default_rng(0)
    sources = [f"s{i % 8}" for i in range(160)]
    labels = np.array([int(s[1]) % 2 for s in sources])
    known = np.eye(8, dtype=np.float32)[[int(s[1]) for s in sources]] + rng.normal(0, 0.3, (160, 8)).astype(np.float32)
    assert probe.Probe(1.0).fit(known, labels, sources).score(known)[labels == 1].mean() > 1
    held = probe.held_out_scores(known, labels, sources, strength=1.0, seed=0)
    assert abs(auc_over_folds(held, labels, sources, seed=0) - 0.5) < 0.3
    true = (labels[:, None] + rng.normal(0, 0.3, (160, 3))).astype(np.float32)
    held = probe.held_out_scores(true, labels, sources, strength=1.0, seed=0)
    assert auc_over_folds(held, labels, sources, seed=0) > 0.95


def test_residual_statistics_see_noise_and_are_shares():
    rng = np.random.default_rng(0)
    flat = np.full((1, 32, 40, 3), 90, np.uint8)
    noisy = rng.integers(0, 256, (1, 32, 40, 3), dtype=np.uint8)
    features = probe.residual_features(np.concatenate([flat, noisy]))
    assert features.dtype == np.float32
    assert features.shape == (2, 10 * 50)
    kernels = features.reshape(2, 10, 50)
    assert kernels[..., :49].sum(axis=2) == pytest.approx(np.ones((2, 10)), abs=1e-4)
    assert kernels[0, :, 3 * 7 + 3] == pytest.approx(np.ones(10))  # all residuals are nothing
    assert kernels[0, :, 49] == pytest.approx(np.zeros(10), abs=1e-3)
    assert kernels[1, :, 49].min() > 2


def test_tower_features_are_the_tokens_after_every_block(make_tower, windows):
    state = make_tower()
    crops = np.stack([probe.scored_crop(windows, i) for i in range(2)])
    got = probe.tower_extractor(ClipTower.from_state_dict(state))(crops)
    assert got.shape == (2, 3, 2, 64)
    assert got.dtype == np.float16
    tower = ClipTower.from_state_dict(state)
    with torch.no_grad():
        tokens = tower.tokens(train.clip_input(torch.from_numpy(crops)), (1, 2, 3))
    for b, x in tokens.items():
        want = torch.stack([x[:, 0], x[:, 1:].mean(dim=1)], dim=1).numpy()
        np.testing.assert_allclose(got[:, b - 1], want, atol=0.15, rtol=0.05)


def test_an_interrupted_extraction_goes_on(windows, tmp_path):
    calls = []

    def compute(crops):
        calls.append(len(crops))
        return crops.mean(axis=(1, 2)).astype(np.float32)

    def cut(crops):
        if len(calls) == 2:
            raise CutOffError
        return compute(crops)

    with pytest.raises(CutOffError):
        probe.extract(windows, tmp_path, cut, "f")
    x, index, condition = probe.read_features(tmp_path, "f")
    assert len(x) == 16
    probe.extract(windows, tmp_path, compute, "f")
    x, index, condition = probe.read_features(tmp_path, "f")
    n = len(windows.rows)
    outside = [i for i, r in enumerate(windows.rows) if r["split"] != "fit"]
    assert index.tolist() == [*range(n), *outside]  # every window here is of another picture
    assert condition.tolist() == ["native"] * n + ["jpeg90"] * len(outside)
    assert sum(calls) == 1 + n + len(outside)  # one to learn the shape, nothing twice
    for row in (0, 15, 16, n, len(x) - 1):
        crop = probe.scored_crop(windows, int(index[row]), probe.CONDITIONS[condition[row]])
        np.testing.assert_allclose(x[row], crop.mean(axis=(0, 1)), rtol=1e-5)


def test_a_picture_is_extracted_by_its_first_window_alone(windows, tmp_path):
    windows.rows = [r | {"path": f"{i // 3}.png"} for i, r in enumerate(windows.rows)]
    probe.extract(windows, tmp_path, lambda crops: crops.mean(axis=(1, 2)), "f")
    x, index, condition = probe.read_features(tmp_path, "f")
    firsts = list(range(0, len(windows.rows), 3))
    outside = [i for i in firsts if windows.rows[i]["split"] != "fit"]
    assert outside
    assert index.tolist() == firsts + outside
    assert condition.tolist() == ["native"] * len(firsts) + ["jpeg90"] * len(outside)
    assert len(x) == len(np.load(tmp_path / "f.npy"))  # no empty rows behind them
    for row in (0, len(firsts) - 1, len(x) - 1):
        crop = probe.scored_crop(windows, int(index[row]), probe.CONDITIONS[condition[row]])
        np.testing.assert_allclose(x[row], crop.mean(axis=(0, 1)), rtol=1e-5)


def test_folds_hold_out_whole_sources_of_both_classes():
    labels = np.array([0] * 30 + [1] * 50)
    sources = [f"s{i % 6}" for i in range(30)] + [f"s{i % 5}" for i in range(50)]  # names occur on both sides
    fold = probe.source_folds(labels, sources, seed=0, folds=4)
    assert set(fold.tolist()) == {0, 1, 2, 3}
    of_source = {}
    for key, f in zip(zip(labels.tolist(), sources, strict=True), fold.tolist(), strict=True):
        of_source.setdefault(key, set()).add(f)
    assert {len(f) for f in of_source.values()} == {1}
    for f in range(4):
        assert set(labels[fold == f]) == {0, 1}
    sizes = Counter(next(iter(f)) for (y, _), f in of_source.items() if y == 0)
    assert max(sizes.values()) - min(sizes.values()) == 1
    assert np.array_equal(fold, probe.source_folds(labels, sources, seed=0, folds=4))
    assert any(not np.array_equal(fold, probe.source_folds(labels, sources, seed=s, folds=4)) for s in range(1, 4))


@pytest.mark.parametrize("poor", [0, 1])
def test_fewer_sources_than_folds_are_refused(poor):
    labels = np.repeat([0, 1], 12)
    sources = [f"{y}{i % (3 if y == poor else 4)}" for i, y in enumerate(labels)]
    told = f"sources takes at least 4 of each class, got 3 of class {poor}"
    x = np.zeros((24, 2), np.float32)
    with pytest.raises(ValueError, match=told):
        probe.source_folds(labels, sources, seed=0, folds=4)
    with pytest.raises(ValueError, match=told):
        probe.held_out_scores(x, labels, sources, strength=1.0, seed=0)
    assert set(probe.source_folds(labels, sources, seed=0, folds=3)) == {0, 1, 2}


def test_a_held_out_score_knows_nothing_of_its_source():
    """Whatever is done to a source's own rows and labels' neighbours, its scores are those of the others' probe."""
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 40)
    sources = [f"{y}{i % 5}" for i, y in enumerate(labels)]
    x = (rng.normal(size=(80, 3)) + labels[:, None]).astype(np.float32)
    scores = probe.held_out_scores(x, labels, sources, strength=0.1, seed=2)
    fold = probe.source_folds(labels, sources, seed=2, folds=4)
    names = np.array(sources)
    for f in range(4):
        other = fold != f
        by_hand = probe.Probe(0.1, 2).fit(x[other], labels[other], names[other].tolist())
        np.testing.assert_allclose(scores[~other], by_hand.score(x[~other]), rtol=1e-6)
    # A mark that only one source carries cannot help it.
    mine = names == "13"
    marked = np.c_[x, 100 * mine.astype(np.float32)]
    np.testing.assert_allclose(
        probe.held_out_scores(marked, labels, sources, strength=0.1, seed=2)[fold == fold[mine][0]],
        scores[fold == fold[mine][0]],
        rtol=1e-5,
    )


def test_pairs_of_sources_count_alike_whatever_their_size():
    labels = np.array([0] * 10 + [0, 0] + [1] * 4 + [1])
    sources = np.array(["big"] * 10 + ["small"] * 2 + ["x"] * 4 + ["y"])
    scores = np.array([0.0] * 10 + [2.0, 4.0] + [1.0, 1.0, 3.0, 5.0] + [3.0])
    # big-x 1, big-y 1, small-x (0 + 0 + 1 + 2) of 8, small-y 1 of 2
    assert probe.by_source(labels, scores, sources) == pytest.approx((1 + 1 + 3 / 8 + 1 / 2) / 4)
    assert roc_auc_score(labels, scores) == pytest.approx(0.9)  # where the big one rules


def feature_table(folder, out, *, planted, blocks=12, informed=7, kinds=(0,), name="tower"):
    """Made-up tower features: of block `informed` the class token (kind 0; 1 the patches) carries the label."""
    windows = Windows(folder)
    rng = np.random.default_rng(0)
    jobs = [(i, "native") for i in range(len(windows.rows))]
    jobs += [(i, "jpeg90") for i, r in enumerate(windows.rows) if r["split"] != "fit"]
    x = rng.normal(size=(len(jobs), blocks, 2, 4)).astype(np.float16)
    for k, (i, _) in enumerate(jobs):
        for kind in kinds:
            x[k, informed - 1, kind, kind] += planted * (2 * int(windows.rows[i]["label"]) - 1)
    np.save(out / f"{name}.npy", x)
    lines = ["row,index,condition"] + [f"{k},{i},{c}" for k, (i, c) in enumerate(jobs)]
    (out / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return x


COLUMNS = {"features", "C", "fit families", "fit families sd"} | {
    f"fuse {condition}{how}" for condition in ("native", "jpeg90") for how in ("", " by source")
}


def test_the_yardstick_finds_the_block_that_knows(folder, windows, tmp_path):
    feature_table(folder, tmp_path, planted=4)
    lines = probe.yardstick(windows, tmp_path, seeds=(0, 1))
    table = {(line["features"], line["C"]): line for line in lines}
    # Twelve blocks, two of them by two more penalties, the patches once and three sets; what was not extracted
    # (residuals, the four-bit trunk) has no row.
    assert len(table) == len(lines) == 12 + 2 * 2 + 1 + 3
    assert list(table) == [(title, c) for title, parts, c in probe.ROWS if parts[0][0] == "tower"]
    for column in COLUMNS - {"features", "C", "fit families sd"}:
        by_block = {b: table[f"class token, block {b}", 1e-3][column] for b in range(1, 13)}
        assert max(by_block, key=by_block.get) == 7
        assert by_block[7] > 0.95
        assert np.median(list(by_block.values())) < 0.75
        for c in (1e-4, 1e-5):
            assert table["class token, block 7", c][column] > 0.95
            assert table["class token, block 8", c][column] < 0.85
    assert table["mean patch token, block 7", 1e-3]["fuse native"] < 0.85
    assert all(set(line) == COLUMNS for line in lines)


def test_the_yardstick_reads_the_patches_where_a_row_says_so(folder, windows, tmp_path):
    feature_table(folder, tmp_path, planted=4, kinds=(1,))
    table = {(line["features"], line["C"]): line for line in probe.yardstick(windows, tmp_path, seeds=(0,))}
    assert table["mean patch token, block 7", 1e-3]["fuse native"] > 0.95
    assert table["class token, block 7", 1e-3]["fuse native"] < 0.85


def by_hand_line(windows, parts, index, condition, *, strength, seeds):
    """A row's numbers from features (n, k) of each of its probes; `apart` is what an unscaled sum would give."""
    rows = [windows.rows[i] for i in index]
    labels, source = np.array([int(r["label"]) for r in rows]), np.array([r["source"] for r in rows])
    split = np.array([r["split"] for r in rows])
    fit = (split == "fit") & (condition == "native")
    held, every, bare = np.zeros((len(seeds), fit.sum())), np.zeros(len(rows)), np.zeros(len(rows))
    names = source[fit].tolist()
    for z in (p.astype(np.float32) for p in parts):
        unseen = [probe.held_out_scores(z[fit], labels[fit], names, strength=strength, seed=s) for s in seeds]
        scores = probe.Probe(strength).fit(z[fit], labels[fit], names).score(z)
        held += np.stack(unseen) / unseen[0].std()
        every += scores / unseen[0].std()
        bare += scores
    inside = [auc_over_folds(h, labels[fit], names, seed=s) for h, s in zip(held, seeds, strict=True)]
    line = {"fit families": np.mean(inside), "fit families sd": np.std(inside)}
    apart = {}
    for c in probe.CONDITIONS:
        mine = (split == "fuse") & (condition == c)
        line[f"fuse {c}"] = roc_auc_score(labels[mine], every[mine])
        line[f"fuse {c} by source"] = probe.by_source(labels[mine], every[mine], source[mine])
        apart[f"fuse {c}"] = roc_auc_score(labels[mine], bare[mine])
    return line, apart


@pytest.mark.parametrize(
    ("title", "blocks"),
    [
        ("class token, block 7", (7,)),
        ("class tokens, blocks 7 and 8", (7, 8)),
        ("class tokens, blocks 7, 8 and 12", (7, 8, 12)),
        ("class tokens, blocks 6 to 10", (6, 7, 8, 9, 10)),
    ],
)
def test_a_set_of_blocks_adds_its_probes_scores_on_one_scale(folder, windows, tmp_path, title, blocks):
    x = feature_table(folder, tmp_path, planted=0.7)
    found = {(line["features"], line["C"]): line for line in probe.yardstick(windows, tmp_path, seeds=(1, 0, 2))}
    line = found[title, 1e-3]
    _, index, condition = probe.read_features(tmp_path, "tower")
    parts = [x[:, b - 1, 0] for b in blocks]
    want, apart = by_hand_line(windows, parts, index, condition, strength=1e-3, seeds=(1, 0, 2))
    assert {k: v for k, v in line.items() if k not in ("features", "C")} == pytest.approx(want)
    assert line["fit families sd"] > 0  # the seeds do draw other folds
    assert line["fuse native"] < 1  # the AUC could be another
    if len(blocks) > 1:
        assert apart["fuse native"] != pytest.approx(want["fuse native"])


def test_the_yardstick_has_rows_of_the_four_bit_trunk_and_the_residuals_where_they_are(folder, windows, tmp_path):
    x = feature_table(folder, tmp_path, planted=4, blocks=6, informed=6, name="trunk6")
    shutil.copy(tmp_path / "trunk6.csv", tmp_path / "residuals.csv")
    np.save(tmp_path / "residuals.npy", x[:, 0, 0])  # noise
    lines = probe.yardstick(windows, tmp_path, seeds=(0,))
    found = [(str(line["features"]), line["C"]) for line in lines]
    assert found == [
        *(("residual statistics (SRM-like)", c) for c in (1e-1, 1e-2, 1e-3)),
        ("four-bit trunk, class token, block 6", 1e-3),
        ("four-bit trunk, class token, block 6", 1e-5),
    ]
    assert min(line["fuse native"] for line in lines[3:]) > 0.95
    assert max(line["fuse native"] for line in lines[:3]) < 0.85
    feature_table(folder, tmp_path, planted=4)
    every = probe.yardstick(windows, tmp_path, seeds=(0,))
    assert [(line["features"], line["C"]) for line in every] == [(title, c) for title, _, c in probe.ROWS]
    assert [line for line in every if (line["features"], line["C"]) in found] == lines


def test_a_row_over_two_extractions_needs_both_and_not_their_order(folder, windows, tmp_path, monkeypatch):
    parts = (("tower", 7, 0), ("trunk6", 6, 1))
    monkeypatch.setattr(probe, "ROWS", (("both", parts, 1e-3), ("one", parts[:1], 1e-3)))
    x = feature_table(folder, tmp_path, planted=0.5)
    assert [line["features"] for line in probe.yardstick(windows, tmp_path, seeds=(0,))] == ["one"]
    y = feature_table(folder, tmp_path, planted=0.5, blocks=6, informed=6, kinds=(1,), name="trunk6")
    _, index, condition = probe.read_features(tmp_path, "tower")
    want, _ = by_hand_line(windows, [x[:, 6, 0], y[:, 5, 1]], index, condition, strength=1e-3, seeds=(0,))
    both, one = probe.yardstick(windows, tmp_path, seeds=(0,))
    assert {k: v for k, v in both.items() if k not in ("features", "C")} == pytest.approx(want)
    assert one["fuse native"] != both["fuse native"]
    # The second table's rows in another order, each with its features.
    order = np.random.default_rng(3).permutation(len(y))
    np.save(tmp_path / "trunk6.npy", y[order])
    moved = [f"{k},{index[i]},{condition[i]}" for k, i in enumerate(order)]
    (tmp_path / "trunk6.csv").write_text("\n".join(["row,index,condition", *moved]) + "\n")
    assert probe.yardstick(windows, tmp_path, seeds=(0,)) == [both, one]


def test_the_yardstick_never_reads_test(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "f")
    text = (tmp_path / "f" / "windows.csv").read_text()
    rows = text.replace("_y_fuse,photo", "_y_fuse,art").splitlines()
    moved = [r.replace(",fuse,", ",test,") if ",art," in r else r for r in rows]
    assert moved != rows
    (tmp_path / "f" / "windows.csv").write_text("\n".join(moved) + "\n")
    feature_table(folder, tmp_path / "f", planted=4)
    windows = Windows(tmp_path / "f")
    before = probe.yardstick(windows, tmp_path / "f", seeds=(0,))
    x = np.load(tmp_path / "f" / "tower.npy")
    _, index, _ = probe.read_features(tmp_path / "f", "tower")
    x[[windows.rows[i]["split"] == "test" for i in index]] = 99
    np.save(tmp_path / "f" / "tower.npy", x)
    assert probe.yardstick(windows, tmp_path / "f", seeds=(0,)) == before


# -- heads on frozen features -------------------------------------------------------------------------------------


def of_fit(windows, x):
    """Features of `fit` with labels and sources; `feature_table` lists all native rows first, in their order."""
    fit = [i for i, r in enumerate(windows.rows) if r["split"] == "fit"]
    labels = np.array([int(windows.rows[i]["label"]) for i in fit])
    return x[fit].astype(np.float32), labels, [windows.rows[i]["source"] for i in fit]


def tokens_of(x, blocks):
    """A class token and one patch per block, as a head takes them."""
    return {b: torch.from_numpy(x[:, b - 1].astype(np.float32)) for b in blocks}


def probes_of(x, labels, sources, blocks, kind, *, seed=0, strength=1e-3):
    """Per block: its probe, its scores, and those of held-out sources; the latter's spread is 1."""
    probes, scores, held = [], [], []
    for b in blocks:
        z = x[:, b - 1, kind]
        unseen = probe.held_out_scores(z, labels, sources, strength=strength, seed=seed)
        probes.append(probe.Probe(strength).fit(z, labels, sources))
        scores.append(probes[-1].score(z) / unseen.std())
        held.append(unseen / unseen.std())
    return probes, np.array(scores), np.array(held)


@pytest.mark.parametrize("blocks", [(7,), (7, 8), (7, 8, 12)])
@pytest.mark.parametrize("seed", [0, 3])
def test_a_fitted_head_averages_its_blocks_probes_and_is_calibrated(folder, windows, tmp_path, blocks, seed):
    x, labels, sources = of_fit(windows, feature_table(folder, tmp_path, planted=0.7))
    head = probe.fit_head(windows, tmp_path, probe.HeadFit(blocks=blocks, strength=1e-3), seed=seed)
    assert head.blocks == blocks
    part = x[:, [b - 1 for b in blocks]]
    np.testing.assert_allclose(head.mean, part.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(head.std, part.std(axis=0), atol=1e-5)
    with torch.no_grad():
        logit = head(tokens_of(x, blocks))[0].numpy()
    _, scores, held = probes_of(x, labels, sources, blocks, 0, seed=seed)
    slope, shift = np.polyfit(scores.sum(axis=0), logit, 1)
    assert slope > 0
    np.testing.assert_allclose(slope * scores.sum(axis=0) + shift, logit, atol=1e-3)
    # Calibrated: on held-out families the weighted residuals neither lean to a side nor grow with the score.
    unseen = slope * held.sum(axis=0) + shift
    left = probe.source_weights(labels, sources) * (1 / (1 + np.exp(-unseen)) - labels)
    assert abs(left.mean()) < 2e-3
    assert abs((left * unseen).mean()) < 2e-3
    assert roc_auc_score(labels, logit) > 0.7
    if len(blocks) > 1:  # it is not one probe on all blocks, nor a sum of scores that have scales of their own
        flat = part[:, :, 0].reshape(len(x), -1)
        joint = probe.Probe(1e-3).fit(flat, labels, sources).score(flat)
        bare = sum(probe.Probe(1e-3).fit(z, labels, sources).score(z) for z in part[:, :, 0].swapaxes(0, 1))
        for other in (joint, bare):
            assert np.abs(np.polyval(np.polyfit(other, logit, 1), other) - logit).max() > 0.01


def test_unequal_classes_do_not_shift_a_head(folder, windows, tmp_path):
    """The probes' intercepts are part of the score: with few real rows they are far from nothing."""
    x = feature_table(folder, tmp_path, planted=0.7)
    _, index, condition = probe.read_features(tmp_path, "tower")
    keep = [k for k, i in enumerate(index) if "real_x" not in windows.rows[i]["source"] or i % 6 == 0]
    np.save(tmp_path / "tower.npy", x[keep])
    lines = [f"{n},{index[k]},{condition[k]}" for n, k in enumerate(keep)]
    (tmp_path / "tower.csv").write_text("\n".join(["row,index,condition", *lines]) + "\n")
    mine = [k for k in keep if windows.rows[index[k]]["split"] == "fit"]
    labels = np.array([int(windows.rows[index[k]]["label"]) for k in mine])
    sources = [windows.rows[index[k]]["source"] for k in mine]
    x = x[mine].astype(np.float32)
    head = probe.fit_head(windows, tmp_path, probe.HeadFit(blocks=(7, 8), strength=1.0))
    with torch.no_grad():
        logit = head(tokens_of(x, (7, 8)))[0].numpy()
    probes, scores, held = probes_of(x, labels, sources, (7, 8), 0, strength=1.0)
    offsets = [p.model.intercept_[0] / p.score(x[:, b - 1, 0]).std() for p, b in zip(probes, (7, 8), strict=True)]
    assert abs(sum(offsets)) > 0.1
    slope, shift = np.polyfit(scores.sum(axis=0), logit, 1)
    unseen = slope * held.sum(axis=0) + shift
    left = probe.source_weights(labels, sources) * (1 / (1 + np.exp(-unseen)) - labels)
    assert abs(left.mean()) < 2e-3


@pytest.mark.parametrize("kind", [0, 1])
def test_every_block_has_one_say_in_the_score_and_in_the_map(folder, windows, tmp_path, kind):
    blocks = (7, 8, 12)
    x, labels, sources = of_fit(windows, feature_table(folder, tmp_path, planted=0.7, kinds=(kind,)))
    head = probe.fit_head(windows, tmp_path, probe.HeadFit(blocks=blocks, strength=1e-3))
    weight = head.weight.detach().numpy()[:, kind]
    probes, _, _ = probes_of(x, labels, sources, blocks, kind)
    spread = [probe.held_out_scores(x[:, b - 1, kind], labels, sources, strength=1e-3, seed=0).std() for b in blocks]
    slope = [weight[n] / (probes[n].model.coef_[0] / spread[n]) for n in range(3)]
    np.testing.assert_allclose(slope, np.full((3, 4), slope[0][0]), rtol=1e-3)


def test_a_block_cannot_explain_away_what_another_says(folder, windows, tmp_path):
    """A block's weights keep their direction when the other block becomes its copy with the sources' marks on it."""
    x = feature_table(folder, tmp_path, planted=0.7)
    weight = []
    for copied in (False, True):
        if copied:
            _, index, _ = probe.read_features(tmp_path, "tower")
            names = sorted({r["source"] for r in windows.rows})
            x[:, 7] = x[:, 6]
            x[:, 7, :, 2] += np.array([names.index(windows.rows[i]["source"]) % 5 for i in index])[:, None]
            np.save(tmp_path / "tower.npy", x)
        head = probe.fit_head(windows, tmp_path, probe.HeadFit(blocks=(7, 8), strength=1e-1))
        weight.append(head.weight.detach().numpy())
    alone = probe.fit_head(windows, tmp_path, probe.HeadFit(blocks=(7,), strength=1e-1)).weight.detach().numpy()[0]
    for kind in (0, 1):
        for w in weight:
            ratio = w[0, kind] / alone[kind]
            np.testing.assert_allclose(ratio, np.full(4, ratio[0]), rtol=1e-4)
        turned = weight[0][1, kind] / weight[1][1, kind]
        assert np.ptp(turned) > 0.1 * np.abs(turned).max()  # the other block's own did


@pytest.mark.parametrize(
    ("weak", "strong", "apart"),
    [
        (1e-1, 2e-3, 10),
        (1e-2, 1e-6, 1000),
    ],
)
def test_a_stronger_penalty_does_not_shrink_the_logits(folder, windows, tmp_path, weak, strong, apart):
    x, labels, sources = of_fit(windows, feature_table(folder, tmp_path, planted=0.7))
    flat = x[:, [6], 0].reshape(len(x), -1)
    spread, bare = [], []
    for strength in (weak, strong):
        head = probe.fit_head(windows, tmp_path, probe.HeadFit(blocks=(7,), strength=strength))
        with torch.no_grad():
            spread.append(head(tokens_of(x, (7,)))[0].std().item())
        bare.append(probe.Probe(strength).fit(flat, labels, sources).score(flat).std())
    assert bare[0] > apart * bare[1]
    assert 0.5 * spread[1] < spread[0] < 2 * spread[1]


def test_a_heads_map_comes_from_the_patches_and_its_score_does_not(folder, windows, tmp_path):
    x, labels, _ = of_fit(windows, feature_table(folder, tmp_path, planted=0.7, kinds=(1,)))
    head = probe.fit_head(windows, tmp_path, probe.HeadFit(blocks=(7,), strength=1e-3))
    plain = torch.zeros(1, 5, 4)  # a class token and four patches
    odd = plain.clone()
    odd[0, 3, 1] = 3.0  # patches of fakes lean that way
    with torch.no_grad():
        (logit, before), (after, patches) = head({7: plain}), head({7: odd})
        class_only = head(tokens_of(x, (7,)))[0].numpy()
    assert torch.equal(after, logit)
    assert before.std() < 1e-5
    assert int(patches[0].argmax()) == 2
    assert patches.mean().item() == pytest.approx(logit.item(), abs=1e-5)
    assert roc_auc_score(labels, class_only) < 0.95  # its class tokens are noise


def test_a_head_is_fitted_to_native_rows_of_fit_alone(folder, tmp_path):
    windows = Windows(folder)
    x = feature_table(folder, tmp_path, planted=0.7)
    fit = probe.HeadFit(blocks=(7, 8), strength=1e-3)
    before = probe.fit_head(windows, tmp_path, fit).state_dict()
    _, index, condition = probe.read_features(tmp_path, "tower")
    others = np.array([windows.rows[i]["split"] != "fit" for i in index])
    assert others[condition == "jpeg90"].all()
    x[others] = 99
    np.save(tmp_path / "tower.npy", x)
    after = probe.fit_head(windows, tmp_path, fit).state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    x[~others] *= 2
    np.save(tmp_path / "tower.npy", x)
    assert not torch.equal(probe.fit_head(windows, tmp_path, fit).std, before["std"])


def test_heads_are_written_as_a_run_starts_from_them(folder, windows, tmp_path):
    feature_table(folder, tmp_path, planted=2)
    feature_table(folder, tmp_path, planted=2, blocks=6, informed=6, name="trunk6")
    heads = {
        "deep": probe.HeadFit(blocks=(7, 8), strength=1e-3),
        "early": probe.HeadFit(blocks=(6,), strength=1e-3, features="trunk6"),
    }
    out = probe.fit_heads(windows, tmp_path, heads, tmp_path / "run.safetensors")
    assert out == tmp_path / "run.safetensors"
    run = Run(Recipe(rank=0, deep=(7, 8), early=(6,)), 4)
    run.load_state_dict(load_file(out))  # strictly: nothing missing, nothing besides
    for name, fit in heads.items():
        want = probe.fit_head(windows, tmp_path, fit).state_dict()
        assert all(torch.equal(getattr(run, name).state_dict()[k], v) for k, v in want.items())
    assert not torch.equal(
        run.early.mean, probe.fit_head(windows, tmp_path, attrs.evolve(heads["early"], features="tower")).mean
    )


# -- the command line ---------------------------------------------------------------------------------------------


def test_every_command_on_the_tiny_tower(folder, make_tower, tmp_path):
    data = tmp_path / "prepared"
    shutil.copytree(folder, data)
    tower = tmp_path / "tower.safetensors"
    save_file({k: v.half() for k, v in make_tower().items()}, tower)
    recipe = json.dumps(attrs.asdict(attrs.evolve(TINY, steps=2)))
    weights = tmp_path / "weights"
    weights.mkdir()

    def call(*words):
        done = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    place = ["--folder", data, "--tower", tower]
    grad = torch.is_grad_enabled()
    try:
        call("features", *place)
        call("train", *place, "--out", tmp_path / "run", "--recipe", recipe)
        start, run = (load_file(tmp_path / "run" / f"{n}.safetensors") for n in ("start", "run"))
        assert start.keys() == {k for k in run if not k.startswith("lora.")}
        assert torch.equal(run["deep.mean"], start["deep.mean"])  # it did start there
        call("finetune", *place, "--run", tmp_path / "run", "--out", tmp_path / "early", "--steps", 2)
        found = json.loads(call("score", *place, "--run", tmp_path / "early", "--head", "early", "--quantised"))
        assert set(found) == {"auc native", "auc jpeg90", "mean logit"}
        out = call(
            "export", "--run", tmp_path / "run", "--early", tmp_path / "early", "--tower", tower, "--out", weights,
            "--version", "0.0.1",
        )  # fmt: skip
    finally:
        torch.set_grad_enabled(grad)
    assert [Path(line.split(": ")[0]).name for line in out.splitlines()] == [
        "pixel-tower.safetensors",
        "pixel-bundled.safetensors",
    ]
    assert all(line.endswith(" MB") for line in out.splitlines())
    assert load_adapter(weights / "pixel-tower.safetensors").head.blocks == TINY.deep
    assert isinstance(load_bundled(weights / "pixel-bundled.safetensors"), nn.Module)
    assert not (tmp_path / "tellsign.json").exists()  # nobody's declaration lay there


@pytest.fixture
def called():
    grad = torch.is_grad_enabled()

    def call(*words, code=0):
        done = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.stdout

    yield call
    torch.set_grad_enabled(grad)


def test_what_ships_is_fitted_to_frozen_features(called, folder, make_tower, tmp_path):
    """features, fit, score and export: heads on the tower as it is, without a step of training."""
    data, run, weights = tmp_path / "prepared", tmp_path / "run", tmp_path / "plugin" / "weights"
    shutil.copytree(folder, data)
    tower = tmp_path / "tower.safetensors"
    save_file({k: v.half() for k, v in make_tower().items()}, tower)
    place = ["--folder", data, "--tower", tower]
    for name in ("residuals", "tower", "trunk2"):
        called("features", *place, "--only", name)
    assert sorted(p.name for p in data.glob("*.npy") if "pairs" not in p.name and p.name != "windows.npy") == [
        "residuals.npy",
        "tower.npy",
        "trunk2.npy",
    ]
    assert np.load(data / "tower.npy").shape[1:] == (3, 2, 64)
    assert np.load(data / "trunk2.npy").shape[1:] == (2, 2, 64)  # as deep as the trunk
    out = called(
        "fit", "--folder", data, "--out", run, "--deep", "2,3", "--deep-strength", 1e-3, "--early", "2",
        "--early-strength", 1e-2,
    )  # fmt: skip
    assert out.strip() == str(run / "run.safetensors")
    told = json.loads((run / "recipe.json").read_text())
    assert told["heads"] == {
        "deep": {
            "blocks": [2, 3],
            "strength": 1e-3,
            "features": "tower",
            "balance": {"power": 0.0, "by_content": True, "art": 0.0, "offset": 4.0},
        },
        "early": {
            "blocks": [2],
            "strength": 1e-2,
            "features": "trunk2",
            "balance": {"power": 0.5, "by_content": False, "art": 0.0, "offset": 0.0},
        },
    }
    assert Recipe.read(run) == Recipe(steps=0, rank=0, pairs=0, deep=(2, 3), early=(2,))
    made = load_file(run / "run.safetensors")
    want = probe.fit_head(Windows(data), data, probe.HeadFit(blocks=(2,), strength=1e-2, features="trunk2"))
    assert torch.equal(made["early.weight"], want.weight)
    found = json.loads(called("score", *place, "--run", run, "--head", "early", "--quantised"))
    assert found["auc native"] > 0.7

    weights.parent.mkdir()
    declared = Path(prepare.__file__).parents[1] / "tellsign.json"
    shutil.copy(declared, weights.parent / "tellsign.json")
    called("export", "--run", run, "--tower", tower, "--out", weights, "--version", "0.0.1")
    adapter = load_adapter(weights / "pixel-tower.safetensors")
    model = load_bundled(weights / "pixel-bundled.safetensors")
    assert adapter.lora is None
    assert model.lora is None
    # The shipped model's logit is the fitted head's on the features that it was fitted to, up to half precision.
    x, index, _ = probe.read_features(data, "trunk2")
    crops = np.stack([probe.scored_crop(Windows(data), int(i)) for i in index[:6]])
    with torch.no_grad():
        got = model.eval()(torch.from_numpy(crops))[0]
        head = want({2: torch.from_numpy(x[:6, 1].astype(np.float32))})[0]
    torch.testing.assert_close(got, head, atol=0.3, rtol=0.1)
    after = loads((weights.parent / "tellsign.json").read_text(), Declaration)
    before = loads(declared.read_text(), Declaration)
    assert attrs.evolve(after, weights=()) == attrs.evolve(before, weights=())
    assert [w.file for w in after.weights] == [
        "weights/pixel-tower.safetensors",
        "weights/pixel-bundled.safetensors",
        "weights/pixel-residual.safetensors",
    ]
    # The probe's logits are the calibrated ones of the probe that was fitted.
    shipped = load_residual(weights / "pixel-residual.safetensors")
    fitted = probe.fit_residual(Windows(data), data, strength=1e-2)
    with torch.no_grad():
        torch.testing.assert_close(shipped(torch.from_numpy(crops)), fitted(torch.from_numpy(crops)))
    for w in after.weights:
        content = (weights.parent / w.file).read_bytes()
        assert (w.size, w.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def residual_table(data, x):
    """Features of the residuals' shape beside those of the trunk: noise with the class in its first column."""
    shutil.copy(data / "trunk6.csv", data / "residuals.csv")
    made = np.random.default_rng(0).normal(0, 1, (len(x), 500)).astype(np.float32)
    made[:, 0] = x.reshape(len(x), -1)[:, 0]
    np.save(data / "residuals.npy", made)


def test_the_residual_probe_is_calibrated_on_held_out_families(folder, windows, tmp_path):
    shutil.copytree(folder, tmp_path / "prepared")
    data = tmp_path / "prepared"
    x = feature_table(data, data, planted=2, blocks=6, informed=6, name="trunk6")
    residual_table(data, x)
    table, index, condition = probe.read_features(data, "residuals")
    rows = [windows.rows[i] for i in index]
    fit = np.flatnonzero(np.array([r["split"] == "fit" for r in rows]) & (condition == "native"))
    labels = np.array([int(rows[i]["label"]) for i in fit])
    sources = [rows[i]["source"] for i in fit]
    z = np.asarray(table[fit], np.float32)
    for strength in (1e-2, 1e-1):
        made = probe.fit_residual(windows, data, strength=strength)
        with torch.no_grad():
            got = ((torch.from_numpy(z) - made.mean) / made.std @ made.weight + made.bias).numpy()
        plain = probe.Probe(strength).fit(z, labels, sources).score(z)
        held = probe.held_out_scores(z, labels, sources, strength=strength, seed=0)
        # One line maps the probe's scores to the calibrated ones: the line that fits the held-out scores best.
        slope, offset = np.polyfit(plain, got, 1)
        np.testing.assert_allclose(slope * plain + offset, got, atol=1e-3)
        weights = probe.source_weights(labels, sources)
        chance = 1 / (1 + np.exp(-(slope * held + offset)))
        assert abs((weights * (labels - chance)).mean()) < 1e-3
        assert abs((weights * (labels - chance) * held).mean()) < 1e-3


def test_without_options_fit_makes_the_heads_that_ship(called, folder, windows, tmp_path):
    data, run = tmp_path / "prepared", tmp_path / "run"
    shutil.copytree(folder, data)
    feature_table(data, data, planted=2)
    x = feature_table(data, data, planted=2, blocks=6, informed=6, name="trunk6")
    residual_table(data, x)
    called("fit", "--folder", data, "--out", run)
    heads = {
        "deep": probe.HeadFit(
            blocks=(7, 8, 12), strength=3e-2, balance=Balance(power=0.0, by_content=True, offset=4.0)
        ),
        "early": probe.HeadFit(blocks=(6,), strength=1e-3, features="trunk6"),
    }
    told = json.loads((run / "recipe.json").read_text())["heads"]
    assert told == json.loads(json.dumps({n: attrs.asdict(h) for n, h in heads.items()}))
    made, want = load_file(run / "run.safetensors"), load_file(probe.fit_heads(windows, data, heads, tmp_path / "w"))
    assert made.keys() == want.keys()
    assert all(torch.equal(made[k], v) for k, v in want.items())
    # The files in the package read those blocks.
    shipped = Path(prepare.__file__).parents[1] / "weights"
    assert load_adapter(shipped / "pixel-tower.safetensors").head.blocks == heads["deep"].blocks
    assert load_bundled(shipped / "pixel-bundled.safetensors").head.blocks == heads["early"].blocks


def test_a_trunk_that_was_not_extracted_cannot_be_fitted_to(called, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "prepared")
    with pytest.raises(FileNotFoundError, match="residuals"):
        called("fit", "--folder", tmp_path / "prepared", "--out", tmp_path / "run")
    called("features", "--folder", tmp_path / "prepared", "--tower", "none", "--only", "residuals")
    with pytest.raises(FileNotFoundError, match="tower"):
        called("fit", "--folder", tmp_path / "prepared", "--out", tmp_path / "run")
    assert not (tmp_path / "run" / "run.safetensors").exists()


# -- scores for the fusion's balance --------------------------------------------------------------------------------


def test_cross_fitted_scores_are_those_of_heads_without_the_source(folder, windows, tmp_path):
    x = feature_table(folder, tmp_path, planted=1)
    feature_table(folder, tmp_path, planted=0, name="trunk6")
    rng = np.random.default_rng(3)
    np.save(tmp_path / "residuals.npy", rng.normal(size=(len(x), 5)).astype(np.float32))
    (tmp_path / "residuals.csv").write_text((tmp_path / "tower.csv").read_text())
    heads = {
        "tower": probe.HeadFit(blocks=(7,), strength=0.1),
        "bundled": probe.HeadFit(blocks=(6,), strength=0.1, features="trunk6"),
    }
    lines = crossfit.cross_fitted(windows, tmp_path, heads, residual=0.1, seeds=(0,))
    fit = [i for i, r in enumerate(windows.rows) if r["split"] == "fit"]
    assert set(lines) == {(str(Path(windows.rows[i]["path"]).resolve()), 0) for i in fit}
    assert all(set(line) == {"pixel.tower", "pixel.bundled", "pixel.residual"} for line in lines.values())
    labels = np.array([int(windows.rows[i]["label"]) for i in fit])
    sources = [windows.rows[i]["source"] for i in fit]
    unseen = probe.held_out_scores(x[fit][:, 6, 0].astype(np.float32), labels, sources, strength=0.1, seed=0)
    by_hand: dict[str, list[float]] = {}
    for i, score in zip(fit, (unseen / unseen.std()).tolist(), strict=True):
        by_hand.setdefault(str(Path(windows.rows[i]["path"]).resolve()), []).append(score)
    for (path, _), line in lines.items():
        assert line["pixel.tower"] == pytest.approx(np.mean(by_hand[path]), rel=1e-6)
