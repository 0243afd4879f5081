"""Attention alignment as an option of the plugins' trainings: it runs from the command, and it moves attention."""

import csv
import json

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tellsign.alignment import attention_map, attention_mass, patch_shares, recorded
from tellsign.alignment.windows import MarkedWindows
from tellsign.errors import SettingError
from tellsign.towers import ClipTower


@pytest.fixture(scope="module")
def forged(toys, tmp_path_factory):
    return toys.draw_forged(tmp_path_factory.mktemp("marked") / "forged", count=16)


# -- pixel --------------------------------------------------------------------------------------------------------

PIXEL = {
    "steps": 3, "reals": 2, "fakes": 2, "pairs": 0, "deep": (2, 3), "early": (1, 2), "rank": 2, "alpha": 2.0,
    "lora_rate": 0.02, "head_rate": 0.01, "warmup": 1, "average": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    from tellsign.data.normalise import WINDOW
    from tellsign.plugins.pixel.training import prepare

    out = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    store = rng.integers(0, 256, (8, WINDOW, WINDOW, 3), dtype=np.uint8)
    np.save(out / "windows.npy", store)
    lines = [",".join(prepare.FIELDS)]
    lines += [f"{i},{WINDOW},{i % 2},s{i % 2},photo,s{i % 2}/{i},fit,{i}.png,{i}" for i in range(8)]
    (out / "windows.csv").write_text("\n".join(lines) + "\n")
    return out


@pytest.fixture
def tower(make_tower):
    return ClipTower.from_state_dict(make_tower())


def test_the_pixel_training_aligns_its_deep_head(windows, forged, make_tower, tmp_path):
    from tellsign.plugins.pixel.training.__main__ import app

    file = tmp_path / "tower.safetensors"
    save_file({k: v.half() for k, v in make_tower().items()}, file)
    out = tmp_path / "run"
    out.mkdir()
    # The heads' start, which the command would otherwise fit to features.
    from tellsign.plugins.pixel.training.train import Recipe, Run

    run = Run(Recipe(**PIXEL), 64)
    save_file(
        {k: v.contiguous() for k, v in run.state_dict().items() if not k.startswith("lora.")}, out / "start.safetensors"
    )
    recipe = json.dumps(PIXEL | {"align": 5.0, "align_pictures": 4})
    words = ["train", "--folder", windows, "--tower", file, "--out", out, "--recipe", recipe, "--masks", forged]
    done = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    lines = list(csv.DictReader((out / "curve.csv").open()))
    assert len(lines) == 3
    assert all(float(line["align"]) > 0 and float(line["marked"]) > 0 for line in lines)


def test_pixel_attention_moves_to_the_marks(windows, forged, tower, tmp_path):
    from tellsign.plugins.pixel.training.train import CROP, Recipe, Run, forward, train

    marked = MarkedWindows.read([forged], CROP).draw(8, np.random.default_rng(5))
    target = patch_shares(torch.from_numpy(marked.masks), (CROP // tower.patch,) * 2)

    def mass(recipe, state):
        run = Run(recipe, tower.width)
        run.load_state_dict(state)
        with recorded(tower) as attentions:
            logit, _ = forward(tower, run, marked.pixels, only="deep")
        seen = attention_map(logit, attentions, together=True, create_graph=False)
        fake = torch.from_numpy(marked.labels) > 0
        return attention_mass(seen[fake], target[fake]).nanmean().item()

    recipe = Recipe(**PIXEL | {"steps": 12, "align": 50.0, "align_benign": 1.0, "align_pictures": 8})
    plain = attrs.evolve(recipe, align=0.0)
    with_it = load_file(train(recipe, folder=windows, out=tmp_path / "with", tower=tower, masks=[forged]))
    without = load_file(train(plain, folder=windows, out=tmp_path / "without", tower=tower))
    assert mass(recipe, with_it) > mass(plain, without) + 0.02


@pytest.mark.parametrize(("change", "words"), [({"rank": 0}, "rank"), ({}, "real pictures")])
def test_the_pixel_training_refuses_what_cannot_be_aligned(change, words, windows, tower, tmp_path):
    from tellsign.plugins.pixel.training.train import Recipe, train

    recipe = Recipe(**PIXEL | {"align": 1.0} | change)
    with pytest.raises(SettingError, match=words):
        train(recipe, folder=windows, out=tmp_path, tower=tower)


# -- semantic -----------------------------------------------------------------------------------------------------


class Linear:
    """A probe that reads nothing yet."""

    def __init__(self, width):
        rng = np.random.default_rng(0)
        self.scalers = [type("Scaler", (), {"mean_": np.zeros(width), "scale_": np.ones(width)})()]
        self.models = [type("Model", (), {"coef_": rng.normal(0, 0.1, (1, width)), "intercept_": [0.0]})()]


def test_the_semantic_training_aligns_its_updates(forged, tower):
    from tellsign.plugins.semantic.training import lora

    tower.requires_grad_(False)
    side = 4 * tower.patch
    marked = MarkedWindows.read([forged], side, whole=True)
    drawn = marked.draw(8, np.random.default_rng(5))
    target = patch_shares(torch.from_numpy(drawn.masks), (4, 4))
    tokens = np.random.default_rng(1).normal(size=(8, 17, tower.width)).astype(np.float16)
    label, weight = np.arange(8) % 2, np.ones(8)

    def mass(align):
        recipe = lora.Recipe(frozen=1, last=3, rank=4, batch=4, epochs=6, rate=5e-3, align=align, align_benign=0.2)
        torch.manual_seed(0)
        model = lora.Updated(recipe, tower, Linear(tower.width))
        losses = lora.train(model, tower, tokens, label, weight, seed=0, marked=marked)
        assert len(losses) == 12
        x = tower.embed(lora.clip_input(torch.from_numpy(drawn.pixels)))
        x = lora._through(tower, x, 1, 1, None)
        with recorded(tower) as attentions:
            logit = model(tower, x)
        seen = attention_map(logit, attentions, together=True, create_graph=False)
        fake = torch.from_numpy(drawn.labels) > 0
        return attention_mass(seen[fake], target[fake]).nanmean().item()

    assert mass(20.0) > mass(0.0) + 0.02
    recipe = lora.Recipe(frozen=1, last=2, align=1.0)
    with pytest.raises(SettingError, match="masks"):
        lora.train(lora.Updated(recipe, tower, Linear(tower.width)), tower, tokens, label, weight, seed=0)


def test_a_semantic_recipe_tells_of_alignment_only_where_there_is_some():
    from tellsign.plugins.semantic.training import lora

    assert "align" not in lora.Recipe().told()
    assert json.loads(lora.Recipe(align=2).told())["align_benign"] == 0.4


# -- segmentation -------------------------------------------------------------------------------------------------


def segmentation(**changes):
    from tellsign.plugins.segmentation.model import GammaConfig
    from tellsign.plugins.segmentation.training.recipe import Recipe

    model = GammaConfig(encoder="mit-b0", width=16, heads=2, residual=0, energy=False, contrast=False)
    settings = {"side": 64, "batch": 8, "epochs": 2, "share": 0.5, "validation": 0, "patience": 0, "warmup": 1}
    return Recipe(model=model, **settings | changes)


def test_the_segmentation_training_aligns_its_class(toys, forged, tmp_path, monkeypatch):
    from tellsign.plugins.segmentation.training import train as training

    model = toys.tiny_model()
    monkeypatch.setattr(training, "GammaModel", lambda config: toys.tiny_model())
    recipe = segmentation(align=5.0)
    training.train(recipe, [forged], tmp_path / "run", model=model)
    lines = list(csv.DictReader((tmp_path / "run" / "curve.csv").open()))
    assert all(float(line["align"]) > 0 for line in lines)
    assert all(a.record is None for a in model.attention.reverse)  # as it was
    plain = toys.tiny_model()
    training.train(attrs.evolve(recipe, align=0.0), [forged], tmp_path / "plain", model=plain)
    assert not next(csv.DictReader((tmp_path / "plain" / "curve.csv").open()))["align"]
    name = "attention.reverse.0.query.weight"
    assert not torch.equal(dict(model.named_parameters())[name], dict(plain.named_parameters())[name])


def test_a_segmentation_recipe_says_what_alignment_needs():
    from tellsign.plugins.segmentation.model import GammaConfig
    from tellsign.plugins.segmentation.training.recipe import Recipe

    assert Recipe.parse('{"align": 2, "align_benign": 0.6}').align_benign == 0.6
    with pytest.raises(SettingError, match="multiple of 32"):
        segmentation(align=1.0, side=80)
    with pytest.raises(SettingError, match="reverse"):
        Recipe(model=GammaConfig(width=64, attention="standard"), align=1.0)
