import json

import numpy as np
import pytest

from tellsign.fusion import ScoreTable, columns, train_bundle
from tellsign.fusion.booster import BoosterConfig
from tellsign.fusion.train import _loses, sample_weights
from tellsign.schemas import Box, Column, Label, MapEvidence, ScoreEvidence, Task, UncertainReason


@pytest.fixture(scope="module")
def forms(toys):
    plugins, table = toys.two_forms()
    return plugins, table, *train_bundle(table, declarations=plugins, ladder=[toys.small_booster], folds=3)


def test_weights_balance_labels_and_hold_large_families_down(toys):
    table = toys.four_table(n=400)
    source = np.where(table.label == 1, np.where(np.arange(400) < 320, "big", "small"), "real")
    table = ScoreTable(rows=table.rows, columns=table.columns, label=table.label, group=table.group, source=source)
    w = sample_weights(table, table.label)
    assert w[table.label == 1].sum() == pytest.approx(w[table.label == 0].sum())
    assert w.mean() == pytest.approx(1)
    assert w[source == "big"].sum() == pytest.approx(w[source == "small"].sum())


def test_versions_of_one_picture_share_its_weight(toys):
    table = toys.four_table(n=80)
    doubled = table.take(np.concatenate([np.arange(80), np.flatnonzero(table.group == "g0")]))
    w = sample_weights(doubled, doubled.label)
    assert w[0] == pytest.approx(w[-1])
    other = np.flatnonzero((doubled.source == doubled.source[0]) & (doubled.group != "g0"))[0]
    assert 2 * w[0] == pytest.approx(w[other])


def test_one_block_at_a_time_gets_its_own_calibrator_and_quantiles(forms, toys):
    plugins, _, bundle, _ = forms
    assert set(bundle.conformal) == {"pixel.tower", "pixel.bundled"}
    assert set(bundle.heads["p_ai"].calibrators) == {"pixel.tower", "pixel.bundled"}
    tower = bundle.fuse([toys.score("pixel", "tower", 4.0), toys.score("pixel", "tower_top", 4.0)], plugins)
    bundled = bundle.fuse([toys.score("pixel", "bundled", 4.0)], plugins)
    assert (tower.pattern, bundled.pattern) == ("pixel.tower", "pixel.bundled")
    assert tower.p_ai > bundled.p_ai > 0.5
    both = bundle.fuse([toys.score("pixel", n, 4.0) for n in ("tower", "tower_top", "bundled")], plugins)
    assert both.pattern == "pixel.tower"
    assert both.p_ai == tower.p_ai
    assert [n.code for n in both.notices] == ["nearest_pattern"]


def test_pictures_given_twice_count_once(forms):
    _, _, bundle, report = forms
    assert report["table"]["groups"] == 300
    assert bundle.conformal["pixel.tower"][Label.AUTHENTIC].groups == 150
    assert report["conformal"]["pixel.tower"]["authentic"]["groups"] == 150


def test_report_is_plain_json_and_prints_all_contenders(forms):
    report = json.loads(json.dumps(forms[3], allow_nan=False))
    head = report["heads"]["p_ai"]
    assert {"logistic", "booster", "or", "mean", "best_single"} <= set(head["contenders"])
    for entry in head["contenders"].values():
        for part in ("out_of_fold", "out_of_family"):
            for key in ("pixel.tower", "pixel.bundled"):
                assert {"auc", "balanced_accuracy", "ece", "brier", "log_loss", "n"} <= set(entry[part][key])
        assert entry["out_of_family"]["pixel.tower"]["auc"] > 0.7
        assert entry["worst_family"]["auc"] <= entry["mean_family_auc"]
    assert head["chosen"]
    assert head["families_held_out"] == 6
    for kind in ("pooled", "worst_source"):
        found = report["out_of_family"]["by_pattern"]["pixel.tower"][kind]
        assert found["by_label"]["authentic"]["coverage"] > 0.9
        assert set(found["by_family"]) == {f"gen{i}" for i in range(6)} | {f"real{i}" for i in range(4)}
        assert found["worst_real_source"]["family"].startswith("real")
    guarded = report["conformal"]["pixel.tower"]["authentic"]
    assert guarded["quantile_worst_source"] >= guarded["quantile"]
    assert report["calibration"]["p_ai"]["pixel.tower"]["by_method"]["isotonic"]


