"""DDA: tiny models in the published layout against a forward pass written here with plain functions."""

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from tellsign.errors import SettingError, WeightsError
from tellsign.fusion.features import feature_row
from tellsign.plugin import UnavailableError
from tellsign.plugins.pixel import dda
from tellsign.plugins.pixel.detector import PixelDetector
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Declaration, NotApplicable, Picture, ScoreEvidence
from tellsign.schemas.codec import loads
from tellsign.views import pixel_view

WIDTH, DEPTH, PATCH, GRID = 128, 2, 14, 5
B = "base_model.model."
LORA = {"attn.qkv": (1, 3), "attn.proj": (1, 1), "mlp.fc1": (1, 4), "mlp.fc2": (4, 1)}


def layout(width=WIDTH, depth=DEPTH, grid=GRID, rank=8):
    """Names and shapes as the authors' code has them."""
    shapes = {
        B + "cls_token": (1, 1, width),
        B + "pos_embed": (1, grid**2 + 1, width),
        B + "mask_token": (1, width),
        B + "patch_embed.proj.weight": (width, 3, PATCH, PATCH),
        B + "patch_embed.proj.bias": (width,),
    }
    for i in range(depth):
        block = f"{B}blocks.{i}."
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}{norm}.weight": (width,), f"{block}{norm}.bias": (width,)}
        shapes |= {f"{block}ls1.gamma": (width,), f"{block}ls2.gamma": (width,)}
        for name, (inputs, outputs) in LORA.items():
            shapes |= {
                f"{block}{name}.original_layer.weight": (outputs * width, inputs * width),
                f"{block}{name}.original_layer.bias": (outputs * width,),
                f"{block}{name}.lora.lora_A": (rank, inputs * width),
                f"{block}{name}.lora.lora_B": (outputs * width, rank),
            }
    shapes |= {B + "norm.weight": (width,), B + "norm.bias": (width,)}
    return shapes | {"base_model.fc.weight": (1, width), "base_model.fc.bias": (1,)}


