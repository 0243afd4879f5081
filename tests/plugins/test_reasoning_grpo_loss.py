"""GRPO's parts: golden values of science.md 10, and what must hold of them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tellsign.plugins.reasoning.training.grpo.loss import group_advantages, grpo_loss, kl_k3


def test_the_golden_advantages():
    got = group_advantages(torch.tensor([[2.0, 1.0, 1.0, 0.0]]))
    torch.testing.assert_close(got, torch.tensor([[1.22459, 0.0, 0.0, -1.22459]]), atol=5e-6, rtol=0)


def test_equal_rewards_teach_nothing():
    advantages = group_advantages(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0]]))
    assert torch.equal(advantages[0], torch.zeros(4))
    log_p = torch.full((4, 3), -1.0, requires_grad=True)
    old = log_p.detach()
    grpo_loss(log_p, old, old, advantages[0], torch.ones(4, 3)).backward()
    assert torch.equal(log_p.grad, torch.zeros(4, 3))


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(-3, 3))
def test_only_differences_within_a_group_count(rewards, shift):
    one = torch.tensor([rewards], dtype=torch.float64)
    torch.testing.assert_close(group_advantages(one + shift), group_advantages(one), atol=1e-6, rtol=1e-6)
    assert abs(group_advantages(one).sum().item()) < 1e-6


@pytest.mark.parametrize("shape", [(4,), (2, 1)])
def test_a_group_needs_company(shape):
    with pytest.raises(ValueError, match="G above 1"):
        group_advantages(torch.zeros(shape))


def test_the_golden_divergence():
    assert kl_k3(torch.tensor(-1.3), torch.tensor(-1.0)).item() == pytest.approx(0.049859, abs=5e-7)


@given(st.floats(-20, 0), st.floats(-20, 0))
def test_the_divergence_is_never_negative_and_nothing_at_equality(a, b):
    one, other = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    assert kl_k3(one, other) >= 0
    assert kl_k3(one, one) == 0


def test_the_loss_by_hand():
    # Ratios e^.1 = 1.105 (inside) and e^.5 = 1.649 (clipped to 1.2 for a gain, not for a loss).
    old = torch.zeros(2, 2)
    new = torch.tensor([[0.1, 0.5], [0.5, 0.0]])
    reference = new - 0.3  # so that d = -.3 everywhere
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    kl = math.exp(-0.3) + 0.3 - 1
    first = (-(math.exp(0.1) * 2) - (1.2 * 2)) / 2 + 0.04 * kl
    second = math.exp(0.5) * 3 + 0.04 * kl
    got = grpo_loss(new, old, reference, torch.tensor([2.0, -3.0]), mask)
    assert got.item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        grpo_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 2), torch.zeros(2), torch.ones(2, 3))


def test_a_policy_of_two_tokens_learns_which_one_pays():
    logits = torch.zeros(2, requires_grad=True)
    reference = torch.zeros(2).log_softmax(0)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        log_p = logits.log_softmax(0)
        drawn = torch.multinomial(log_p.detach().exp(), 8, replacement=True, generator=generator)
        advantages = group_advantages((drawn == 1).float()[None])[0]
        chosen = log_p[drawn][:, None]
        loss = grpo_loss(chosen, chosen.detach(), reference[drawn][:, None], advantages, torch.ones(8, 1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert logits.softmax(0)[1] > 0.95