def test_the_same_seed_gives_the_same_bundle(toys, forms):
    plugins, table, bundle, report = forms
    again, same = train_bundle(table, declarations=plugins, ladder=[toys.small_booster], folds=3)
    assert again.sha256 == bundle.sha256
    assert same == report


def test_order_of_columns_does_not_matter(toys):
    table = toys.four_table(n=120)
    turned = ScoreTable(
        rows=table.rows[:, ::-1],
        columns=table.columns[::-1],
        label=table.label,
        group=table.group,
        source=table.source,
    )
    one, two = (train_bundle(t, head="logistic", folds=3)[0] for t in (table, turned))
    assert one.sha256 == two.sha256


def test_few_pictures_take_the_logistic_stack(toys):
    bundle, report = train_bundle(toys.four_table(n=150), folds=3)
    assert bundle.heads["p_ai"].model.kind == "logistic"
    assert "150 pictures" in report["heads"]["p_ai"]["why"]
    assert report["heads"]["p_ai"]["ladder"] == []


def test_a_booster_that_loses_is_simplified_and_then_left(toys):
    # Plain sums of noisy scores: a stump of one leaf cannot win, so the stack is taken.
    useless = BoosterConfig(depth=1, rounds=1, min_child_weight=1e6)
    bundle, report = train_bundle(toys.four_table(n=240), folds=3, ladder=[useless, useless])
    head = report["heads"]["p_ai"]
    assert bundle.heads["p_ai"].model.kind == head["kind"] == "logistic"
    assert len(head["ladder"]) == 2
    assert "loses" in head["why"]


def test_a_booster_wins_where_the_truth_is_a_step(toys):
    rng = np.random.default_rng(0)
    n = 600
    plugins = {
        "pixel": toys.declare("pixel", Task.PIXEL, Column(name="a", evidence="a"), Column(name="b", evidence="b"))
    }
    a, b = rng.uniform(-1, 1, n), rng.uniform(-1, 1, n)
    label = ((a > 0.3) & (b > -0.6)).astype(int)
    label = np.where(rng.random(n) < 0.05, 1 - label, label)
    source = [f"{y}{k}" for y, k in zip(label, rng.integers(0, 3, n), strict=True)]
    table = ScoreTable(
        rows=np.column_stack([a, b]),
        columns=columns(plugins),
        label=label,
        group=[str(i) for i in range(n)],
        source=source,
    )
    bundle, report = train_bundle(table, ladder=[BoosterConfig(depth=2, rounds=80)], folds=3)
    assert bundle.heads["p_ai"].model.kind == "booster"
    assert "does not lose" in report["heads"]["p_ai"]["why"]


@pytest.mark.parametrize(
    ("auc", "log_loss", "loses"), [(0.8, 0.5, False), (0.799, 0.501, False), (0.79, 0.4, True), (0.9, 0.51, True)]
)
def test_losing(auc, log_loss, loses):
    stack = {"auc": 0.8, "log_loss": 0.5}
    assert _loses({"auc": auc, "log_loss": log_loss}, stack) is loses
    # On either table.
    entry = {"auc": 0.9, "log_loss": 0.4, "beside": {"auc": auc, "log_loss": log_loss}}
    assert _loses(entry, stack | {"beside": stack}) is loses
    assert _loses(entry, stack) is False


def tampered_table(toys, n=360):
    rng = np.random.default_rng(0)
    plugins = {
        "pixel": toys.declare("pixel", Task.PIXEL, Column(name="a", evidence="a")),
        "paste": toys.declare(
            "paste",
            Task.SEGMENTATION,
            Column(name="seam", evidence="seam", head="p_tampered"),
            Column(name="share", evidence="ai", statistic="share", direction=0),
        ),
    }
    kind = np.arange(n) % 4  # authentic, generated, edited, tampered
    label = np.isin(kind, [1, 2]).astype(int)
    a = 3.0 * (2 * label - 1) + rng.normal(0, 1, n)
    seam = 3.0 * np.where(kind == 3, 1, -1) + rng.normal(0, 1, n)
    share = np.select([kind == 1, kind == 2], [0.98, 0.3], 0.0) + rng.uniform(0, 0.02, n)
    values = {"pixel.a": a, "paste.seam": seam, "paste.share": share}
    cols = columns(plugins)
    table = ScoreTable(
        rows=np.column_stack([values[c.name] for c in cols]),
        columns=cols,
        label=label,
        group=[str(i) for i in range(n)],
        source=[f"{k}-{i}" for k, i in zip(kind, rng.integers(0, 3, n), strict=True)],
        tampered=(kind == 3).astype(int),
        edited=(kind == 2).astype(int),
    )
    return plugins, table


