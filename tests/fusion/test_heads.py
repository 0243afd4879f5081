"""The two kinds of head, and what needs no head."""

import itertools
import math

import numpy as np
import pytest

from tellsign.fusion import or_rule
from tellsign.fusion.baselines import fit_single_columns
from tellsign.fusion.booster import BoosterConfig, BoosterHead, fit_booster, parameters
from tellsign.fusion.calibration import sigmoid
from tellsign.fusion.errors import BundleError
from tellsign.fusion.features import FeatureColumn, keep_blocks
from tellsign.fusion.logistic import fit_logistic, plugin_shares
from tellsign.fusion.metrics import auc, log_loss
from tellsign.fusion.train import drop_blocks


def cols(*specs):
    """(block, direction) pairs; the block names a task too."""
    return tuple(
        FeatureColumn(f"{b}.c{i}", d, b, {"a": "pixel", "b": "semantic", "c": "reasoning"}[b], b)
        for i, (b, d) in enumerate(specs)
    )


TWO_BLOCKS = cols(("a", 1), ("a", 1), ("b", 1), ("b", 1))


def toy(n=2000, seed=0, strength=(1.0, 1.0, 0.8, 0.8)):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    return (2 * y - 1)[:, None] * np.array(strength) + rng.normal(0, 1.5, (n, len(strength))), y


def fit(kind, x, y, columns, **more):
    if kind == "logistic":
        return fit_logistic(x, y, columns, l2=0.003)
    return fit_booster(x, y, columns, BoosterConfig(rounds=120), **more)[0]


def test_logistic_agrees_with_scikit_learn_where_no_bound_bites():
    from sklearn.linear_model import LogisticRegression

    x, y = toy(4000)
    made = fit_logistic(x, y, TWO_BLOCKS, l2=1e-6)
    other = LogisticRegression(C=1e6, tol=1e-10).fit(x, y)
    assert made.weights / made.scale == pytest.approx(other.coef_[0], rel=0.01)


def test_weights_stay_on_their_side_and_the_fit_is_the_constrained_optimum():
    x, y = toy(2000, strength=(1.0, -0.7, 0.5, -0.5))
    columns = cols(("a", 1), ("a", 1), ("b", -1), ("b", 0))
    made = fit_logistic(x, y, columns)
    assert made.weights[0] > 0
    assert made.weights[1] == 0
    assert made.weights[2] == 0
    assert made.weights[3] < 0
    # Taking the useless columns out changes nothing.
    alone = fit_logistic(x[:, [0, 3]], y, [columns[0], columns[3]])
    assert made.weights[[0, 3]] == pytest.approx(alone.weights, rel=1e-4)


def test_a_dead_column_weighs_nothing():
    x, y = toy(300)
    x[:, 1] = np.nan
    x[:, 2] = 7.0
    made = fit_logistic(x, y, TWO_BLOCKS)
    assert made.weights[1] == made.weights[2] == 0
    assert np.isfinite(made.margin(x)).all()


def test_plugins_alike_share_by_the_columns_that_speak_together():
    columns = cols(("a", 1), ("a", 1), ("a", 1), ("b", -1), ("b", 0), ("c", 1))
    nan = np.nan
    # Of "a" two speak in a row at most; "c" never does.
    rows = np.array([[1.0, nan, 1.0, 1.0, 1.0, nan], [nan, 1.0, 1.0, 1.0, nan, nan], [nan, nan, 1.0, nan, 1.0, nan]])
    assert plugin_shares(rows, columns).tolist() == [0.5, 0.5, 0.5, -0.5, 0, 0]


def test_a_penalty_draws_the_weights_to_the_balance_given():
    x, y = toy(2000, strength=(1.0, 0.2, 0.8, 0.1))
    towards = np.array([0.5, 0.5, 1.0, 0.0])
    fixed = fit_logistic(x, y, TWO_BLOCKS, l2=np.inf, towards=towards)
    assert fixed.weights / fixed.weights[2] == pytest.approx(towards)
    # The scale is the one that fits: no other slope of the same sum has a lower log loss.
    assert log_loss(y, fixed.margin(x)) <= min(log_loss(y, f * fixed.margin(x)) for f in (0.95, 1.05))
    away = [
        np.abs(made.weights / made.weights[2] - towards).max()
        for made in (fit_logistic(x, y, TWO_BLOCKS, l2=l2, towards=towards) for l2 in (0.003, 0.3, 30.0))
    ]
    assert away[0] > away[1] > away[2]
    assert away[2] < 0.05
    # Dead columns have no share, and nothing turns against its direction.
    x[:, 2] = np.nan
    assert fit_logistic(x, y, TWO_BLOCKS, l2=np.inf, towards=towards).weights[2] == 0
    assert (fit_logistic(x, y, TWO_BLOCKS, l2=np.inf, towards=-towards).weights >= 0).all()
    with pytest.raises(ValueError, match="l2 takes a positive number, finite without towards"):
        fit_logistic(x, y, TWO_BLOCKS, l2=np.inf)


