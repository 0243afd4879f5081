import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from tellsign.evaluation import metrics

# Ten pictures, small enough to count by hand: AUC 20.5 of 25 pairs (the tie at .4 counts half).
LABEL = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
P = np.array([0.95, 0.9, 0.7, 0.4, 0.3, 0.8, 0.4, 0.2, 0.1, 0.05])


def scores(draw_ties: bool = True):
    values = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5001, 0.75, 1.0]) if draw_ties else st.floats(0, 1)
    pair = st.tuples(st.integers(0, 1), values)
    return st.lists(pair, min_size=2, max_size=40).map(
        lambda rows: (np.array([r[0] for r in rows]), np.array([r[1] for r in rows]))
    )


def pairs_auc(label, p):
    wins = [(a > b) + 0.5 * (a == b) for a in p[label == 1] for b in p[label == 0]]
    return sum(wins) / len(wins)


def test_auc_by_hand():
    assert metrics.auc(LABEL, P) == pytest.approx(20.5 / 25)
    assert metrics.auc(LABEL, P) == pytest.approx(pairs_auc(LABEL, P))


def test_balanced_accuracy_brier_and_tpr_by_hand():
    assert metrics.balanced_accuracy(LABEL, P) == pytest.approx((3 / 5 + 4 / 5) / 2)
    square = [0.05**2, 0.1**2, 0.3**2, 0.6**2, 0.7**2, 0.8**2, 0.4**2, 0.2**2, 0.1**2, 0.05**2]
    assert metrics.brier(LABEL, P) == pytest.approx(sum(square) / 10)
    assert metrics.tpr_at_fpr(LABEL, P, 0.05) == pytest.approx(2 / 5)  # above .8 no real picture is left
    assert metrics.tpr_at_fpr(LABEL, P, 0.2) == pytest.approx(3 / 5)


def test_exactly_one_half_is_called_ai():
    assert metrics.balanced_accuracy(np.array([1, 0]), np.array([0.5, 0.4999])) == 1.0


def test_tpr_counts_a_share_that_is_reached_exactly():
    label = np.r_[np.zeros(20, int), np.ones(2, int)]
    p = np.r_[0.9, np.full(19, 0.1), 0.95, 0.5]
    assert metrics.tpr_at_fpr(label, p, 0.05) == 1.0  # 1 of 20 is 5 %


def test_calibration_error_against_plain_slices_of_the_sorted_values():
    rng = np.random.default_rng(3)
    p = rng.permutation(np.linspace(0.001, 0.999, 600))
    label = (rng.random(600) < p**2).astype(int)
    order = np.argsort(p)
    want = sum(
        len(part) / 600 * abs(p[part].mean() - label[part].mean()) for part in np.array_split(order, metrics.BINS)
    )
    assert metrics.expected_calibration_error(label, p) == pytest.approx(want)


def test_calibration_error_by_hand_with_ties():
    label, p = np.array([1, 1, 0, 0, 1, 0]), np.array([0.9, 0.9, 0.9, 0.2, 0.2, 0.2])
    # Two values, so two bins whatever their number: |.9 - 2/3| and |.2 - 1/3|, half of the pictures each.
    assert metrics.expected_calibration_error(label, p) == pytest.approx((0.9 - 2 / 3) / 2 + (1 / 3 - 0.2) / 2)


def test_bins_hold_equally_many():
    counts = np.bincount(metrics.mass_bins(np.random.default_rng(0).random(152)), minlength=metrics.BINS)
    assert len(counts) == metrics.BINS
    assert counts.max() - counts.min() <= 1


def test_balanced_calibration_forgives_another_share_of_ai():
    # Calibrated at prior .5; then nine of ten real pictures are thrown away, as many data sets do.
    rng = np.random.default_rng(5)
    p = rng.random(40_000)
    label = (rng.random(40_000) < p).astype(int)
    keep = (label == 1) | (rng.random(40_000) < 0.1)
    got = metrics.summarise(label[keep], p[keep], [str(i) for i in range(keep.sum())], draws=0)
    assert got["ece"] > 0.2
    assert got["ece_balanced"] < 0.03


