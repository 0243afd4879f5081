"""Thresholds: the known numbers, and the promise over thousands of exchangeable draws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellsign.fusion.operating import (
    OperatingPoint,
    TooFew,
    allowed_alarms,
    at_cost,
    at_max_fpr,
    needed_groups,
    point_of,
    upper_bound,
)


def test_the_rule_of_three_and_its_kin():
    # 1 - .95^(1/n) <= .01 first at n = 299; the others from published tables of Wilks's tolerance limits.
    assert needed_groups(0.01) == 299
    assert needed_groups(0.05) == 59
    assert needed_groups(0.01, alarms=1) == 473
    assert needed_groups(0.05, alarms=1) == 93
    assert needed_groups(0.01, 0.99) == 459


@given(st.floats(0.002, 0.4), st.integers(0, 4))
def test_what_is_needed_is_enough_and_one_less_is_not(rate, alarms):
    n = needed_groups(rate, alarms=alarms)
    assert upper_bound(alarms, n) <= rate
    assert upper_bound(alarms, n - 1) > rate
    assert allowed_alarms(n, rate) == alarms
    assert allowed_alarms(n - 1, rate) == alarms - 1


def test_the_false_alarm_rate_holds_at_the_promised_confidence():
    """4000 draws of a calibration: the true rate above the threshold exceeds the asked one in at most 5 % of them."""
    rng = np.random.default_rng(0)
    for n, rate in ((59, 0.05), (150, 0.05), (400, 0.01)):
        k = allowed_alarms(n, rate)
        # Uniform scores lose nothing: the rule sees ranks only.
        scores = np.sort(rng.random((4000, n)), axis=1)
        above = 1 - scores[:, n - 1 - k]
        broken = float((above > rate).mean())
        assert broken <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)
        # And the rule does not give away more than the steps of the binomial force it to.
        assert upper_bound(k + 1, n) > rate


def test_groups_count_and_not_rows():
    rng = np.random.default_rng(1)
    z = np.concatenate([np.repeat(rng.normal(-2, 1, 59), 10), rng.normal(2, 1, 20)])
    y = np.array([0] * 590 + [1] * 20)
    tied = at_max_fpr(z, y, [f"g{i // 10}" for i in range(590)] + [f"f{i}" for i in range(20)], 0.05)
    assert isinstance(tied, OperatingPoint)
    assert tied.groups_real == 59
    fewer = at_max_fpr(z[10:], y[10:], [f"g{i // 10}" for i in range(580)] + [f"f{i}" for i in range(20)], 0.05)
    assert isinstance(fewer, TooFew)
    assert (fewer.needed, fewer.missing) == (59, 1)
    assert "59 with none above" in str(fewer)
    assert "1 more" in str(fewer)


def test_the_whole_way_holds_over_exchangeable_draws():
    rng = np.random.default_rng(2)
    broken = 0
    for _ in range(1500):
        z = np.concatenate([rng.normal(-1, 1, 120), rng.normal(1, 1, 10)])
        point = at_max_fpr(z, [0] * 120 + [1] * 10, np.arange(130), 0.05)
        # The share of new real pictures above it, from the normal's tail.
        broken += 0.5 * math.erfc((point.threshold + 1) / math.sqrt(2)) > 0.05
    assert broken / 1500 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)


def test_ties_at_the_threshold_raise_no_alarm():
    point = at_max_fpr([1.0] * 59 + [1.0], [0] * 59 + [1], np.arange(60), 0.05)
    assert (point.alarms, point.found) == (0, 0.0)
    assert not point.alarm(point.p_ai())
    assert point.alarm(1.0)
    assert not point.alarm(0.0)


def test_the_cheapest_threshold_is_bayes():
    rng = np.random.default_rng(3)
    z = rng.normal(0, 2, 20_000)
    y = (rng.random(20_000) < 1 / (1 + np.exp(-z - math.log(0.1 / 0.9)))).astype(int)  # calibrated at prior .1
    point = at_cost(z, y, np.arange(20_000), (5, 1), prior=0.1)
    assert point.p_ai() == pytest.approx(5 / 6)

    def cost(threshold):
        return 5 * ((z > threshold) & (y == 0)).sum() + ((z <= threshold) & (y == 1)).sum()

    assert all(cost(point.threshold) <= 1.02 * cost(point.threshold + step) for step in (-1.5, -0.7, 0.7, 1.5))


def test_a_threshold_can_be_stated_at_any_prior():
    point = at_cost([0.0, 1.0], [0, 1], ["a", "b"], (1, 1))
    assert point.threshold == 0
    assert point.p_ai(0.01) == pytest.approx(0.01)
    assert point.alarm(0.02, prior=0.01)
    assert not point.alarm(0.4)


def test_it_goes_through_a_manifest():
    point = at_cost([0.0, 1.0], [0, 1], ["a", "b"], (10, 1), prior=0.2)
    assert point_of({"operating": point.to_json()}) == point
    assert point_of({}) is None
    for bad in (1, {"threshold": "x"}, {**point.to_json(), "prior": 7}):
        with pytest.raises(ValueError, match="operating"):
            point_of({"operating": bad})


@pytest.mark.parametrize("rate", [0, 1, -0.1, True, "x"])
def test_rates_outside_their_range_are_refused(rate):
    with pytest.raises(ValueError, match="max_fpr"):
        at_max_fpr([0.0], [0], ["a"], rate)


@pytest.mark.parametrize("cost", [(0, 1), (1, -1), (1, math.inf)])
def test_costs_outside_their_range_are_refused(cost):
    with pytest.raises(ValueError, match="cost"):
        at_cost([0.0], [0], ["a"], cost)