def test_two_heads_and_all_four_labels(toys):
    plugins, table = tampered_table(toys)
    bundle, report = train_bundle(table, declarations=plugins, head="logistic", folds=3)
    assert set(bundle.heads) == set(report["heads"]) == {"p_ai", "p_tampered"}
    whole = Box(0, 0, 8, 8)

    def judge(a, seam, share=None):
        said = [ScoreEvidence(plugin="pixel", task=Task.PIXEL, model="m", name="a", score=0.5, logit=a)]
        if seam is not None:
            said.append(
                ScoreEvidence(plugin="paste", task=Task.SEGMENTATION, model="m", name="seam", score=0.5, logit=seam)
            )
        if share is not None:
            grid = np.zeros((10, 10), np.float32)
            grid.flat[: round(share * 100)] = 1
            said.append(MapEvidence(plugin="paste", task=Task.SEGMENTATION, model="m", name="ai", map=grid, box=whole))
        return bundle.fuse(said, plugins)

    assert judge(3, -3, 1.0).label is Label.AI_GENERATED
    assert judge(3, -3, 0.3).label is Label.AI_EDITED
    assert judge(-3, 3, 0.0).label is Label.TAMPERED
    fused = judge(-3, -3, 0.0)
    assert fused.label is Label.AUTHENTIC
    assert fused.prediction_set.not_assessed == ()
    assert fused.p_tampered < 0.5
    for head, p in (("p_ai", fused.p_ai), ("p_tampered", fused.p_tampered)):
        rows = [c.log_odds for c in fused.contributions if c.head == head]
        assert sum(rows) == pytest.approx(np.log(p / (1 - p)), abs=1e-5)
    alone = judge(-3, None)
    assert alone.p_tampered is None
    assert alone.pattern == "pixel"
    # Without a look at seams and masks neither an edit nor tampering is assessed: they stay in the set, marked so.
    assert set(alone.prediction_set.not_assessed) == {Label.AI_EDITED, Label.TAMPERED}
    assert alone.label is Label.AUTHENTIC
    # Evidence of tampering alone says nothing about p_ai.
    seam = bundle.fuse(
        [ScoreEvidence(plugin="paste", task=Task.SEGMENTATION, model="m", name="seam", score=0.9)], plugins
    )
    assert (seam.reason, seam.p_ai) == (UncertainReason.TOO_FEW_PLUGINS, None)


def test_labels_have_error_rates_of_their_own(toys):
    plugins, table = tampered_table(toys)
    rates = {Label.AUTHENTIC: 0.02, Label.AI_GENERATED: 0.05, Label.AI_EDITED: 0.05, Label.TAMPERED: 0.4}
    bundle, _ = train_bundle(table, declarations=plugins, head="logistic", folds=3, error_rate=rates)
    key = "paste+pixel"
    strict, loose = (bundle.quantile(key, Label.TAMPERED, r) for r in (0.05, 0.4))
    assert loose < strict
    said = [
        ScoreEvidence(plugin="pixel", task=Task.PIXEL, model="m", name="a", score=0.5, logit=-3),
        ScoreEvidence(plugin="paste", task=Task.SEGMENTATION, model="m", name="seam", score=0.5, logit=0),
        MapEvidence(
            plugin="paste",
            task=Task.SEGMENTATION,
            model="m",
            name="ai",
            map=np.zeros((4, 4), np.float32),
            box=Box(0, 0, 8, 8),
        ),
    ]
    fused = bundle.fuse(said, plugins)
    assert fused.prediction_set.error_rates == {str(x): r for x, r in rates.items()}
    assert fused.prediction_set.error_rate == 0.4
    # The same picture at one strict rate for all keeps more labels.
    assert set(fused.prediction_set.labels) <= set(bundle.fuse(said, plugins, error_rate=0.02).prediction_set.labels)


def two_columns(toys, strong, n=300, scale=1.0, seed=0):
    """A table where only column `strong` of "x" and "y" knows the label."""
    plugins = {name: toys.declare(name, Task.PIXEL, Column(name="s", evidence="s")) for name in ("x", "y")}
    cols = columns(plugins)
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 2).astype(int)
    informed = (2 * label - 1) + rng.normal(0, 1, n)
    blind = rng.normal(0, 1, n)
    rows = np.column_stack([informed if c.name == f"{strong}.s" else blind for c in cols]) * scale
    source = [f"{y}-{i % 4}" for i, y in enumerate(label)]
    group = [f"{strong}{i}" for i in range(n)]
    return plugins, ScoreTable(rows=rows, columns=cols, label=label, group=group, source=source)


