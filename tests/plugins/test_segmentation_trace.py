"""The path on residuals alone: what it sees, how it joins the network, and its training."""

import csv
import json

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from tellsign.errors import SettingError
from tellsign.plugins.segmentation.model import MASKS, GammaConfig
from tellsign.plugins.segmentation.trace import TraceNet, Traces
from tellsign.plugins.segmentation.training import __main__ as commands
from tellsign.plugins.segmentation.training import train as training
from tellsign.plugins.segmentation.training.data import read_forged
from tellsign.plugins.segmentation.training.recipe import Recipe
from tellsign.plugins.segmentation.training.trace import load_traces, pretrain
from tellsign.plugins.segmentation.training.unseen import leave_out

RECIPE = Recipe(
    model=GammaConfig(encoder="mit-b0", width=16, heads=2, residual=0, trace=12),
    side=64,
    batch=4,
    share=0.5,
    validation=0.3,
    warmup=1,
    rate=1e-2,
    average=0.5,
    native=1.0,
    lossless=1.0,
    strength=0.0,
)


def pictures(toys, count=2, side=96, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([toys.noisy(rng, side) for _ in range(count)]))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (61, 90)])
def test_the_map_has_a_cell_for_each_four_pixels(height, width):
    out = TraceNet(12)(torch.zeros(1, height, width, 3, dtype=torch.uint8))
    assert out.shape == (1, 12, -(-height // 4), -(-width // 4))


def test_it_hears_no_brightness_and_does_hear_stripes(toys):
    torch.manual_seed(0)
    net = TraceNet(12).eval()
    grainy = pictures(toys, 1).int().clamp(40, 200)
    stripes = 20 * (torch.arange(96)[None, :, None, None] // 4 % 2)
    inner = (..., slice(8, -8), slice(8, -8))
    with torch.inference_mode():
        told, brighter = net(grainy.byte()), net((grainy + 30).byte())
    assert torch.allclose(told[inner], brighter[inner], atol=1e-5)
    assert not torch.allclose(told[inner], net((grainy + stripes).byte())[inner])


def test_each_cell_says_the_higher_of_both_paths_and_the_class_is_the_encoders(toys):
    model = toys.tiny_model(trace=12)
    x = pictures(toys)
    with torch.inference_mode():
        both, beside = model(x, coarse=True), model.traces(x)
        traces, model.traces = model.traces, None
        alone = model(x, coarse=True)
    assert isinstance(traces, Traces)
    for name in MASKS:
        assert torch.equal(getattr(both, name), torch.maximum(getattr(alone, name), beside[name][1]))
        assert not torch.equal(getattr(both, name), getattr(alone, name))
    assert torch.equal(both.logit, alone.logit)


def test_a_negative_width_is_refused():
    with pytest.raises(SettingError, match="trace"):
        GammaConfig(trace=-1)


@pytest.fixture(scope="module")
def forged(toys, tmp_path_factory):
    return toys.draw_forged(tmp_path_factory.mktemp("trace") / "forged", count=16)


def test_it_learns_blurred_regions_and_goes_into_a_network(toys, forged, tmp_path, monkeypatch):
    monkeypatch.setattr("tellsign.plugins.segmentation.training.trace.EVERY", 10)
    weights = pretrain(RECIPE, [forged], tmp_path / "run", 30)
    with (tmp_path / "run" / "curve.csv").open() as handle:
        curve = [float(row["ai"]) for row in csv.DictReader(handle)]
    assert len(curve) == 3
    assert curve[-1] < 0.8 * curve[0]
    again = pretrain(RECIPE, [forged], tmp_path / "again", 1, weights)
    assert load_file(again).keys() == load_file(weights).keys()
    net = toys.tiny_model(trace=12)
    short = Recipe(
        model=net.config, side=64, batch=4, epochs=1, share=0.2, validation=0.0, patience=0, rate=1e-9, average=0.0
    )
    done = training.train(short, [forged], tmp_path / "whole", model=net, traces=weights)
    took, gave = load_file(done), load_file(weights)
    name = "trace.steps.0.0.weight"
    assert torch.allclose(took[f"traces.{name}"], gave[name], atol=1e-5)


def test_traces_want_a_network_that_has_the_path(toys, forged, tmp_path):
    net = toys.tiny_model()
    recipe = Recipe(model=net.config, side=64, batch=4, epochs=1)
    with pytest.raises(SettingError, match=r"traces.*model\.trace"):
        training.train(recipe, [forged], tmp_path / "run", model=net, traces=tmp_path / "none.safetensors")


def test_a_kind_that_was_left_out_is_measured_at_a_cut_that_others_chose(forged, tmp_path):
    without = attrs.evolve(RECIPE, without=("blend",))
    weights = pretrain(without, [forged], tmp_path / "run", 2)
    rows = read_forged(forged)
    shift, told = leave_out(weights, rows, rows, ["native"])
    assert set(shift) == set(MASKS)
    assert {name for name in told["native"]["masks"] if name.startswith("manipulation")} == {
        "manipulation all",
        "manipulation blend/blur",
    }
    assert told["native"]["untouched"] == sum(r.kind == "untouched" for r in rows)
    asked = ["unseen", "--traces", weights, "--choosing", forged, "--folder", forged, "--conditions", "native"]
    done = CliRunner().invoke(commands.app, list(map(str, asked)))
    assert done.exit_code == 0, done.output
    assert f"shift: {json.dumps(shift)}" in done.output
    assert "| native | manipulation blend/blur |" in done.output
    with pytest.raises(SettingError, match="folder"):
        leave_out(weights, rows, [r for r in rows if r.kind != "blend"], ["native"])
    (tmp_path / "run" / "recipe.json").write_text(RECIPE.dump())
    with pytest.raises(SettingError, match="without"):
        leave_out(weights, rows, rows, ["native"])


def test_a_shift_moves_the_paths_masks(toys, forged, tmp_path):
    weights = pretrain(RECIPE, [forged], tmp_path / "run", 1)
    plain, shifted = load_traces(RECIPE, weights), load_traces(RECIPE, weights, {"ai": -1.5})
    x = pictures(toys)
    with torch.inference_mode():
        before, after = plain(x), shifted(x)
    assert torch.allclose(after.ai, before.ai - 1.5, atol=1e-5)
    assert torch.equal(after.manipulation, before.manipulation)
