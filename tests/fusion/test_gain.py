"""The paired bootstrap: what it calls a gain, and how seldom it does where there is none."""

import numpy as np
import pytest

from tellsign.fusion.gain import even_weights, group_draws, paired_gain


def pictures(n, rng, scale=1.0):
    y = np.arange(n) % 2
    return y, scale * (2 * y - 1 + rng.normal(0, 1.4, n))


def test_weights_give_each_class_half_and_each_group_the_same():
    weight = even_weights([0, 0, 0, 1], ["a", "a", "b", "c"])
    assert weight.tolist() == [0.125, 0.125, 0.25, 0.5]


def test_a_clear_gain_is_proven_and_its_mirror_is_not():
    rng = np.random.default_rng(0)
    y, z = pictures(200, rng)
    groups = [f"g{i}" for i in range(200)]
    better = paired_gain(y, z - 3, z, groups)
    assert better.proven
    assert better.before - better.after == pytest.approx(better.mean)
    worse = paired_gain(y, z, z - 3, groups)
    assert worse.high < 0
    assert not worse.proven


def test_no_change_is_no_gain():
    y, z = pictures(60, np.random.default_rng(1))
    same = paired_gain(y, z, z, [str(i) for i in range(60)])
    assert (same.mean, same.low, same.high, same.proven) == (0, 0, 0, False)


def test_copies_of_a_picture_prove_nothing_more():
    rng = np.random.default_rng(2)
    y, z = pictures(40, rng)
    other = z + rng.normal(0, 1, 40)
    groups = [f"g{i}" for i in range(40)]
    once = paired_gain(y, z, other, groups)
    copied = paired_gain(*(np.repeat(x, 10) for x in (y, z, other)), np.repeat(groups, 10))
    assert copied.low == pytest.approx(once.low, abs=0.02)
    alone = paired_gain(*(np.repeat(x, 10) for x in (y, z, other)), np.arange(400))
    assert alone.high - alone.low < 0.5 * (copied.high - copied.low)


def test_every_draw_has_both_classes():
    y = np.array([0] * 3 + [1] * 3)
    for times in group_draws(y, list("abcdef"), draws=200, seed=0):
        assert (times[:, :3].sum(1) == 3).all()
        assert (times[:, 3:].sum(1) == 3).all()


def test_where_nothing_is_gained_a_gain_is_proven_seldom():
    # Two fusions whose log losses differ by noise of mean zero: both are off by as much, in opposite directions.
    rng = np.random.default_rng(3)
    proven = 0
    for seed in range(400):
        y = np.arange(60) % 2
        swing = rng.normal(0, 1, 60)
        z = 0.5 * (2 * y - 1)
        proven += paired_gain(y, z + swing, z - swing, np.arange(60), draws=300, seed=seed).proven
    # 2.5 % are promised; 400 draws of it exceed 5 % once in a thousand.
    assert proven / 400 <= 0.05


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (([0, 1], [0, 0], [0, 0], ["a"]), "length"),
        (([1, 1], [0, 0], [0, 0], ["a", "b"]), "labels"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        paired_gain(*arguments)


def test_confidence_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="confidence"):
        paired_gain([0, 1], [0, 0], [0, 0], ["a", "b"], confidence=1)
