import math

import numpy as np
import pytest

from tellsign.fusion.conformal import (
    DEFAULT_ERROR_RATES,
    ClassScores,
    conformal_quantile,
    group_weights,
    resolve_error_rates,
)
from tellsign.schemas import Label


def test_golden_ranks():
    assert conformal_quantile(np.arange(19) / 19, 0.05) == 18 / 19
    assert conformal_quantile(np.arange(18) / 18, 0.05) == math.inf
    assert conformal_quantile(np.arange(99), 0.05) == 94  # the 95th smallest


def test_rank_is_the_textbook_one_for_any_size():
    rng = np.random.default_rng(0)
    for n in range(1, 200, 7):
        for rate in (0.01, 0.02, 0.05, 0.1, 0.3):
            s = rng.random(n)
            rank = math.ceil(round((n + 1) * (1 - rate), 9))
            expected = math.inf if rank > n else np.sort(s)[rank - 1]
            assert conformal_quantile(s, rate) == expected


@pytest.mark.parametrize(("n", "rate"), [(19, 0.05), (49, 0.02), (57, 0.05), (300, 0.05)])
def test_coverage_over_thousands_of_exchangeable_draws(n, rate):
    """The coverage of a new picture is rank / (n + 1): at least 1 - rate, and at most 1 / (n + 1) more."""
    rng = np.random.default_rng(0)
    thresholds = np.array([conformal_quantile(s, rate) for s in rng.beta(1, 4, (4000, n))])
    covered = 1 - (1 - np.minimum(thresholds, 1)) ** 4  # The distribution function of beta(1, 4).
    margin = 3 * covered.std() / math.sqrt(len(covered))
    assert 1 - rate - margin <= covered.mean() <= 1 - rate + 1 / (n + 1) + margin


def test_versions_of_one_picture_count_as_one():
    once = np.arange(19) / 19
    twice = np.repeat(once, 3)
    groups = np.repeat(np.arange(19), 3)
    assert conformal_quantile(twice, 0.05, group_weights(groups)) == conformal_quantile(once, 0.05)
    few = np.repeat(np.arange(10) / 10, 30)
    assert conformal_quantile(few, 0.05) < math.inf
    assert conformal_quantile(few, 0.05, group_weights(np.repeat(np.arange(10), 30))) == math.inf


def test_grouped_coverage_on_new_groups():
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(200):
        centre = rng.normal(size=60)
        s = (centre[:, None] + 0.2 * rng.normal(size=(60, 5))).ravel()
        t = conformal_quantile(s, 0.1, group_weights(np.repeat(np.arange(60), 5)))
        hits.append((rng.normal(size=50) + 0.2 * rng.normal(size=50) <= t).mean())
    assert 0.9 - 0.02 <= np.mean(hits) <= 0.9 + 0.02


def scores_of(*sources):
    s = np.concatenate(sources)
    return ClassScores(
        scores=s,
        weights=np.ones(len(s)),
        sources=np.repeat(np.arange(len(sources)), [len(x) for x in sources]).astype(np.int32),
    )


def test_guard_takes_the_worst_source_and_never_lowers():
    rng = np.random.default_rng(0)
    easy, hard = rng.random(200) * 0.3, 0.3 + rng.random(30) * 0.6
    made = scores_of(easy, hard)
    plain, guarded = made.quantile(0.2), made.quantile(0.2, worst_source=True)
    assert guarded == conformal_quantile(hard, 0.2) > plain
    # Too few groups for a rank of its own: the largest score.
    assert made.quantile(0.02, worst_source=True) == hard.max()
    assert scores_of(easy, easy).quantile(0.2, worst_source=True) >= scores_of(easy, easy).quantile(0.2)


def test_guard_does_not_ask_a_source_with_few_groups():
    made = scores_of(np.linspace(0, 0.3, 200), np.full(19, 0.99))
    assert made.quantile(0.2, worst_source=True) == made.quantile(0.2)


def test_error_rates():
    assert resolve_error_rates(None, DEFAULT_ERROR_RATES) == DEFAULT_ERROR_RATES
    assert set(resolve_error_rates(0.1, DEFAULT_ERROR_RATES).values()) == {0.1}
    hard = DEFAULT_ERROR_RATES | {Label.TAMPERED: 0.5}
    assert resolve_error_rates(0.1, hard) == dict.fromkeys(hard, 0.1) | {Label.TAMPERED: 0.5}
    assert resolve_error_rates({"tampered": 0.1}, hard)[Label.TAMPERED] == 0.1
    mixed = resolve_error_rates({"authentic": 0.01, Label.AI_GENERATED: 0.2}, DEFAULT_ERROR_RATES)
    assert mixed[Label.AUTHENTIC] == 0.01
    assert mixed[Label.AI_GENERATED] == 0.2
    assert mixed[Label.TAMPERED] == 0.05


@pytest.mark.parametrize("bad", [0, 1, -0.1, True, "x", math.nan, {"fake": 0.1}, {"uncertain": 0.1}, {"authentic": 2}])
def test_bad_error_rates_are_refused(bad):
    with pytest.raises(ValueError, match="error_rate takes"):
        resolve_error_rates(bad, DEFAULT_ERROR_RATES)