def published(seed=0, **sizes):
    """Random numbers that keep every part of the model audible; maps with a gain near 1, as trained ones have."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * (0.3 if len(shape) == 1 or ".lora." in name else 0.1)
        + float("norm" in name and name.endswith("weight"))
        for name, shape in layout(**sizes).items()
    }


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def crops(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.integers(0, 256, (1, h, w, 3), dtype=np.uint8)) for h, w in sizes]


def cubic(x, a=-0.75):
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def resampling(old, new, scale):
    """Matrix (new, old) of cubic convolution with repeated edges."""
    out = np.zeros((new, old))
    for i in range(new):
        at = (i + 0.5) / scale - 0.5
        for k in range(math.floor(at) - 1, math.floor(at) + 3):
            out[i, min(max(k, 0), old - 1)] += cubic(at - k)
    return out


def interpolated(positions, rows, columns):
    old = math.isqrt(positions.shape[1] - 1)
    grid = positions[0, 1:].double().numpy().reshape(old, old, -1)
    up, along = (resampling(old, n, (n + 0.1) / old) for n in (rows, columns))
    grid = np.einsum("ry,cx,yxd->rcd", up, along, grid).reshape(rows * columns, -1)
    return torch.cat([positions[0, :1], torch.from_numpy(grid).float()])[None]


def normalised(pixels, side=336):
    """(1, H, W, 3) uint8 to (1, 3, side, side): the crop and the normalisation by torchvision."""
    from torchvision.transforms import v2

    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    steps = [v2.CenterCrop(side), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    return v2.Compose(steps)(pixels.permute(0, 3, 1, 2))


def reference_features(state, x, scale=0.125):
    def linear(name, v):
        down, up = state[name + ".lora.lora_A"], state[name + ".lora.lora_B"]
        base = v @ state[name + ".original_layer.weight"].T + state[name + ".original_layer.bias"]
        return base + scale * (v @ down.T @ up.T)

    def norm(name, v):
        centred = v - v.mean(-1, keepdim=True)
        v = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return v * state[name + ".weight"] + state[name + ".bias"]

    x = F.conv2d(x, state[B + "patch_embed.proj.weight"], state[B + "patch_embed.proj.bias"], stride=PATCH)
    rows, columns = x.shape[-2:]
    x = torch.cat([state[B + "cls_token"], x.flatten(2).transpose(1, 2)], 1)
    x = (x + interpolated(state[B + "pos_embed"], rows, columns))[0]
    heads = x.shape[-1] // 64
    for i in range(sum(k.endswith("ls1.gamma") for k in state)):
        block = f"{B}blocks.{i}."
        q, k, v = linear(block + "attn.qkv", norm(block + "norm1", x)).chunk(3, -1)
        mixed = []
        for h in range(heads):
            part = slice(64 * h, 64 * h + 64)
            mixed.append(torch.softmax(q[:, part] @ k[:, part].T / 8, -1) @ v[:, part])
        x = x + state[block + "ls1.gamma"] * linear(block + "attn.proj", torch.cat(mixed, -1))
        y = linear(block + "mlp.fc1", norm(block + "norm2", x))
        y = 0.5 * y * (1 + torch.erf(y / math.sqrt(2)))
        x = x + state[block + "ls2.gamma"] * linear(block + "mlp.fc2", y)
    return norm(B + "norm", x)[:1]


def reference_logit(state, pixels):
    features = reference_features(state, normalised(pixels))
    return (features @ state["base_model.fc.weight"].T + state["base_model.fc.bias"])[0]


def tiny_trunk(size=GRID * PATCH):
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(size, PATCH, num_classes=0, embed_dim=WIDTH, depth=DEPTH, num_heads=2, init_values=0.5)


def write(tmp_path, state, kind):
    if kind == "safetensors":
        file = tmp_path / "dda.safetensors"
        save_file(state, file)
        return file
    file = tmp_path / "dda.pth"
    whole = {"model": state, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}, "total_steps": 5}
    torch.save(state if kind == "bare" else whole, file)
    return file


@pytest.mark.parametrize("kind", ["checkpoint", "bare", "safetensors"])
@pytest.mark.parametrize("merge", [False, True])
def test_logits_are_those_of_the_published_model(tmp_path, kind, merge):
    state = published()
    model = dda.load_dda(write(tmp_path, state, kind), merge=merge)
    assert not model.training
    with torch.inference_mode():
        for pixels in crops((336, 336), (371, 512), (300, 401)):
            logit, patches = model(pixels)
            assert patches is None
            assert logit.shape == (1,)
            assert logit.dtype == torch.float32
            torch.testing.assert_close(logit, reference_logit(state, pixels), rtol=0, atol=5e-5)


def test_every_tensor_but_the_mask_token_is_heard():
    pixels = crops((336, 336))[0]
    state = published()
    with torch.inference_mode():
        before = dda.DdaModel.from_state_dict(state)(pixels)[0]
        for name in state:
            louder = state | {name: state[name] + torch.randn_like(state[name])}
            after = dda.DdaModel.from_state_dict(louder)(pixels)[0]
            assert (after == before).all() == (name == B + "mask_token"), name


def test_the_full_size_has_the_published_number_of_parameters():
    state = {k: torch.empty(s, device="meta") for k, s in layout(1024, 24, 37).items()}
    # DINOv2 ViT-L/14: 304,368,640 with its mask token; updates 3,145,728; head 1,025.
    assert sum(t.numel() for t in state.values()) == 304_368_640 + 3_145_728 + 1_025
    model = dda.DdaModel.from_state_dict(state)
    assert sum(p.numel() for p in model.parameters()) == 304_368_640 - 1_024 + 3_145_728 + 1_025
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3_145_728 + 1_025
    assert len(model.trunk.blocks) == 24
    assert model.trunk.blocks[23].attn.num_heads == 16
    assert model.trunk.blocks[0].attn.qkv.scale == 0.125


def test_our_module_has_the_structure_of_timms_own():
    import timm

    # One block of the 24: a few seconds and 1.2 GB less.
    theirs = timm.create_model("vit_large_patch14_dinov2.lvd142m", pretrained=False, num_classes=0, depth=1)
    names = {k: tuple(v.shape) for k, v in theirs.state_dict().items()}
    ours = {
        k.removeprefix(B).replace(".original_layer", ""): s
        for k, s in layout(1024, 1, 37).items()
        if k.startswith(B) and ".lora." not in k and "mask_token" not in k
    }
    assert names == ours


def test_a_fresh_model_is_its_trunk():
    x = torch.randn(2, 3, GRID * PATCH, GRID * PATCH)
    trunk = tiny_trunk().eval()
    with torch.inference_mode():
        before = trunk.forward_features(x)[:, 0]
        model = dda.DdaModel(trunk, side=GRID * PATCH).eval()
        torch.testing.assert_close(model.features(x), before, rtol=0, atol=1e-6)
        up = model.trunk.blocks[1].mlp.fc2.up
        assert up.abs().max() == 0
        up.normal_()
        assert (model.features(x) - before).abs().max() > 1e-3


def test_the_update_starts_as_it_should():
    layer = dda.LoraLinear(torch.nn.Linear(600, 40), rank=8, alpha=1.0)
    bound = 1 / math.sqrt(600)  # Kaiming-uniform with a = sqrt(5)
    assert layer.up.abs().max() == 0
    assert 0.9 * bound < layer.down.abs().max() <= bound
    assert layer.scale == 0.125
    assert not layer.base.weight.requires_grad


@pytest.mark.parametrize(("rank", "alpha"), [(8, 1.0), (2, 0.5)])
def test_merged_equals_unmerged(rank, alpha):
    state = published(rank=rank)
    x = torch.randn(2, 3, 70, 98)
    model = dda.DdaModel.from_state_dict(state, rank=rank, alpha=alpha).eval()
    with torch.inference_mode():
        before = model.score(x)
        torch.testing.assert_close(before[0][:1], reference_features(state, x[:1], alpha / rank), rtol=0, atol=5e-5)
        assert model.merge() is model
        after = model.score(x)
    assert not any(isinstance(m, dda.LoraLinear) for m in model.modules())
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    assert torch.equal(
        state[B + "blocks.0.attn.qkv.original_layer.weight"],
        published(rank=rank)[B + "blocks.0.attn.qkv.original_layer.weight"],
    )  # the caller's tensors stay what they were
    model.merge()  # again: nothing left to do
    with pytest.raises(ValueError, match="not merged"):
        model.published_state_dict()


@pytest.mark.parametrize(("old", "rows", "columns"), [(37, 24, 24), (37, 16, 30), (5, 24, 24)])
def test_positions_are_interpolated_as_dinov2_does(old, rows, columns):
    positions = torch.randn(1, old**2 + 1, 7)
    out = dda.interpolate_positions(positions, rows, columns)
    assert out.shape == (1, rows * columns + 1, 7)
    assert torch.equal(out[:, 0], positions[:, 0])
    torch.testing.assert_close(out, interpolated(positions, rows, columns), rtol=0, atol=5e-5)


def test_positions_of_the_own_grid_stay():
    positions = torch.randn(1, 26, 7)
    assert torch.equal(dda.interpolate_positions(positions, 5, 5), positions)


def test_timms_own_interpolation_would_be_another():
    from timm.layers import resample_abs_pos_embed

    positions = torch.randn(1, 37**2 + 1, 7)
    theirs = resample_abs_pos_embed(positions, [24, 24])
    assert (dda.interpolate_positions(positions, 24, 24) - theirs).abs().max() > 0.1


@pytest.mark.parametrize("size", [(336, 336), (337, 339), (341, 1000), (335, 100), (9, 700), (1, 1), (343, 338)])
def test_crop_and_normalisation_are_torchvisions(size):
    (pixels,) = crops(size)
    torch.testing.assert_close(dda.dda_input(pixels), normalised(pixels), rtol=0, atol=1e-6)


def test_the_crop_refuses_another_layout():
    with pytest.raises(ValueError, match=r"\(B, H, W, 3\), got \(1, 3, 40, 40\)"):
        dda.centre_crop(torch.zeros(1, 3, 40, 40))


def test_parallel_prefix_and_half_precision_are_taken():
    state = published()
    plain = dda.DdaModel.from_state_dict(state)
    other = dda.DdaModel.from_state_dict({f"module.{k}": v.half() for k, v in state.items()})
    assert {p.dtype for p in other.parameters()} == {torch.float32}
    x = torch.randn(1, 3, 70, 70)
    with torch.inference_mode():
        assert (plain.score(x)[1] - other.score(x)[1]).abs().max() < 0.05


QKV = B + "blocks.1.attn.qkv."


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({QKV + "lora.lora_A": None}, QKV + "lora.lora_A is missing"),
        ({QKV + "original_layer.bias": None}, QKV + "original_layer.bias is missing"),
        ({B + "pos_embed": None}, "pos_embed is missing"),
        ({B + "patch_embed.proj.weight": None}, "patch_embed.proj.weight is missing"),
        ({"base_model.fc.weight": None, "base_model.fc.bias": None}, r"fc.weight is missing \(and 1 more\)"),
        ({B + "register_tokens": torch.zeros(1, 4, WIDTH)}, "register_tokens is unexpected"),
        ({B + "blocks.0.attn.qkv.weight": torch.zeros(3, 3)}, "blocks.0.attn.qkv.weight is unexpected"),
        ({QKV + "lora.lora_A": torch.zeros(4, WIDTH)}, r"lora_A takes shape \(8, 128\), got \(4, 128\)"),
        ({"base_model.fc.weight": torch.zeros(2, WIDTH)}, r"fc.weight takes shape \(1, 128\), got \(2, 128\)"),
        ({B + "norm.weight": torch.zeros(WIDTH, dtype=torch.int64)}, "norm.weight takes a tensor of floats"),
        ({B + "norm.bias": 3.0}, "norm.bias takes a tensor of floats"),
        ({B + "pos_embed": torch.zeros(1, 28, WIDTH)}, "pos_embed takes a square number of positions plus one, got 28"),
        ({B + "pos_embed": torch.zeros(1, 1, WIDTH)}, "pos_embed takes a square number of positions plus one, got 1"),
        ({B + "pos_embed": torch.zeros(26, WIDTH)}, "pos_embed takes a tensor of 3 axes"),
        ({B + "patch_embed.proj.weight": torch.zeros(100, 3, 14, 14)}, "multiple of 64 as its first length, got 100"),
    ],
)
def test_a_wrong_state_dict_is_refused_by_name(tmp_path, change, said):
    state = published() | change
    file = tmp_path / "odd.pth"
    torch.save({k: v for k, v in state.items() if v is not None}, file)
    with pytest.raises(WeightsError, match=said) as caught:
        dda.load_dda(file)
    assert caught.value.file == str(file)


def test_a_truncated_model_of_a_known_width_is_no_shallower_model():
    state = {k: torch.empty(s, device="meta") for k, s in layout(1024, 23, 37).items()}
    with pytest.raises(ValueError, match=r"blocks\.23\.norm1\.weight is missing"):
        dda.DdaModel.from_state_dict(state)


class Trap:
    def __reduce__(self):
        return os.mkdir, (os.environ["TRAP"],)


def test_damaged_and_foreign_files_are_typed_errors(tmp_path, monkeypatch):
    good = write(tmp_path, published(), "checkpoint").read_bytes()
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    files = {
        "cut.pth": (good[: len(good) // 2], "cannot be read as a checkpoint"),
        "empty.pth": (b"", "cannot be read as a checkpoint"),
        "code.pt": (pickle.dumps({"model": Trap()}, protocol=2), "cannot be read as a checkpoint"),
        "cut.safetensors": (good[:1000], "cannot be read as safetensors"),
        "notes.txt": (b"hello", r"takes \.pth, \.pt, \.bin or \.safetensors, got \.txt"),
        "bare": (b"hello", "got no suffix"),
    }
    for name, (content, said) in files.items():
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=said):
            dda.load_dda(file)
    assert not (tmp_path / "sprung").exists()
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        dda.load_dda(tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="not there"):
        dda.load_dda(tmp_path / "nowhere.pth")


class Hub:
    """In the place of hf_hub_download."""

    def __init__(self, file=None, online=True):
        self.file, self.online, self.calls = file, online, []

    def __call__(self, *, repo_id, filename, revision, local_files_only=False):
        self.calls.append((repo_id, filename, revision, local_files_only))
        if local_files_only or not self.online:
            raise OSError("not to be had")
        return str(self.file)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    import hashlib

    fake = Hub(write(tmp_path, published(), "checkpoint"))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fake)
    digest = hashlib.sha256(fake.file.read_bytes()).hexdigest()
    monkeypatch.setattr(dda, "HUB", attrs.evolve(dda.HUB, sha256=digest))
    return fake


def test_without_a_file_nothing_is_downloaded_unasked(hub):
    with pytest.raises(UnavailableError, match="dda_weights"):
        dda.load_dda()
    assert [c[-1] for c in hub.calls] == [True]


def test_the_hub_is_asked_for_the_pinned_file(hub):
    model = dda.load_dda(download=True)
    pins = ("Junwei-Xi/Dual-Data-Alignment", "DDA_ckpt.pth", "4390d9023899196b437480bb6a441915ef5d816c")
    assert hub.calls == [(*pins, True), (*pins, False)]
    (pixels,) = crops((336, 336))
    with torch.inference_mode():
        torch.testing.assert_close(model(pixels)[0], reference_logit(published(), pixels), rtol=0, atol=5e-5)


def test_the_hubs_cache_is_enough(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda **asked: str(hub.file))
    assert dda.load_dda().width == WIDTH


def test_an_unreachable_hub_and_another_file_are_typed_errors(hub, monkeypatch):
    hub.online = False
    with pytest.raises(WeightsError, match="cannot be had from the hub"):
        dda.load_dda(download=True)
    hub.online = True
    monkeypatch.setattr(dda, "HUB", attrs.evolve(dda.HUB, sha256="0" * 64))
    with pytest.raises(WeightsError, match="000 is pinned"):
        dda.load_dda(download=True)


def test_versions_name_the_weights(tmp_path):
    assert dda.dda_version() == "dda 4390d902"
    assert dda.dda_version(tmp_path / "mine.pth") == "dda mine.pth"


# -- as a strength of the plugin -----------------------------------------------------------------------------------

DECLARATION = loads((Path(dda.__file__).parent / "tellsign.json").read_text(), Declaration)


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return Picture(pixels=rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def plugin(runtime, **settings):
    made = PixelDetector(DECLARATION, {"strength": "dda"} | settings)
    made.setup(runtime)
    return made


@pytest.fixture
def runtime():
    return DeviceRuntime("cpu", batch_size=4)


@pytest.mark.parametrize("size", [(336, 336), (338, 500), (371, 515), (340, 339), (600, 343), (200, 401), (128, 130)])
def test_the_plugin_scores_the_published_crop_of_the_whole_picture(tmp_path, runtime, size):
    """What the view hands over must be what torchvision's `CenterCrop` would have cut out of the picture."""
    state, seen = published(), picture(*size)
    file = write(tmp_path, state, "checkpoint")
    (answer,) = plugin(runtime, dda_weights=file).detect([pixel_view(seen, key="k")], runtime)
    (score,) = answer  # and no map: the model reads its class token only
    assert isinstance(score, ScoreEvidence)
    assert (score.plugin, score.name, score.model) == ("pixel", "dda", "dda dda.pth")
    with torch.inference_mode():
        want = reference_logit(state, torch.from_numpy(seen.pixels.copy())[None]).item()
    assert score.logit == pytest.approx(want, abs=1e-4)
    assert score.score == pytest.approx(1 / (1 + math.exp(-want)), abs=1e-4)


