"""Paired differences between two models' held-out scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellsign.fusion.metrics import auc, log_loss
from tellsign.fusion.paired import differences


def scores(n=400, families=8, seed=0):
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    good = (2 * label - 1) + rng.normal(0, 1, n)
    bad = (2 * label - 1) * 0.3 + rng.normal(0, 1, n)
    return label, good, bad, rng.uniform(0.5, 2, n), rng.integers(0, families, n).astype(str)


def test_equal_scores_differ_by_nothing():
    label, good, _, weight, family = scores()
    found = differences(label, good, good, weight, family, draws=20)
    assert {k: (v.value, v.low, v.high) for k, v in found.items()} == {"auc": (0, 0, 0), "log_loss": (0, 0, 0)}


def test_the_better_model_has_more_auc_less_loss_and_intervals_that_say_so():
    label, good, bad, weight, family = scores()
    found = differences(label, good, bad, weight, family)
    assert 0 < found["auc"].low < found["auc"].value < found["auc"].high
    assert found["log_loss"].high < 0
    # Both labels weigh the same, whatever the weights given.
    even = np.where(label == 1, weight / weight[label == 1].sum(), weight / weight[label == 0].sum())
    assert found["auc"].value == pytest.approx(auc(label, good, even) - auc(label, bad, even))
    assert found["log_loss"].value == pytest.approx(log_loss(label, good, even) - log_loss(label, bad, even))


def test_families_are_drawn_whole():
    label, good, bad, weight, _ = scores()
    # One family of each label: every draw is the same.
    found = differences(label, good, bad, weight, np.full(len(label), "only"), draws=10)
    assert found["auc"].low == pytest.approx(found["auc"].high) == pytest.approx(found["auc"].value)
    # A name that both labels use is a family of each.
    many = differences(label, good, bad, weight, np.arange(len(label)).astype(str), draws=50)
    assert many["auc"].high - many["auc"].low > 0.01


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3), st.integers(1, 4)), min_size=2, max_size=30))
def test_a_weight_of_three_is_three_rows(rows):
    label, score, times = (np.array(x) for x in zip(*rows, strict=True))
    repeated = auc(np.repeat(label, times), np.repeat(score, times))
    assert auc(label, score, times) == pytest.approx(repeated, nan_ok=True)
