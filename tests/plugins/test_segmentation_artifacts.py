"""Learning to see artifacts: the four modes run end to end on a tiny network and drawn forgeries."""

import csv
import json
import math

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from tellsign.artifacts import CATEGORIES
from tellsign.artifacts.rows import marked_pictures
from tellsign.errors import SettingError
from tellsign.plugins.segmentation.encoders import MitEncoder
from tellsign.plugins.segmentation.training.artifacts import __main__ as commands
from tellsign.plugins.segmentation.training.artifacts import train as training
from tellsign.plugins.segmentation.training.artifacts.crops import Batch, Crops, crop, hold_out
from tellsign.plugins.segmentation.training.artifacts.evaluate import evaluate
from tellsign.plugins.segmentation.training.artifacts.model import MAPS, ArtifactModel, ArtifactOutput, judged_by_maps
from tellsign.plugins.segmentation.training.artifacts.recipe import Recipe
from tellsign.plugins.segmentation.training.artifacts.train import losses, train
from tellsign.schemas import Category

TINY = Recipe(encoder="mit-b0", width=16, side=64, batch=4, steps=3, warmup=1, validation=0.3)


def tiny(seed=0):
    torch.manual_seed(seed)
    return ArtifactModel(MitEncoder((8, 16, 24, 32), (1, 1, 1, 1)), 16)


@pytest.fixture(scope="module")
def folder(toys, tmp_path_factory):
    return toys.draw_forged(tmp_path_factory.mktemp("toys") / "forged", count=16)


@pytest.fixture(scope="module")
def pictures(folder):
    return marked_pictures(folder)


def run(recipe, pictures, out, **changes):
    return train(recipe, pictures, out, model=tiny(), **changes)


# -- the network and its loss -------------------------------------------------------------------------------------


def test_eight_maps_and_a_class():
    model = tiny().eval()
    with torch.inference_mode():
        out = model(torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8))
    assert out.logit.shape == (2,)
    assert out.maps.shape == (2, MAPS, 64, 96)
    assert len(CATEGORIES) + 1 == MAPS == 8
    assert torch.equal(judged_by_maps(out.maps), out.maps[:, 7].flatten(1).max(dim=1).values)


def test_the_loss_by_hand():
    masks = np.zeros((2, MAPS, 2, 2), bool)
    masks[0, [1, 7], 0, 0] = True
    batch = Batch(np.zeros((2, 2, 2, 3), np.uint8), np.array([1, 0], np.float32), masks, np.array([1, 0], np.float32))
    out = ArtifactOutput(torch.tensor([2.0, 0.0]), torch.full((2, MAPS, 2, 2), -1.0))
    parts = losses(out, batch, attrs.evolve(TINY, maps=0.5))
    softplus = math.log1p(math.exp(-1))
    assert parts["cls"].item() == pytest.approx((math.log1p(math.exp(-2)) + math.log(2)) / 2)
    # Of the first picture alone: 30 of 32 values are off and 2 are on; the second's marks are not known.
    assert parts["maps"].item() == pytest.approx(0.5 * (30 * softplus + 2 * (1 + softplus)) / 32)


@pytest.mark.parametrize(
    ("mode", "parts"), [("judge", {"cls"}), ("pad", {"maps"}), ("transfer", {"cls"}), ("both", {"cls", "maps"})]
)
def test_each_mode_trains_its_parts(mode, parts):
    batch = Batch(
        np.zeros((1, 2, 2, 3), np.uint8),
        np.ones(1, np.float32),
        np.zeros((1, MAPS, 2, 2), bool),
        np.ones(1, np.float32),
    )
    out = ArtifactOutput(torch.zeros(1), torch.zeros(1, MAPS, 2, 2))
    assert set(losses(out, batch, attrs.evolve(TINY, mode=mode))) == parts


# -- crops --------------------------------------------------------------------------------------------------------


def test_batches_repeat_are_half_real_and_hold_the_union(pictures):
    crops = Crops(TINY, pictures)
    one, other = crops.batch(2), crops.batch(2)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one.pixels, crops.batch(3).pixels)
    assert one.pixels.shape == (4, 64, 64, 3)
    assert one.labels[::2].tolist() == [0, 0]
    assert np.array_equal(one.masks[:, 7], one.masks[:, :7].any(axis=1))
    texture = CATEGORIES.index(Category.TEXTURE)
    assert not np.delete(one.masks[:, :7], texture, axis=1).any()


def test_pictures_whose_artifacts_are_not_known_teach_the_class_alone(pictures):
    unknown = [p for p in pictures if not p.known]
    assert unknown
    assert {p.name for p in unknown} <= {p.name for p in Crops(TINY, pictures).by_label[1]}
    assert not [p for p in Crops(attrs.evolve(TINY, mode="pad"), pictures).by_label[1] if not p.known]


def test_a_mask_follows_its_picture_through_scale_crop_and_mirror():
    rng = np.random.default_rng(0)
    mask = np.zeros((1, 40, 60), bool)
    mask[0, 10:30, 20:50] = True
    pixels = np.repeat((mask[0] * 255).astype(np.uint8)[..., None], 3, axis=2)
    for side in (24, 90):
        for _ in range(8):
            square, cut = crop(pixels, mask, side, rng)
            assert square.shape == (side, side, 3)
            assert ((square[..., 0] > 127) == cut[0]).mean() > 0.97


def test_groups_are_held_out_whole(pictures):
    fit, held = hold_out(pictures, 0.3)
    assert fit
    assert held
    assert not {p.group for p in fit} & {p.group for p in held}