def test_one_crop_a_picture_and_answers_in_their_places(tmp_path, runtime, monkeypatch):
    stacks = []
    original = dda.DdaModel.forward

    def watched(model, crops):
        stacks.append(tuple(crops.shape))
        return original(model, crops)

    monkeypatch.setattr(dda.DdaModel, "forward", watched)
    one = plugin(runtime, dda_weights=str(write(tmp_path, published(), "safetensors")))
    sizes = [(400, 400), (127, 500), (336, 700), (200, 300), (1, 1), (500, 400)]
    views = [pixel_view(picture(*s, seed=i), key=f"{i}") for i, s in enumerate(sizes)]
    together = one.detect(views, runtime)
    assert stacks == [(2, 336, 336, 3), (1, 200, 300, 3), (1, 336, 336, 3)]
    assert [[type(e) for e in a] for a in together] == [
        [NotApplicable if min(s) < 128 else ScoreEvidence] for s in sizes
    ]
    for view, answer in zip(views, together, strict=True):
        ((alone,),) = one.detect([view], runtime)
        if isinstance(alone, ScoreEvidence):
            assert answer[0].logit == pytest.approx(alone.logit, abs=1e-4)
    assert runtime.counters.builds == {f"pixel-dda:{tmp_path / 'dda.safetensors'}": 1}


