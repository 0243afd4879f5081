"""The measurements of tuning: which rows are drawn, which plugins run again, what the ways are."""

import json
from collections import Counter
from pathlib import Path

import attrs
import numpy as np
import pytest
from typer.testing import CliRunner

from tellsign.data.rows import PictureRow
from tellsign.data.scoring import key_of
from tellsign.fusion.features import columns
from tellsign.fusion.gain import even_weights, log_losses
from tellsign.fusion.table import ScoreTable
from tellsign.fusion.train import train_bundle
from tellsign.schemas import Column, Declaration, Task
from tellsign.tuning import experiment, tables, ways

SIGNAL = np.array([0.8, 0.5])


def declared(name, version="1.0.0"):
    return Declaration(
        name=name,
        version=version,
        api_version=1,
        task=Task.PIXEL,
        detector="toy:Detector",
        summary="a toy",
        columns=(Column(name="s", evidence="s"),),
        code_licence="Apache-2.0",
        weights_licence="none",
        commercial_use=True,
    )


BOTH = {n: declared(n) for n in ("one", "two")}


def table_of(n, seed, shift=0.0, split="user"):
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    rows = (2 * label - 1)[:, None] * SIGNAL + rng.normal(0, 1, (n, 2)) + shift
    return ScoreTable(
        rows=rows,
        columns=columns(BOTH),
        label=label,
        group=[f"{split}{seed}/{i // 2 * 2 + y}" for i, y in enumerate(label)],
        source=np.where(label, "gen", "real"),
        split=[split] * n,
    )


@pytest.fixture(scope="module")
def base():
    return train_bundle(table_of(300, 0), declarations=BOTH, head="logistic", folds=3)[0]


def picture(i, label, source, split="user"):
    return PictureRow(path=Path(f"/p/{i}"), label=label, source=source, content="photo", group=f"g{i}", split=split)


def test_a_sample_is_even_over_classes_and_sources():
    rows = [picture(i, int(i >= 60), "abc"[i % 3] if i < 57 else "rare") for i in range(120)]
    taken = experiment.spread(rows, 40)
    assert Counter(r.label for r in taken) == {0: 20, 1: 20}
    real = Counter(r.source for r in taken if r.label == 0)
    assert real["rare"] == 3
    assert max(real.values()) - min(real[s] for s in "abc") <= 1
    assert taken == experiment.spread(rows, 40)
    assert taken == sorted(taken, key=rows.index)
    assert experiment.spread(rows, 1000) == rows


def test_a_draw_holds_whole_groups_and_leaves_some_of_each_class():
    table = table_of(60, 3)
    table = attrs.evolve(table, group=[f"{y}/{i // 6}" for i, y in enumerate(table.label.tolist())])
    drawn = experiment.drawn_rows(table, 1000, 0)
    rest = np.setdiff1d(np.arange(len(table)), drawn)
    assert set(table.label[rest].tolist()) == {0, 1}
    assert not set(table.group[drawn].tolist()) & set(table.group[rest].tolist())
    few = experiment.drawn_rows(table, 20, 0)
    assert 10 <= (table.label[few] == 0).sum() <= 12


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Pictures that are scored by a count of how often each plugin ran."""
    rows = [picture(i, i % 2, "gen" if i % 2 else "real", "user" if i < 20 else "test") for i in range(40)]
    ran = []

    def scored(asked, plugin, settings, cache, *, device, versions):
        have = {} if not cache.is_file() else {tuple(k): v for k, v in json.loads(cache.read_text())}
        new = [r for r in asked if key_of(r, 0) not in have]
        if new:
            ran.append((plugin, len(new)))
        have |= {key_of(r, 0): {f"{plugin}.s": float(r.label)} for r in new}
        cache.write_text(json.dumps([[list(k), v] for k, v in have.items()]))
        return have, []

    installed = dict(BOTH)
    record = type("Record", (), {})

    def discover():
        out = []
        for name, declaration in installed.items():
            one = record()
            one.name, one.state, one.declaration = name, "ok", declaration
            out.append(one)
        return out

    monkeypatch.setattr(experiment, "read_rows", lambda data, full: rows)
    monkeypatch.setattr(experiment, "score_plugin", scored)
    monkeypatch.setattr(experiment, "discover", discover)

    def score(*more):
        ran.clear()
        arguments = ["score", "--shared", str(tmp_path), "--out", str(tmp_path / "t.csv"), *more]
        result = CliRunner().invoke(experiment.app, arguments)
        assert result.exit_code == 0, result.output
        return list(ran), tables.load(tmp_path / "t.csv", installed)

    return installed, score


def test_a_new_plugin_is_the_only_one_that_scores(project):
    installed, score = project
    ran, table = score("--most", "10")
    assert ran == [("one", 20), ("two", 20)]
    assert len(table) == 20
    assert score("--most", "10")[0] == []
    installed["three"] = declared("three")
    ran, table = score("--most", "10")
    assert ran == [("three", 20)]
    assert [c.name for c in table.columns] == ["one.s", "three.s", "two.s"]
    installed["two"] = declared("two", "2.0.0")
    assert score("--most", "10")[0] == [("two", 20)]
    ran, table = score("--plugins", "one")
    assert ran == [("one", 20)]
    assert [c.name for c in table.columns] == ["one.s"]


def test_the_experiment_gains_where_the_domain_is_another(base, tmp_path, monkeypatch):
    far = table_of(80, 9, split="test")
    tables.save(tables.joined([table_of(160, 8, shift=1.5), far]), tmp_path / "t.csv", BOTH)
    base.save(tmp_path / "base")
    monkeypatch.setattr(experiment, "BOOTSTRAP", 50)
    monkeypatch.setattr(tables, "columns", lambda _: columns(BOTH))
    arguments = ["run", "--table", str(tmp_path / "t.csv"), "--fusion", str(tmp_path / "base"), "--draws", "2"]
    arguments += ["--sizes", "60", "--out", str(tmp_path / "out.json")]
    result = CliRunner().invoke(experiment.app, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out.json").read_text())["sizes"]["60"]
    assert found["gated"]["written"] == 2
    assert found["gated"]["rest"]["log_loss_gain"]["mean"] > 0.05
    assert found["gated"]["elsewhere"]["log_loss_gain"]["mean"] < 0
    lines = [x for x in result.output.splitlines() if x.startswith("|")]
    assert {line.count("|") for line in lines} == {10}


def test_ways_are_ways_and_the_shipped_one_is_among_them(base):
    problem = ways.problem_of(base, table_of(160, 8, shift=1.5), table_of(80, 9, split="test"), 60, 0)
    drawn, rest = problem.parts["drawn"], problem.parts["rest"]
    y = problem.labels[rest]
    weight = even_weights(y, problem.groups[rest])

    def loss(odds):
        return float(weight @ log_losses(y, odds))

    for name, way in ways.WAYS.items():
        assert loss(way(problem, drawn, rest)) < loss(ways.unmoved(problem, drawn, rest)), name
    told = ways.judged(problem, ways.WAYS["reweighted, spread 0.35"], seed=0)
    assert told["rest"] > 0
    assert told["passed"]["two-sided 95 %"]
    assert set(told["passed"]) == {*ways.GATES, ways.T_GATE}
    assert "| +" in ways.line_of("x", [told])


def test_no_row_of_the_draw_is_judged(base):
    problem = ways.problem_of(base, table_of(160, 8), table_of(80, 9, split="test"), 60, 0)
    drawn, rest = (set(problem.groups[problem.parts[n]].tolist()) for n in ("drawn", "rest"))
    assert drawn
    assert rest
    assert not drawn & rest
