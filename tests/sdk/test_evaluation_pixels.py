"""Masks against heat maps, the benchmark's own table, and what the page draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tellsign.evaluation import curves, figures, paper, pixels
from tellsign.evaluation.dataset import load
from tellsign.evaluation.outcomes import Columns
from tellsign.evaluation.page import page
from tellsign.evaluation.run import evaluate
from tellsign.evaluation.truth import Shapes
from tellsign.schemas import Box, Label, MapEvidence, PredictionSet, Task, Verdict


def heat(values, box=None, plugin="seg", name="m"):
    values = np.asarray(values, np.float32)
    box = box or Box(0, 0, values.shape[1], values.shape[0])
    return MapEvidence(plugin=plugin, task=Task.SEGMENTATION, model="m 1", name=name, map=values, box=box)


def columns(label, p, source=None, subsets=None):
    n = len(label)

    def objects(values):
        out = np.empty(n, dtype=object)
        for i, v in enumerate(values):
            out[i] = v
        return out

    return Columns(
        label=np.array(label),
        p=np.array(p, float),
        verdict=objects(["authentic"] * n),
        source=objects(source or ["s"] * n),
        group=objects([str(i) for i in range(n)]),
        masked=np.zeros(n, bool),
        subsets=objects(subsets or [()] * n),
        traits={},
    )


def test_three_masks_by_hand():
    hits = np.array([[4, 2, 2], [0, 0, 5], [0, 3, 0], [-1, -1, -1]])
    group = np.array(["a", "b", "c", "d"], dtype=object)
    found = pixels.summarise(hits, np.array([1, 1, 0, 1]), group, draws=50, seed=0)
    assert (found["n"], found["n_edited"], found["n_empty"]) == (3, 2, 1)
    assert found["pooled"]["iou"] == pytest.approx(4 / 16)
    assert found["pooled"]["f1"] == pytest.approx(8 / 20)
    assert found["pooled"]["precision"] == pytest.approx(4 / 9)
    assert found["pooled"]["recall"] == pytest.approx(4 / 11)
    assert found["pooled_edited"]["iou"] == pytest.approx(4 / 13)
    assert found["per_picture"]["f1"] == pytest.approx((8 / 12 + 0) / 2)
    assert found["per_picture"]["iou"] == pytest.approx((4 / 8 + 0) / 2)
    assert pixels.summarise(hits[3:], np.array([1]), group[3:], draws=0, seed=0) is None


@given(st.lists(st.tuples(*[st.integers(0, 50)] * 3), min_size=1, max_size=12))
@settings(deadline=None, max_examples=40)
def test_pooled_f1_and_iou_are_one_number(rows):
    hits = np.array(rows)
    found = pixels.summarise(hits, np.ones(len(hits), int), np.arange(len(hits)).astype(object), draws=0, seed=0)
    iou, f1 = found["pooled"]["iou"], found["pooled"]["f1"]
    assert (iou is None) == (f1 is None) == (hits.sum() == 0)
    if iou is not None:
        assert f1 == pytest.approx(2 * iou / (1 + iou))


def test_a_map_is_resized_placed_and_cut():
    quarter = pixels.prediction(heat([[1.0, 0.0]], Box(2, 1, 6, 5)), 8, 10)
    assert quarter.shape == (8, 10)
    assert quarter[1:5, 2:4].all()
    assert quarter.sum() == 8  # the left half of the box; bilinear crosses .5 in its middle
    weak = heat([[0.1, 0.3]])
    assert not pixels.prediction(weak, 1, 2).any()
    assert pixels.prediction(weak, 1, 2, "min-max").tolist() == [[False, True]]
    assert not pixels.prediction(heat([[0.7, 0.7]]), 1, 2, "min-max").any()
    assert pixels.prediction(heat(np.ones((4, 4)), Box(8, 6, 12, 10)), 8, 10).sum() == 4  # beyond the border


def test_polygons_and_boxes_scale_with_the_picture():
    shape = Shapes(polygons=(((0, 0), (4, 0), (4, 4), (0, 4)), ((0, 0), (9, 9))), boxes=((6, 6, 2, 2),), size=(10, 10))
    small, large = shape.mask(10, 10), shape.mask(20, 20)
    assert small.sum() == 25 + 4
    assert large.sum() == 4 * small.sum()
    assert shape.flaws == 1
    assert shape.fingerprint != Shapes(size=(10, 10)).fingerprint


class Finder:
    """Says tampered, with a map that is one on the left half."""

    versions = {"finder": "1"}  # noqa: RUF012

    def detect_many(self, sources, *, batch_size=None, on_error="raise"):
        for picture in sources:
            values = np.zeros((picture.height, picture.width), np.float32)
            values[:, : picture.width // 2] = 1
            bright = picture.pixels.mean() > 100
            label = Label.TAMPERED if bright else Label.AUTHENTIC
            yield Verdict(
                label=label,
                p_ai=0.1,
                p_tampered=float(picture.pixels.mean() / 255),
                prediction_set=PredictionSet(labels=(label,), error_rate=0.1),
                width=picture.width,
                height=picture.height,
                evidence=(heat(values), heat(values[:, ::-1], plugin="other")),
            )


@pytest.fixture
def coverage(tmp_path):
    for folder in ("image", "mask"):
        (tmp_path / folder).mkdir()
    for n in (1, 2):
        Image.new("RGB", (16, 8), (40 * n,) * 3).save(tmp_path / "image" / f"{n}.tif")
        Image.new("RGB", (16, 8), (200,) * 3).save(tmp_path / "image" / f"{n}t.tif")
        mask = Image.new("L", (16, 8), 0)
        mask.paste(255, (0, 0, 4, 8))
        mask.save(tmp_path / "mask" / f"{n}forged.tif")
    return tmp_path


def test_a_tampering_set_is_scored_by_p_tampered_and_by_its_masks(coverage):
    report = evaluate(load(coverage), Finder(), conditions="native,half", draws=20)
    assert report["settings"]["asks"] == "tampered"
    assert report["overall"]["auc"] == 1
    assert report["overall"]["false_accusation_rate"] == 0
    found = report["pixels"]
    assert (found["n"], found["n_edited"], found["n_empty"]) == (4, 2, 2)
    # Half of what the map calls edited is; on authentic pictures all of it is wrong.
    assert found["per_picture"]["iou"] == pytest.approx(0.5)
    assert found["pooled"]["iou"] == pytest.approx(64 / (64 + 64 + 128))
    assert report["by_condition"]["half"]["pixels"]["per_picture"]["iou"] == pytest.approx(0.5)
    assert report["by_generator"]
    assert "Pixels" in page(report)


def test_another_plugins_map_by_its_name(coverage):
    from tellsign.evaluation.run import Maps

    report = evaluate(load(coverage), Finder(), draws=0, maps=Maps(name="other"))
    assert report["pixels"]["per_picture"]["iou"] == 0
    none = evaluate(load(coverage), Finder(), draws=0, maps=Maps(name="nobody"))
    assert none["pixels"] is None
    assert any("no plugin gave a heat map" in w for w in none["warnings"])


def test_a_mask_that_cannot_be_read_is_named(coverage):
    (coverage / "mask" / "1forged.tif").write_bytes(b"")
    report = evaluate(load(coverage), Finder(), draws=0)
    assert [f["code"] for f in report["errors"]["files"]] == ["mask"]
    assert report["overall"]["n"] == 4
    assert report["pixels"]["n_edited"] == 1


def test_no_plugin_for_tampering_is_no_number(coverage):
    class Silent(Finder):
        def detect_many(self, sources, *, batch_size=None, on_error="raise"):
            import attrs

            for verdict in super().detect_many(sources, on_error=on_error):
                yield attrs.evolve(verdict, p_tampered=None)

    report = evaluate(load(coverage), Silent(), draws=0)
    assert report["overall"]["auc"] is None
    assert any("no plugin assesses tampering" in w for w in report["warnings"])


def test_the_papers_table_has_each_rows_own_reals_and_their_mean():
    table = paper.table(
        columns(
            [0, 0, 1, 1, 0, 1],
            [0.1, 0.7, 0.9, 0.2, 0.9, 0.4],
            subsets=[("a", "b"), ("a",), ("a",), ("a",), ("b",), ("b",)],
        ),
        draws=20,
    )
    a, b = table["rows"]["a"], table["rows"]["b"]
    assert (a["n_real"], a["n_fake"], b["n_real"], b["n_fake"]) == (2, 2, 2, 1)
    assert a["accuracy"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert b["accuracy"] == pytest.approx((1 / 2 + 0) / 2)
    assert table["mean"]["accuracy"] == pytest.approx((0.5 + 0.25) / 2)
    assert a["ap"] == pytest.approx((1 + 2 / 3) / 2)


def test_a_row_without_reals_has_the_fakes_accuracy_and_zero_is_a_value():
    table = paper.table(
        columns([1, 1, 0, 1], [0.1, 0.2, 0.1, 0.9], subsets=[("bad",), ("bad",), ("good",), ("good",)]), draws=0
    )
    assert table["rows"]["bad"]["accuracy"] == 0.0
    assert table["rows"]["bad"]["ap"] is None
    assert table["one_class"] == ["bad"]
    assert table["mean"]["accuracy"] == pytest.approx(0.5)  # (0 + 1) / 2: a zero is not left out
    assert table["rows_with"] == {"accuracy": 2, "accuracy_real": 1, "accuracy_fake": 2, "ap": 1, "auc": 1}


def test_roc_is_thinned_and_keeps_its_corners():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 5000)
    curve = curves.roc(columns(label, rng.random(5000) * 0.6 + 0.4 * label * rng.random(5000)))
    assert len(curve["fpr"]) <= curves.POINTS
    assert (curve["fpr"][0], curve["tpr"][0], curve["fpr"][-1], curve["tpr"][-1]) == (0, 0, 1, 1)
    assert curve["fpr"] == sorted(curve["fpr"])
    assert curves.roc(columns([1, 1], [0.2, 0.3])) is None


def test_worst_mistakes_come_first_and_right_answers_never():
    reals, fakes = curves.mistakes(np.array([0, 0, 0, 1, 1, 1]), np.array([0.9, 0.6, 0.1, 0.05, 0.4, np.nan]), most=1)
    assert (reals.tolist(), fakes.tolist()) == ([0], [3])


def test_names_of_strangers_are_escaped_on_the_page(tmp_path):
    for side, level in (("real", 220), ("fake", 30)):
        (tmp_path / side).mkdir()
        Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / side / "<script>alert(1)<&.png")
    report = evaluate(load(tmp_path), Finder(), draws=0)
    text = page(report)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_figure_is_told_in_words_and_has_no_number_that_is_none():
    drawn = figures.figure(
        [figures.Curve(name="a & b", x=[0, 1], y=[None, 0.5], low=[None, 0.4], high=[None, 0.6], dots=True)],
        title="T",
        x_name="x",
        y_name="y",
    )
    assert "a &amp; b" in drawn
    assert "aria-label" in drawn
    assert "None" not in drawn
    assert "nan" not in drawn
