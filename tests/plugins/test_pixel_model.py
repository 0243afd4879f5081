"""The pixel model and its weights files: the head by hand, and errors that name the file."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tellsign.errors import WeightsError
from tellsign.plugins.pixel.model import PixelHead, PixelModel
from tellsign.plugins.pixel.weights_files import load_adapter, load_bundled
from tellsign.towers import ClipTower, LoraSet, clip_input
from tellsign.weights.files import version_of


def random_head(blocks=(2, 3), width=64):
    head = PixelHead(blocks, width)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in (head.weight, head.bias, head.mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        head.std.copy_(torch.rand(head.std.shape, generator=generator) + 0.5)
    return head


@pytest.fixture
def crops():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))


# -- the head -----------------------------------------------------------------------------------------------------


def test_a_logit_by_hand():
    head = PixelHead((1,), 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[[1.0, 2.0], [3.0, -1.0]]]))
        head.bias.fill_(0.5)
        head.mean.copy_(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
        head.std.copy_(torch.tensor([[[1.0, 2.0], [1.0, 0.5]]]))
    tokens = torch.tensor([[[2.0, 4.0], [1.0, 0.0], [3.0, 2.0]]])  # class token, then two patches
    logit, patches = head({1: tokens})
    # class: 1*(2-1)/1 + 2*(4-0)/2 = 5; bias .5; the patches say nothing to the score
    assert logit.tolist() == pytest.approx([5.5])
    # patch by patch: 3*1 - 1*0/.5 = 3 and 3*3 - 1*2/.5 = 5, which is 4 - 1 and 4 + 1
    assert patches[0].tolist() == pytest.approx([4.5, 6.5])


def test_patches_average_to_the_logit():
    generator = torch.Generator().manual_seed(0)
    tokens = {b: torch.randn(4, 1 + 12, 64, generator=generator) for b in (1, 2, 3)}
    head = random_head()
    logit, patches = head(tokens)
    assert logit.shape == (4,)
    assert patches.shape == (4, 12)
    torch.testing.assert_close(patches.mean(dim=1), logit)
    # The same as a logistic regression on standardised class tokens.
    features = torch.stack([tokens[b][:, 0] for b in (2, 3)], dim=1)
    want = ((features - head.mean[:, 0]) / head.std[:, 0] * head.weight[:, 0]).sum(dim=(1, 2)) + head.bias
    torch.testing.assert_close(logit, want, atol=1e-3, rtol=1e-5)
    assert patches.std(dim=1).min() > 0.1


def random_tokens(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {b: torch.randn(4, 1 + 12, 64, generator=generator) for b in (2, 3)}


def test_patch_tokens_do_not_move_the_score():
    head, tokens, other = random_head(), random_tokens(), random_tokens(1)
    moved = {b: torch.cat([x[:, :1], other[b][:, 1:] * 50], dim=1) for b, x in tokens.items()}
    logit, patches = head(tokens)
    after, patches_after = head(moved)
    assert torch.equal(after, logit)
    assert (patches_after - patches).abs().max() > 1
    torch.testing.assert_close(patches_after.mean(dim=1), logit, atol=1e-3, rtol=1e-4)


def test_what_all_patches_share_does_not_show_in_the_map():
    """Only how patches differ within a crop says where; a crop that is odd as a whole has no odder places."""
    head, tokens = random_head(), random_tokens()
    shared = {b: torch.randn(4, 1, 64, generator=torch.Generator().manual_seed(b)) for b in tokens}
    moved = {b: torch.cat([x[:, :1], x[:, 1:] + shared[b]], dim=1) for b, x in tokens.items()}
    torch.testing.assert_close(head(moved)[1], head(tokens)[1], atol=1e-3, rtol=1e-4)
    same = {b: x[:, :2].expand(-1, 13, -1).clone() for b, x in shared.items()}
    logit, patches = head(same)
    torch.testing.assert_close(patches, logit[:, None].expand(-1, 12), atol=1e-3, rtol=1e-4)


def test_class_tokens_move_all_patches_alike():
    head, tokens, other = random_head(), random_tokens(), random_tokens(1)
    moved = {b: torch.cat([other[b][:, :1], x[:, 1:]], dim=1) for b, x in tokens.items()}
    (logit, patches), (after, patches_after) = head(tokens), head(moved)
    assert (after - logit).abs().min() > 1e-2
    torch.testing.assert_close(patches_after - patches, (after - logit)[:, None].expand(-1, 12), atol=1e-3, rtol=1e-4)


def test_a_crops_map_is_centred_by_itself():
    head, tokens = random_head(), random_tokens()
    _, together = head(tokens)
    alone = torch.cat([head({b: x[i : i + 1] for b, x in tokens.items()})[1] for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-4)


def test_half_precision_tokens_give_float32_logits():
    tokens = {2: torch.randn(1, 5, 64).bfloat16(), 3: torch.randn(1, 5, 64).bfloat16()}
    assert {t.dtype for t in random_head()(tokens)} == {torch.float32}


def test_a_new_head_says_nothing():
    logit, patches = PixelHead((1,), 8)({1: torch.randn(2, 4, 8)})
    assert logit.tolist() == [0, 0]
    assert patches.abs().max() == 0


# -- the model ----------------------------------------------------------------------------------------------------


def test_the_model_is_tower_updates_and_head(tiny_run, crops):
    tower, lora, head = ClipTower.from_state_dict(tiny_run.tower), tiny_run.module.lora, tiny_run.module.deep
    with torch.no_grad():
        logit, patches = PixelModel(tower, lora, head)(crops)
        want, _ = head(tower.tokens(clip_input(crops), head.blocks, lora))
        plain, _ = PixelModel(tower, None, head)(crops)
    torch.testing.assert_close(logit, want)
    torch.testing.assert_close(patches.mean(dim=(1, 2)), logit)
    assert patches.shape == (3, 4, 4)
    assert (plain - logit).abs().max() > 1e-3  # the updates are heard


def test_patches_lie_where_the_crop_has_them(tiny_run):
    """A patch that differs in the lower left shows in the map's last row and first column."""
    model = PixelModel(ClipTower.from_state_dict(tiny_run.tower, depth=1), None, random_head((1,)))
    plain = torch.full((1, 48, 80, 3), 128, dtype=torch.uint8)
    marked = plain.clone()
    marked[:, 32:48, 0:16] = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8)
    with torch.no_grad():
        difference = (model(marked)[1] - model(plain)[1])[0].abs()
    assert difference.shape == (3, 5)
    assert divmod(int(difference.argmax()), 5) == (2, 0)