@pytest.mark.parametrize(
    ("k", "n", "want"),
    [
        (0, 10, (0.0, 0.27753)),  # Newcombe 1998, table of examples: method 3 is Wilson's
        (15, 148, (0.0624, 0.1605)),
        (81, 263, (0.2553, 0.3662)),
        (10, 10, (0.72247, 1.0)),
    ],
)
def test_wilson_interval(k, n, want):
    assert metrics.wilson(k, n) == pytest.approx(want, abs=1e-4)


def test_wilson_of_nothing_is_nothing():
    assert metrics.wilson(0, 0) is None


def test_risk_coverage_by_hand():
    curve = metrics.risk_coverage(np.array([1, 0, 1, 0]), np.array([0.9, 0.1, 0.3, 0.4]))
    assert curve["coverage"] == pytest.approx([0.5, 0.75, 1.0])  # .9 and .1 are equally sure
    assert curve["risk"] == pytest.approx([0.0, 1 / 3, 1 / 4])
    assert curve["confidence"] == pytest.approx([0.4, 0.2, 0.1])
    assert curve["aurc"] == pytest.approx(0.25 * (1 / 3) + 0.25 * 0.25)


def test_long_risk_coverage_curve_is_thinned_and_keeps_its_ends():
    rng = np.random.default_rng(0)
    label, p = rng.integers(0, 2, 3000), rng.random(3000)
    curve = metrics.risk_coverage(label, p)
    assert len(curve["risk"]) == metrics.CURVE_POINTS
    assert curve["coverage"][0] == pytest.approx(1 / 3000)
    assert curve["coverage"][-1] == 1
    assert curve["risk"][-1] == pytest.approx(((p >= 0.5) != label).mean())


@given(scores())
def test_risk_coverage_is_sound(case):
    label, p = case
    curve = metrics.risk_coverage(label, p)
    assert np.all(np.diff(curve["coverage"]) > 0)
    assert np.all(np.diff(curve["confidence"]) < 0)
    assert all(0 <= r <= 1 for r in curve["risk"])
    assert curve["coverage"][-1] == pytest.approx(1)


@given(scores(draw_ties=False))
def test_auc_does_not_move_under_rising_maps(case):
    label, p = case
    levels, rank = np.unique(p, return_inverse=True)
    for mapped in (rank.astype(float), np.exp(3.0 * rank / len(levels)), -1.0 / (1 + rank)):
        assert metrics.auc(label, mapped) == (
            None if len(set(label)) < 2 else pytest.approx(metrics.auc(label, p), abs=1e-12)
        )


@given(scores())
def test_metrics_do_not_depend_on_the_order_of_the_pictures(case):
    label, p = case
    turned = np.random.default_rng(1).permutation(len(p))
    group = [str(i) for i in range(len(p))]
    a, b = metrics.summarise(label, p, group, draws=0), metrics.summarise(label[turned], p[turned], group, draws=0)
    assert a == {k: None if v is None else pytest.approx(v) for k, v in b.items()}


@given(scores(), st.integers(0, 2**31))
@settings(max_examples=60)
def test_weighted_forms_equal_scikit_learn_on_repeated_pictures(case, seed):
    """A draw of the bootstrap is a data set with repeats: the weighted formulas must say what sklearn says of it."""
    label, p = case
    times = np.random.default_rng(seed).integers(0, 4, len(p))
    copies = np.repeat(np.arange(len(p)), times)
    w = times[None].astype(float)
    many, q = label[copies], p[copies]
    if len(set(many)) < 2:
        return
    assert metrics.weighted_auc(label, p)(w)[0] == pytest.approx(sklearn.metrics.roc_auc_score(many, q))
    assert metrics.weighted_balanced_accuracy(label, p)(w)[0] == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(many, q >= 0.5)
    )
    false, true, _ = sklearn.metrics.roc_curve(many, q, drop_intermediate=False)
    for fpr in (0.01, 0.05, 0.5):
        assert metrics.weighted_tpr(label, p, fpr)(w)[0] == pytest.approx(true[false <= fpr + 1e-12].max())
    assert metrics.weighted_mean((p - label) ** 2)(w)[0] == pytest.approx(sklearn.metrics.brier_score_loss(many, q))


@given(scores())
def test_weighted_calibration_error_with_equal_weights_is_the_plain_one(case):
    label, p = case
    ones = np.ones(len(p))
    want = metrics.expected_calibration_error(label, p)
    assert metrics.weighted_ece(label, p, ones)(ones[None])[0] == pytest.approx(want)


