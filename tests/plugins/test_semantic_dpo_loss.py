"""The preference loss: golden values of science.md 10, and what must hold of it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tellsign.plugins.semantic.training.dpo.loss import answer_log_p, dpo_loss


def loss(*numbers, **options):
    return dpo_loss(*(torch.tensor([float(n)], dtype=torch.float64) for n in numbers), **options).item()


def test_the_golden_value():
    # beta .05: the argument is .05 * ((-10 + 11) - (-12 + 11.5)) = .075.
    assert loss(-10, -12, -11, -11.5) == pytest.approx(0.656350, abs=5e-7)


def test_a_model_that_is_its_reference_loses_log_two():
    assert loss(-10, -12, -10, -12) == pytest.approx(0.693147, abs=5e-7)


def test_several_pairs_are_averaged():
    both = dpo_loss(*(torch.tensor(t) for t in ([-10.0, -1.0], [-12.0, -2.0], [-11.0, -1.0], [-11.5, -2.0])))
    assert both.item() == pytest.approx((0.656350 + 0.693147) / 2, abs=1e-6)


log_p = st.floats(-500, 0)


@given(log_p, log_p, log_p, log_p, st.floats(0.01, 2))
def test_swapping_the_answers_flips_the_margin(a, b, c, d, beta):
    # log sigmoid(x) - log sigmoid(-x) = x
    margin = beta * ((a - c) - (b - d))
    assert loss(b, a, d, c, beta=beta) - loss(a, b, c, d, beta=beta) == pytest.approx(margin, abs=1e-9, rel=1e-9)


@given(log_p, log_p, log_p, log_p, st.floats(-50, 50))
def test_only_the_change_against_the_reference_counts(a, b, c, d, shift):
    assert loss(a + shift, b, c + shift, d) == pytest.approx(loss(a, b, c, d), abs=1e-9)


def test_extreme_margins_stay_finite():
    assert loss(-1e5, 0, 0, -1e5, beta=1.0) == pytest.approx(2e5)
    assert loss(0, -1e5, -1e5, 0, beta=1.0) == pytest.approx(0.0)


def test_the_gradient_raises_the_chosen_answer():
    chosen, rejected = (torch.tensor([-3.0], requires_grad=True) for _ in range(2))
    dpo_loss(chosen, rejected, torch.tensor([-3.0]), torch.tensor([-3.0])).backward()
    # At the start the gradient is beta / 2, up for one and down for the other.
    assert chosen.grad.item() == pytest.approx(-0.025)
    assert rejected.grad.item() == pytest.approx(0.025)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan])
def test_a_beta_that_is_no_strength_is_refused(beta):
    with pytest.raises(ValueError, match="beta takes a number above 0"):
        loss(-1, -1, -1, -1, beta=beta)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        dpo_loss(torch.zeros(2), torch.zeros(2), torch.zeros(1), torch.zeros(2))


def test_the_answers_tokens_alone_are_counted():
    # Vocabulary of two; P(token 1) = .25 everywhere.
    logits = torch.tensor([0.75, 0.25]).log().expand(1, 4, 2)
    ids = torch.tensor([[0, 1, 1, 0]])
    assert answer_log_p(logits, ids, torch.tensor([[0, 0, 1, 1]])).item() == pytest.approx(math.log(0.25 * 0.75))
    assert answer_log_p(logits, ids, torch.tensor([[1, 0, 0, 0]])).item() == 0