def test_sides_are_cut_down_to_whole_patches(tiny_run):
    model = PixelModel(ClipTower.from_state_dict(tiny_run.tower), None, random_head())
    pixels = torch.randint(0, 256, (1, 79, 50, 3), dtype=torch.uint8)
    with torch.no_grad():
        logit, patches = model(pixels)
        torch.testing.assert_close(logit, model(pixels[:, :64, :48])[0])
    assert patches.shape == (1, 4, 3)


def test_crops_do_not_hear_each_other(tiny_run, crops):
    model = PixelModel(ClipTower.from_state_dict(tiny_run.tower), tiny_run.module.lora, tiny_run.module.deep)
    with torch.no_grad():
        together, alone = model(crops)[0], torch.cat([model(c[None])[0] for c in crops])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


# -- weights files ------------------------------------------------------------------------------------------------


def test_exported_updates_and_head_come_back(tiny_run, tmp_path, crops):
    tower_file, _ = tiny_run.export(tmp_path / "w", version="4.5.6")
    adapter = load_adapter(tower_file)
    assert adapter.head.blocks == tiny_run.recipe.deep
    assert version_of(tower_file) == "pixel-tower 4.5.6"
    with safe_open(tower_file, "pt") as handle:
        notes = handle.metadata()
    assert json.loads(notes["recipe"])["rank"] == tiny_run.recipe.rank
    assert {k: notes[k] for k in ("blocks", "rank", "alpha", "ratio")} == {
        "blocks": "2,3", "rank": "2", "alpha": "4.0", "ratio": "4",
    }  # fmt: skip
    tower = ClipTower.from_state_dict(tiny_run.tower)
    with torch.no_grad():
        got = PixelModel(tower, adapter.lora, adapter.head)(crops)
        want = PixelModel(tower, tiny_run.module.lora, tiny_run.module.deep)(crops)
    torch.testing.assert_close(got[0], want[0], atol=2e-3, rtol=1e-3)  # the updates are stored in half precision
    torch.testing.assert_close(got[1], want[1], atol=1e-2, rtol=1e-2)


