"""Inpainters: the contract, ONNX files, diffusers' pipelines."""

import importlib.util
import json

import numpy as np
import pytest
from PIL import Image

from tellsign.errors import SettingError, WeightsError
from tellsign.forge.errors import ForgeError
from tellsign.forge.inpaint import Diffusers, Latent, MiGan, inpainted
from tellsign.forge.onnx import Session
from tellsign.forge.tools import gather
from tellsign.forge.upscale import OnnxUpscaler


def noise(height=48, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def hole():
    region = np.zeros((48, 64), np.bool_)
    region[10:30, 20:44] = True
    return region


def mean_fill(pixels, region, rng):
    """An inpainter that tests name on the command line too."""
    out = pixels.copy()
    out[region] = out[~region].mean(axis=0)
    return out


def rewriting(pixels, region, rng):
    return np.clip(mean_fill(pixels, region, rng).astype(int) + 3, 0, 255).astype(np.uint8)


def test_an_answer_that_keeps_the_surroundings_serves_to_blend_and_not_as_plain(hole):
    rng = np.random.default_rng(0)
    assert np.array_equal(inpainted(mean_fill, noise(), hole, rng, plain=False), mean_fill(noise(), hole, rng))
    with pytest.raises(
        ForgeError, match=r"kept 100% of the pixels outside the hole.*AI mask of all ones would be false"
    ):
        inpainted(mean_fill, noise(), hole, rng, plain=True)
    assert inpainted(rewriting, noise(), hole, rng, plain=True).dtype == np.uint8


@pytest.mark.parametrize("wrong", [lambda p, r, g: p[:-1], lambda p, r, g: p / 255, lambda p, r, g: None])
def test_an_answer_of_another_shape_or_dtype_is_refused(hole, wrong):
    with pytest.raises(ForgeError, match=r"answers with uint8 of shape \(48, 64, 3\), this one with"):
        inpainted(wrong, noise(), hole, np.random.default_rng(0), plain=False)


def test_a_latent_inpainter_writes_every_pixel(hole):
    seen = []

    def trip(pixels, rng):
        seen.append(pixels)
        return 255 - pixels

    out = inpainted(Latent(mean_fill, trip), noise(), hole, np.random.default_rng(0), plain=True)
    assert np.array_equal(seen[0], mean_fill(noise(), hole, None))
    assert np.array_equal(out, 255 - seen[0])


# -- ONNX ---------------------------------------------------------------------------------------------------------


def network(file, nodes, inputs, output):
    onnx = pytest.importorskip("onnx", reason="the extra `convert` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `forge` is not installed")
    helper, kinds = onnx.helper, onnx.TensorProto
    shape = ["b", 3, "h", "w"]
    graph = helper.make_graph(
        [helper.make_node(*n[:3], **n[3]) for n in nodes],
        "tiny",
        [helper.make_tensor_value_info(n, getattr(kinds, k), [*shape[:1], c, *shape[2:]]) for n, k, c in inputs],
        [helper.make_tensor_value_info("out", getattr(kinds, output), None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    return file


@pytest.fixture
def migan(tmp_path):
    """Fills with the mask's value, 0: max(picture where kept, 0 where not), as uint8 in and out."""
    nodes = [("Min", ["picture", "mask"], ["out"], {})]
    return network(tmp_path / "migan.onnx", nodes, [("picture", "UINT8", 3), ("mask", "UINT8", 1)], "UINT8")


def test_migans_mask_says_what_to_keep(migan, hole):
    out = MiGan(migan)(noise(), hole, np.random.default_rng(0))
    assert np.array_equal(out, np.where(hole[..., None], 0, noise()))


def test_a_network_that_doubles_works_on_odd_sides(tmp_path):
    nodes = [
        ("SpaceToDepth", ["picture"], ["folded"], {"blocksize": 2}),  # wants even sides, as Real-ESRGAN x2 does
        ("DepthToSpace", ["folded"], ["flat"], {"blocksize": 2}),
        ("Concat", ["flat"] * 4, ["four"], {"axis": 1}),
        ("DepthToSpace", ["four"], ["out"], {"blocksize": 2}),
    ]
    file = network(tmp_path / "double.onnx", nodes, [("picture", "FLOAT", 3)], "FLOAT")
    pixels = noise(15, 22)
    assert np.array_equal(OnnxUpscaler(file)(pixels), np.repeat(np.repeat(pixels, 2, axis=0), 2, axis=1))


def test_a_file_that_is_no_network_or_another_one_is_refused(tmp_path, migan):
    with pytest.raises(WeightsError, match=r"none\.onnx: there is no such file"):
        Session(tmp_path / "none.onnx", inputs=1)
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(WeightsError, match="is no network that onnxruntime reads"):
        Session(tmp_path / "bad.onnx", inputs=1)
    with pytest.raises(WeightsError, match="takes 2 inputs, and 1 are given here"):
        OnnxUpscaler(migan)
    with pytest.raises(ForgeError, match=r"migan\.onnx does not run on float32"):
        Session(migan, inputs=2).run(np.zeros((1, 3, 4, 4), np.float32), np.zeros((1, 1, 4, 4), np.uint8))


# -- what names and files give --------------------------------------------------------------------------------------


def test_tools_are_gathered_by_name(migan, tmp_path):
    tools = gather(migan=migan, annotations=tmp_path)
    assert (tools.of("blend"), tools.of("inpaint"), tools.of("copymove")) == (["migan"], [], [])
    assert tools.annotations == tmp_path


def test_an_inpainter_is_found_by_module_and_name():
    tools = gather(inpainter="json:dumps")
    assert tools.blend["json:dumps"] is json.dumps
    assert tools.of("inpaint") == ["json:dumps"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"inpainter": "json"}, SettingError, "inpainter takes module:callable, got 'json'"),
        ({"inpainter": "json:__name__"}, SettingError, "inpainter takes module:callable"),
        ({"inpainter": "json:nope"}, ForgeError, "the inpainter json:nope cannot be imported"),
        ({"inpainter": "no_such_module:x"}, ForgeError, "cannot be imported: No module named"),
        ({"autoencoders": "."}, SettingError, r"autoencoders takes a folder with NAME_encoder\.safetensors"),
        ({"annotations": "no-such-folder"}, SettingError, "annotations takes a folder of mask pictures"),
    ],
)
def test_tools_that_are_not_there_are_named(options, error, message, tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    options = {k: v if k == "inpainter" else Path(v) for k, v in options.items()}
    with pytest.raises(error, match=message):
        gather(**options)


# -- diffusers ----------------------------------------------------------------------------------------------------


class Pipeline:
    """Called as diffusers' inpainting pipelines are; whoever calls it otherwise gets a TypeError."""

    def __call__(self, *, prompt, image, mask_image, height, width, num_inference_steps, generator):
        import torch

        assert image.size == mask_image.size == (width, height)
        assert (width % 8, height % 8) == (0, 0)
        self.seen = {"prompt": prompt, "steps": num_inference_steps, "mask": np.asarray(mask_image)}
        draw = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8).numpy()
        out = np.where(np.asarray(mask_image)[..., None] > 127, draw, np.asarray(image))
        return type("Answer", (), {"images": [Image.fromarray(out)]})


def test_a_pipeline_is_called_as_diffusers_wants_it_and_never_resampled():
    pytest.importorskip("torch")
    pixels = noise(45, 61)
    region = np.zeros((45, 61), np.bool_)
    region[5:20, 40:61] = True
    pipeline = Pipeline()
    inpainter = Diffusers(pipeline, prompt="a wall", steps=3)
    out = [inpainter(pixels, region, np.random.default_rng(s)) for s in (0, 0, 1)]
    assert np.array_equal(out[0][~region], pixels[~region])
    assert np.array_equal(out[0], out[1])
    assert not np.array_equal(out[0], out[2])
    assert (pipeline.seen["prompt"], pipeline.seen["steps"]) == ("a wall", 3)
    assert np.array_equal(pipeline.seen["mask"][:45, :61] == 255, region)


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is not None, reason="diffusers is installed")
def test_without_diffusers_the_cure_is_named():
    with pytest.raises(ForgeError, match=r"pip install 'tellsign\[diffusion\]'"):
        Diffusers.load("anything")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="the extra `diffusion` is not installed")