def test_one_class_or_no_marks_are_refused(pictures):
    with pytest.raises(SettingError, match="real and generated"):
        Crops(TINY, [p for p in pictures if p.label])
    with pytest.raises(SettingError, match="marked artifacts"):
        Crops(TINY, [p for p in pictures if not p.label or not p.known])


# -- runs ---------------------------------------------------------------------------------------------------------


def test_maps_first_and_then_the_class_from_them(pictures, tmp_path):
    pad = run(attrs.evolve(TINY, mode="pad"), pictures, tmp_path / "pad")
    start, made = tiny().state_dict(), load_file(pad)
    assert torch.equal(made["head.weight"], start["head.weight"])  # nobody taught the class
    assert not torch.equal(made["decoder.mask.weight"], start["decoder.mask.weight"])
    transfer = load_file(run(attrs.evolve(TINY, mode="transfer"), pictures, tmp_path / "transfer", start=pad))
    learned = {n for n, _ in tiny().named_parameters()}
    assert all(torch.equal(transfer[n], made[n]) for n in learned if n.startswith("decoder."))
    assert not torch.equal(transfer["head.weight"], made["head.weight"])
    assert any(not torch.equal(transfer[n], made[n]) for n in learned if n.startswith("encoder."))
    # It did start from the maps' encoder: three small steps do not lead far from it.
    name = next(n for n in sorted(learned) if n.startswith("encoder.") and n.endswith("weight"))
    assert (transfer[name] - made[name]).abs().max() < 4 * TINY.rate * TINY.steps


def test_an_interrupted_run_ends_in_the_same_weights(pictures, tmp_path, monkeypatch):
    whole = load_file(run(TINY, pictures, tmp_path / "whole"))
    monkeypatch.setattr(training, "EVERY", 2)
    original = Crops.batch

    def until_two(self, step):
        if step == 2:
            raise KeyboardInterrupt
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Crops, "batch", until_two)
        with pytest.raises(KeyboardInterrupt):
            run(TINY, pictures, tmp_path / "cut")
    resumed = load_file(train(TINY, pictures, tmp_path / "cut", model=tiny(seed=9)))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, msg=name)
    lines = list(csv.DictReader((tmp_path / "cut" / "curve.csv").open()))
    assert [line["step"] for line in lines] == ["0", "1", "2"]


def test_transfer_needs_a_start_and_the_others_take_none(pictures, tmp_path):
    for recipe, start in ((attrs.evolve(TINY, mode="transfer"), None), (TINY, tmp_path / "x.safetensors")):
        with pytest.raises(SettingError, match='mode "pad"'):
            run(recipe, pictures, tmp_path / "run", start=start)


@pytest.mark.parametrize("change", [{"mode": "some"}, {"steps": 0}, {"validation": 1}, {"qualities": (90, 70)}])
def test_settings_that_make_no_sense_are_refused(change):
    with pytest.raises(SettingError, match=next(iter(change))):
        attrs.evolve(TINY, **change)
    with pytest.raises(SettingError, match="smell"):
        Recipe.parse('{"smell": 1}')


class Perfect(torch.nn.Module):
    """Marks what is red, under texture and any."""

    def __init__(self):
        super().__init__()
        self.zero = torch.nn.Parameter(torch.zeros(1))

    def forward(self, pictures):
        red = (pictures[..., 0] > 200).float() * 20 - 10
        maps = torch.full((len(pictures), MAPS, *red.shape[1:]), -10.0)
        maps[:, CATEGORIES.index(Category.TEXTURE)] = maps[:, 7] = red
        return ArtifactOutput(red.amax(dim=(1, 2)) + self.zero, maps)


def test_a_perfect_network_is_called_perfect(pictures):
    def redden(picture):
        pixels, masks = picture.load()
        pixels = np.minimum(pixels, 150).copy()
        pixels[masks.any(axis=0)] = (255, 0, 0)
        return pixels, masks

    known = [p for p in pictures if p.known]
    red = [attrs.evolve(p, read=lambda p=p: redden(p)) for p in known]
    out = evaluate(TINY, Perfect(), red, draws=20)
    assert out["judgement"]["balanced_accuracy"] == out["judgement"]["f1"] == 1
    assert out["detection"]["any"]["iou"] == out["detection"]["low-level-texture"]["iou"] == 1
    assert math.isnan(out["detection"]["low-level-color"]["iou"])
    assert out["n"] == len(red)
    assert evaluate(attrs.evolve(TINY, mode="judge"), Perfect(), red, draws=0)["detection"] is None


def test_the_commands_end_to_end(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "build", lambda *a, **k: tiny())
    monkeypatch.setattr(commands.evaluating, "build", lambda *a, **k: tiny())

    def call(*words):
        done = CliRunner().invoke(commands.app, [str(w) for w in words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    settings = {"width": 16, "side": 64, "batch": 4, "steps": 2, "warmup": 1, "validation": 0.3}
    for mode, more in (
        ("judge", []),
        ("pad", []),
        ("both", []),
        ("transfer", ["--start", tmp_path / "pad/run.safetensors"]),
    ):
        out = tmp_path / mode
        call("train", "--data", folder, "--out", out, "--recipe", json.dumps(settings | {"mode": mode}), *more)
        told = json.loads(call("evaluate", "--data", folder, "--run", out, "--held-out", "--out", out / "told.json"))
        assert told == json.loads((out / "told.json").read_text())
        assert (told["detection"] is None) == (mode in ("judge", "transfer"))
        assert 0 < told["n"] < 16