def test_the_default_fusion_has_no_column_for_it(tmp_path, runtime):
    one = plugin(runtime, dda_weights=write(tmp_path, published(), "checkpoint"))
    (answer,) = one.detect([pixel_view(picture(336, 336), key="k")], runtime)
    row = feature_row(answer, {"pixel": DECLARATION}, "p_ai")
    assert row
    assert all(math.isnan(v) for v in row.values())


def test_nothing_is_downloaded_unless_the_setting_says_so(hub, runtime):
    seen = [pixel_view(picture(336, 340), key="k")]
    with pytest.raises(UnavailableError, match="dda_weights"):
        plugin(runtime).detect(seen, runtime)
    assert [c[-1] for c in hub.calls] == [True]
    ((score,),) = plugin(runtime, download=True).detect(seen, runtime)
    assert [c[-1] for c in hub.calls] == [True, True, False]
    assert score.model == "dda 4390d902"


def test_a_file_that_is_not_there_is_named_when_it_speaks(tmp_path, runtime):
    one = plugin(runtime, dda_weights=tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="not there") as caught:
        one.detect([pixel_view(picture(336, 340), key="k")], runtime)
    assert caught.value.file == str(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"strength": "DDA"}, "strength takes one of auto, tower, bundled, dda, got 'DDA'"),
        ({"dda_weights": 7}, "dda_weights takes a path, got 7"),
        ({"dda_weights": b"dda.pth"}, "dda_weights takes a path, got b'dda.pth'"),
        ({"download": 1}, "download takes true or false, got 1"),
        ({"dda_weigths": "x"}, "settings of pixel takes strength, dda_weights, download, got 'dda_weigths'"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_read(settings, told):
    with pytest.raises(SettingError, match=told):
        PixelDetector(DECLARATION, {"strength": "dda"} | settings)


def test_the_bare_forward_for_bench_is_the_models(tmp_path, runtime):
    one = plugin(runtime, dda_weights=write(tmp_path, published(), "checkpoint"))
    views = [pixel_view(picture(400, 400), key="k"), pixel_view(picture(5, 5), key="l")]
    ((logit, where),) = one.bench_forward(views, runtime)()
    assert where is None
    ((score,),) = one.detect(views[:1], runtime)
    assert logit.tolist() == pytest.approx([score.logit], abs=1e-4)


def test_a_trained_model_goes_out_and_comes_back(tmp_path):
    model = dda.DdaModel(tiny_trunk(), side=70)
    names = {k: tuple(v.shape) for k, v in model.published_state_dict().items()}
    assert names == layout()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0)
    x = torch.randn(6, 3, 70, 70)
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    losses = []
    for _ in range(8):
        loss = dda.dda_loss(*model.score(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    for name, tensor in model.state_dict().items():
        trained = name.startswith("head.") or name.endswith((".up", ".down"))
        # Only the class token is read after the last block; still every map of it gets a gradient.
        assert torch.equal(tensor, before[name]) != trained, name
    back = dda.load_dda(write(tmp_path, model.published_state_dict(), "checkpoint"), merge=False)
    with torch.inference_mode():
        assert torch.equal(back.eval().score(x)[1], model.eval().score(x)[1])


def unit(*degrees):
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], 1)


