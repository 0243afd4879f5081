import math

import numpy as np
import pytest

from tellsign.fusion.calibration import Affine, fit_calibrator, fit_isotonic, fit_platt, fit_temperature, pav, sigmoid
from tellsign.fusion.metrics import auc, expected_calibration_error


def draws(n=6000, seed=0, scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, n)
    return scale * z + shift, (rng.random(n) < sigmoid(z)).astype(int)


def test_pav_golden():
    assert pav([0, 1, 0, 1, 1, 0, 1]) == pytest.approx([0, 0.5, 0.5, 2 / 3, 2 / 3, 2 / 3, 1])
    assert pav([3, 2, 1], [1, 1, 2]) == pytest.approx([7 / 4] * 3)


def test_pav_agrees_with_scikit_learn():
    from sklearn.isotonic import isotonic_regression

    rng = np.random.default_rng(1)
    y, w = rng.random(50), rng.random(50) + 0.1
    assert pav(y, w) == pytest.approx(isotonic_regression(y, sample_weight=w))


def test_temperature_of_calibrated_margins_is_one():
    assert 1 / fit_temperature(*draws(20000)).slope == pytest.approx(1, abs=0.05)


def test_temperature_finds_the_scale():
    assert fit_temperature(*draws(20000, scale=4)).slope == pytest.approx(1 / 4, rel=0.05)


def test_platt_finds_scale_and_shift_and_agrees_with_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    m, y = draws(4000, scale=3, shift=5)
    made = fit_platt(m, y)
    other = LogisticRegression(C=1e9, tol=1e-9).fit(m[:, None], y)
    assert made.slope == pytest.approx(other.coef_[0, 0], rel=0.01)
    assert made.intercept == pytest.approx(other.intercept_[0], rel=0.01)


def test_platt_never_falls():
    m, y = draws(500)
    made = fit_platt(-m, y)
    assert made.slope == 0
    assert sigmoid(made.intercept) == pytest.approx(y.mean(), abs=0.01)


def test_platt_of_separable_margins_stays_finite_and_equal_margins_give_the_share():
    made = fit_platt([-1, -2, 1, 2], [0, 0, 1, 1])
    assert 0 < made.slope < 100
    assert fit_platt([1, 1, 1], [0, 1, 1]).slope == 0


def test_classes_of_equal_weight_give_even_prior_odds():
    rng = np.random.default_rng(0)
    y = (rng.random(100000) < 0.9).astype(int)
    m = rng.normal(2.0 * y, 1)
    w = np.where(y == 1, 1 / (y == 1).sum(), 1 / (y == 0).sum())
    made = fit_platt(m, y, weights=w)
    # Two unit normals at 0 and 2 have log-odds 2 m - 2 at even odds.
    assert made.slope == pytest.approx(2, abs=0.1)
    assert made.intercept == pytest.approx(-2, abs=0.1)


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_calibration_reduces_the_error_of_overconfident_margins_and_never_falls(method):
    m, y = draws(4000, scale=5)
    new, truth = draws(4000, seed=9, scale=5)
    made = fit_calibrator(m, y, method, additive=False)
    before = expected_calibration_error(truth, sigmoid(new))
    after = expected_calibration_error(truth, sigmoid(made.log_odds(new)))
    assert before > 0.1
    assert after < 0.03
    assert (np.diff(made.log_odds(np.linspace(-60, 60, 999))) >= 0).all()


def test_auto_chooses_by_the_amount_of_data():
    m, y = draws(3000)
    assert type(fit_calibrator(m, y, additive=False)).__name__ == "Isotonic"
    assert fit_calibrator(m, y).kind == "platt"
    assert fit_calibrator(m[:400], y[:400], additive=False).kind == "platt"
    assert fit_calibrator(m, y, counts=(19, 500)).kind == "temperature"


def test_isotonic_has_no_contributions():
    with pytest.raises(ValueError, match="contributions"):
        fit_calibrator(*draws(100), "isotonic")


def test_isotonic_pools_ties_and_stays_off_the_edges():
    made = fit_isotonic([0, 0, 1, 1], [0, 1, 1, 1])
    assert sigmoid(made.log_odds([0, 1, -9, 9])) == pytest.approx([0.5, 5 / 6, 0.5, 5 / 6])


def test_probabilities_go_no_further_than_the_data():
    made = fit_calibrator([-9, -8, -7, 7, 8, 9] * 4, [0, 0, 0, 1, 1, 1] * 4)
    assert sigmoid(made.log_odds(1e9)) == pytest.approx(25 / 26)
    assert made.limit == pytest.approx(math.log(25))


@pytest.mark.parametrize(
    ("margins", "labels", "weights", "word"),
    [
        ([1, 2], [1, 1], None, "labels"),
        ([1, math.nan], [0, 1], None, "margins"),
        ([1, 2], [0, 1], [1, 0], "weights"),
        ([1, 2, 3], [0, 1], None, "arrays"),
    ],
)
def test_bad_input_is_named(margins, labels, weights, word):
    with pytest.raises(ValueError, match=word):
        fit_platt(margins, labels, weights=weights)


def test_affine_refuses_a_falling_or_infinite_slope():
    for slope in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="slope"):
            Affine(slope=slope)


def test_auc_agrees_with_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    y, s = rng.integers(0, 2, 300), rng.integers(0, 9, 300)
    assert auc(y, s) == pytest.approx(roc_auc_score(y, s))
    assert math.isnan(auc([1, 1], [0, 1]))
