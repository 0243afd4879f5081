import hashlib
import itertools
import json
import math
import random
import subprocess
import sys

import attrs
import numpy as np
import pytest

from tellsign.fusion import Bundle, BundleError
from tellsign.fusion.calibration import logit, sigmoid
from tellsign.fusion.features import pattern_key
from tellsign.schemas import (
    Column,
    Label,
    ProvenanceEvidence,
    Task,
    UncertainReason,
    WeightsFile,
)


def row_of(toys, value, plugins=None):
    return {
        f"{n}.{c}": value if plugins is None or n in plugins else math.nan for n in toys.four_plugins() for c in "ab"
    }


def fuse(bundle, toys, row, **options):
    return bundle.fuse(toys.evidence_of(row), toys.four_plugins(), **options)


def subsets(toys):
    names = sorted(toys.four_plugins())
    return [c for n in range(len(names) + 1) for c in itertools.combinations(names, n)]


def codes(fused):
    return [n.code for n in fused.notices]


def test_every_subset_of_plugins_gives_a_probability(bundle, toys):
    assert len(subsets(toys)) == 16
    for plugins in subsets(toys):
        fused = fuse(bundle, toys, row_of(toys, 1.0, plugins))
        if plugins:
            assert 0 < fused.p_ai < 1
            assert fused.pattern == pattern_key(plugins)
            assert fused.p_tampered is None
            assert not fused.notices
        else:
            assert fused.p_ai is None


def test_nothing_answered_is_uncertain_and_never_the_prior(bundle, toys):
    for declarations in (toys.four_plugins(), {}):
        fused = bundle.fuse([], declarations, prior=0.9)
        assert fused.label is Label.UNCERTAIN
        assert fused.reason is UncertainReason.TOO_FEW_PLUGINS
        assert fused.p_ai is fused.p_tampered is fused.p_ai_at_1_percent is None
        assert codes(fused) == ["no_evidence"]
        assert len(fused.prediction_set.not_assessed) == 4
        assert fused.contributions == ()


def test_more_suspicious_evidence_never_lowers_p_ai(bundle, toys):
    rng = random.Random(0)
    for plugins in subsets(toys)[1:]:
        for _ in range(3):
            row = {k: rng.gauss(0, 2) if v == v else v for k, v in row_of(toys, 0.0, plugins).items()}
            name = rng.choice([k for k, v in row.items() if v == v])
            found = [fuse(bundle, toys, row | {name: float(x)}).p_ai for x in np.linspace(-6, 6, 13)]
            assert found == sorted(found)


def test_contributions_sum_to_the_log_odds(bundle, toys):
    rng = random.Random(1)
    for prior in (0.5, 0.01, 1e-6, 0.999):
        for plugins in subsets(toys)[1:]:
            row = {k: rng.gauss(0, 4) if v == v else v for k, v in row_of(toys, 0.0, plugins).items()}
            fused = fuse(bundle, toys, row, prior=prior)
            rows = {c.plugin: c.log_odds for c in fused.contributions}
            assert sum(rows.values()) == pytest.approx(logit(fused.p_ai), abs=1e-5)
            assert set(rows) == {*plugins, "bias", "prior"}
            assert rows["prior"] == pytest.approx(logit(prior))


def test_contributions_hold_the_calibrators_slope(logistic, toys):
    bundle = logistic[0]
    row = row_of(toys, 1.0, ["pixel"])
    part = bundle.heads["p_ai"]
    found = {c.plugin: c.log_odds for c in fuse(bundle, toys, row).contributions}
    values = np.array([[row[c.name] for c in part.columns]])
    assert found["pixel"] == pytest.approx(part.calibrators["pixel"].slope * part.model.contributions(values)[0].sum())
    assert part.calibrators["pixel"].slope != 1


def test_prior_shifts_log_odds_and_is_stated(bundle, toys):
    row = row_of(toys, 0.4)
    even, rare = (fuse(bundle, toys, row, prior=p) for p in (0.5, 0.01))
    assert logit(rare.p_ai) == pytest.approx(logit(even.p_ai) + logit(0.01))
    assert rare.p_ai == pytest.approx(even.p_ai_at_1_percent) == pytest.approx(rare.p_ai_at_1_percent)
    assert (even.prior, rare.prior) == (0.5, 0.01)