def test_a_draw_without_one_class_has_no_auc():
    weights = np.array([[1.0, 1, 1, 1, 1, 0, 0, 0, 0, 0]])
    assert math.isnan(metrics.weighted_auc(LABEL, P)(weights)[0])
    assert math.isnan(metrics.weighted_tpr(LABEL, P, 0.05)(weights)[0])


def test_groups_are_drawn_whole_and_every_draw_has_both_classes():
    label = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    group = ["a", "a", "b", "c", "c", "d", "e", "e"]
    weights = np.concatenate(list(metrics.Bootstrap(label, group, 200, 0).blocks()))
    assert weights.shape == (200, 8)
    for i, j in ((0, 1), (3, 4), (6, 7)):
        assert np.array_equal(weights[:, i], weights[:, j])
    assert np.all(weights[:, 0] + weights[:, 2] == 2)  # two real groups, drawn twice
    assert np.all(weights[:, 6] == 1)  # the one mixed group
    assert len(np.unique(weights[:, 0])) > 1


def test_intervals_are_seeded_and_hold_the_value():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 400)
    p = np.clip(rng.normal(0.4 + 0.2 * label, 0.2), 0, 1)
    group = [str(i // 2) for i in range(400)]
    first = metrics.summarise(label, p, group, seed=4)
    assert first == metrics.summarise(label, p, group, seed=4)
    assert first != metrics.summarise(label, p, group, seed=5)
    for name in ("auc", "balanced_accuracy", "brier", "brier_balanced"):
        low, high = first[f"{name}_ci"]
        assert low < first[name] < high


def test_auc_interval_has_the_width_that_hanley_and_mcneil_give():
    rng = np.random.default_rng(2)
    n = 300
    label = np.r_[np.zeros(n, int), np.ones(n, int)]
    p = 1 / (1 + np.exp(-rng.normal(1.2 * label, 1)))
    got = metrics.summarise(label, p, [str(i) for i in range(2 * n)])
    a = got["auc"]
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = math.sqrt((a * (1 - a) + (n - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (n * n))
    low, high = got["auc_ci"]
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.15)


def test_pictures_that_repeat_within_groups_widen_the_interval():
    rng = np.random.default_rng(2)
    label = np.repeat(rng.integers(0, 2, 60), 10)
    p = np.repeat(np.clip(rng.normal(0.4 + 0.2 * label[::10], 0.25), 0, 1), 10)
    alone = metrics.summarise(label, p, [str(i) for i in range(600)])["auc_ci"]
    together = metrics.summarise(label, p, [str(i // 10) for i in range(600)])["auc_ci"]
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_blocks_do_not_change_what_is_drawn_from(monkeypatch):
    label, group = np.array([0, 1] * 20), [str(i) for i in range(40)]
    monkeypatch.setattr(metrics, "_CHUNK", 40 * 7)
    blocks = list(metrics.Bootstrap(label, group, 50, 0).blocks())
    assert [len(b) for b in blocks] == [7] * 7 + [1]
    assert all(np.all(b.sum(1) == 40) for b in blocks)


def test_tpr_at_one_percent_needs_300_reals():
    rng = np.random.default_rng(0)
    for reals, given_ in ((299, False), (300, True)):
        label = np.r_[np.zeros(reals, int), np.ones(50, int)]
        got = metrics.summarise(label, rng.random(reals + 50), [str(i) for i in range(reals + 50)], draws=10)
        assert (got["tpr_at_1_fpr"] is not None) is given_
        assert (got["tpr_at_1_fpr_ci"] is not None) is given_
        assert got["tpr_at_5_fpr"] is not None


def test_one_class_gives_none_where_two_are_needed():
    got = metrics.summarise(np.ones(4, int), np.full(4, 0.75), list("abcd"))
    assert got["auc"] is None
    assert got["auc_ci"] is None
    assert got["balanced_accuracy"] is None
    assert got["brier"] == pytest.approx(0.0625)
    assert got["ece"] == pytest.approx(0.25)


def test_no_pictures_give_nones():
    got = metrics.summarise(np.zeros(0, int), np.zeros(0), [])
    assert set(got.values()) == {None}
    assert metrics.risk_coverage(np.zeros(0, int), np.zeros(0))["aurc"] is None
