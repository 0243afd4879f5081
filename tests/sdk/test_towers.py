"""The image tower against open_clip's, and low-rank updates against updates written into the weights."""

import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from tellsign.errors import WeightsError
from tellsign.plugin import UnavailableError
from tellsign.towers import ClipTower, LoraSet, clip_input, clip_vit_b16, clip_vit_b16_is_here, shared
from tellsign.towers.clip import QuickGELU

WIDTH, HEADS, DEPTH, PATCH, SIZE, OUT = 128, 2, 3, 8, 32, 24


def randomised(module, seed=0):
    """Every parameter audible: gains near 1, biases and embeddings not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (0.3 if p.ndim == 1 else 0.1))
            if "ln_" in name and name.endswith("weight"):
                p.add_(1)
    return module


@pytest.fixture
def tower():
    return randomised(ClipTower(depth=DEPTH, width=WIDTH, heads=HEADS, patch=PATCH, size=SIZE, projection=OUT)).eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def lora():
    """Updates that are not at their start any more."""
    out = LoraSet.for_tower(WIDTH, (1, 2), rank=4, alpha=8)
    for i, up in enumerate(out.up.values()):
        nn.init.normal_(up, std=0.1, generator=torch.Generator().manual_seed(i))
    return out


# -- the tower ----------------------------------------------------------------------------------------------------


@pytest.mark.slow  # importing open_clip takes seconds
def test_the_tower_is_open_clips(tower, x):
    transformer = pytest.importorskip("open_clip.transformer")

    def theirs(activation):
        model = transformer.VisionTransformer(
            image_size=SIZE, patch_size=PATCH, width=WIDTH, layers=DEPTH, heads=HEADS, mlp_ratio=4.0, output_dim=OUT,
            act_layer=activation,
        )  # fmt: skip
        return randomised(model, seed=5).eval()

    model = theirs(transformer.QuickGELU)
    with torch.no_grad():
        ours = ClipTower.from_state_dict(model.state_dict())
        torch.testing.assert_close(ours(x), model(x), atol=1e-5, rtol=1e-5)
        # The same weights behind plain GELU are another model: the comparison above would see it.
        assert (theirs(nn.GELU)(x) - ours(x)).abs().max() > 1e-3
        assert ours.state_dict().keys() == model.state_dict().keys()


def test_the_activation_is_quick_gelu(tower):
    v = torch.linspace(-6, 6, 49)
    want = torch.tensor([a / (1 + math.exp(-1.702 * a)) for a in v.tolist()])
    for block in tower.transformer.resblocks:
        assert type(block.mlp["gelu"]) is QuickGELU
        torch.testing.assert_close(block.mlp["gelu"](v), want)
    assert (F.gelu(v) - want).abs().max() > 0.01


def test_the_default_tower_is_vit_b16():
    with torch.device("meta"):
        tower = ClipTower()
    shapes = {k: tuple(v.shape) for k, v in tower.state_dict().items()}
    from tellsign.weights import spec_of

    assert shapes == dict(spec_of("clip-vit-b16").layout)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_shallow_tower_gives_the_first_tokens_of_the_deep_one(tower, x, depth):
    short = ClipTower.from_state_dict(tower.state_dict(), depth=depth)
    assert len(short.transformer.resblocks) == depth
    with torch.no_grad():
        deep = tower.tokens(x, range(1, DEPTH + 1))
        for block, tokens in short.tokens(x, range(1, depth + 1)).items():
            torch.testing.assert_close(tokens, deep[block], atol=0, rtol=0)


def test_tokens_stop_at_the_last_block_asked_for(tower, x):
    seen = []
    for number, block in enumerate(tower.transformer.resblocks, start=1):
        block.register_forward_hook(lambda *_, n=number: seen.append(n))
    with torch.no_grad():
        assert set(tower.tokens(x, (2,))) == {2}
    assert seen == [1, 2]


def test_the_embedding_is_the_projected_class_token(tower, x):
    with torch.no_grad():
        last = tower.tokens(x, (DEPTH,))[DEPTH]
        want = F.layer_norm(last[:, 0], (WIDTH,), tower.ln_post.weight, tower.ln_post.bias) @ tower.proj
        torch.testing.assert_close(tower(x), want)
    assert tower(x).shape == (2, OUT)
    assert last.shape == (2, 1 + (SIZE // PATCH) ** 2, WIDTH)


@pytest.mark.parametrize("blocks", [(0, 1), (1, DEPTH + 1)])
def test_blocks_that_are_not_there_are_named(tower, x, blocks):
    with pytest.raises(ValueError, match=rf"blocks takes numbers from 1 to {DEPTH}, got \[{blocks[0]}, {blocks[1]}\]"):
        tower.tokens(x, blocks)


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (3, 5), (1, 1)])
def test_other_sizes_get_interpolated_positions(tower, rows, columns):
    with torch.no_grad():
        # A ramp over the grid stays a ramp inside, whatever the size; a constant stays constant everywhere.
        grid = SIZE // PATCH
        tower.positional_embedding[1:, 0] = 3.0
        tower.positional_embedding[1:, 1] = torch.arange(grid).repeat(grid).float()
        tower.positional_embedding[1:, 2] = torch.arange(grid).repeat_interleave(grid).float()
        positions = tower._positions(rows, columns)
        assert positions.shape == (1 + rows * columns, WIDTH)
        torch.testing.assert_close(positions[0], tower.positional_embedding[0])
        torch.testing.assert_close(positions[1:, 0], torch.full((rows * columns,), 3.0))
        along, down = (positions[1:, k].view(rows, columns) for k in (1, 2))
        for ramp, axis in ((along, 1), (down, 0)):
            assert ramp.mean().item() == pytest.approx((grid - 1) / 2, abs=1e-4)
            assert (ramp.diff(dim=axis) > 0).all()
            assert ramp.diff(dim=1 - axis).abs().max() < 1e-5 if ramp.shape[1 - axis] > 1 else True
        crop = torch.zeros(1, 3, rows * PATCH, columns * PATCH)
        assert tower.tokens(crop, (1,))[1].shape == (1, 1 + rows * columns, WIDTH)


def test_its_own_size_gets_its_own_positions(tower):
    assert tower._positions(SIZE // PATCH, SIZE // PATCH) is tower.positional_embedding


def test_pixels_are_normalised_as_clip_was_trained():
    pixels = torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8)
    got = clip_input(pixels)
    assert got.shape == (1, 3, 1, 1)
    want = [(0 - 0.48145466) / 0.26862954, (128 / 255 - 0.4578275) / 0.26130258, (1 - 0.40821073) / 0.27577711]
    assert got.flatten().tolist() == pytest.approx(want, abs=1e-6)


# -- from a state dict --------------------------------------------------------------------------------------------


def test_half_precision_becomes_float32(tower):
    half = {k: v.half() for k, v in tower.state_dict().items()}
    assert {p.dtype for p in ClipTower.from_state_dict(half).parameters()} == {torch.float32}


def test_a_middle_tower_needs_no_last_norm_and_no_projection(tower, x):
    state = {k: v for k, v in tower.state_dict().items() if k not in ("ln_post.weight", "ln_post.bias", "proj")}
    with torch.no_grad():
        got = ClipTower.from_state_dict(state).tokens(x, (2,))[2]
        torch.testing.assert_close(got, tower.tokens(x, (2,))[2])


@pytest.mark.parametrize("copy", [True, False])
def test_the_state_stays_the_callers_unless_it_is_given_away(tower, copy):
    state = {k: v.clone() for k, v in tower.state_dict().items()}
    made = ClipTower.from_state_dict(state, copy=copy)
    with torch.no_grad():
        made.conv1.weight.zero_()
    assert bool(state["conv1.weight"].any()) == copy
    assert all(p.is_leaf and p.requires_grad for p in made.parameters())
    assert not any(p.is_meta for p in made.parameters())


@pytest.mark.parametrize(
    "name",
    [
        "class_embedding",
        "ln_pre.bias",
        "transformer.resblocks.1.attn.out_proj.weight",
        "transformer.resblocks.0.mlp.c_fc.weight",
    ],
)
def test_a_missing_tensor_is_named(tower, name):
    state = tower.state_dict()
    del state[name]
    with pytest.raises(ValueError, match=f"'{name}' is missing"):
        ClipTower.from_state_dict(state)


@pytest.mark.parametrize("name", ["conv1.weight", "positional_embedding"])
def test_without_its_first_tensors_it_is_no_tower(tower, name):
    state = tower.state_dict()
    del state[name]
    with pytest.raises(ValueError, match=name):
        ClipTower.from_state_dict(state)


def test_something_else_is_no_tower():
    with pytest.raises(ValueError, match="CLIP image tower's tensors"):
        ClipTower.from_state_dict({"fc.weight": torch.zeros(2, 2)})


def test_a_missing_block_is_told_with_how_many_tensors(tower):
    state = {k: v for k, v in tower.state_dict().items() if ".resblocks.1." not in k}
    with pytest.raises(ValueError, match=r"resblocks\.1\..* and 11 more are missing"):
        ClipTower.from_state_dict(state)


@pytest.mark.parametrize("name", ["ln_pre.weight", "transformer.resblocks.2.mlp.c_proj.weight", "class_embedding"])
def test_a_wrong_shape_is_named(tower, name):
    state = tower.state_dict()
    state[name] = torch.zeros(7)
    with pytest.raises(ValueError, match=rf"{name} takes shape .*, got \(7,\)"):
        ClipTower.from_state_dict(state)


def test_positions_that_are_no_square_grid_are_refused(tower):
    state = tower.state_dict()
    state["positional_embedding"] = torch.zeros(1 + 12, WIDTH)
    with pytest.raises(ValueError, match="positional_embedding takes shape"):
        ClipTower.from_state_dict(state)


@pytest.mark.parametrize("depth", [0, -1, DEPTH + 1])
def test_a_depth_that_is_not_there_is_refused(tower, depth):
    with pytest.raises(ValueError, match=f"depth takes 1 to {DEPTH} for this state, got {depth}"):
        ClipTower.from_state_dict(tower.state_dict(), depth=depth)


# -- the shared tower ---------------------------------------------------------------------------------------------


def test_without_weights_the_shared_tower_says_what_would_help(tmp_path, monkeypatch):
    monkeypatch.setenv("TELLSIGN_HOME", str(tmp_path))
    assert not clip_vit_b16_is_here()
    with pytest.raises(UnavailableError, match="tellsign models fetch clip-vit-b16"):
        clip_vit_b16()


def test_the_shared_tower_is_what_lies_on_the_machine(tower, tmp_path, monkeypatch):
    file = tmp_path / "tower.safetensors"
    save_file({k: v.contiguous() for k, v in tower.state_dict().items()}, file)
    monkeypatch.setattr(shared, "locate", lambda name: file if name == "clip-vit-b16" else None)
    assert clip_vit_b16_is_here()
    got = clip_vit_b16().state_dict()
    assert all(torch.equal(v, got[k]) for k, v in tower.state_dict().items())


def test_damaged_shared_weights_are_named(tower, tmp_path, monkeypatch):
    file = tmp_path / "tower.safetensors"
    monkeypatch.setattr(shared, "locate", lambda name: file)
    state = {k: v.contiguous() for k, v in tower.state_dict().items() if k != "ln_pre.bias"}
    save_file(state, file)
    with pytest.raises(WeightsError, match=r"ln_pre\.bias") as caught:
        clip_vit_b16()
    assert caught.value.file == str(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="does not hold the tower"):
        clip_vit_b16()


# -- low-rank updates ---------------------------------------------------------------------------------------------


def test_an_update_by_hand():
    lora = LoraSet({"m": (2, 3)}, rank=2, alpha=6)
    with torch.no_grad():
        lora.down["m"].copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        lora.up["m"].copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]))
    # A x = (1*3 + 2*4, 4) = (11, 4), B A x = (11, 8, -11), and alpha / r makes it three times that.
    got = lora.add("m", torch.tensor([[3.0, 4.0]]), torch.ones(1, 3))
    assert got.tolist() == [[34.0, 25.0, -32.0]]
    assert lora.delta("m").tolist() == [[3.0, 6.0], [0.0, 6.0], [-3.0, -6.0]]


def test_updates_start_at_nothing(tower, x):
    lora = LoraSet.for_tower(WIDTH, range(1, DEPTH + 1), rank=4, alpha=4)
    with torch.no_grad():
        plain, updated = tower.tokens(x, (DEPTH,))[DEPTH], tower.tokens(x, (DEPTH,), lora)[DEPTH]
    torch.testing.assert_close(updated, plain, atol=0, rtol=0)
    assert all(down.abs().max() > 0 for down in lora.down.values())


def test_updates_that_were_written_into_the_weights_give_the_same(tower, x, lora):
    with torch.no_grad():
        separate = tower.tokens(x, (1, 2, 3), lora)
        plain = tower.tokens(x, (1,))[1]
        maps = {"attn.in_proj": "attn.in_proj_weight", "attn.out_proj": "attn.out_proj.weight"}
        maps |= {"mlp.c_fc": "mlp.c_fc.weight", "mlp.c_proj": "mlp.c_proj.weight"}
        state = {k: v.clone() for k, v in tower.state_dict().items()}
        for block in (1, 2):
            for update, weight in maps.items():
                delta = lora.delta(f"{block}.{update}")
                assert delta.abs().max() > 1e-3
                state[f"transformer.resblocks.{block - 1}.{weight}"] += delta
        merged = ClipTower.from_state_dict(state).tokens(x, (1, 2, 3))
    for block, tokens in separate.items():
        torch.testing.assert_close(merged[block], tokens, atol=3e-5, rtol=1e-5)
    assert (separate[1] - plain).abs().max() > 0.01


def test_the_shared_tower_itself_is_not_changed(tower, x, lora):
    before = {k: v.clone() for k, v in tower.state_dict().items()}
    with torch.no_grad():
        first = tower.tokens(x, (2,))[2]
        tower.tokens(x, (2,), lora)
        torch.testing.assert_close(tower.tokens(x, (2,))[2], first, atol=0, rtol=0)
    assert all(torch.equal(before[k], v) for k, v in tower.state_dict().items())


def test_only_the_updates_learn_on_a_frozen_tower(tower, x, lora):
    tower.requires_grad_(False)
    tower.tokens(x, (2,), lora)[2].square().sum().backward()
    assert all(p.grad is None for p in tower.parameters())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in lora.parameters())


def test_maps_without_an_update_pass_through(lora):
    y = torch.randn(1, 3)
    assert lora.add("3.attn.in_proj", torch.randn(1, WIDTH), y) is y


def test_a_rank_below_one_is_refused():
    with pytest.raises(ValueError, match="rank takes an integer of at least 1, got 0"):
        LoraSet({"m": (2, 2)}, rank=0, alpha=1)
