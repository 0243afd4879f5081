"""The network, its attention and its loss."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tellsign.errors import SettingError, WeightsError
from tellsign.plugins.segmentation.attention import ClassAttention, CrossAttention
from tellsign.plugins.segmentation.decoder import MlpDecoder
from tellsign.plugins.segmentation.encoders import MIT, STRIDES, build_encoder, lite_to_timm, load_imagenet
from tellsign.plugins.segmentation.losses import WEIGHTS, gamma_loss, masked_bce
from tellsign.plugins.segmentation.model import GammaConfig, GammaModel, GammaOutput
from tellsign.plugins.segmentation.residual import ResidualEnergy, add_residual_stem, kernels
from tellsign.plugins.segmentation.weights_files import load_gamma


def pictures(count=2, side=64, seed=0):
    return torch.randint(0, 256, (count, side, side, 3), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


# -- shapes -------------------------------------------------------------------------------------------------------


def test_masks_have_the_pictures_size_and_there_is_one_logit(toys):
    out = toys.tiny_model()(pictures())
    assert out.ai.shape == out.manipulation.shape == (2, 1, 64, 64)
    assert out.logit.shape == (2, 1)


@pytest.mark.parametrize("height", [63, 64, 65, 97])
def test_any_size_goes_through(toys, height):
    image = torch.zeros(1, height, 80, 3, dtype=torch.uint8)
    out = toys.tiny_model()(image)
    assert out.ai.shape == (1, 1, height, 80)
    coarse = toys.tiny_model()(image, coarse=True)
    assert coarse.ai.shape == (1, 1, math.ceil(height / 4), 20)


def test_the_two_decoders_share_no_weights(toys):
    model = toys.tiny_model()
    ai, ma = (dict(model.decoders[n].named_parameters()) for n in ("ai", "manipulation"))
    assert ai.keys() == ma.keys()
    assert not any(ai[k] is ma[k] for k in ai)


def test_mit_b2_is_the_published_one():
    channels, depths = MIT["mit-b2"]
    assert (channels, depths) == ((64, 128, 320, 512), (3, 4, 6, 3))
    encoder = build_encoder("mit-b0")
    config = encoder.net.config
    assert (list(config.num_attention_heads), list(config.sr_ratios)) == ([1, 2, 5, 8], [8, 4, 2, 1])
    maps = encoder(pictures(1))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 64 // s, 64 // s) for c, s in zip(MIT["mit-b0"][0], STRIDES, strict=True)
    ]


def test_the_bundled_encoder_has_four_maps():
    encoder = build_encoder("efficientnet-lite0").eval()
    maps = encoder(pictures(1, 65))
    assert [tuple(m.shape[1:]) for m in maps] == [(24, 17, 17), (40, 9, 9), (112, 5, 5), (320, 3, 3)]
    assert encoder.channels == (24, 40, 112, 320)


@pytest.mark.parametrize("name", ["mit-b6", "efficientnet", "timm:no_such_model", "timm:vit_tiny_patch16_224"])
def test_an_unknown_encoder_is_refused(name):
    with pytest.raises(SettingError, match="encoder"):
        build_encoder(name)


@pytest.mark.parametrize(
    "settings", [{"attention": "sideways"}, {"kv": "none"}, {"width": 10}, {"query_pool": 0}, {"residual": -1}]
)
def test_a_configuration_says_what_it_takes(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        GammaConfig(**settings)


def test_a_configuration_survives_json():
    config = GammaConfig(encoder="mit-b3", width=32, attention="dual", kv="pooled", query_pool=2, residual=0)
    assert GammaConfig.from_json(config.to_json()) == config


# -- the decoder --------------------------------------------------------------------------------------------------


def test_the_decoder_is_the_concatenating_one():
    """Projecting, scaling up, concatenating coarsest first and convolving gives the same numbers."""
    torch.manual_seed(0)
    decoder = MlpDecoder((3, 5, 7), 4).eval()
    maps = [torch.randn(2, c, s, s) for c, s in ((3, 12), (5, 6), (7, 3))]
    large = [
        F.interpolate(layer(m.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), size=(12, 12), mode="bilinear")
        for layer, m in zip(decoder.project, maps, strict=True)
    ]
    fused = F.relu(decoder.norm(decoder.fuse(torch.cat(large[::-1], dim=1))))
    expected = decoder.mask(F.relu(decoder.mlp(fused)))
    torch.testing.assert_close(decoder(maps)[1], expected, atol=1e-5, rtol=1e-4)


# -- attention ----------------------------------------------------------------------------------------------------


def attend(kind, kv="tokens", *, features=None, tokens=None, pool=1, seed=0):
    torch.manual_seed(seed)
    layer = ClassAttention(16, 4, 2, kind=kind, kv=kv, query_pool=pool)
    tokens = torch.randn(2, 9, 16) if tokens is None else tokens
    features = [torch.randn(2, 16, 8, 8) for _ in range(2)] if features is None else features
    return layer(tokens.mean(dim=1), tokens, features)


def data(seed=5):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, 9, 16, generator=g), [torch.randn(2, 16, 8, 8, generator=g) for _ in range(2)]


@pytest.mark.parametrize("kind", ["reverse", "standard", "dual"])
def test_the_order_of_places_and_tokens_does_not_matter(kind):
    tokens, features = data()
    base = attend(kind, tokens=tokens, features=features)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    shuffled = [f.flatten(2)[..., order].unflatten(2, (8, 8)) for f in features]
    torch.testing.assert_close(attend(kind, tokens=tokens, features=shuffled), base, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        attend(kind, tokens=tokens[:, torch.randperm(9)], features=features), base, atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("kind", ["reverse", "standard", "dual"])
def test_the_decoders_change_the_class(kind):
    tokens, features = data()
    other = [f + 1 for f in features]
    assert not torch.allclose(
        attend(kind, tokens=tokens, features=features), attend(kind, tokens=tokens, features=other)
    )


def test_the_printed_form_is_deaf():
    """With one pooled key a softmax is 1: the class token does not depend on the decoders."""
    tokens, features = data()
    other = [3 * f - 1 for f in features]
    torch.testing.assert_close(
        attend("reverse", "pooled", tokens=tokens, features=features),
        attend("reverse", "pooled", tokens=tokens, features=other),
        atol=1e-6,
        rtol=1e-5,
    )


@pytest.mark.parametrize(("kv", "reaches"), [("tokens", True), ("pooled", False)])
def test_the_gradient_of_the_class_reaches_the_decoders(toys, kv, reaches):
    model = toys.tiny_model(kv=kv)
    maps = model.encoder(pictures())
    features, _ = model.decode(maps)
    features = {name: f.detach().requires_grad_() for name, f in features.items()}
    model.classify(maps[-1].detach(), features).sum().backward()
    steepest = max(float(f.grad.abs().max()) for f in features.values())
    assert (steepest > 1e-7) is reaches, steepest


def test_without_attention_the_class_stands_alone():
    tokens, features = data()
    torch.testing.assert_close(attend("none", tokens=tokens, features=features), tokens.mean(dim=1))


def test_pooled_queries_of_a_flat_map_are_the_map():
    tokens, _ = data()
    flat = [torch.full((2, 16, 8, 8), v) for v in (0.3, -0.2)]
    exact = attend("reverse", tokens=tokens, features=flat)
    torch.testing.assert_close(attend("reverse", tokens=tokens, features=flat, pool=3), exact, atol=1e-6, rtol=1e-5)


def test_cross_attention_by_hand():
    layer = CrossAttention(2, 1)
    with torch.no_grad():
        for part in (layer.query, layer.key, layer.value, layer.out):
            part.weight.copy_(torch.eye(2))
            part.bias.zero_()
    queries, tokens = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    w = math.exp(1 / math.sqrt(2)) / (math.exp(1 / math.sqrt(2)) + 1)
    torch.testing.assert_close(layer(queries, tokens)[0, 0], torch.tensor([w, 2 * (1 - w)]))


# -- the loss -----------------------------------------------------------------------------------------------------


def bce(logit, truth):
    return math.log1p(math.exp(-logit)) if truth else math.log1p(math.exp(logit))


def test_the_loss_is_equation_6_by_hand():
    out = GammaOutput(torch.tensor([[0.7]]), torch.tensor([[[[1.5, -0.5]]]]), torch.tensor([[[[0.2, -2.0]]]]))
    parts = gamma_loss(out, torch.ones(1, 1), torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]]))
    a = bce(0.7, True)
    b = (bce(1.5, True) + bce(-0.5, False)) / 2
    c = (bce(0.2, False) + bce(-2.0, True)) / 2
    assert sum(parts.values()).item() == pytest.approx(2 * (a + b) + c, rel=1e-6)


def test_pictures_that_do_not_count_change_nothing():
    logits = torch.tensor([[[[0.3]]], [[[5.0]]]])
    truth = torch.zeros(2, 1, 1, 1)
    assert masked_bce(logits, truth, torch.tensor([1.0, 0.0])).item() == pytest.approx(bce(0.3, False), rel=1e-6)
    assert masked_bce(logits, truth, torch.zeros(2)).item() == 0


def test_a_part_without_a_weight_is_not_trained():
    out = GammaOutput(torch.zeros(1, 1), torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    zeros = torch.zeros(1, 1, 2, 2)
    assert set(gamma_loss(out, torch.ones(1, 1), zeros, zeros)) == set(WEIGHTS)
    assert set(gamma_loss(out, torch.ones(1, 1), zeros, zeros, weights={"cls": 1.0})) == {"cls"}


# -- the residual path --------------------------------------------------------------------------------------------


def test_high_pass_kernels_see_no_flat_and_no_ramp():
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    for plane in (torch.full((9, 9), 7.0), 2 * x + 3 * y):
        assert F.conv2d(plane[None, None], kernels()[:, None]).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["efficientnet-lite0", "timm:tf_efficientnet_lite0", "timm:efficientnet_b0", "mit-b0"])
def test_the_residual_path_starts_at_zero_and_then_speaks(name):
    torch.manual_seed(0)
    encoder = build_encoder(name).eval()
    x = pictures(1, 67)
    before = encoder(x)
    add_residual_stem(encoder, 4)
    encoder.eval()
    for one, other in zip(before, encoder(x), strict=True):
        torch.testing.assert_close(one, other)
    stem = next(m for m in encoder.modules() if type(m).__name__ == "ResidualStem")
    torch.nn.init.normal_(stem.last.weight)
    assert not torch.allclose(before[0], encoder(x)[0])


def test_the_energy_of_a_flat_picture_is_flat_and_of_a_noisy_half_is_higher():
    energy = ResidualEnergy()
    picture = np.full((1, 65, 70, 3), 128, np.uint8)
    flat = energy(torch.from_numpy(picture))
    assert flat.shape == (1, ResidualEnergy.channels, 17, 18)
    assert float(flat.max() - flat.min()) < 1e-5
    picture[:, :, 40:] += np.random.default_rng(0).integers(0, 20, (1, 65, 30, 3), dtype=np.uint8)
    noisy = energy(torch.from_numpy(picture))
    assert (noisy[..., 14:] > flat[..., 14:] + 0.5).all()
    assert (noisy[..., :5] == flat[..., :5]).all()


def test_contrast_does_not_hear_what_is_the_same_everywhere():
    """A constant added to the fused features changes the plain half of what the last MLP is given, and only that."""
    torch.manual_seed(0)
    decoder = MlpDecoder((3, 5), 4, contrast=True).eval()
    maps = [torch.randn(2, 3, 12, 12), torch.randn(2, 5, 6, 6)]
    with torch.no_grad():
        decoder.mlp.weight[:, :4] = 0
        before = decoder(maps)[0]
        decoder.project[0].bias += 3
        after = decoder(maps)[0]
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def test_with_everything_on_it_still_has_the_papers_outputs(toys):
    out = toys.tiny_model(energy=True, contrast=True)(pictures(2, 65))
    assert out.ai.shape == (2, 1, 65, 65)


# -- weights ------------------------------------------------------------------------------------------------------


def test_lite0_weights_of_the_package_fit_timms_network():
    """Names and shapes; the tensors are drawn, in the package's layout."""
    timm = pytest.importorskip("timm")
    own = timm.create_model("tf_efficientnet_lite0").state_dict()
    names = {
        "conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"
    }  # fmt: skip
    plain = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    inverted = {
        "conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv",
        "bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2",
    }  # fmt: skip
    blocks, state = [], {}
    for key, value in own.items():
        parts = key.split(".")
        if parts[0] == "blocks":
            if parts[1:3] not in blocks:
                blocks.append(parts[1:3])
            kind = plain if parts[1] == "0" else inverted
            state[f"_blocks.{blocks.index(parts[1:3])}.{kind[parts[3]]}.{parts[4]}"] = value
        else:
            state[f"{names[parts[0]]}.{parts[1]}"] = value
    mapped = lite_to_timm(state)
    assert mapped.keys() == own.keys()
    assert all(mapped[k] is own[k] for k in own)


