import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellsign.bench import memory
from tellsign.bench.run import MEMORY_GRAIN, memory_line
from tellsign.bench.timing import Estimate, alternate, estimate, judge, neighbours, overhead
from tellsign.errors import SettingError


class Clock:
    """Time that moves only when work is done, so that what is measured is known."""

    def __init__(self, drift=0.0):
        self.now, self.drift, self.log = 0.0, drift, []

    def __call__(self):
        return self.now

    def work(self, name, seconds):
        def do():
            self.log.append(name)
            self.now += seconds * (1 + self.drift * self.now)

        return do


def test_the_arms_take_turns_and_warmup_is_not_counted():
    clock, turns = Clock(), []
    samples = alternate(
        clock.work("whole", 1.5),
        {"decode": clock.work("d", 0.2), "forward": clock.work("f", 1.0)},
        pairs=3,
        warmup=2,
        clock=clock,
        tick=lambda: turns.append(1),
    )
    assert clock.log == ["d", "f", "whole"] * 5 + ["d", "f"]
    assert len(turns) == 5
    assert samples.whole == pytest.approx([1.5] * 3)
    assert samples.parts["decode"] == pytest.approx([0.2] * 4)
    assert samples.total == pytest.approx([1.2] * 4)


def test_overhead_is_what_was_put_in():
    clock = Clock()
    samples = alternate(
        clock.work("w", 1.5),
        {"decode": clock.work("d", 0.2), "views": clock.work("v", 0.1), "forward": clock.work("f", 1.0)},
        pairs=5,
        clock=clock,
    )
    value, aa = overhead(samples, samples.parts["forward"])
    assert value.median == pytest.approx(0.2)
    assert (aa.median, aa.low, aa.high) == pytest.approx((0, 0, 0))
    value, _ = overhead(samples, samples.total)
    assert value.median == pytest.approx(0.2 / 1.3)


def test_a_machine_that_slows_down_steadily_is_not_taken_for_overhead():
    clock = Clock(drift=0.01)  # half as slow again after the sixty pairs
    samples = alternate(clock.work("w", 1.0), {"forward": clock.work("f", 1.0)}, pairs=20, warmup=0, clock=clock)
    assert samples.whole[-1] > 1.2 * samples.whole[0]
    value, aa = overhead(samples, samples.parts["forward"])
    assert abs(value.median) < 0.005
    assert aa.reach < 0.005


def test_restless_machine_shows_in_the_aa_line():
    rng = np.random.default_rng(0)
    clock = Clock()

    def restless():
        clock.now += 1 + rng.random()

    samples = alternate(restless, {"forward": restless}, pairs=12, clock=clock)
    value, aa = overhead(samples, samples.parts["forward"])
    assert aa.reach > 0.05
    assert judge(value, aa, 0.05) == "inconclusive"


def test_the_device_settles_before_each_reading_of_the_clock():
    clock, log = Clock(), []
    alternate(
        lambda: log.append("work"),
        {"f": lambda: log.append("work")},
        pairs=2,
        warmup=0,
        clock=lambda: log.append("clock") or 0.0,
        settle=lambda: log.append("settle"),
    )
    assert log == ["settle", "clock", "work", "settle", "clock"] * 5
    assert clock.now == 0


def test_collection_pauses_and_comes_back_even_after_an_error():
    seen = []

    def whole():
        seen.append(gc.isenabled())
        if len(seen) == 3:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        alternate(whole, {"f": lambda: None}, pairs=5, warmup=1)
    assert seen == [True, False, False]
    assert gc.isenabled()


def test_too_few_pairs():
    with pytest.raises(SettingError, match="pairs takes an integer of at least 2, got 1"):
        alternate(lambda: None, {"f": lambda: None}, pairs=1)


def test_nothing_to_estimate():
    with pytest.raises(SettingError, match="at least one measurement"):
        estimate(np.zeros(0))


def test_estimate_has_the_coverage_that_it_states():
    rng = np.random.default_rng(0)
    hits = 0
    for i in range(200):
        e = estimate(rng.normal(3, 1, 60), seed=i)
        hits += e.low <= 3 <= e.high
    assert 0.90 <= hits / 200 <= 1.0


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30))
def test_interval_holds_the_median(values):
    e = estimate(np.array(values))
    assert min(values) <= e.low <= e.median <= e.high <= max(values)
    assert e.median == pytest.approx(np.median(values))


def at(low, high):
    return Estimate(median=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize(
    ("value", "aa", "limit", "want"),
    [
        (at(0.01, 0.04), at(-0.01, 0.01), 0.05, "pass"),
        (at(-0.5, -0.4), at(-0.01, 0.01), 0.05, "pass"),
        (at(0.06, 0.09), at(-0.01, 0.01), 0.05, "fail"),
        (at(0.04, 0.06), at(-0.01, 0.01), 0.05, "inconclusive"),
        (at(0.01, 0.02), at(-0.06, 0.01), 0.05, "inconclusive"),
        (at(0.01, 0.02), at(0.01, 0.07), 0.05, "inconclusive"),
        (at(0.60, 0.90), at(-0.06, 0.06), 0.05, "inconclusive"),
        (at(3.0, 4.0), None, 8.0, "pass"),
        (at(9.0, 9.5), None, 8.0, "fail"),
        (at(9.0, 9.5), None, None, "info"),
    ],
)
def test_what_may_be_said(value, aa, limit, want):
    assert judge(value, aa, limit) == want


def test_neighbours():
    assert neighbours(np.array([1.0, 3.0, 7.0])) == pytest.approx([2.0, 5.0])


@pytest.mark.parametrize(
    ("small", "large", "want"),
    [
        (1300, 1320, "pass"),  # 20 of 300 MB more
        (1300, 1340, "fail"),
        (1300, 1250, "pass"),
        (1050, 1050 + MEMORY_GRAIN, "inconclusive"),  # above a tenth, but so little that it may be the allocator's
        (1050, 1051 + MEMORY_GRAIN, "fail"),
        (1000, 1000, "pass"),
    ],
)
def test_memory_is_judged_over_what_was_loaded(small, large, want):
    line = memory_line("memory", "", 1000, small, large)
    assert line.judgement == want
    if small == 1300:
        assert line.value.median == pytest.approx((large - small) / 300)


def test_peak_sees_what_came_and_went():
    watch = memory.Peak()
    if watch.start is None:
        pytest.skip("this system does not say how much memory a process takes")
    if not watch.resettable:
        pytest.skip("this system cannot set its high-water mark back")
    block = np.ones(25_000_000)  # 200 MB, written to
    del block
    peak = watch.megabytes
    assert 190 < peak - watch.start < 260
    assert memory.Peak().start < peak - 100
