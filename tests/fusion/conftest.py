"""Toy plugins, toy scores and two small trained bundles."""

from types import SimpleNamespace

import numpy as np
import pytest

from tellsign.fusion import ScoreTable, columns, train_bundle
from tellsign.fusion.booster import BoosterConfig
from tellsign.schemas import Column, Declaration, ScoreEvidence, Task

TASKS = (Task.PIXEL, Task.REASONING, Task.SEGMENTATION, Task.SEMANTIC)
SMALL_BOOSTER = BoosterConfig(depth=2, rounds=40, min_child_weight=4)


def declare(name, task, *cols, version="1.0.0", **more):
    return Declaration(
        name=name,
        version=version,
        api_version=1,
        task=task,
        detector="toy:Detector",
        summary="a toy",
        columns=cols,
        code_licence="Apache-2.0",
        weights_licence="none",
        commercial_use=True,
        **more,
    )


def score(plugin, name, logit, task=Task.PIXEL):
    return ScoreEvidence(plugin=plugin, task=task, model="toy 1", name=name, score=0.5, logit=logit)


def four_plugins():
    """One plugin per task, two columns each: four blocks."""
    return {
        f"{task}": declare(f"{task}", task, Column(name="a", evidence="a"), Column(name="b", evidence="b"))
        for task in TASKS
    }


def evidence_of(row):
    """Evidence that gives the feature row back."""
    return [
        score(*name.split("."), value, task=Task(name.split(".")[0])) for name, value in row.items() if value == value
    ]


def four_table(n=320, seed=0, families=5, sources=3):
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 2).astype(int)
    kind = np.where(label == 1, rng.integers(0, families, n), rng.integers(0, sources, n))
    source = np.array([("gen" if y else "real") + str(k) for y, k in zip(label, kind, strict=True)])
    cols = columns(four_plugins())
    strength = {"pixel": 1.2, "semantic": 0.9, "segmentation": 0.6, "reasoning": 0.3}
    truth = 2 * label - 1
    rows = np.column_stack([strength[c.plugin] * truth + rng.normal(0, 1.3, n) for c in cols])
    return ScoreTable(rows=rows, columns=cols, label=label, group=[f"g{i}" for i in range(n)], source=source)


def two_forms(n=300, seed=0, families=6, sources=4):
    """The project's own case: one plugin, two blocks of which one answers, every picture in both forms."""
    plugin = declare(
        "pixel",
        Task.PIXEL,
        Column(name="tower", evidence="tower", block="tower"),
        Column(name="tower_top", evidence="tower_top", block="tower"),
        Column(name="bundled", evidence="bundled", block="bundled"),
    )
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 2).astype(int)
    kind = np.where(label == 1, rng.integers(0, families, n), rng.integers(0, sources, n))
    source = np.array([("gen" if y else "real") + str(k) for y, k in zip(label, kind, strict=True)])
    truth = 2 * label - 1
    cols = columns({"pixel": plugin})
    assert [c.name for c in cols] == ["pixel.bundled", "pixel.tower", "pixel.tower_top"]
    rows = np.full((2 * n, 3), np.nan)
    rows[:n, 1] = 1.5 * truth + rng.normal(0, 1.5, n)
    rows[:n, 2] = 1.5 * truth + rng.normal(0, 1.5, n)
    rows[n:, 0] = 0.7 * truth + rng.normal(0, 1.5, n)
    group = [f"g{i}" for i in range(n)] * 2
    table = ScoreTable(rows=rows, columns=cols, label=np.tile(label, 2), group=group, source=np.tile(source, 2))
    return {"pixel": plugin}, table


@pytest.fixture(scope="session")
def toys():
    """The functions above, for tests: without packages in the test tree nothing can be imported from here."""
    return SimpleNamespace(
        declare=declare,
        score=score,
        four_plugins=four_plugins,
        evidence_of=evidence_of,
        four_table=four_table,
        two_forms=two_forms,
        small_booster=SMALL_BOOSTER,
    )


@pytest.fixture(scope="session")
def logistic():
    return train_bundle(four_table(), declarations=four_plugins(), head="logistic", folds=4)


@pytest.fixture(scope="session")
def booster():
    return train_bundle(four_table(), declarations=four_plugins(), head="booster", folds=3, ladder=[SMALL_BOOSTER])


@pytest.fixture(scope="session", params=["logistic", "booster"])
def bundle(request):
    return request.getfixturevalue(request.param)[0]
