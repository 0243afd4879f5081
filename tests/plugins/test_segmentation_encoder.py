"""The encoder that ships: timm's network without timm, under either's names, and folded without a difference."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tellsign.plugins.segmentation.encoders import STRIDES, LiteEncoder, TimmEncoder, build_encoder, own_name
from tellsign.plugins.segmentation.folding import fold
from tellsign.plugins.segmentation.model import GammaConfig, GammaModel
from tellsign.plugins.segmentation.residual import add_residual_stem
from tellsign.plugins.segmentation.weights_files import GAMMA, load_gamma
from tellsign.weights.files import read_weights

SIZES = ((64, 64), (65, 65), (96, 131), (33, 70))


def pictures(count, height, width):
    rng = np.random.default_rng(height * width)
    return torch.from_numpy(rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def lived_in(model):
    """The model with batch norms that are not the identity, as after a training."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def theirs():
    pytest.importorskip("timm", reason="timm builds the reference")
    torch.manual_seed(0)
    return lived_in(TimmEncoder("tf_efficientnet_lite0"))


def same_maps(one, other):
    for size in SIZES:
        x = pictures(2, *size)
        wanted = [m.detach() for m in other(x)]
        plain = one(x)
        with torch.inference_mode():
            fast = one(x)
        for stride, want, a, b in zip(STRIDES, wanted, plain, fast, strict=True):
            assert want.shape[2:] == tuple(-(-n // stride) for n in size)
            torch.testing.assert_close(a, want, atol=1e-6, rtol=1e-6)
            # Sums in another order, through up to fifty layers.
            torch.testing.assert_close(b, want, atol=1e-5 * float(want.abs().max()), rtol=0)


def test_it_is_timms_network_and_takes_its_names(theirs):
    ours = LiteEncoder().eval()
    ours.load_state_dict(theirs.state_dict())
    assert ours.channels == theirs.channels
    assert torch.equal(ours.mean, theirs.mean)
    assert torch.equal(ours.std, theirs.std)
    same_maps(ours, theirs)


def test_with_a_residual_path_too(theirs):
    torch.manual_seed(2)
    there = build_encoder("timm:tf_efficientnet_lite0")
    assert isinstance(there, LiteEncoder)
    timms, ours = TimmEncoder("tf_efficientnet_lite0"), LiteEncoder()
    for one in (timms, ours):
        add_residual_stem(one, 4)
    nn.init.normal_(timms.get_submodule("net.conv_stem").last.weight, std=0.1)
    ours.load_state_dict(lived_in(timms).state_dict())
    same_maps(ours.eval(), timms)


def test_the_shipped_weights_say_in_timms_network_what_they_say_in_ours():
    pytest.importorskip("timm", reason="timm builds the reference")
    state, notes = read_weights(GAMMA)
    config = GammaConfig.from_json(notes["config"])
    encoder = TimmEncoder("tf_efficientnet_lite0")
    add_residual_stem(encoder, config.residual)
    timms = GammaModel(config, encoder)
    own = {own_name(k): v for k, v in state.items()}
    names = {own_name(k): k for k in timms.state_dict()}
    timms.load_state_dict({names[k]: v.float() if v.is_floating_point() else v for k, v in own.items()})
    timms.eval()
    ours = load_gamma()
    for size in ((129, 150), (128, 128)):
        with torch.inference_mode():
            outputs = zip(ours(pictures(1, *size)), timms(pictures(1, *size)), strict=True)
        for one, other in outputs:
            torch.testing.assert_close(one, other, atol=5e-5, rtol=1e-5)


def test_its_own_names_are_left_alone():
    names = list(LiteEncoder().state_dict())
    assert [own_name(name) for name in names] == names


def test_timms_names_become_all_of_ours(theirs):
    assert [own_name(name) for name in theirs.state_dict()] == list(LiteEncoder().state_dict())


def test_a_file_in_either_naming_is_read(theirs, tmp_path):
    """As version 0.2.0 was written, and as training writes it now."""
    from safetensors.torch import save_file

    torch.manual_seed(3)
    config = GammaConfig(encoder="timm:tf_efficientnet_lite0", width=16, heads=2, residual=0)
    model = lived_in(GammaModel(config))
    now = model.state_dict()
    ours = [f"encoder.{own_name(k)}" for k in theirs.state_dict()]
    old = {f"encoder.{k}" for k in theirs.state_dict()}
    before = dict(zip(ours, (f"encoder.{k}" for k in theirs.state_dict()), strict=True))
    said = []
    for state in (now, {before.get(k, k): v for k, v in now.items()}):
        save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "x", metadata={"config": config.to_json()})
        with torch.inference_mode():
            said.append(load_gamma(tmp_path / "x")(pictures(1, 65, 66)))
    assert old.isdisjoint(now)
    assert all(torch.equal(a, b) for a, b in zip(*said, strict=True))


@pytest.mark.parametrize("trace", [0, 9, 12])
def test_folding_changes_no_number(trace):
    config = GammaConfig(width=16, heads=2, residual=3, trace=trace)
    torch.manual_seed(4)
    model = lived_in(GammaModel(config))
    nn.init.normal_(model.encoder.net.stem.conv.last.weight, std=0.1)
    folded = GammaModel(config)
    folded.load_state_dict(model.state_dict())
    fold(folded.eval())
    left = [n for n, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert left
    assert all("decoders" in name for name in left)
    for size in SIZES:
        with torch.inference_mode():
            for one, other in zip(model(pictures(2, *size)), folded(pictures(2, *size)), strict=True):
                torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-4)
    before = folded.state_dict()
    fold(folded)
    assert all(torch.equal(v, before[k]) for k, v in folded.state_dict().items())


def test_it_learns_with_its_batch_norms_apart():
    torch.manual_seed(5)
    model = GammaModel(GammaConfig(width=16, heads=2, residual=3, trace=9)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    out = model(pictures(2, 64, 64))
    (out.ai.square().mean() + out.manipulation.square().mean() + out.logit.square().mean()).backward()
    optimiser.step()
    after = model.state_dict()
    for name in ("encoder.net.stem.norm.running_mean", "encoder.net.blocks.3.layers.0.conv.weight"):
        assert not torch.equal(before[name], after[name]), name


def test_a_plain_detect_imports_no_library_that_it_does_not_run(tmp_path):
    """With the models that ship; timm and torchvision alone would take longer than the rest of the imports."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (160, 160, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    code = (
        "import json, sys\nfrom tellsign import Detector\n"
        "with Detector(device='cpu', stability_probe=False) as detector:\n"
        f"    said = detector.detect({str(tmp_path / 'a.jpg')!r})\n"
        "print(json.dumps([sorted(said.versions), sorted({m.partition('.')[0] for m in sys.modules})]))"
    )
    home = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    # In a folder of its own: metadata that lie in the working folder would hide the installed ones.
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=home, timeout=120
    )
    assert done.returncode == 0, done.stderr
    versions, imported = json.loads(done.stdout)
    assert {"model:pixel", "model:segmentation", "model:semantic", "model:reasoning"} <= set(versions)
    assert "torch" in imported
    heavy = {"timm", "torchvision", "transformers", "open_clip", "xgboost", "sklearn", "pandas", "sympy"}
    assert heavy & set(imported) == set()
