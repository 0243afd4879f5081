"""X-AIGD's protocol: rows as published, metrics against counts by hand, a run that was stopped."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tellsign.artifacts import CATEGORIES, Tally, binarised, category_masks, fidelity, judgement, proportion
from tellsign.artifacts.protocol import run
from tellsign.evaluation.dataset import load
from tellsign.evaluation.items import DataError
from tellsign.evaluation.truth import Shapes
from tellsign.schemas import Box, Label, MapEvidence, PredictionSet, Task, Verdict

SQUARE = ((0, 0), (3, 0), (3, 3), (0, 3))
TEXTURE, COLOR = "low-level-texture", "low-level-color"
AT = {c.value: k for k, c in enumerate(CATEGORIES)}


def shapes(*marks, size=None):
    return Shapes(polygons=tuple(p for _, p in marks), names=tuple(n for n, _ in marks), size=size)


# -- annotations --------------------------------------------------------------------------------------------------


def test_seven_masks_that_may_overlap():
    shifted = tuple((x + 2, y + 2) for x, y in SQUARE)
    masks = category_masks(shapes((TEXTURE, SQUARE), (COLOR, shifted)), 8, 10)
    assert masks.shape == (7, 8, 10)
    assert masks.dtype == bool
    assert masks[AT[TEXTURE]].sum() == masks[AT[COLOR]].sum() == 16
    assert (masks[AT[TEXTURE]] & masks[AT[COLOR]]).sum() == 4
    assert masks.any(axis=0).sum() == 28
    assert masks.sum() == 32
    assert proportion(masks) == pytest.approx(28 / 80)


def test_no_polygon_is_no_artifact_and_a_line_is_left_out_and_counted():
    assert not category_masks(Shapes(), 4, 5).any()
    line = shapes((TEXTURE, ((0, 0), (3, 3))), (TEXTURE, SQUARE))
    assert line.flaws == 1
    assert category_masks(line, 8, 8).sum() == 16


def test_polygons_follow_the_picture_to_another_size():
    masks = category_masks(shapes((TEXTURE, SQUARE), size=(8, 8)), 16, 16)
    assert masks.sum() == 64


@pytest.mark.parametrize("names", [("low-level-smell",), ()])
def test_a_polygon_needs_one_of_the_seven_names(names):
    with pytest.raises(ValueError, match=r"low-level-smell|have a name"):
        category_masks(Shapes(polygons=(SQUARE,), names=names), 8, 8)


# -- judgement ----------------------------------------------------------------------------------------------------


def test_judgement_by_hand_where_nine_in_ten_are_generated():
    label = np.array([1] * 9 + [0])
    assert judgement(label, np.ones(10))["balanced_accuracy"] == 0.5
    p = np.array([0.9] * 6 + [0.1] * 3 + [0.5])
    out = judgement(label, p)
    assert out["recall"] == pytest.approx(6 / 9)
    assert out["precision"] == pytest.approx(6 / 7)
    assert out["f1"] == pytest.approx(12 / 16)
    assert out["balanced_accuracy"] == pytest.approx(1 / 3)


def test_judgement_without_reals_gives_recall_alone():
    out = judgement(np.ones(4, int), np.array([0.9, 0.9, 0.1, 0.5]))
    assert out["recall"] == 0.75
    assert out["precision"] is out["f1"] is out["balanced_accuracy"] is None


# -- detection ----------------------------------------------------------------------------------------------------


def three(tally):
    """Three pictures of 2 x 2: half found; one pixel accused and one missed; nothing and nothing."""
    for predicted, truth in (
        ([[1, 0], [0, 0]], [[1, 1], [0, 0]]),
        ([[1, 0], [0, 0]], [[0, 0], [0, 1]]),
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]]),
    ):
        masks = np.zeros((7, 2, 2), bool)
        masks[AT[TEXTURE]] = np.array(truth, bool)
        tally.add(np.array(predicted, bool), masks)
    return tally.summary()


def test_pooled_counts_by_hand():
    row = three(Tally())["any"]
    assert (row["found"], row["wrong"], row["missed"]) == (1, 1, 2)
    assert row["iou"] == 1 / 4
    assert row["precision"] == 1 / 2
    assert row["recall"] == 1 / 3
    assert row["f1"] == pytest.approx(2 / 5)
    assert (row["n"], row["n_empty"]) == (3, 1)
    assert row["per_picture"] == {"iou": pytest.approx((1 / 2 + 0) / 2), "f1": pytest.approx((2 / 3 + 0) / 2)}


def test_a_category_that_nobody_has_is_nan_when_nothing_is_predicted():
    tally = Tally()
    tally.add(np.zeros((7, 2, 2), bool), np.zeros((7, 2, 2), bool))
    for row in tally.summary().values():
        assert math.isnan(row["iou"])
        assert math.isnan(row["f1"])
        assert row["n_empty"] == 1


def test_categories_apart_and_as_one():
    truth = np.zeros((7, 2, 2), bool)
    truth[AT[TEXTURE], 0] = truth[AT[COLOR], :, 0] = True
    predicted = np.zeros_like(truth)
    predicted[AT[TEXTURE], 0] = True
    out = Tally()
    out.add(predicted, truth)
    rows = out.summary()
    assert rows[TEXTURE]["iou"] == 1
    assert rows[COLOR]["iou"] == 0
    assert rows["any"]["iou"] == 2 / 3
    # One map for all: the other category's pixels count against it.
    one = Tally()
    one.add(truth.any(axis=0), truth)
    assert one.summary()["any"]["iou"] == 1
    assert one.summary()[COLOR]["recall"] == 1
    assert one.summary()[COLOR]["precision"] == 2 / 3


@given(st.lists(st.tuples(*[st.integers(0, 50)] * 3), min_size=1, max_size=6))
def test_f1_and_iou_are_one_number_when_pooled(hits):
    tally = Tally()
    for hit in hits:
        tally.add_counts([hit] * 8)
    row = tally.summary()["any"]
    if sum(map(sum, hits)):
        assert row["f1"] == pytest.approx(2 * row["iou"] / (1 + row["iou"]))
    else:
        assert math.isnan(row["f1"])


def test_a_constant_map_points_at_nothing_and_others_are_stretched():
    assert not binarised(np.full((3, 3), 0.9), 6, 6, "min-max").any()
    assert binarised(np.full((3, 3), 0.9), 6, 6).all()
    low = binarised(np.array([[0.0, 0.01]]), 4, 8, "min-max")
    assert low[:, 5:].all()
    assert not low[:, :3].any()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(7, H, W\)"):
        Tally().add(np.zeros((2, 2), bool), np.zeros((7, 3, 2), bool))


# -- fidelity -----------------------------------------------------------------------------------------------------


def test_fidelity_by_hand():
    share, p = np.array([0, 0, 0.1, 0.2, 0.3]), np.array([0.1, 0.6, 0.7, 0.8, 0.9])
    out = fidelity(share, p, draws=50)
    assert (out["clean"]["n"], out["clean"]["accuracy"]) == (2, 0.5)
    assert (out["flawed"]["n"], out["flawed"]["accuracy"]) == (3, 1.0)
    # Ranks 1.5 1.5 3 4 5 against 1 2 3 4 5.
    assert out["spearman_p"] == pytest.approx(9.5 / math.sqrt(9.5 * 10))
    low, high = out["spearman_p_ci"]
    assert low <= out["spearman_p"] <= high


def test_fidelity_of_what_does_not_vary_is_none():
    out = fidelity(np.zeros(5), np.linspace(0, 1, 5), draws=10)
    assert out["spearman_p"] is None
    assert out["flawed"]["accuracy"] is None


# -- the run ------------------------------------------------------------------------------------------------------


class Half:
    """Calls everything generated and points at the left half."""

    def __init__(self):
        self.versions, self.asked = {"half": "1"}, 0

    def maps(self, width, height):
        return {"seen": np.tile(np.array([[1.0, 0.0]], np.float32), (2, 1))}

    def detect(self, source):
        self.asked += 1
        with Image.open(source) as image:
            width, height = image.size
        box = Box(left=0, top=0, right=width, bottom=height)
        evidence = tuple(
            MapEvidence(plugin="half", task=Task.PIXEL, model="half 1", name=name, map=values, box=box)
            for name, values in self.maps(width, height).items()
        )
        return Verdict(
            label=Label.AI_GENERATED,
            p_ai=0.9,
            prediction_set=PredictionSet(labels=(Label.AI_GENERATED,), error_rate=0.1),
            width=width,
            height=height,
            evidence=evidence,
        )


class ByName(Half):
    """Has a map for one category."""

    def maps(self, width, height):
        return super().maps(width, height) | {COLOR: np.tile(np.array([[0.0, 1.0]], np.float32), (2, 1))}


def rows(folder):
    left = ((0, 0), (7, 0), (7, 15), (0, 15))
    right = ((8, 0), (15, 0), (15, 15), (8, 15))
    marks = {"a": [(TEXTURE, left)], "b": [(COLOR, right)], "c": []}
    out = []
    for name, own in marks.items():
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / f"{name}.png")
        labels = [{"label": label, "points": points} for label, points in own]
        out.append({"image": f"{name}.png", "generator": "sd3", "uid": name, "labels": labels})
    file = folder / "x.json"
    file.write_text(json.dumps(out))
    return load(file)


def test_a_run_counts_what_it_sees(tmp_path):
    out = run(rows(tmp_path), Half(), draws=20)
    assert out["judgement"]["recall"] == 1
    found = out["detection"]
    # Left half: all of a, none of b, and 128 pixels of c that nobody marked.
    assert (found["any"]["found"], found["any"]["wrong"], found["any"]["missed"]) == (128, 256, 128)
    assert found[TEXTURE]["recall"] == 1
    assert found[COLOR]["recall"] == 0
    assert out["fidelity"]["clean"]["n"] == 1
    assert out["fidelity"]["flawed"]["n"] == 2
    assert not out["maps_name_categories"]
    json.dumps(out, allow_nan=False)


def test_measures_of_quality_are_held_against_the_answers(tmp_path):
    out = run(rows(tmp_path), Half(), quality={"niqe": {"a.png": 3.0, "b.png": 5.0}}, draws=20)
    assert (out["quality"]["niqe"]["n"], out["quality"]["niqe"]["n_missing"]) == (2, 1)
    assert out["quality"]["niqe"]["mean"] == 4
    assert out["quality"]["niqe"]["spearman_p"] is None  # every answer is .9
    json.dumps(out, allow_nan=False)


def test_maps_named_after_categories_are_used_for_them(tmp_path):
    out = run(rows(tmp_path), ByName(), draws=0)
    assert out["maps_name_categories"]
    assert out["detection"][COLOR]["recall"] == 1
    assert out["detection"][TEXTURE]["found"] == 0
    named = run(rows(tmp_path), ByName(), heat="half:seen", draws=0)
    assert named["detection"][TEXTURE]["recall"] == 1


def test_a_run_that_was_stopped_goes_on(tmp_path):
    dataset, journal = rows(tmp_path), tmp_path / "journal.jsonl"
    first = run(dataset, Half(), journal=journal, draws=0)
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])
    again = Half()
    second = run(dataset, again, journal=journal, draws=0)
    assert again.asked == 1
    assert second == first
    third = Half()
    assert run(dataset, third, journal=journal, draws=0) == first
    assert third.asked == 0
    other = Half()
    run(dataset, other, journal=journal, scaling="own", draws=0)
    assert other.asked == 3


def test_unknown_names_in_the_rows_are_told(tmp_path):
    rows(tmp_path)
    text = (tmp_path / "x.json").read_text().replace(TEXTURE, "low-level-smell")
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.png: names takes .*low-level-smell"):
        run(load(tmp_path / "x.json"), Half(), draws=0)
    with pytest.raises(DataError, match="annotated or judged-fake"):
        run(load(tmp_path / "x.json"), Half(), scored="some")


def test_parquet_rows_as_published(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="extra eval: reads parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "a.png")
    table = pyarrow.table(
        {
            "image": [{"bytes": (tmp_path / "a.png").read_bytes(), "path": "a.png"}],
            "generator": ["sd3"],
            "uid": ["u1"],
            "labels": [[{"label": COLOR, "points": [[0.0, 0.0], [3.0, 0.0], [3.0, 3.0], [0.0, 3.0]]}]],
            "width": [16],
            "height": [16],
        }
    )
    (tmp_path / "data").mkdir()
    parquet.write_table(table, tmp_path / "data" / "labeled_test-00000-of-00001.parquet")
    dataset = load(tmp_path / "data")
    masks = category_masks(dataset.items[0].truth, 16, 16)
    assert masks[AT[COLOR]].sum() == 16
    assert masks.sum() == 16
