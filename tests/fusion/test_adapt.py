"""Tuning a bundle: shrinkage, the gate, sets, determinism."""

import math

import attrs
import numpy as np
import pytest

from tellsign.fusion import Bundle, ScoreTable
from tellsign.fusion.adapt import bundle_odds, tune_bundle
from tellsign.fusion.bundle import Head
from tellsign.fusion.calibration import Affine, sigmoid
from tellsign.fusion.features import FeatureColumn
from tellsign.fusion.gain import log_losses
from tellsign.fusion.inherit import MAPPED, OWN, affine_between, inherited, needed_groups
from tellsign.fusion.logistic import LogisticHead
from tellsign.fusion.shrink import base_view, can_reweight, head_odds, recalibrated, reweighted
from tellsign.schemas import Label

QUICK = {"draws": 300, "curve": False, "anew": "never"}


def moved(table, shift):
    """The same pictures, all scores shifted: a domain where everything looks more suspicious."""
    return attrs.evolve(table, rows=table.rows + shift)


def true_fusion(toys, base, weaken=0.3):
    """A base that is the truth about its pictures, and the function that draws such pictures."""
    mean = np.array(
        [{"pixel": 1.2, "semantic": 0.9, "segmentation": 0.6, "reasoning": 0.3}[c.plugin] for c in base.columns]
    )
    mean, spread = weaken * mean, 1.3
    k = len(mean)
    model = LogisticHead(base.heads["p_ai"].columns, np.zeros(k), np.ones(k), 2 * mean / spread**2, 0.0)
    head = Head(model=model, calibrators=dict.fromkeys(base.heads["p_ai"].calibrators, Affine(1.0, 0.0, 10.0)))

    def draw(n, seed):
        table = toys.four_table(n, seed=seed)
        noise = np.random.default_rng(seed).normal(0, spread, table.rows.shape)
        return attrs.evolve(table, rows=(2 * table.label - 1)[:, None] * mean + noise)

    return attrs.evolve(base, heads={"p_ai": head}), draw


@pytest.mark.slow
def test_where_nothing_can_be_gained_a_bundle_is_seldom_written(toys, logistic):
    """The base is the truth, so every bundle that is written is a worse one; 2.5 % are allowed."""
    base, draw = true_fusion(toys, logistic[0])
    written = sum(tune_bundle(draw(60, seed), base, seed=seed, **QUICK).improved for seed in range(150))
    # 2.5 % of 150 exceed 9 once in two hundred.
    assert written <= 9


def test_what_is_written_gains_on_new_pictures(toys, logistic):
    """The toys' base leaves a hundredth of a nat: too little to be found often, and what is found is there."""
    base, fresh = logistic[0], toys.four_table(2000, seed=5)
    before = log_losses(fresh.label, bundle_odds(base, fresh)).mean()
    for seed in range(12):
        tuned = tune_bundle(toys.four_table(60, seed=100 + seed), base, seed=seed, **QUICK)
        assert tuned.improved or tuned.bundle is base
        assert log_losses(fresh.label, bundle_odds(tuned.bundle, fresh)).mean() <= before


def test_a_shifted_domain_is_tuned_and_gains_on_new_pictures(toys, logistic):
    base = logistic[0]
    tuned = tune_bundle(moved(toys.four_table(80, seed=7), 2.5), base, **QUICK)
    assert tuned.improved
    assert tuned.gains["p_ai"]["moved"].low > 0
    fresh = moved(toys.four_table(400, seed=8), 2.5)
    y = fresh.label
    old, new = bundle_odds(base, fresh), bundle_odds(tuned.bundle, fresh)

    def loss(z):
        return float(np.mean(np.logaddexp(0, z) - y * z))

    assert loss(new) < loss(old) - 0.1
    assert abs(sigmoid(new).mean() - 0.5) < 0.6 * abs(sigmoid(old).mean() - 0.5)