def test_imagenet_weights_come_from_a_file(tmp_path):
    import timm

    torch.manual_seed(3)
    there = timm.create_model("tf_efficientnet_lite0").state_dict()
    torch.save(there, tmp_path / "lite0.pth")
    encoder = build_encoder("timm:tf_efficientnet_lite0")
    load_imagenet(encoder, "timm:tf_efficientnet_lite0", tmp_path / "lite0.pth")
    assert torch.equal(encoder.net.state_dict()["stem.conv.weight"], there["conv_stem.weight"])
    torch.save({"something": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(SettingError, match="source"):
        load_imagenet(encoder, "timm:tf_efficientnet_lite0", tmp_path / "other.pth")


def test_a_mit_comes_from_a_folder_that_transformers_saved(tmp_path):
    torch.manual_seed(4)
    saved = build_encoder("mit-b0")
    saved.net.save_pretrained(tmp_path / "mit")
    torch.manual_seed(5)
    fresh = build_encoder("mit-b0")
    load_imagenet(fresh, "mit-b0", tmp_path / "mit")
    for one, other in zip(saved.eval()(pictures(1)), fresh.eval()(pictures(1)), strict=True):
        torch.testing.assert_close(one, other)


def test_a_damaged_weights_file_says_so(tmp_path):
    from safetensors.torch import save_file

    file = tmp_path / "gamma.safetensors"
    with pytest.raises(WeightsError, match="not there"):
        load_gamma(file)
    file.write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match="safetensors"):
        load_gamma(file)
    save_file({"a": torch.zeros(1)}, file, metadata={"config": json.dumps({"width": 64})})
    with pytest.raises(WeightsError, match="segmentation"):
        load_gamma(file)


def test_a_saved_network_says_what_it_said(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config = GammaConfig(encoder="mit-b0", width=16, heads=4, residual=2)
    model = GammaModel(config).eval()
    file = tmp_path / "gamma.safetensors"
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(state, file, metadata={"config": config.to_json(), "version": "1"})
    one, other = model(pictures()), load_gamma(file)(pictures())
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), atol=0.02)