def test_rows_beside_the_table_share_in_the_balance_and_in_nothing_else(toys):
    plugins, table = two_columns(toys, "x")
    _, other = two_columns(toys, "y", seed=1, scale=1000.0)
    alone, _ = train_bundle(table, declarations=plugins, head="logistic", folds=3)
    both, _ = train_bundle(table, declarations=plugins, head="logistic", folds=3, beside=other)

    def balance(bundle):
        weights = dict(zip([c.plugin for c in bundle.columns], bundle.heads["p_ai"].model.weights, strict=True))
        return weights["y"] / (weights["x"] + weights["y"])

    assert balance(alone) < 0.2
    # The other table's scale, a thousand times as large, is not trust.
    assert 0.35 < balance(both) < 0.65
    assert both.sources == alone.sources
    assert {k: {x: s.groups for x, s in v.items()} for k, v in both.conformal.items()} == {
        k: {x: s.groups for x, s in v.items()} for k, v in alone.conformal.items()
    }
    assert both.training["beside"] == {"rows": 300, "data_sha256": other.sha256}
    assert alone.training["beside"] is None


def test_the_penalty_is_the_one_that_holds_on_both_tables(toys):
    plugins, table = two_columns(toys, "x")
    _, other = two_columns(toys, "y", seed=1)
    bundle, report = train_bundle(table, declarations=plugins, head="logistic", folds=3, beside=other)
    head = report["heads"]["p_ai"]
    tried = {line["recipe"]: line for line in head["penalties"]}
    assert {r.startswith("logistic, plugins alike") for r in tried} == {True, False}
    for line in tried.values():
        assert line["score"] == pytest.approx((line["log_loss"] + line["beside"]["log_loss"]) / 2)
    # Each table trusts one plugin alone: what holds on both is that neither is worth more.
    assert head["chosen"] == "logistic, plugins alike"
    weights = bundle.heads["p_ai"].model.weights
    assert weights[0] == pytest.approx(weights[1])
    kept = bundle.training["compared"]["p_ai"]
    assert kept["why"] == head["why"]
    assert set(kept["penalties"]) == set(tried)
    assert kept["contenders"]["logistic, plugins alike"]["beside"]["auc"] > 0.5


def test_a_plugin_that_is_blind_on_both_tables_is_not_made_alike(toys):
    plugins, table = two_columns(toys, "x")
    _, other = two_columns(toys, "x", seed=1)
    bundle, report = train_bundle(table, declarations=plugins, head="logistic", folds=3, beside=other)
    assert "alike" not in report["heads"]["p_ai"]["chosen"]
    assert bundle.heads["p_ai"].model.weights[1] < 0.1 * bundle.heads["p_ai"].model.weights[0]


def test_contenders_are_told_with_their_distance_from_the_stack(toys):
    plugins, table = two_columns(toys, "x")
    _, other = two_columns(toys, "y", seed=1)
    _, report = train_bundle(table, declarations=plugins, folds=3, ladder=[toys.small_booster], beside=other)
    contenders = report["heads"]["p_ai"]["contenders"]
    assert "against_logistic" not in contenders["logistic"]
    for name in ("booster", "or", "mean", "best_single"):
        for place in (contenders[name], contenders[name]["beside"]):
            for difference in place["against_logistic"].values():
                assert difference["low"] <= difference["value"] <= difference["high"]


def test_rows_beside_the_table_need_its_columns_and_both_labels(toys):
    plugins, table = two_columns(toys, "x")
    with pytest.raises(ValueError, match="beside takes rows of both labels"):
        train_bundle(table, declarations=plugins, beside=table.take(np.flatnonzero(table.label == 1)))
    foreign = {"z": toys.declare("z", Task.PIXEL, Column(name="s", evidence="s"))}
    other = ScoreTable(
        rows=table.rows[:, :1], columns=columns(foreign), label=table.label, group=table.group, source=table.source
    )
    with pytest.raises(ValueError, match="beside takes some of the columns"):
        train_bundle(table, declarations=plugins, beside=other)


