"""Attention maps and the loss on them: golden values, hand computations, and what must reach the gradient."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tellsign.alignment import (
    Alignment,
    alignment_loss,
    attention_map,
    attention_mass,
    cross_attention_map,
    grad_cam,
    patch_shares,
    recorded,
    relevance,
    rollout,
)
from tellsign.alignment.rollout import normalised
from tellsign.errors import SettingError
from tellsign.towers import ClipTower


def tower(depth=3, seed=0):
    torch.manual_seed(seed)
    model = ClipTower(depth=depth, width=64, heads=4, patch=8, size=32, projection=16)
    model.heads = 4
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


class Detector(nn.Module):
    """A tower and a head on its class token."""

    def __init__(self, depth=3, seed=0):
        super().__init__()
        self.tower = tower(depth, seed)
        self.head = nn.Linear(64, 1)

    def forward(self, x):
        return self.head(self.tower.tokens(x, (self.tower.depth,))[self.tower.depth][:, 0])


def pictures(count=2, seed=1):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


# -- attention of one set of tokens on another ---------------------------------------------------------------------


def test_a_cross_attention_map_by_hand():
    attention = torch.tensor([[[[0.25, 0.75], [0.5, 0.5]], [[0.5, 0.5], [1.0, 0.0]]]], requires_grad=True)
    # What each weight does to the logit is its gradient.
    effect = torch.tensor([[[[4.0, 0.0], [0.0, -4.0]], [[0.0, 2.0], [1.0, 3.0]]]])
    seen = cross_attention_map((attention * effect).sum().reshape(1), [attention])
    # Gradient times attention, mean of the heads: [[.5, .5], [.5, -1]]; what is positive, summed over who asks: 1, .5.
    torch.testing.assert_close(seen, torch.tensor([[1.0, 0.5]]))
    with pytest.raises(ValueError, match="all of one N"):
        cross_attention_map(attention.sum().reshape(1), [attention, torch.zeros(1, 1, 2, 3)])


def test_any_module_with_a_record_is_recorded():
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.record = None

        def forward(self, x):
            if self.record is not None:
                self.record(x)
            return x

    model = nn.Sequential(Asks())
    with recorded(model) as attentions:
        model(torch.ones(2))
    model(torch.ones(2))
    assert len(attentions) == 1


# -- as an auxiliary loss -------------------------------------------------------------------------------------------


def test_the_auxiliary_loss_is_beta_times_the_loss_of_maps_with_one_maximum():
    model, x = Detector(), pictures()
    masks = torch.zeros(2, 32, 32)
    masks[0, 8:16, 8:16] = 1
    with recorded(model) as attentions:
        logits = model(x)
    loss = Alignment(beta=3.0, benign=0.6).loss(logits, attentions, masks, (4, 4))
    seen = attention_map(logits, attentions, together=True)
    torch.testing.assert_close(loss, 3 * alignment_loss(seen, patch_shares(masks, (4, 4)), benign=0.6))
    own = alignment_loss(attention_map(logits, attentions), patch_shares(masks, (4, 4)), benign=0.6)
    assert abs(loss.item() - 3 * own.item()) > 1e-6
    loss.backward()
    assert model.tower.transformer.resblocks[0].attn.in_proj_weight.grad.abs().sum() > 0


@pytest.mark.parametrize("change", [{"beta": -1}, {"benign": 1.5}, {"last": 0}])
def test_an_alignment_that_makes_no_sense_is_refused(change):
    with pytest.raises(SettingError, match=next(iter(change))):
        Alignment(**change)
    assert not Alignment(beta=0)


# -- recording ----------------------------------------------------------------------------------------------------


def test_recorded_attention_is_the_fused_one_in_the_open():
    model = Detector().eval()
    x = pictures()
    expected = model(x)
    with recorded(model) as attentions:
        seen = model(x)
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-5)
    assert [tuple(a.shape) for a in attentions] == [(2, 4, 17, 17)] * 3
    for attention in attentions:
        assert attention.dtype is torch.float32
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))
    model(x)
    assert len(attentions) == 3  # nothing is recorded outside the block


def test_timm_is_recorded_and_left_as_it_was():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=1).eval()
    x = pictures()
    expected, fused = model(x), [b.attn.fused_attn for b in model.blocks]
    with recorded(model) as attentions:
        seen = model(x)
        attention_map(seen, attentions)
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-5)
    assert len(attentions) == 2
    assert [b.attn.fused_attn for b in model.blocks] == fused
    model(x)
    assert len(attentions) == 2


def test_a_model_without_attention_is_refused():
    with pytest.raises(ValueError, match="got Sequential without any"), recorded(nn.Sequential(nn.Linear(2, 2))):
        pass


# -- rollout ------------------------------------------------------------------------------------------------------


def test_rollout_of_two_layers_by_hand():
    # One head, two tokens; gradients of 1, so that the weighted attention is the attention itself.
    first = torch.tensor([[[[0.5, 0.5], [0.0, 1.0]]]])
    second = torch.tensor([[[[1.0, 0.0], [0.25, 0.75]]]])
    # (A + 1) / 2 has rows that sum to 1 already: [[.75, .25], [0, 1]] and [[1, 0], [.125, .875]].
    expected = torch.tensor([[[0.75, 0.25], [0.09375, 0.90625]]])
    ones = [torch.ones_like(first)] * 2
    torch.testing.assert_close(rollout([first, second], ones), expected)
    # The last block stands on the left: the other order is another map.
    assert not torch.allclose(rollout([second, first], ones), expected)


def test_rows_of_a_rollout_sum_to_one_whatever_the_gradients():
    generator = torch.Generator().manual_seed(0)
    attentions = [torch.rand(2, 3, 5, 5, generator=generator).softmax(-1) for _ in range(3)]
    gradients = [torch.randn(2, 3, 5, 5, generator=generator) for _ in range(3)]
    for per_head in (False, True):
        torch.testing.assert_close(rollout(attentions, gradients, per_head=per_head).sum(-1), torch.ones(2, 5))


def test_the_two_readings_of_heads_differ_where_heads_disagree():
    attention = torch.full((1, 2, 2, 2), 0.5)
    gradient = torch.stack([torch.ones(2, 2), -torch.ones(2, 2)])[None]
    torch.testing.assert_close(rollout([attention], [gradient])[0], torch.eye(2))
    assert (rollout([attention], [gradient], per_head=True)[0] != torch.eye(2)).all()


def test_gradients_in_the_wrong_order_give_another_map():
    # What arrives from hooks comes from the last block backwards; pairing it with attentions counted forwards is the
    # mistake of the code in circulation.
    model, x = Detector().eval(), pictures()
    with recorded(model) as attentions:
        logits = model(x)
    gradients = torch.autograd.grad(logits.sum(), attentions)
    right, wrong = rollout(attentions, gradients), rollout(attentions, gradients[::-1])
    assert not torch.allclose(right, wrong, atol=1e-6)


def test_relevance_by_hand():
    attention = torch.tensor([[[[0.5, 0.5], [0.0, 1.0]]]])
    gradient = torch.tensor([[[[1.0, -1.0], [2.0, 0.5]]]])
    step = torch.tensor([[[0.5, 0.0], [0.0, 0.5]]])
    once = torch.eye(2) + step
    torch.testing.assert_close(relevance([attention], [gradient]), once)
    torch.testing.assert_close(relevance([attention] * 2, [gradient] * 2), once + step @ once)


@pytest.mark.parametrize("depth", [1, 3])
def test_a_map_is_in_the_unit_interval_and_its_gradient_reaches_the_first_layer(depth):
    model, x = Detector(depth), pictures()
    with recorded(model) as attentions:
        logits = model(x)
    seen = attention_map(logits, attentions)
    assert seen.shape == (2, 16)
    assert seen.min() >= 0
    torch.testing.assert_close(seen.amax(dim=1), torch.ones(2), atol=1e-4, rtol=0)
    alignment_loss(seen, torch.zeros_like(seen)).backward()
    first = model.tower.transformer.resblocks[0].attn.in_proj_weight.grad
    assert first is not None
    assert first.abs().max() > 0
    assert model.head.weight.grad.abs().max() > 0


def test_the_last_blocks_can_be_rolled_out_alone():
    model, x = Detector(3).eval(), pictures()
    with recorded(model) as attentions:
        logits = model(x)
    gradients = torch.autograd.grad(logits.sum(), attentions[-1:], retain_graph=True)
    alone = rollout(attentions[-1:], gradients)[:, 0, 1:]
    expected = alone / alone.amax(1, keepdim=True)
    torch.testing.assert_close(attention_map(logits, attentions, last=1), expected, atol=1e-4, rtol=1e-4)


def test_patches_that_change_places_change_places_in_the_map():
    # Without positions a transformer does not know where a patch is, and neither may the map.
    model = Detector().eval()
    nn.init.zeros_(model.tower.positional_embedding)
    x = pictures(1)
    patches = x.unfold(2, 8, 8).unfold(3, 8, 8).reshape(1, 3, 16, 8, 8)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    moved = patches[:, :, order].reshape(1, 3, 4, 4, 8, 8).permute(0, 1, 2, 4, 3, 5).reshape(1, 3, 32, 32)
    maps = []
    for picture in (x, moved):
        with recorded(model) as attentions:
            logits = model(picture)
        maps.append(attention_map(logits, attentions, create_graph=False))
    torch.testing.assert_close(maps[1], maps[0][:, order], atol=1e-4, rtol=1e-4)


def test_training_on_real_pictures_alone_drives_attention_away():
    # The maximum is a constant: were it part of the gradient, the map's maximum of 1 would stay for ever.
    torch.manual_seed(0)
    model = Detector(1)
    optimiser, x = torch.optim.Adam(model.parameters(), 3e-3), pictures(4)

    def mass():
        with recorded(model) as attentions:
            logits = model(x)
        gradients = torch.autograd.grad(logits.sum(), attentions, create_graph=True)
        return logits, attentions, rollout(attentions, gradients)[:, 0, 1:].detach()

    before = float(mass()[2].sum())
    for _ in range(60):
        logits, attentions, _ = mass()
        optimiser.zero_grad()
        alignment_loss(attention_map(logits, attentions), torch.zeros(4, 16), benign=1.0).backward()
        optimiser.step()
    assert float(mass()[2].sum()) < 0.1 * before


@pytest.mark.parametrize(
    ("attentions", "gradients", "message"),
    [
        ([], [], "at least one"),
        ([torch.ones(1, 1, 2, 2)], [], "got 1 and 0"),
        ([torch.ones(1, 1, 2, 3)], [torch.ones(1, 1, 2, 3)], r"\(1, 1, 2, 3\)"),
        ([torch.ones(1, 1, 2, 2)], [torch.ones(1, 2, 2, 2)], "gradients takes tensors of one shape"),
    ],
)
def test_what_does_not_fit_is_named(attentions, gradients, message):
    with pytest.raises(ValueError, match=message):
        rollout(attentions, gradients)


def test_one_maximum_for_a_batch_leaves_faint_maps_faint():
    attended = torch.tensor([[0.2, 0.1], [0.02, 0.0]], requires_grad=True)
    torch.testing.assert_close(normalised(attended), torch.tensor([[1.0, 0.5], [1.0, 0.0]]))
    together = normalised(attended, together=True)
    torch.testing.assert_close(together, torch.tensor([[1.0, 0.5], [0.1, 0.0]]))
    (gradient,) = torch.autograd.grad(together.sum(), attended)
    torch.testing.assert_close(gradient, torch.full((2, 2), 5.0))


# -- Grad-CAM -----------------------------------------------------------------------------------------------------


def test_grad_cam_of_one_convolution_by_hand():
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 5.0]]]], requires_grad=True)
    # logit = sum of channel 0 minus twice the sum of channel 1: channel weights 1 and -2.
    logits = features[:, 0].sum(dim=(1, 2)) - 2 * features[:, 1].sum(dim=(1, 2))
    torch.testing.assert_close(grad_cam(logits, features), torch.tensor([[[0.0, 2.0], [3.0, 0.0]]]))
    with pytest.raises(ValueError, match="features takes"):
        grad_cam(logits, features[0])


# -- targets ------------------------------------------------------------------------------------------------------


def test_a_patch_half_covered_is_a_half():
    masks = torch.zeros(2, 4, 8, dtype=torch.bool)
    masks[0, :2, :2] = True
    masks[0, :, 6:7] = True
    expected = torch.tensor([[1.0, 0, 0, 0.5, 0, 0, 0, 0.5], [0] * 8])
    torch.testing.assert_close(patch_shares(masks, (2, 4)), expected)


@pytest.mark.parametrize(("shape", "grid"), [((1, 5, 4), (2, 2)), ((4, 4), (2, 2))])
def test_masks_that_do_not_fit_the_grid_are_refused(shape, grid):
    with pytest.raises(ValueError, match="masks takes"):
        patch_shares(torch.zeros(shape), grid)


# -- loss ---------------------------------------------------------------------------------------------------------

SEEN, ARTIFACT = torch.tensor([[0.2, 0.8, 0.5, 0.0]]), torch.tensor([[0.0, 1.0, 0.5, 0.0]])


@pytest.mark.parametrize(("benign", "value"), [(0.4, 0.014), (1.0, 0.020), (0.0, 0.010)])
def test_golden_values(benign, value):
    assert float(alignment_loss(SEEN, ARTIFACT, benign=benign)) == pytest.approx(value, abs=1e-6)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_at_one_it_is_the_mean_squared_error(seed):
    generator = torch.Generator().manual_seed(seed)
    seen, target = (torch.rand(3, 7, generator=generator) for _ in range(2))
    for soft in (False, True):
        torch.testing.assert_close(alignment_loss(seen, target, benign=1.0, soft=soft), F.mse_loss(seen, target))


def test_soft_weights_follow_the_share():
    # Patch 2 is half covered: it weighs .5 + .4 * .5, and its error is 0 here; patch 0 weighs .4, patch 1 weighs 1.
    assert float(alignment_loss(SEEN, ARTIFACT, benign=0.4, soft=True)) == pytest.approx((0.4 * 0.04 + 0.04) / 4)


def test_pictures_without_annotation_do_not_count():
    seen, target = torch.cat([SEEN, torch.ones(1, 4)]), torch.cat([ARTIFACT, torch.zeros(1, 4)])
    known = torch.tensor([True, False])
    torch.testing.assert_close(alignment_loss(seen, target, known=known), alignment_loss(SEEN, ARTIFACT))
    assert float(alignment_loss(seen, target, known=torch.tensor([False, False]))) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": torch.zeros(1, 3)}, "one shape"),
        ({"benign": 1.5}, r"benign takes a number in \[0, 1\], got 1.5"),
        ({"known": torch.tensor([True, True])}, "known takes"),
    ],
)
def test_arguments_outside_their_range_are_refused(change, message):
    arguments = {"attended": SEEN, "target": ARTIFACT} | change
    with pytest.raises(ValueError, match=message):
        alignment_loss(**arguments)


def test_mass_is_the_share_on_the_artifact():
    seen = torch.tensor([[1.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    target = torch.tensor([[0.0, 1.0, 1.0, 0.0]] * 2)
    mass = attention_mass(seen, target)
    assert float(mass[0]) == 0.75
    assert mass[1].isnan()
