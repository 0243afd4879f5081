"""How much each training picture of the pixel plugin's probes counts."""

import json
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from typer.testing import CliRunner

from tellsign.plugins.pixel.training import probe
from tellsign.plugins.pixel.training.__main__ import app
from tellsign.plugins.pixel.training.balance import Balance, Rows

LABELS = np.array([0] * 16 + [0] * 4 + [0] + [1] * 9 + [1])
SOURCES = np.array(["web"] * 20 + ["museum"] + ["gan"] * 9 + ["diffusion"])
CONTENTS = np.array(["photo"] * 16 + ["art"] * 4 + ["art"] + ["generated"] * 10)
ROWS = Rows(LABELS, SOURCES, CONTENTS)


def total(weight, **where):
    chosen = np.ones(len(LABELS), bool)
    for name, value in where.items():
        chosen &= getattr(ROWS, name) == value
    return weight[chosen].sum()


def test_by_default_a_source_counts_by_the_root_of_its_size():
    weight = Balance().weights(ROWS)
    assert total(weight, sources="web") / total(weight, sources="museum") == pytest.approx(20**0.5)
    assert total(weight, sources="gan") / total(weight, sources="diffusion") == pytest.approx(3)
    np.testing.assert_allclose(weight, probe.source_weights(LABELS, SOURCES.tolist()))


def test_sources_and_their_kinds_of_content_may_count_alike():
    alike = Balance(power=0.0).weights(ROWS)
    assert total(alike, sources="web") == pytest.approx(total(alike, sources="museum"))
    by_content = Balance(power=0.0, by_content=True).weights(ROWS)
    parts = [total(by_content, sources="web", contents=c) for c in ("photo", "art")]
    assert [*parts, parts[0]] == pytest.approx([total(by_content, sources="museum")] * 3)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_art_has_the_share_that_was_asked_for(share):
    balance = Balance(power=0.0, by_content=True, art=share)
    weight = balance.weights(ROWS)
    assert total(weight, contents="art") / total(weight, labels=0) == pytest.approx(share)
    # Within art its two sources still count alike; with nothing but art, or none, there is no share to set.
    assert total(weight, sources="web", contents="art") == pytest.approx(total(weight, sources="museum"))
    for left in (CONTENTS != "art", CONTENTS != "photo"):
        np.testing.assert_allclose(balance.weights(ROWS[left]), attrs.evolve(balance, art=0.0).weights(ROWS[left]))


@given(st.data(), st.floats(0, 1), st.booleans(), st.floats(0, 0.9))
def test_classes_have_one_total_whatever_the_sources(data, power, by_content, art):
    n = data.draw(st.integers(2, 30))
    labels = np.array([0, 1, *data.draw(st.lists(st.integers(0, 1), min_size=n - 2, max_size=n - 2))])
    names = data.draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n))
    contents = data.draw(st.lists(st.sampled_from(["photo", "art"]), min_size=n, max_size=n))
    weight = Balance(power=power, by_content=by_content, art=art).weights(
        Rows(labels, np.array(names), np.array(contents))
    )
    assert (weight > 0).all()
    assert weight[labels == 0].sum() == pytest.approx(n / 2)
    assert weight[labels == 1].sum() == pytest.approx(n / 2)


def test_each_source_has_a_column_of_the_offsets_scale():
    assert Balance().columns(ROWS).shape == (len(LABELS), 0)
    columns = Balance(offset=3.0).columns(ROWS)
    assert columns.shape == (len(LABELS), 4)
    assert set(columns.ravel()) == {0.0, 3.0}
    assert (columns.sum(axis=1) == 3).all()
    same = columns @ columns.T > 0
    assert np.array_equal(same, SOURCES[:, None] == SOURCES[None])
    assert Balance(offset=3.0, by_content=True).columns(ROWS).shape == (len(LABELS), 5)
    # A generator and a collection of one name are two sources.
    assert Balance(offset=1.0).columns(Rows.plain(np.array([0, 1]), ["a", "a"])).tolist() == [[1, 0], [0, 1]]


def shortcut(seed=0):
    """Two columns: one that all of a class share, weakly, and one that only the largest generator has, strongly."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], 200)
    sources = np.array([f"{y}{k % 10}" for y in (0, 1) for k in range(200)])
    x = rng.normal(0, 1, (400, 2)).astype(np.float32)
    x[:, 0] += labels
    x[sources == "10", 1] += 6
    return x, Rows.plain(labels, sources.tolist())


def test_an_offset_takes_what_one_source_alone_has():
    x, rows = shortcut()
    plain = probe.Probe(1.0, 0, Balance(power=0.0)).fit_rows(x, rows)
    offset = probe.Probe(1.0, 0, Balance(power=0.0, offset=10.0)).fit_rows(x, rows)
    assert plain.weights.shape == offset.weights.shape == (2,)
    assert plain.weights[1] > 0.3  # it did learn the source
    assert abs(offset.weights[1]) < 0.5 * plain.weights[1]
    # Scores need no source: new pictures have none that is known.
    want = offset.scaler.transform(x) @ offset.weights + offset.model.intercept_[0]
    np.testing.assert_allclose(offset.score(x), want)


def test_unseen_scores_are_those_of_probes_with_the_same_balance():
    x, rows = shortcut()
    balance = Balance(power=0.0, offset=2.0)
    got = probe.unseen_scores(x, rows, probe.Probe(0.1, 0, balance), seed=1)
    fold = probe.source_folds(rows.labels, rows.sources.tolist(), seed=1, folds=4)
    for f in range(4):
        inside = fold != f
        by_hand = probe.Probe(0.1, 0, balance).fit_rows(x[inside], rows[inside])
        np.testing.assert_allclose(got[~inside], by_hand.score(x[~inside]), rtol=1e-6)


def test_export_writes_anew_what_is_asked_for_alone(tmp_path):
    run, out = tmp_path / "run", tmp_path / "weights"
    run.mkdir()
    out.mkdir()
    recipe = {"rank": 0, "alpha": 8.0, "deep": [2], "early": [1]}
    (run / "recipe.json").write_text(json.dumps(recipe))
    save_file({"deep.weight": np_tensor((1, 2, 4)), "early.weight": np_tensor((1, 2, 4))}, run / "run.safetensors")
    (out / "pixel-bundled.safetensors").write_bytes(b"as it was")
    words = ["export", "--run", run, "--tower", tmp_path / "none", "--out", out, "--version", "1.2"]
    done = CliRunner().invoke(app, [str(w) for w in [*words, "--only", "tower"]], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (out / "pixel-bundled.safetensors").read_bytes() == b"as it was"
    assert sorted(p.name for p in Path(out).iterdir()) == ["pixel-bundled.safetensors", "pixel-tower.safetensors"]
    assert len(done.stdout.splitlines()) == 2  # a declaration names both
    done = CliRunner().invoke(app, [str(w) for w in [*words, "--only", "towers"]])
    assert done.exit_code == 2


def np_tensor(shape):
    import torch

    return torch.zeros(shape)
