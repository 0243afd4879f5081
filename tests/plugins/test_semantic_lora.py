"""Low-rank updates beside the linear probe, on a tiny tower and coloured squares."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tellsign.plugins.semantic.training import lora, probe
from tellsign.plugins.semantic.training.features import Squares, extract
from tellsign.plugins.semantic.training.measure import auc
from tellsign.towers import ClipTower, LoraSet

RECIPE = lora.Recipe(frozen=1, last=2, rank=4, pictures=40, others=20, batch=8, epochs=3, rate=1e-2, strength=1e-2)


@pytest.fixture(scope="module")
def tower(make_tower):
    torch.manual_seed(0)
    made = ClipTower.from_state_dict(make_tower()).eval()
    made.requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tower):
    """Twelve sources of 10 squares: a made one is flatter."""
    out, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    rows = [
        (split, label, source, i)
        for split, sources in (("fit", range(4)), ("fuse", range(4, 6)))
        for label in (0, 1)
        for source in sources
        for i in range(10)
    ]
    side = tower.patch * 2
    pixels = np.zeros((len(rows), 3, side, side, 3), np.uint8)
    for n, (_, label, _, i) in enumerate(rows):
        base = np.array([[200, 60, 60], [60, 200, 60]][i % 2], float)
        values = np.broadcast_to(base, (side, side, 3)) + rng.normal(0, 6, (side, side, 3))
        values[:, : side // 2] -= (10 if label else 50) * rng.uniform(0.5, 1.5)
        pixels[n] = np.clip(values, 0, 255).astype(np.uint8)
    np.save(out / "squares.npy", pixels)
    lines = ["index,label,source,content,group,split,path"]
    lines += [f"{n},{y},{y}{s},photo,{n},{split},x" for n, (split, y, s, _) in enumerate(rows)]
    (out / "squares.csv").write_text("\n".join(lines) + "\n")
    extract(Squares.read(out), "overview", tower, out, splits=("fit", "fuse"), batch=64)
    return out


@pytest.fixture(scope="module")
def squares(folder):
    return Squares.read(folder)


@pytest.fixture(scope="module")
def data(folder, tower):
    made = probe.Data(folder, tower)
    made.topic = made.fine = np.array([int(g) % 2 for g in made.group])
    near = np.eye(2)[made.topic] + 0.01 * np.random.default_rng(0).normal(size=(len(made.topic), 2))
    made.embedding["overview"] = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    return made


def test_pictures_are_drawn_of_some_families_and_scored_on_others(data):
    chosen = lora.choose(data, RECIPE)
    assert len(chosen.train) == RECIPE.pictures
    assert len(chosen.families) <= RECIPE.others
    assert not set(data.source[chosen.train]) & set(data.source[chosen.families])
    assert set(data.split[chosen.train]) == set(data.split[chosen.families]) == {"fit"}
    assert set(data.split[chosen.fuse]) == {"fuse"}
    assert len(set(chosen.all)) == len(chosen.all)


def test_kept_tokens_are_the_towers_and_an_interrupted_run_goes_on(squares, tower, tmp_path):
    rows = np.array([3, 50, 7])
    got = lora.hidden(squares, rows, tower, 1, tmp_path / "h.npy", batch=2)
    from tellsign.towers import clip_input

    with torch.inference_mode():
        want = tower.tokens(clip_input(torch.from_numpy(np.asarray(squares.pixels[rows, 0]))), (1,))[1]
    np.testing.assert_allclose(got, want, atol=2e-2, rtol=2e-2)
    store = np.lib.format.open_memmap(tmp_path / "h.npy", "r+")
    store[1] = 0
    store.flush()
    again = lora.hidden(squares, rows, tower, 1, tmp_path / "h.npy")
    np.testing.assert_allclose(again, want, atol=2e-2, rtol=2e-2)
    with pytest.raises(ValueError, match="remove it first"):
        lora.hidden(squares, rows[:2], tower, 1, tmp_path / "h.npy")


def test_updates_begin_as_the_probe_and_learn(squares, data, tower, tmp_path):
    lines = lora.compare(squares, data, tower, RECIPE, tmp_path / "run", seeds=(0, 1))
    linear, before, *seeds, mean, sd = lines
    assert before["fuse"] == pytest.approx(linear["fuse"], abs=0.02)
    assert before["fit"] == pytest.approx(linear["fit"], abs=0.02)
    assert len(seeds) == 2
    assert mean["fuse"] == pytest.approx(np.mean([s["fuse"] for s in seeds]))
    assert sd["fuse"] == pytest.approx(np.std([s["fuse"] for s in seeds]))
    with np.load(tmp_path / "run" / "scores-0.npz") as kept:
        assert kept["losses"][-5:].mean() < kept["losses"][:5].mean()
        label = data.label[lora.choose(data, RECIPE).all[RECIPE.pictures :]]
        assert auc(label, kept["end"]) >= auc(label, kept["start"])
        assert np.abs(kept["end"] - kept["start"]).max() > 0.1
    # What is finished is read, and nothing is trained again.
    tower_of_nobody = None
    again = lora.compare(squares, data, _Refuses(tower, tower_of_nobody), RECIPE, tmp_path / "run", seeds=(0, 1))
    assert json.dumps(again) == json.dumps(lines)
    with pytest.raises(ValueError, match="another recipe"):
        lora.compare(squares, data, tower, lora.Recipe(frozen=1, last=2), tmp_path / "run")


class _Refuses:
    """A tower whose shape may be asked and whose blocks may not."""

    def __init__(self, tower, transformer):
        self.patch, self.width, self.transformer = tower.patch, tower.width, transformer


def test_updates_are_those_of_peft():
    peft = pytest.importorskip("peft", reason="peft comes with the extra train-vlm")
    torch.manual_seed(0)
    linear = torch.nn.Sequential(torch.nn.Linear(6, 5))
    ours = LoraSet({"m": (6, 5)}, rank=3, alpha=12)
    x = torch.randn(4, 6)
    wrapped = peft.get_peft_model(
        linear, peft.LoraConfig(r=3, lora_alpha=12, target_modules=["0"], lora_dropout=0.0, bias="none")
    )
    layer = wrapped.base_model.model[0]
    with torch.no_grad():
        assert torch.equal(wrapped(x), layer.base_layer(x))
        assert torch.equal(ours.add("m", x, layer.base_layer(x)), layer.base_layer(x))
        ours.up["m"].normal_()
        layer.lora_A["default"].weight.copy_(ours.down["m"])
        layer.lora_B["default"].weight.copy_(ours.up["m"])
        torch.testing.assert_close(ours.add("m", x, layer.base_layer(x)), wrapped(x))
        merged = wrapped.merge_and_unload()[0]
        torch.testing.assert_close(
            F.linear(x, merged.weight, merged.bias),
            ours.add("m", x, F.linear(x, layer.base_layer.weight - ours.delta("m"), merged.bias)),
        )