def test_the_tuned_bundle_saves_loads_and_answers(toys, logistic, tmp_path):
    base = logistic[0]
    tuned = tune_bundle(moved(toys.four_table(80, seed=7), 2.5), base, declarations=toys.four_plugins(), **QUICK)
    tuned.bundle.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    assert loaded.sha256 == tuned.bundle.sha256
    assert loaded.training["base"] == base.version
    fresh = toys.four_table(3, seed=9)
    row = dict(zip([c.name for c in fresh.columns], fresh.rows[0].tolist(), strict=True))
    fused = loaded.fuse(toys.evidence_of(row), toys.four_plugins())
    assert fused.p_ai == pytest.approx(float(sigmoid(bundle_odds(tuned.bundle, fresh)[0])))
    # Contributions still add up to the probability.
    total = sum(c.log_odds for c in fused.contributions if c.head == "p_ai")
    assert total == pytest.approx(math.log(fused.p_ai / (1 - fused.p_ai)), abs=1e-5)


def test_the_same_table_and_seed_give_the_same_bytes(toys, logistic, tmp_path):
    table = moved(toys.four_table(60, seed=3), 2.5)
    for name in ("a", "b"):
        tune_bundle(table, logistic[0], seed=4, **QUICK).bundle.save(tmp_path / name)
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_strong_ridge_is_the_base(toys, logistic):
    base, table = logistic[0], moved(toys.four_table(60, seed=3), 2.5)
    view = base_view(base, table, "p_ai")
    before = head_odds(base.heads["p_ai"], view)
    rows, weights = np.arange(len(table)), np.full(len(table), 1.0)
    for fit in (recalibrated, reweighted):
        strong, weak = (head_odds(fit(base, view, table.label, weights, rows, s), view) for s in (1e9, 1e-4))
        assert np.abs(strong - before).max() < 1e-5
        assert np.abs(weak - before).max() > 0.5


@pytest.mark.parametrize("strength", [0.1, 1e-6])
def test_no_weight_turns_against_its_direction(toys, logistic, strength):
    """Labels that contradict every column: weights stop at zero."""
    base, table = logistic[0], toys.four_table(80, seed=5)
    view = base_view(base, table, "p_ai")
    head = reweighted(base, view, 1 - table.label, np.full(len(table), 1.0), np.arange(len(table)), strength)
    assert (head.model.weights >= 0).all()
    flat = recalibrated(base, view, 1 - table.label, np.full(len(table), 1.0), np.arange(len(table)), strength)
    assert all(c.slope >= 0 for c in flat.calibrators.values())


def test_a_booster_is_recalibrated_and_never_reweighted(toys, booster):
    base, table = booster[0], moved(toys.four_table(80, seed=7), 2.5)
    assert not can_reweight(base, base_view(base, table, "p_ai"))
    tuned = tune_bundle(table, base, **QUICK)
    assert tuned.improved
    assert tuned.choices["p_ai"].method == "recalibrated"
    assert tuned.bundle.heads["p_ai"].model is base.heads["p_ai"].model


def test_a_plugin_that_the_base_does_not_know_enters(toys, logistic):
    base, table = logistic[0], toys.four_table(120, seed=11)
    rng = np.random.default_rng(0)
    new = FeatureColumn("fresh.a", 1, "fresh", "pixel", "fresh")
    strong = (2 * table.label - 1) * 3 + rng.normal(0, 1, len(table))
    table = ScoreTable(
        rows=np.column_stack([table.rows, strong]),
        columns=(*table.columns, new),
        label=table.label,
        group=table.group,
        source=table.source,
    )
    tuned = tune_bundle(table, base, **QUICK)
    assert tuned.choices["p_ai"].method == "reweighted"
    names = [c.name for c in tuned.bundle.columns]
    assert "fresh.a" in names
    weights = tuned.bundle.heads["p_ai"].model.weights
    assert weights[names.index("fresh.a")] > 0.3
    # A picture without it is judged as far as the base could.
    assert np.isfinite(bundle_odds(tuned.bundle, toys.four_table(10, seed=1))).all()


def test_a_column_that_means_something_else_is_refused(toys, logistic):
    table = toys.four_table(60)
    turned = [attrs.evolve(table.columns[0], direction=-1), *table.columns[1:]]
    with pytest.raises(ValueError, match=r"pixel\.a"):
        tune_bundle(attrs.evolve(table, columns=turned), logistic[0], **QUICK)


def test_too_few_pictures_are_said_and_the_base_stays(toys, logistic):
    tuned = tune_bundle(moved(toys.four_table(16), 3), logistic[0], **QUICK)
    assert not tuned.improved
    assert tuned.bundle is logistic[0]
    assert "10 are the least" in tuned.reasons[0]