def test_a_real_pipeline_runs(tmp_path):
    """A whole inpainting pipeline of diffusers, with networks of a few thousand weights."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from tellsign.forge.roundtrip import RoundTrip

    torch.manual_seed(0)
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    words = {w: i for i, w in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    blocks = {"block_out_channels": (8, 16), "norm_num_groups": 4}
    pipeline = StableDiffusionInpaintPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **blocks
        ),
        unet=UNet2DConditionModel(
            sample_size=32,
            in_channels=9,
            layers_per_block=1,
            cross_attention_dim=8,
            attention_head_dim=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            **blocks,
        ),
        scheduler=DDIMScheduler(steps_offset=1),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=8,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=77,
                bos_token_id=len(words) - 2,
                eos_token_id=len(words) - 1,
                pad_token_id=len(words) - 1,
            )
        ),
        tokenizer=CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), model_max_length=77),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(tmp_path / "tiny")
    inpainter = Diffusers.load(str(tmp_path / "tiny"), prompt="a wall", steps=2)
    pixels = noise(60, 68)
    region = np.zeros((60, 68), np.bool_)
    region[10:40, 10:40] = True
    first = inpainted(inpainter, pixels, region, np.random.default_rng(0), plain=True)
    assert np.array_equal(first, inpainter(pixels, region, np.random.default_rng(0)))
    trip = RoundTrip(pipeline.vae, signed=True)(pixels, np.random.default_rng(0))
    assert trip.shape == pixels.shape
    with pytest.raises(ForgeError, match=r"the inpainting pipeline '.*nowhere' cannot be loaded"):
        Diffusers.load(str(tmp_path / "nowhere"))