def test_the_bundled_file_holds_the_first_blocks_their_updates_and_the_early_head(tiny_run, tmp_path, crops):
    from tellsign.plugins.pixel.training.export import quantised_tower

    _, bundled = tiny_run.export(tmp_path / "w")
    names = load_file(bundled).keys()
    assert not [n for n in names if "resblocks.2" in n or (n.startswith("lora.") and "/" in n and ".3/" in n)]
    assert not {"tower.proj", "tower.ln_post.weight", "tower.ln_post.bias"} & set(names)
    assert "tower.transformer.resblocks.0.attn.in_proj_weight:int4" in names
    model = load_bundled(bundled)
    assert model.head.blocks == tiny_run.recipe.early
    assert model.tower.depth == 2
    trunk = quantised_tower(tiny_run.tower, 2)
    with torch.no_grad():
        want = PixelModel(trunk, tiny_run.module.lora, tiny_run.module.early)(crops)[0]
        torch.testing.assert_close(model(crops)[0], want, atol=2e-3, rtol=1e-3)


def test_a_run_without_updates_is_its_heads_on_the_plain_tower(headed_run, tmp_path, crops):
    from tellsign.plugins.pixel.training.export import quantised_tower

    assert headed_run.module.lora is None
    tower_file, bundled = headed_run.export(tmp_path / "w")
    for file in (tower_file, bundled):
        assert not [n for n in load_file(file) if n.startswith("lora.")]
        with safe_open(file, "pt") as handle:
            assert (handle.metadata()["rank"], handle.metadata()["ratio"]) == ("0", "4")
    adapter, model = load_adapter(tower_file), load_bundled(bundled)
    assert adapter.lora is None
    assert model.lora is None
    assert (adapter.head.blocks, model.head.blocks) == (headed_run.recipe.deep, headed_run.recipe.early)
    tower, trunk = ClipTower.from_state_dict(headed_run.tower), quantised_tower(headed_run.tower, 2)
    with torch.no_grad():
        for got, trunk_of, head in (
            (PixelModel(tower, adapter.lora, adapter.head), tower, headed_run.module.deep),
            (model, trunk, headed_run.module.early),
        ):
            want = head(trunk_of.tokens(clip_input(crops), head.blocks))
            torch.testing.assert_close(got(crops)[0], want[0])
            torch.testing.assert_close(got(crops)[1].flatten(1), want[1])


LOADERS = pytest.mark.parametrize(("load", "which"), [(load_adapter, 0), (load_bundled, 1)])


def rewritten(file, *, notes=None, drop=(), **tensors):
    with safe_open(file, "pt") as handle:
        metadata = handle.metadata()
    metadata = {k: v for k, v in (metadata | (notes or {})).items() if v is not None}
    state = {k: v for k, v in load_file(file).items() if k not in drop} | tensors
    save_file(state, file, metadata=metadata)
    return file


