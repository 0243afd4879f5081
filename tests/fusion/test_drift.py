"""The drift alarm: how seldom it is false, and what it sees."""

import math

import numpy as np
import pytest

from tellsign.fusion.drift import mixture, one_per_group, online_p_values, simple_jumper, watch


def calibration(rng, real=120, ai=100):
    return rng.normal(-1, 1, real), rng.normal(1.2, 1.5, ai)


def stream(rng, n, share):
    return np.where(rng.random(n) < share, rng.normal(1.2, 1.5, n), rng.normal(-1, 1, n))


def test_conformal_p_values_are_uniform_under_exchangeability():
    rng = np.random.default_rng(0)
    # Rounded scores: ties must not spoil it.
    values = [
        online_p_values(np.round(rng.normal(size=30), 1), np.round(rng.normal(size=20), 1), rng.random(20))
        for _ in range(2000)
    ]
    found = np.sort(np.concatenate(values))
    expected = (np.arange(len(found)) + 0.5) / len(found)
    assert np.abs(found - expected).max() < 0.01
    # Independent over time: neighbours are uncorrelated.
    rows = np.array(values)
    assert abs(np.corrcoef(rows[:, :-1].ravel(), rows[:, 1:].ravel())[0, 1]) < 3 / math.sqrt(rows[:, 1:].size)


def test_the_martingale_keeps_its_capital_and_seldom_grows():
    rng = np.random.default_rng(1)
    capital = np.exp(simple_jumper(rng.random((6000, 100))))
    assert capital[:, 0].mean() == pytest.approx(1, abs=0.02)
    assert capital[:, 9].mean() == pytest.approx(1, abs=0.1)
    for rate in (0.05, 0.2):
        assert (capital.max(1) >= 1 / rate).mean() <= rate + 3 * math.sqrt(rate / 6000)


def test_the_alarm_is_false_as_seldom_as_promised_for_a_known_share():
    rng = np.random.default_rng(2)
    rate, runs = 0.1, 1500
    alarms = tests = 0
    for seed in range(runs):
        found = watch(*calibration(rng, 60, 50), stream(rng, 60, 0.3), rate=rate, share=0.3, seed=seed)
        alarms += found.alarm
        tests += found.p_value < rate
    margin = 3 * math.sqrt(rate * (1 - rate) / runs)
    assert alarms / runs <= rate + margin
    assert rate / 4 <= tests / runs <= rate + margin


@pytest.mark.slow
def test_the_alarm_is_false_as_seldom_as_promised_for_any_share():
    rng = np.random.default_rng(3)
    rate, runs = 0.1, 200
    found = [watch(*calibration(rng), stream(rng, 80, rng.random()), rate=rate, seed=seed) for seed in range(runs)]
    assert sum(d.alarm for d in found) / runs <= rate + 3 * math.sqrt(rate * (1 - rate) / runs)
    assert sum(d.p_value < rate for d in found) / runs <= rate + 3 * math.sqrt(rate * (1 - rate) / runs)


@pytest.mark.parametrize(
    ("incoming", "share"),
    [
        (lambda rng: rng.normal(-4, 1, 120), None),
        (lambda rng: rng.normal(0, 0.2, 120), None),
        (lambda rng: np.concatenate([stream(rng, 60, 0.3), rng.normal(6, 0.5, 60)]), None),
        (lambda rng: rng.normal(0.3, 1, 120), 0.0),
    ],
    ids=["all lower", "all alike", "from the middle on", "reals look more like AI"],
)
def test_drift_is_seen(incoming, share):
    rng = np.random.default_rng(4)
    found = watch(*calibration(rng), incoming(rng), rate=0.01, share=share)
    assert found.alarm
    assert 1 <= found.alarm_at <= 120
    assert found.capital >= 100


def test_more_ai_pictures_are_no_drift():
    rng = np.random.default_rng(5)
    found = watch(*calibration(rng), stream(rng, 150, 0.95))
    assert not found.alarm
    assert found.share > 0.6
    assert watch(*calibration(rng), stream(rng, 150, 0.95), share=0.05).alarm


def test_the_same_seed_gives_the_same_answer():
    rng = np.random.default_rng(6)
    arguments = (*calibration(rng), stream(rng, 50, 0.5))
    assert watch(*arguments, seed=3) == watch(*arguments, seed=3)


def test_a_mixture_repeats_nothing_and_has_its_share():
    rng = np.random.default_rng(7)
    real, ai = np.arange(300.0), np.arange(1000.0, 1200.0)
    order = (rng.permutation(300), rng.permutation(200))
    for share in (0.0, 0.3, 1.0):
        made = mixture(real, ai, share, rng.random(500), order)
        assert len(np.unique(made)) == len(made)
        assert (made >= 1000).mean() == pytest.approx(share, abs=0.08)


def test_a_group_counts_once():
    assert one_per_group(np.array([1.0, 2.0, 5.0]), ["a", "b", "a"]).tolist() == [3.0, 2.0]
    with pytest.raises(ValueError, match="groups"):
        one_per_group(np.array([1.0]), ["a", "b"])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"rate": 0}, "rate"),
        ({"share": 2}, "share"),
        ({"real": [0.0] * 5, "ai": [0.0] * 5}, "calibration"),
        ({"stream": []}, "stream"),
        ({"stream": [math.nan]}, "finite"),
    ],
)
def test_what_cannot_be_watched_is_refused(change, word):
    rng = np.random.default_rng(8)
    real, ai = calibration(rng)
    with pytest.raises(ValueError, match=word):
        watch(**({"real": real, "ai": ai, "stream": [0.0]} | change))