@pytest.mark.parametrize("kind", ["logistic", "booster"])
def test_contributions_sum_to_the_margin_and_a_row_alone_is_the_row_in_a_batch(kind):
    x, y = toy(800)
    x[::3, 2:] = np.nan
    head = fit(kind, x, y, TWO_BLOCKS)
    parts, bias = head.contributions(x)
    assert parts.sum(1) + bias == pytest.approx(head.margin(x), abs=1e-9)
    alone = np.concatenate([head.margin(row[None]) for row in x[:50]])
    assert (alone == head.margin(x)[:50]).all()


def test_booster_contributions_add_up_by_task_exactly():
    # Trees stay within a task, so what a task adds does not depend on the other task.
    x, y = toy(1500)
    head = fit("booster", x, y, TWO_BLOCKS)
    margin = head.margin
    swapped = x[::-1]
    mixed_one = np.column_stack([x[:, :2], swapped[:, 2:]])
    mixed_two = np.column_stack([swapped[:, :2], x[:, 2:]])
    assert margin(x) + margin(swapped) == pytest.approx(margin(mixed_one) + margin(mixed_two), abs=1e-5)


def test_without_the_constraint_tasks_would_mix():
    # So that the test above can fail: the same booster with one task for all columns is not additive.
    x, y = toy(1500)
    one_task = cols(*[("a", 1)] * 4)
    margin = fit("booster", x, y, one_task).margin
    swapped = x[::-1]
    mixed_one = np.column_stack([x[:, :2], swapped[:, 2:]])
    mixed_two = np.column_stack([swapped[:, :2], x[:, 2:]])
    assert np.abs(margin(x) + margin(swapped) - margin(mixed_one) - margin(mixed_two)).max() > 0.01


@pytest.mark.parametrize("kind", ["logistic", "booster"])
def test_heads_are_monotone_with_missing_values(kind):
    columns = cols(("a", 1), ("a", -1), ("b", 1), ("b", -1))
    x, y = toy(1500, strength=(1, -1, 0.5, -0.5))
    x[np.random.default_rng(0).random(x.shape) < 0.2] = np.nan
    head = fit(kind, x, y, columns)
    for row in x[:40]:
        for j in np.flatnonzero(~np.isnan(row)):
            ladder = np.repeat(row[None], 30, 0)
            ladder[:, j] = np.linspace(-6, 6, 30)
            steps = np.diff(head.margin(ladder)) * columns[j].direction
            assert (steps >= 0).all()


def test_booster_is_the_same_for_a_seed_and_survives_bytes():
    x, y = toy(500)
    one, two = (fit("booster", x, y, TWO_BLOCKS, seed=3) for _ in range(2))
    assert (one.margin(x) == two.margin(x)).all()
    assert one.to_bytes() == two.to_bytes()
    again = BoosterHead.from_bytes(one.to_bytes(), TWO_BLOCKS, "p_ai.ubj")
    assert (again.margin(x) == one.margin(x)).all()
    assert again.to_bytes() == one.to_bytes()
    other = fit("booster", x, y, TWO_BLOCKS, seed=4)
    assert (other.margin(x) != one.margin(x)).any()