def test_sets_rest_on_own_pictures_where_there_are_enough(toys, logistic):
    tuned = tune_bundle(moved(toys.four_table(80, seed=7), 2.5), logistic[0], **QUICK)
    (full,) = (v for k, v in tuned.sets.items() if k.count("+") == 3)
    assert (full["ai_generated"]["from"], full["ai_generated"]["needed"]) == (OWN, 20)
    assert full["authentic"]["from"] != OWN  # 40 pictures, and 2 % takes 49.
    assert full["authentic"]["needed"] == needed_groups(0.02, 20) == 49
    wider = tune_bundle(moved(toys.four_table(80, seed=7), 2.5), logistic[0], error_rate=0.1, **QUICK)
    (full,) = (v for k, v in wider.sets.items() if k.count("+") == 3)
    assert full["authentic"]["from"] == OWN
    assert wider.bundle.error_rates[Label.AUTHENTIC] == 0.1


def test_mapped_sets_are_those_of_the_base(toys, logistic):
    """Where the log-odds are an affine map of the base's, what the base could not rule out is not ruled out."""
    # One column per task would be needed for a logistic base to be mapped when reweighted; recalibrating always is.
    base = attrs.evolve(logistic[0])
    view = base_view(base, toys.four_table(40, seed=7), "p_ai")
    table = moved(toys.four_table(40, seed=7), 2.5)
    head = recalibrated(base, view, table.label, np.ones(40), np.arange(40), 0.01)
    new = attrs.evolve(base, heads={"p_ai": head})
    for key in base.conformal:
        scores, how = inherited(base, new, key)
        assert how == MAPPED
        c, d = affine_between(base.heads["p_ai"], head, key)
        for label, sign in ((Label.AUTHENTIC, 1), (Label.AI_GENERATED, -1)):
            z = np.linspace(-4, 4, 41)
            q_old, q_new = (by[label].quantile(0.2) for by in (base.conformal[key], scores))
            old, now = sigmoid(sign * z), sigmoid(sign * (c * z + d))
            far = np.abs(old - q_old) > 1e-6
            assert ((old <= q_old) == (now <= q_new))[far].all()
            assert 0 < (old <= q_old).sum() < 41


def test_held_out_rows_are_judged_by_models_without_their_group(toys, logistic):
    """Labels that say nothing: whoever trains on its own judging rows would find a gain."""
    table = toys.four_table(120, seed=1)
    rng = np.random.default_rng(0)
    noise = attrs.evolve(table, rows=rng.normal(0, 1, table.rows.shape))
    tuned = tune_bundle(noise, logistic[0], **QUICK)
    held = tuned.held_out["p_ai"]
    assert metric_auc(held.labels, held.after) < 0.62


def metric_auc(y, z):
    return float((z[y == 1][:, None] > z[y == 0][None, :]).mean())


def test_leave_one_generator_out(toys, logistic):
    tuned = tune_bundle(moved(toys.four_table(100, seed=2), 2.5), logistic[0], split="generator", **QUICK)
    assert tuned.improved
    assert tuned.training["split"] == "generator"


def test_the_learning_curve_has_rising_sizes(toys, logistic):
    tuned = tune_bundle(moved(toys.four_table(60, seed=2), 2.5), logistic[0], **(QUICK | {"curve": True}))
    groups = [p["groups"] for p in tuned.curve]
    assert groups == sorted(groups)
    assert groups[-1] == pytest.approx(48)


@pytest.mark.slow
def test_with_many_pictures_of_another_kind_training_anew_wins(toys, logistic):
    table = toys.four_table(400, seed=21)
    rows = table.rows.copy()
    rows[:, [i for i, c in enumerate(table.columns) if c.plugin == "pixel"]] *= 0.05  # units changed
    tuned = tune_bundle(attrs.evolve(table, rows=rows), logistic[0], draws=300, curve=False, declarations=None)
    assert tuned.improved
    assert "anew" in tuned.gains["p_ai"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("split", "x"), ("anew", "x"), ("folds", 1), ("error_rate", 2)],
)
def test_settings_outside_their_range_are_refused(toys, logistic, setting, value):
    with pytest.raises(ValueError, match=setting):
        tune_bundle(toys.four_table(40), logistic[0], **{setting: value})
