"""Tables in batches: the same parts whatever the batch size, and bundles that gain and load."""

import attrs
import numpy as np
import pytest

from tellsign.fusion import Bundle
from tellsign.fusion.adapt import bundle_odds
from tellsign.fusion.booster import BoosterConfig
from tellsign.fusion.outofcore import census, fit_external, places, sampled, tune_batches

QUICK = BoosterConfig(depth=2, rounds=30)


def in_batches(table, size):
    def batches():
        for start in range(0, len(table), size):
            yield table.take(np.arange(start, min(start + size, len(table))))

    return batches


def test_a_group_has_one_place_in_every_batch():
    groups = np.array([f"g{i % 50}" for i in range(500)])
    at = places(groups, 3)
    assert ((at >= 0) & (at < 1)).all()
    assert at[:50].tolist() == at[50:100].tolist()
    assert at[7:9].tolist() == places(groups[7:9], 3).tolist()
    assert not np.array_equal(at, places(groups, 4))
    assert np.unique(places(np.arange(5000).astype(str), 0)).mean() == pytest.approx(0.5, abs=0.03)


def test_the_census_does_not_depend_on_the_batches(toys):
    table = toys.two_forms(60)[1]
    found = [census(in_batches(table, size), table.columns) for size in (7, 64, 1000)]
    assert found[0] == found[1] == found[2]
    assert (found[0].rows, found[0].by_label) == (120, (60, 60))
    assert {"+".join(sorted(p)) for p in found[0].patterns} == {"pixel.bundled", "pixel.tower"}
    other = attrs.evolve(table, label=1 - table.label)
    assert census(in_batches(other, 64), table.columns).sha256 != found[0].sha256


def test_samples_hold_whole_groups(toys):
    table = toys.two_forms(200)[1]
    part = sampled(in_batches(table, 33), seed=0, span=(0.2, 0.6), share=0.5)
    rest = np.setdiff1d(table.group, part.group)
    assert len(part) == 2 * len(np.unique(part.group))
    assert len(rest) + len(np.unique(part.group)) == 200
    assert len(np.unique(part.group)) == pytest.approx(40, abs=20)
    assert sampled(in_batches(table, 33), seed=0, span=(0.2, 0.2), share=1) is None


def test_the_external_booster_ranks_as_well_as_one_in_memory(toys):
    table = toys.four_table(1200, seed=1)
    head = fit_external(in_batches(table, 100), table.columns, seed=0, weights=(1.0, 1.0), config=QUICK)
    fresh = toys.four_table(400, seed=2)
    z = head.margin(fresh.rows)
    y = fresh.label
    assert (z[y == 1][:, None] > z[y == 0][None, :]).mean() > 0.85
    # Monotone, and another run gives the same bytes.
    higher = head.margin(fresh.rows + 0.5)
    assert (higher >= z - 1e-6).all()
    again = fit_external(in_batches(table, 100), table.columns, seed=0, weights=(1.0, 1.0), config=QUICK)
    assert again.to_bytes() == head.to_bytes()


@pytest.mark.slow
def test_a_table_in_batches_gives_a_bundle_that_gains(toys, logistic, tmp_path):
    base = logistic[0]

    def shifted(n, seed):
        table = toys.four_table(n, seed=seed)
        return attrs.evolve(table, rows=table.rows + 2.5)

    table = shifted(2000, 5)
    tuned = tune_batches(
        in_batches(table, 500), table.columns, base, seed=1, draws=300, sample=120, held=300, config=QUICK
    )
    assert tuned.improved
    tuned.bundle.save(tmp_path)
    assert Bundle.load(tmp_path).training["rows" if "anew" in tuned.reasons[0] else "table_rows"] == 2000
    fresh = shifted(600, 6)

    def loss(bundle):
        z = bundle_odds(bundle, fresh)
        return float(np.mean(np.logaddexp(0, z) - fresh.label * z))

    assert loss(tuned.bundle) < loss(base) - 0.1


def test_one_class_is_refused(toys, logistic):
    table = toys.four_table(40)
    table = attrs.evolve(table, label=np.zeros(40, int))
    with pytest.raises(ValueError, match="both labels"):
        tune_batches(in_batches(table, 10), table.columns, logistic[0])