def test_bytes_of_another_booster_are_refused():
    x, y = toy(300)
    data = fit("booster", x, y, TWO_BLOCKS).to_bytes()
    for broken in (b"", b"x" * 100, data[: len(data) // 2]):
        with pytest.raises(BundleError, match=r"p_ai\.ubj"):
            BoosterHead.from_bytes(broken, TWO_BLOCKS, "p_ai.ubj")
    with pytest.raises(BundleError, match="columns"):
        BoosterHead.from_bytes(data, TWO_BLOCKS[:3], "p_ai.ubj")


def test_a_booster_of_another_objective_is_refused():
    import xgboost

    x, y = toy(200)
    names = [c.name for c in TWO_BLOCKS]
    foreign = xgboost.train({"objective": "reg:squarederror"}, xgboost.DMatrix(x, y, feature_names=names), 2)
    with pytest.raises(BundleError, match="objective"):
        BoosterHead.from_bytes(bytes(foreign.save_raw("ubj")), TWO_BLOCKS, "p_ai.ubj")


def test_parameters_name_direction_and_task():
    made = parameters(cols(("a", 1), ("b", -1), ("b", 0)), BoosterConfig(), 5)
    assert made["monotone_constraints"] == "(1,-1,0)"
    assert made["interaction_constraints"] == "[[0], [1, 2]]"
    assert made["nthread"] == 1
    assert made["seed"] == 5


def test_block_dropout_is_needed():
    """Without it a missing block sends the booster anywhere; with it, it costs next to nothing."""
    x, y = toy(3000)
    new, truth = toy(3000, seed=1)
    rows, origin = drop_blocks(x, TWO_BLOCKS, rate=0.3, copies=2, seed=0)
    naive = fit("booster", x, y, TWO_BLOCKS)
    taught = fit("booster", rows, y[origin], TWO_BLOCKS)
    worst = {}
    for name, head in (("naive", naive), ("taught", taught)):
        worst[name] = max(log_loss(truth, head.margin(keep_blocks(new, TWO_BLOCKS, {b}))) for b in "ab")
    # Which branch a value that was never missing takes is arbitrary: the naive booster is worse than a coin.
    assert worst["naive"] > 0.75
    assert worst["taught"] < 0.65
    full = {n: log_loss(truth, h.margin(new)) for n, h in (("naive", naive), ("taught", taught))}
    assert full["taught"] < full["naive"] + 0.01
    assert auc(truth, taught.margin(new)) > auc(truth, naive.margin(new)) - 0.005


def test_dropout_drops_whole_blocks_at_its_rate_and_never_all():
    x = np.random.default_rng(0).normal(size=(4000, 4))
    x[:1000, 2:] = np.nan
    rows, origin = drop_blocks(x, TWO_BLOCKS, rate=0.3, copies=2, seed=0)
    assert len(rows) == 8000
    assert (np.bincount(origin) == 2).all()
    gone = np.isnan(rows)
    assert (gone[:, 0] == gone[:, 1]).all()
    assert (gone[:, 2] == gone[:, 3]).all()
    assert not gone.all(1).any()
    kept = ~gone
    assert (rows[kept] == x[origin][kept]).all()
    # A row with one block keeps it; a row with two loses the first with .3 (.7) / (1 - .09).
    assert not gone[origin < 1000, 0].any()
    assert gone[origin >= 1000, 0].mean() == pytest.approx(0.21 / 0.91, abs=0.02)
    assert np.array_equal(drop_blocks(x, TWO_BLOCKS, rate=0.3, copies=2, seed=0)[0], rows, equal_nan=True)


@pytest.mark.parametrize(("rate", "copies"), [(1.0, 2), (-0.1, 2), (0.3, 0)])
def test_dropout_refuses_nonsense(rate, copies):
    with pytest.raises(ValueError, match="takes"):
        drop_blocks(np.ones((2, 4)), TWO_BLOCKS, rate=rate, copies=copies, seed=0)


def test_or_truth_table():
    values = (None, math.nan, 0.2, 0.5, 0.8)
    for a, b in itertools.product(values, values):
        answered = [s for s in (a, b) if s is not None and s == s]
        expected = None if not answered else any(s > 0.5 for s in answered)
        assert or_rule({"pixel": a, "semantic": b}) is expected


def test_or_with_a_threshold_per_branch():
    scores = {"pixel": 0.7, "semantic": 0.3}
    assert or_rule(scores, {"pixel": 0.98, "semantic": 0.5}) is False
    assert or_rule(scores, {"pixel": 0.6, "semantic": 1.0}) is True
    assert or_rule({"pixel": 1.0}, 1.0) is False
    with pytest.raises(ValueError, match="semantic"):
        or_rule(scores, {"pixel": 0.5})


def test_yardsticks_read_columns_alone():
    x, y = toy(1000, strength=(2.0, 0.1, 0.5, 0.1))
    x[::2, 0] = np.nan
    single = fit_single_columns(x, y, TWO_BLOCKS, np.ones(len(y)))
    z = single.log_odds(x)
    assert single.highest(x) == pytest.approx(np.nanmax(z, 1))
    assert single.mean(x) == pytest.approx(np.nanmean(z, 1))
    # The best column is the first; rows without it take the next best.
    best = single.best(x)
    assert best[1::2] == pytest.approx(z[1::2, 0])
    assert best[::2] == pytest.approx(z[::2, 2])
    decided = [or_rule(dict(enumerate(sigmoid(row)))) for row in z]
    assert decided == (single.highest(x) > 0).tolist()