@pytest.mark.parametrize("prior", [0, 1, -1, 2, math.nan, "0.5", True, 1e-9])
def test_a_prior_that_is_none_is_refused(bundle, toys, prior):
    with pytest.raises(ValueError, match="prior takes"):
        fuse(bundle, toys, row_of(toys, 0.0), prior=prior)


def test_strong_evidence_is_definite_and_weak_is_not(bundle, toys):
    assert fuse(bundle, toys, row_of(toys, 5.0)).label is Label.AI_GENERATED
    assert fuse(bundle, toys, row_of(toys, -5.0)).label is Label.AUTHENTIC
    weak = fuse(bundle, toys, row_of(toys, 0.0, ["reasoning"]))
    assert weak.label is Label.UNCERTAIN
    assert weak.reason is UncertainReason.SEVERAL_LABELS
    assert {Label.AUTHENTIC, Label.AI_GENERATED} <= set(weak.prediction_set.assessed)


def test_labels_without_calibration_stay_in_every_set(bundle, toys):
    for value in (-5.0, 0.0, 5.0):
        chosen = fuse(bundle, toys, row_of(toys, value)).prediction_set
        assert chosen.not_assessed == (Label.AI_EDITED, Label.TAMPERED)
        assert set(chosen.not_assessed) <= set(chosen.labels)


def test_a_label_never_contradicts_the_printed_probability(bundle, toys):
    for value in np.linspace(-5, 5, 41):
        for prior in (0.5, 1e-4):
            fused = fuse(bundle, toys, row_of(toys, float(value)), prior=prior)
            if fused.label is not Label.UNCERTAIN:
                assert fused.label in fused.prediction_set.labels
                assert (fused.label is Label.AI_GENERATED) == (fused.p_ai >= 0.5)
    # Where AI pictures are rare, an accusation that the odds do not carry becomes uncertain.
    rare = fuse(bundle, toys, row_of(toys, 5.0), prior=1e-5)
    assert rare.label is Label.UNCERTAIN
    assert rare.reason is UncertainReason.SEVERAL_LABELS


def test_a_definite_verdict_is_sure_by_its_own_calibration(bundle, toys):
    for plugins in subsets(toys)[1:]:
        for value in np.linspace(-5, 5, 41).tolist():
            fused = fuse(bundle, toys, row_of(toys, value, plugins))
            if fused.label is not Label.UNCERTAIN:
                assert max(fused.p_ai, 1 - fused.p_ai) > 1 - bundle.plausible


def test_nothing_fits_where_errors_are_allowed_to_be_many(bundle, toys):
    found = {fuse(bundle, toys, row_of(toys, v), error_rate=0.9).reason for v in np.linspace(-1, 1, 21).tolist()}
    assert UncertainReason.NOTHING_LIKE_IT in found


def test_sets_grow_as_the_error_rate_falls(bundle, toys):
    row = row_of(toys, 0.3)
    before = set()
    for rate in (0.5, 0.2, 0.1, 0.05, 0.02):
        now = set(fuse(bundle, toys, row, error_rate=rate).prediction_set.labels)
        assert before <= now
        before = now


def test_an_error_rate_that_the_data_cannot_promise_leaves_authentic_unassessed(bundle, toys):
    fused = fuse(bundle, toys, row_of(toys, 5.0), error_rate={"authentic": 1e-4})
    assert Label.AUTHENTIC in fused.prediction_set.not_assessed
    assert fused.label is Label.UNCERTAIN
    assert "not_assessed" in codes(fused)
    assert fused.prediction_set.error_rate == 0.05


def test_the_guard_only_widens(bundle, toys):
    for value in np.linspace(-4, 4, 33).tolist():
        with_guard = fuse(bundle, toys, row_of(toys, value), worst_source=True).prediction_set.labels
        without = fuse(bundle, toys, row_of(toys, value), worst_source=False).prediction_set.labels
        assert set(without) <= set(with_guard)


