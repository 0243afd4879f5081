import numpy as np
import pytest

from tellsign.fusion.features import FeatureColumn
from tellsign.fusion.folds import family_folds, group_folds, out_of_fold
from tellsign.fusion.logistic import fit_logistic


def toy(n=300, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    family = np.array([("gen" if v else "real") + str(k) for v, k in zip(y, rng.integers(0, 5, n), strict=True)])
    # Reals and their reconstructions share groups across labels.
    group = np.array([f"g{k}" for k in rng.integers(0, 120, n)])
    return y, family, group


def test_groups_never_straddle_and_every_row_is_held_once():
    y, _, g = toy()
    folds = group_folds(y, g, 5, seed=0)
    assert len(folds) == 5
    for f in folds:
        assert not set(g[f.train]) & set(g[f.test])
        assert set(y[f.train]) == set(y[f.test]) == {0, 1}
    assert sorted(np.concatenate([f.test for f in folds])) == list(range(len(y)))


def test_leave_one_family_out_trains_on_no_row_of_it_and_no_group_of_it():
    y, family, g = toy()
    folds = family_folds(y, family, g)
    assert len(folds) == 5
    for f in folds:
        assert len(f.held) == 2
        assert not set(family[f.train]) & set(f.held)
        assert set(family[f.test]) == set(f.held)
        assert not set(g[f.train]) & set(g[f.test])
    assert {h for f in folds for h in f.held} == set(family)


def test_real_sources_come_round_again_where_there_are_fewer():
    y, family, g = toy()
    family = np.where((y == 0) & np.isin(family, ["real2", "real3", "real4"]), "real0", family)
    g = np.array([f"{i}" for i in range(len(y))])
    folds = family_folds(y, family, g)
    held = [next(h for h in f.held if h.startswith("real")) for f in folds]
    assert held == ["real0", "real1", "real0", "real1", "real0"]


def test_a_single_real_source_is_split_by_group():
    y, family, g = toy()
    family = np.where(y == 0, "real", family)
    folds = family_folds(y, family, g)
    assert len(folds) == 5
    for f in folds:
        assert len(f.held) == 1
        assert {0, 1} == set(y[f.train])
        assert not set(g[f.train]) & set(g[f.test])


def test_too_few_groups_are_refused():
    with pytest.raises(ValueError, match="two groups"):
        group_folds([0, 1, 1], ["a", "b", "c"], 2, seed=0)


def test_a_detector_that_memorises_gets_weight_only_in_sample():
    rng = np.random.default_rng(0)
    n = 400
    y = rng.integers(0, 2, n)
    honest = (2 * y - 1) * 0.7 + rng.normal(0, 1, n)
    picture = rng.normal(size=(n, 8))

    def fit(train):
        # Remembers every training picture and its label: nothing but noise carries over.
        def scores(rows):
            distance = ((picture[rows][:, None] - picture[train][None]) ** 2).sum(2)
            return 2.0 * y[train][distance.argmin(1)] - 1

        return scores

    everything = np.arange(n)
    folds = group_folds(y, everything, 5, seed=0)
    columns = [FeatureColumn(f"p.{c}", 1, "p", "pixel", "p") for c in ("honest", "leak")]
    inside = fit_logistic(np.column_stack([honest, fit(everything)(everything)]), y, columns).weights
    outside = fit_logistic(np.column_stack([honest, out_of_fold(fit, n, folds)]), y, columns).weights
    assert inside[1] > 3 * inside[0]
    assert outside[1] < 0.15 * outside[0]