def chord(degrees):
    return 2 * math.sin(math.radians(degrees) / 2)


def test_contrastive_loss_equals_a_hand_computation():
    features = unit(0.0, 20.0, 50.0, 170.0) * torch.tensor([[1.0], [5.0], [0.2], [3.0]])  # lengths do not count
    labels = torch.tensor([0.0, 0.0, 1.0, 1.0])
    near = (chord(20) + chord(120)) / 2
    # 0-50 and 20-50 are closer than 1; 0-170 and 20-170 are not and are left out of the mean.
    far = ((1 - chord(50)) + (1 - chord(30))) / 2
    assert dda.contrastive_loss(features, labels).item() == pytest.approx(near + far, abs=1e-6)
    wide = dda.contrastive_loss(features, labels, positive_margin=0.5, negative_margin=0.6)
    assert wide.item() == pytest.approx((chord(120) - 0.5) + (0.6 - chord(30)), abs=1e-6)


def test_training_loss_is_half_and_half():
    features, logits = unit(0.0, 40.0, 90.0), torch.tensor([0.5, -1.0, 2.0])
    labels = torch.tensor([0, 0, 1])
    entropy = (math.log1p(math.exp(0.5)) + math.log1p(math.exp(-1.0)) + math.log1p(math.exp(-2.0))) / 3
    contrast = chord(40) + (1 - chord(50))
    got = dda.dda_loss(features, logits, labels).item()
    assert got == pytest.approx(0.5 * entropy + 0.5 * contrast, abs=1e-6)


