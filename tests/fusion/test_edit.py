"""Looking into bundles, comparing them, and weights by hand."""

import json

import attrs
import numpy as np
import pytest

from tellsign.fusion.adapt import bundle_odds
from tellsign.fusion.edit import check, described, differences, scaled, task_weights
from tellsign.schemas import Column, Task


def test_the_stronger_task_weighs_more(bundle):
    weights = task_weights(bundle)["p_ai"]
    assert list(weights) == sorted(weights)
    assert weights["pixel"] > weights["reasoning"] > 0


def test_everything_about_a_bundle_is_json(bundle):
    told = described(bundle)
    assert json.loads(json.dumps(told, allow_nan=False))["version"] == bundle.version
    assert {c["column"] for c in told["heads"]["p_ai"]["columns"]} == {c.name for c in bundle.columns}


def test_a_factor_scales_its_task_and_no_other(toys, bundle):
    """The head is a sum over tasks: with all others silent, the part doubles; with it silent, nothing changes."""
    table = toys.four_table(40, seed=3)
    model, twice = bundle.heads["p_ai"].model, scaled(bundle, {"pixel": 2.0}).heads["p_ai"].model
    own = np.array([c.task is Task.PIXEL for c in model.columns])
    silent = np.full_like(table.rows, np.nan)
    start = model.margin(silent)
    only = np.where(own, table.rows, np.nan)
    rest = np.where(own, np.nan, table.rows)
    without = model.margin(rest)
    gone = scaled(bundle, {"pixel": 0.0}).heads["p_ai"].model
    assert twice.margin(table.rows) - gone.margin(table.rows) == pytest.approx(
        2 * (model.margin(table.rows) - gone.margin(table.rows)), abs=1e-4
    )
    assert np.abs(gone.margin(table.rows) - gone.margin(rest)).max() < 1e-5
    assert len({round(float(v), 5) for v in gone.margin(only)}) == 1
    assert np.isfinite(start).all()
    assert np.isfinite(without).all()


def test_scaled_bundles_save_and_load(bundle, tmp_path):
    half = scaled(bundle, {"pixel": 0.5})
    half.save(tmp_path)
    loaded = type(bundle).load(tmp_path)
    assert loaded.sha256 == half.sha256
    assert task_weights(loaded)["p_ai"]["pixel"] == pytest.approx(task_weights(bundle)["p_ai"]["pixel"] / 2, rel=1e-4)


@pytest.mark.parametrize(
    "factors", [{"unknown": 1.0}, {"pixel": -1.0}, {"pixel": float("nan")}, {str(t): 0.0 for t in Task}]
)
def test_factors_that_make_no_sense_are_refused(bundle, factors):
    with pytest.raises(ValueError, match="weights"):
        scaled(bundle, factors)


def test_a_bundle_does_not_differ_from_itself(bundle):
    assert differences(bundle, bundle) == ()


def test_what_differs_is_named(bundle):
    found = {d.what: d for d in differences(bundle, scaled(bundle, {"pixel": 0.5}))}
    assert "p_ai: weight of pixel, log-odds" in found
    assert not any("semantic" in what for what in found)
    other = attrs.evolve(bundle, plausible=0.4, training={**bundle.training, "rows": 7})
    assert {d.what for d in differences(bundle, other)} == {"plausible", "training: rows"}


def test_a_logistic_and_a_booster_can_be_compared(logistic, booster):
    assert any(d.what == "p_ai: kind" for d in differences(logistic[0], booster[0]))


def test_the_installed_plugins_it_was_calibrated_with_fit(toys, bundle):
    assert check(bundle, toys.four_plugins()) == ()


def test_other_versions_weights_columns_and_missing_plugins_are_found(toys, bundle):
    plugins = toys.four_plugins()
    newer = {**plugins, "pixel": attrs.evolve(plugins["pixel"], version="2.0")}
    (found,) = check(bundle, newer)
    assert found.serious
    assert "pixel 1.0.0, and 2.0" in found.text

    lost = {**plugins, "pixel": attrs.evolve(plugins["pixel"], columns=(Column(name="a", evidence="z"),))}
    assert sorted("means something else" in f.text for f in check(bundle, lost)) == [False, True]

    missing = {n: p for n, p in plugins.items() if n != "pixel"}
    (found,) = check(bundle, missing)
    assert not found.serious

    more = plugins | {"extra": toys.declare("extra", Task.PIXEL, Column(name="x", evidence="x"))}
    (found,) = check(bundle, more)
    assert "not trained with extra" in found.text
    assert check(bundle, {})[0].serious


def test_weights_by_hand_move_the_answer(toys, bundle):
    table = toys.four_table(30, seed=5)
    before, after = bundle_odds(bundle, table), bundle_odds(scaled(bundle, {"pixel": 0.0}), table)
    assert np.abs(before - after).max() > 0.3