def test_order_of_evidence_and_plugins_does_not_matter(bundle, toys):
    said = toys.evidence_of(row_of(toys, 0.7))
    plugins = toys.four_plugins()
    assert bundle.fuse(said, plugins) == bundle.fuse(said[::-1], dict(reversed(plugins.items())))


def test_an_unknown_plugin_is_ignored_with_a_notice(bundle, toys):
    said = toys.evidence_of(row_of(toys, 0.7))
    plain = bundle.fuse(said, toys.four_plugins())
    more = toys.four_plugins() | {"new": toys.declare("new", Task.PIXEL, Column(name="a", evidence="a"))}
    fused = bundle.fuse([*said, toys.score("new", "a", 9.0)], more)
    assert [(n.code, n.plugin) for n in fused.notices] == [("unknown_plugin", "new")]
    assert fused.p_ai == plain.p_ai
    undeclared = bundle.fuse([*said, toys.score("ghost", "a", 9.0)], toys.four_plugins())
    assert [(n.code, n.plugin) for n in undeclared.notices] == [("undeclared_plugin", "ghost")]
    assert undeclared.p_ai == plain.p_ai


def test_a_column_that_now_means_something_else_is_ignored_with_a_notice(bundle, toys):
    other = toys.declare(
        "pixel",
        Task.PIXEL,
        Column(name="a", evidence="a", direction=-1),
        Column(name="b", evidence="b"),
        Column(name="x", evidence="x", block="y+z"),
    )
    said = toys.evidence_of(row_of(toys, 0.7, ["pixel"]))
    fused = bundle.fuse(said, toys.four_plugins() | {"pixel": other})
    assert codes(fused) == ["unknown_column", "no_evidence"]
    assert fused.p_ai is None


def test_other_versions_and_weights_are_noticed(bundle, toys):
    said = toys.evidence_of(row_of(toys, 0.7))
    assert codes(bundle.fuse(said, toys.four_plugins(), versions={"pixel": "2.0.0"})) == ["plugin_version"]
    plugin = attrs.evolve(
        toys.four_plugins()["pixel"], weights=(WeightsFile(file="w.safetensors", sha256="0" * 64, size=1),)
    )
    assert codes(bundle.fuse(said, toys.four_plugins() | {"pixel": plugin})) == ["plugin_weights"]


def test_too_few_tasks_are_uncertain(bundle, toys):
    strict = attrs.evolve(bundle, minimum_tasks=2)
    fused = fuse(strict, toys, row_of(toys, 5.0, ["pixel"]))
    assert (fused.label, fused.reason) == (Label.UNCERTAIN, UncertainReason.TOO_FEW_PLUGINS)
    assert fused.p_ai > 0.5
    assert fuse(strict, toys, row_of(toys, 5.0, ["pixel", "semantic"])).label is Label.AI_GENERATED


def test_an_uncalibrated_pattern_is_judged_by_its_best_part(bundle, toys):
    part = {k: v for k, v in bundle.conformal.items() if k.count("+") <= 1}
    poorer = attrs.evolve(bundle, conformal=part)
    fused = fuse(poorer, toys, row_of(toys, 1.0))
    assert codes(fused) == ["nearest_pattern"]
    # Pairs are the largest left; pixel and semantic are the strongest plugins.
    assert fused.pattern == "pixel+semantic"
    assert fused.p_ai == fuse(bundle, toys, row_of(toys, 1.0, ["pixel", "semantic"])).p_ai
    alone = attrs.evolve(bundle, conformal={"pixel": part["pixel"]})
    nothing = fuse(alone, toys, row_of(toys, 1.0, ["semantic"]))
    assert nothing.p_ai is None
    assert codes(nothing) == ["not_calibrated"]


def test_provenance_and_file_facts_do_not_move_the_score(bundle, toys):
    said = toys.evidence_of(row_of(toys, 0.7))
    claim = ProvenanceEvidence(
        plugin="file", task=Task.PROVENANCE, model="m", claim="camera", claimant="EXIF", verification="unverified"
    )
    plugins = toys.four_plugins() | {"file": toys.declare("file", Task.PROVENANCE)}
    assert bundle.fuse([*said, claim], plugins) == bundle.fuse(said, toys.four_plugins())


