"""The bench's line for plugins that share a tower."""

import attrs
import pytest
import torch

from tellsign import Detector
from tellsign.bench.null import DECLARATION
from tellsign.bench.parts import with_plugin
from tellsign.bench.pictures import made_up
from tellsign.bench.shared import shared_cost
from tellsign.guard import Guard
from tellsign.plugin import DetectorPlugin
from tellsign.schemas import Task


class Shares(DetectorPlugin):
    """A layer of work that is shared under one key, and nothing else."""

    ran: list

    def work(self):
        with torch.inference_mode():
            x = torch.ones(400, 400)
            for _ in range(12):
                x = x @ x / 400
        return x

    def detect(self, views, runtime):
        runtime.shared_forwards("t/semantic", [v.key for v in views], lambda missing: [self.work() for _ in missing])
        return [[self.not_applicable("a test")] for _ in views]

    def bench_tower(self, views, runtime):
        return self.work


class Lonely(Shares):
    """Asks for a pass of its own."""

    def detect(self, views, runtime):
        self.work()
        return [[self.not_applicable("a test")] for _ in views]


def detector(*plugins):
    found = Detector(device="cpu", stability_probe=False, plugins=())
    guards = []
    for name, kind, task in plugins:
        told = attrs.evolve(DECLARATION, name=name, task=task)
        with_plugin(found, kind(told, {}))
        guards += found._pipeline.guards
    found._pipeline = attrs.evolve(found._pipeline, guards=tuple(guards))
    assert all(isinstance(g, Guard) for g in guards)
    return found


@pytest.mark.parametrize(("second", "least", "most"), [(Shares, 0.6, 1.6), (Lonely, 1.6, 3.0)])
def test_two_that_share_cost_one_and_two_that_do_not_cost_two(second, least, most):
    picture = made_up(200, 160, seed=0)
    with detector(("a", Shares, Task.SEMANTIC), ("b", second, Task.REASONING), ("c", Shares, Task.PIXEL)) as found:
        names, ratio, aa = shared_cost(found, picture, pairs=9, warmup=1)
    assert names == ("a", "b")
    assert len(ratio) == 9
    assert len(aa) == 8
    assert least < float(sorted(ratio)[4]) < most


class Silent(Shares):
    """Its tower does not speak here."""

    def bench_tower(self, views, runtime):
        return None


def test_where_nobody_offers_a_bare_pass_there_is_no_line():
    with detector(("a", Silent, Task.SEMANTIC)) as found:
        assert shared_cost(found, made_up(200, 160, seed=0), pairs=3, warmup=1) is None