def test_the_assumed_share_of_tampered_pictures_shifts_p_tampered_alone(toys):
    plugins, table = tampered_table(toys)
    even, _ = train_bundle(table, declarations=plugins, head="logistic", folds=3)
    rare, _ = train_bundle(table, declarations=plugins, head="logistic", folds=3, tampered_share=0.1)
    blocks, rows = frozenset({"paste"}), table.rows[:5]
    shift = rare.log_odds("p_tampered", rows, blocks) - even.log_odds("p_tampered", rows, blocks)
    free = np.abs(rare.log_odds("p_tampered", rows, blocks)) < 4  # beyond, the calibrator's limit holds both
    assert free.any()
    np.testing.assert_allclose(shift[free], np.log(1 / 9), atol=1e-9)
    one = frozenset({"pixel"})
    np.testing.assert_array_equal(rare.log_odds("p_ai", rows, one), even.log_odds("p_ai", rows, one))
    assert rare.training["tampered_share"] == 0.1
    with pytest.raises(ValueError, match="tampered_share takes a number between 0 and 1"):
        train_bundle(table, declarations=plugins, tampered_share=1)


@pytest.mark.parametrize("calibrate_on", ["group", "family"])
def test_rows_set_aside_teach_tampering_and_the_sets_alone(toys, calibrate_on):
    plugins, table = tampered_table(toys)
    split = np.where(table.tampered == 1, "forged", "fuse")
    # Set aside, their p_ai evidence may be what it likes.
    rows = table.rows.copy()
    at = [c.name for c in table.columns].index("pixel.a")
    rows[table.tampered == 1, at] = 50.0
    told = {"columns": table.columns, "label": table.label, "group": table.group, "source": table.source}
    told |= {"tampered": np.where(table.label == 1, -1, table.tampered), "edited": table.edited, "split": split}
    options = {"declarations": plugins, "head": "logistic", "folds": 3, "calibrate_on": calibrate_on}
    plain, _ = train_bundle(ScoreTable(rows=table.rows, **told), aside=("forged",), **options)
    odd, report = train_bundle(ScoreTable(rows=rows, **told), aside=("forged",), **options)
    np.testing.assert_array_equal(plain.heads["p_ai"].model.weights, odd.heads["p_ai"].model.weights)
    # Rows of which nobody asks whether they were tampered with still calibrate the sets of their own label.
    counted = {str(x): s.groups for x, s in plain.conformal["paste+pixel"].items()}
    assert counted == {"authentic": 90, "ai_generated": 90, "ai_edited": 90, "tampered": 90}
    assert "tampered" in report["out_of_family"]["by_pattern"]["paste+pixel"]["pooled"]["by_label"]


def test_no_tamper_columns_give_no_tamper_head(logistic):
    bundle, report = logistic
    assert set(bundle.heads) == set(report["heads"]) == {"p_ai"}


def test_a_class_with_too_few_groups_is_not_assessed(toys):
    plugins, table = tampered_table(toys)
    few = np.flatnonzero((table.edited == 0) | (np.cumsum(table.edited) <= 15))
    bundle, report = train_bundle(table.take(few), declarations=plugins, head="logistic", folds=3)
    entry = report["conformal"]["paste+pixel"]["ai_edited"]
    assert (entry["groups"], entry["assessed"], entry["quantile"]) == (15, False, None)
    assert bundle.quantile("paste+pixel", Label.AI_EDITED, 0.2) == np.inf


def test_calibration_by_family_is_an_option(toys):
    table = toys.four_table(n=160)
    by_group, by_family = (
        train_bundle(table, head="logistic", folds=3, calibrate_on=c)[0] for c in ("group", "family")
    )
    assert by_group.sha256 != by_family.sha256


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ({"head": "forest"}, "head takes"),
        ({"calibrate_on": "row"}, "calibrate_on takes"),
        ({"calibration": "isotonic"}, "calibration takes"),
        ({"ladder": []}, "ladder takes"),
        ({"folds": 1}, "folds takes"),
        ({"dropout": 1.0}, "rate takes"),
        ({"minimum_tasks": 0}, "minimum_tasks takes"),
        ({"minimum_groups": 0}, "minimum_groups takes"),
        ({"error_rate": 0}, "error_rate takes"),
        ({"plausible": 0.6}, "plausible takes"),
    ],
)
def test_bad_options_are_named(toys, option, word):
    with pytest.raises(ValueError, match=word):
        train_bundle(toys.four_table(n=60), **option)


def test_a_table_without_both_labels_is_refused(toys):
    table = toys.four_table(n=60)
    with pytest.raises(ValueError, match="two groups of each label"):
        train_bundle(table.take(table.label == 1))