def test_coverage_of_new_pictures_of_the_same_kind_under_every_pattern(bundle, toys):
    new = toys.four_table(n=10000, seed=5)
    found = {0.05: [], 0.1: []}
    for plugins in subsets(toys)[1:]:
        odds = bundle.log_odds("p_ai", new.rows, plugins)
        for label, y in ((Label.AUTHENTIC, 0), (Label.AI_GENERATED, 1)):
            mine = sigmoid(odds[new.label == y])
            strange = mine if y == 0 else 1 - mine
            for rate, shares in found.items():
                shares.append((strange <= bundle.quantile(pattern_key(plugins), label, rate)).mean())
    for rate, shares in found.items():
        # With 160 calibration pictures of a label the coverage itself has a spread of .02 to .03.
        assert np.mean(shares) >= 1 - rate - 0.02
        assert min(shares) >= 1 - rate - 0.06


def test_a_mask_share_makes_a_picture_edited(toys, logistic):
    mask = toys.declare("seg", Task.SEGMENTATION, Column(name="share", evidence="mask", statistic="share"))
    bundle = logistic[0]
    column = attrs.evolve(
        bundle.columns[0],
        name="seg.share",
        plugin="seg",
        block="seg",
        task=Task.SEGMENTATION,
        statistic="share",
        evidence="mask",
    )
    row = np.full(len(bundle.columns) + 1, math.nan)
    row[-1] = 0.25
    wider = attrs.evolve(bundle, columns=(*bundle.columns, column))
    assert wider.ai_share(row) == 0.25
    assert wider.ai_share(np.full(len(row), math.nan)) is None
    assert mask.columns[0].head == "p_ai"
    label, reason, chosen = wider.judge(6.0, None, 0.25, "pixel", dict(bundle.error_rates), True)
    # Edited pictures were never calibrated, and generated it is not: nothing like it was seen.
    assert (label, reason) == (Label.UNCERTAIN, UncertainReason.NOTHING_LIKE_IT)
    assert Label.AI_EDITED in chosen.labels


# -- the folder --------------------------------------------------------------------------------------------------------


def test_save_and_load_give_the_same_bits(bundle, toys, tmp_path):
    bundle.save(tmp_path / "b")
    again = Bundle.load(tmp_path / "b")
    rng = random.Random(0)
    for plugins in subsets(toys):
        row = {k: rng.gauss(0, 2) if v == v else v for k, v in row_of(toys, 0.0, plugins).items()}
        assert fuse(again, toys, row) == fuse(bundle, toys, row)
    assert again.sha256 == bundle.sha256
    assert again.version == bundle.version
    again.save(tmp_path / "c")
    for file in (tmp_path / "b").iterdir():
        assert file.read_bytes() == (tmp_path / "c" / file.name).read_bytes()


def test_manifest_says_what_it_must(bundle, toys):
    manifest = json.loads(json.dumps(bundle.manifest))
    assert [c["name"] for c in manifest["columns"]] == sorted(row_of(toys, 0.0))
    assert {c["direction"] for c in manifest["columns"]} == {1}
    assert manifest["heads"]["p_ai"] in ("booster", "logistic")
    training = manifest["training"]
    assert training["plugins"]["pixel"] == {"version": "1.0.0", "weights": {}}
    assert training["dropout"] == {"rate": 0.3, "copies": 2}
    assert len(training["data_sha256"]) == 64
    assert manifest["calibration_groups"]["pixel"] == {"authentic": 160, "ai_generated": 160}
    assert manifest["schema_version"] == 1


def test_no_pickle_in_the_folder(bundle, tmp_path):
    bundle.save(tmp_path)
    kinds = {p.suffix for p in tmp_path.iterdir()}
    assert kinds <= {".json", ".safetensors", ".ubj"}


def test_a_head_that_is_gone_leaves_no_file(booster, logistic, tmp_path):
    booster[0].save(tmp_path)
    assert (tmp_path / "p_ai.ubj").exists()
    logistic[0].save(tmp_path)
    assert not (tmp_path / "p_ai.ubj").exists()
    assert Bundle.load(tmp_path).heads["p_ai"].model.kind == "logistic"