def test_loss_and_gradient_stay_finite_where_features_coincide():
    features = torch.ones(4, 8, requires_grad=True)
    loss = dda.contrastive_loss(features, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(1.0)  # all pairs at distance 0: nothing near, everything far costs 1
    assert features.grad.isfinite().all()


def test_nothing_to_compare_costs_nothing():
    features = unit(10.0, 200.0).requires_grad_()
    loss = dda.contrastive_loss(features, torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == 0
    assert features.grad.abs().max() == 0
    assert dda.contrastive_loss(unit(10.0), torch.tensor([1])).item() == 0


def test_losses_refuse_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(2,\)"):
        dda.contrastive_loss(unit(0.0, 1.0, 2.0), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="logits takes the shape of labels"):
        dda.dda_loss(unit(0.0, 1.0), torch.zeros(2, 1), torch.tensor([0, 1]))


def test_model_refuses_what_it_cannot_take():
    with pytest.raises(ValueError, match="side takes a multiple of the patch"):
        dda.DdaModel(tiny_trunk(), side=335)
    with pytest.raises(ValueError, match="rank takes an integer"):
        dda.DdaModel(tiny_trunk(), rank=0)
    with pytest.raises(ValueError, match="multiples of 14"):
        dda.DdaModel(tiny_trunk()).features(torch.zeros(1, 3, 70, 71))


def test_importing_costs_no_torchvision():
    code = "import sys, tellsign.plugins.pixel.dda; print(*{'timm', 'torchvision', 'huggingface_hub'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