@LOADERS
@pytest.mark.parametrize("cut", [-1000, 400, 8, 0])
def test_a_truncated_file_is_named(tiny_run, tmp_path, load, which, cut):
    file = tiny_run.export(tmp_path / "w")[which]
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(WeightsError, match="cannot be read as safetensors") as caught:
        load(file)
    assert caught.value.file == str(file)
    with pytest.raises(WeightsError, match="cannot be read"):
        version_of(file)


@LOADERS
def test_a_file_that_is_not_there_is_named(tmp_path, load, which):
    with pytest.raises(WeightsError, match="is not there") as caught:
        load(tmp_path / "none.safetensors")
    assert caught.value.file.endswith("none.safetensors")
    with pytest.raises(WeightsError, match="is not there"):
        version_of(tmp_path / "none.safetensors")


@LOADERS
def test_a_folder_is_no_file(tmp_path, load, which):
    with pytest.raises(WeightsError, match="cannot be read"):
        load(tmp_path)


@LOADERS
def test_somebody_elses_safetensors_are_refused(tmp_path, load, which):
    file = tmp_path / "other.safetensors"
    save_file({"fc.weight": torch.zeros(2, 2)}, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="does not hold the pixel plugin's updates and head") as caught:
        load(file)
    assert caught.value.file == str(file)


@LOADERS
@pytest.mark.parametrize("key", ["blocks", "rank", "alpha", "ratio"])
@pytest.mark.parametrize("value", [None, "many"])
def test_metadata_that_is_missing_or_wrong_is_refused(tiny_run, tmp_path, load, which, key, value):
    file = rewritten(tiny_run.export(tmp_path / "w")[which], notes={key: value})
    with pytest.raises(WeightsError, match="does not hold the pixel plugin's updates and head"):
        load(file)


@LOADERS
def test_without_a_rank_the_updates_are_not_simply_left_out(tiny_run, headed_run, tmp_path, load, which):
    """A head that was trained on updates must not be read without them, nor the other way round."""
    for run, rank in ((tiny_run, None), (headed_run, "2")):
        file = rewritten(run.export(tmp_path / "w")[which], notes={"rank": rank})
        with pytest.raises(WeightsError, match="does not hold the pixel plugin's updates and head"):
            load(file)


@LOADERS
def test_a_missing_update_is_refused(tiny_run, tmp_path, load, which):
    file = rewritten(tiny_run.export(tmp_path / "w")[which], drop=("lora.down.1/attn/in_proj",))
    with pytest.raises(WeightsError, match=r"down\.1/attn/in_proj"):
        load(file)


@LOADERS
def test_updates_of_another_rank_are_refused(tiny_run, tmp_path, load, which):
    file = rewritten(tiny_run.export(tmp_path / "w")[which], notes={"rank": "3"})
    with pytest.raises(WeightsError, match="size mismatch"):
        load(file)


@pytest.mark.parametrize(
    ("drop", "told"),
    [
        ("tower.ln_pre.weight", "ln_pre.weight"),
        ("tower.conv1.weight", "conv1.weight"),
        ("tower.transformer.resblocks.1.mlp.c_fc.weight:scale", "c_fc.weight:scale"),
    ],
)
def test_a_trunk_with_a_hole_is_refused(tiny_run, tmp_path, drop, told):
    file = rewritten(tiny_run.export(tmp_path / "w")[1], drop=(drop,))
    with pytest.raises(WeightsError, match=f"does not hold the bundled model's trunk.*{told}"):
        load_bundled(file)


def test_a_trunk_of_another_shape_is_refused(tiny_run, tmp_path):
    file = rewritten(tiny_run.export(tmp_path / "w")[1], **{"tower.class_embedding": torch.zeros(3)})
    with pytest.raises(WeightsError, match="class_embedding takes shape"):
        load_bundled(file)


def test_updates_are_those_of_every_block_below_the_heads_last(tiny_run, tmp_path):
    adapter = load_adapter(tiny_run.export(tmp_path / "w")[0])
    assert isinstance(adapter.lora, LoraSet)
    assert {k.split("/")[0] for k in adapter.lora.down} == {"1", "2", "3"}