@pytest.fixture
def folder(booster, tmp_path):
    booster[0].save(tmp_path / "b")
    return tmp_path / "b"


@pytest.fixture
def plain_folder(logistic, tmp_path):
    logistic[0].save(tmp_path / "b")
    return tmp_path / "b"


def rewrite(folder, name, change):
    """Change a JSON file and keep the hashes right, as a hostile author would."""
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))
    if name != "manifest.json":
        rehash(folder, name)


def rehash(folder, name):
    data = (folder / name).read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    rewrite(folder, "manifest.json", lambda m: m["files"].__setitem__(name, entry))


@pytest.mark.parametrize("name", ["manifest.json", "heads.json", "conformal.safetensors", "p_ai.ubj"])
def test_a_missing_cut_or_changed_file_is_named(folder, name):
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    with pytest.raises(BundleError, match="a regular file") as caught:
        Bundle.load(folder)
    assert caught.value.file == name
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    assert caught.value.file == name
    if name != "manifest.json":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(BundleError, match="sha256") as caught:
            Bundle.load(folder)
        assert caught.value.file == name


@pytest.mark.parametrize("name", ["heads.json", "conformal.safetensors", "p_ai.ubj"])
@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff\x00" * 50, b"[" * 100000, b'{"a": NaN}'])
def test_junk_with_a_right_hash_is_named(folder, name, data):
    (folder / name).write_bytes(data)
    rehash(folder, name)
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    assert caught.value.file == name


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff\x00" * 50, b"[" * 100000, b'{"a": NaN}'])
def test_a_junk_manifest_is_named(folder, data):
    (folder / "manifest.json").write_bytes(data)
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    assert caught.value.file == "manifest.json"


@pytest.mark.parametrize(
    "name", ["../../secret", "/etc/passwd", "..\\x", "other.ubj", "manifest.json", "a/../p_ai.ubj"]
)
def test_a_file_name_cannot_lead_anywhere_else(folder, name):
    rewrite(folder, "manifest.json", lambda m: m["files"].__setitem__(name, m["files"]["p_ai.ubj"]))
    with pytest.raises(BundleError, match="file names among"):
        Bundle.load(folder)


def test_a_huge_file_is_refused_before_it_is_read(folder):
    for name in ("manifest.json", "conformal.safetensors"):
        kept = (folder / name).read_bytes()
        with (folder / name).open("r+b") as file:
            file.truncate(10 << 30)  # Sparse: takes no space.
        with pytest.raises(BundleError, match="at most") as caught:
            Bundle.load(folder)
        assert caught.value.file == name
        (folder / name).write_bytes(kept)


def test_a_folder_in_place_of_a_file_and_no_folder_at_all(folder, tmp_path):
    with pytest.raises(BundleError, match="no such folder"):
        Bundle.load(tmp_path / "nowhere")
    (folder / "heads.json").unlink()
    (folder / "heads.json").mkdir()
    with pytest.raises(BundleError, match=r"heads\.json"):
        Bundle.load(folder)


MANIFEST_CHANGES = {
    "schema": lambda m: m.update(schema_version=99),
    "schema as bool": lambda m: m.update(schema_version=True),
    "missing column": lambda m: m["columns"].pop(),
    "foreign column": lambda m: m["columns"].append({**m["columns"][-1], "name": "semantic.zzz"}),
    "unknown column field": lambda m: m["columns"][0].update(code="x"),
    "order": lambda m: m["columns"].reverse(),
    "direction": lambda m: m["columns"][0].update(direction=5),
    "columns as text": lambda m: m.update(columns="abc"),
    "pattern": lambda m: m["patterns"].__setitem__(0, "pixel+ghost"),
    "pattern number": lambda m: m["patterns"].__setitem__(0, 5),
    "pattern count": lambda m: m.update(patterns=[]),
    "sources": lambda m: m.update(sources=[]),
    "rates": lambda m: m["error_rates"].update(authentic=2),
    "rate names": lambda m: m["error_rates"].update(fake=0.1),
    "minimum": lambda m: m.update(minimum_tasks="many"),
    "heads": lambda m: m["heads"].update(p_other="logistic"),
    "head kind": lambda m: m["heads"].update(p_ai="pickle"),
    "no p_ai": lambda m: m.update(heads={}),
    "file missing": lambda m: m["files"].pop("heads.json"),
    "booster missing": lambda m: m["files"].pop("p_ai.ubj"),
    "hash": lambda m: m["files"]["p_ai.ubj"].update(sha256="x"),
    "plausible": lambda m: m.pop("plausible"),
    "auc": lambda m: m["pattern_auc"].update(pixel="high"),
    "entry": lambda m: m["files"].update({"p_ai.ubj": 5}),
}


@pytest.mark.parametrize("change", MANIFEST_CHANGES.values(), ids=MANIFEST_CHANGES)
def test_a_manifest_that_does_not_fit_is_refused(folder, change):
    rewrite(folder, "manifest.json", change)
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    assert caught.value.file in ("manifest.json", "heads.json", "p_ai.ubj", "conformal.safetensors")
    assert caught.value.file in str(caught.value)


HEAD_CHANGES = {
    "columns": lambda h: h["p_ai"]["columns"].pop(),
    "weights": lambda h: h["p_ai"]["weights"].pop(),
    "against direction": lambda h: h["p_ai"]["weights"].__setitem__(0, -1.0),
    "scale": lambda h: h["p_ai"]["scale"].__setitem__(0, 0),
    "bias": lambda h: h["p_ai"].update(bias="x"),
    "no bias": lambda h: h["p_ai"].pop("bias"),
    "huge": lambda h: h["p_ai"]["weights"].__setitem__(0, 10**400),
    "slope": lambda h: h["p_ai"]["calibrators"]["pixel"].update(slope=-1.0),
    "calibrator": lambda h: h["p_ai"]["calibrators"]["pixel"].update(code="x"),
    "pattern": lambda h: h["p_ai"]["calibrators"].update(ghost=h["p_ai"]["calibrators"]["pixel"]),
    "kind": lambda h: h["p_ai"].update(kind="booster"),
    "head": lambda h: h.update(p_tampered=h["p_ai"]),
}


@pytest.mark.parametrize("change", HEAD_CHANGES.values(), ids=HEAD_CHANGES)
def test_heads_that_do_not_fit_are_refused(plain_folder, change):
    Bundle.load(plain_folder)
    rewrite(plain_folder, "heads.json", change)
    with pytest.raises(BundleError, match="heads"):
        Bundle.load(plain_folder)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("0.authentic.scores", np.array([2.0])),
        ("0.authentic.scores", np.array([np.nan])),
        ("0.authentic.weights", np.zeros(160)),
        ("0.authentic.sources", np.full(160, 99, np.int32)),
        ("0.authentic.sources", np.zeros(160)),
        ("999.authentic.scores", np.array([0.5])),
        ("0.uncertain.scores", np.array([0.5])),
        ("../x", np.array([0.5])),
    ],
)
def test_conformal_scores_that_do_not_fit_are_refused(plain_folder, name, values):
    from safetensors.numpy import load, save

    path = plain_folder / "conformal.safetensors"
    path.write_bytes(save(load(path.read_bytes()) | {name: values}))
    rehash(plain_folder, path.name)
    with pytest.raises(BundleError, match="conformal"):
        Bundle.load(plain_folder)


def test_a_logistic_bundle_fuses_without_heavy_imports(plain_folder):
    code = f"""
import sys
import tellsign.fusion
assert not any(m.startswith("tellsign.fusion.") for m in sys.modules)
from tellsign.schemas import *
bundle = tellsign.fusion.Bundle.load({str(plain_folder)!r})
column = tuple(Column(name=n, evidence=n) for n in "ab")
plugin = Declaration(name="pixel", version="1.0.0", api_version=1, task=Task.PIXEL, detector="a:B", summary="s",
    columns=column, code_licence="MIT", weights_licence="none", commercial_use=True)
said = ScoreEvidence(plugin="pixel", task=Task.PIXEL, model="m", name="a", score=.9)
assert bundle.fuse([said], {{"pixel": plugin}}).p_ai > .5
heavy = {{"torch", "torchvision", "xgboost", "sklearn", "scipy", "pandas", "transformers", "timm"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
