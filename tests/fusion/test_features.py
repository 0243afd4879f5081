import math

import numpy as np
import pytest

from tellsign.fusion.features import FeatureColumn, columns, feature_row, keep_blocks, map_statistic, present_blocks
from tellsign.schemas import (
    Box,
    Category,
    Column,
    Declaration,
    Failed,
    FindingEvidence,
    InvalidValueError,
    MapEvidence,
    NotApplicable,
    ProvenanceEvidence,
    ScoreEvidence,
    Task,
)


def declare(name, task, *cols):
    return Declaration(
        name=name,
        version="1",
        api_version=1,
        task=task,
        detector="toy:Detector",
        summary="a toy",
        columns=cols,
        code_licence="MIT",
        weights_licence="none",
        commercial_use=True,
    )


def score(plugin, name, logit):
    return ScoreEvidence(plugin=plugin, task=Task.PIXEL, model="toy 1", name=name, score=0.5, logit=logit)


PIXEL = declare(
    "pixel",
    Task.PIXEL,
    Column(name="tower", evidence="tower", block="tower"),
    Column(name="bundled", evidence="bundled", block="bundled"),
)
SEG = declare(
    "seg",
    Task.SEGMENTATION,
    *(Column(name=s, evidence="mask", statistic=s) for s in ("share", "max", "top", "largest")),
    Column(name="texture", evidence=Category.TEXTURE.value, statistic="strength"),
    Column(name="paste", evidence="paste", head="p_tampered"),
)


def test_columns_are_ordered_by_name_whatever_the_order_of_plugins():
    one = columns({"pixel": PIXEL, "seg": SEG})
    assert one == columns({"seg": SEG, "pixel": PIXEL})
    assert [c.name for c in one] == sorted(c.name for c in one)
    assert [c.name for c in columns({"seg": SEG}, "p_tampered")] == ["seg.paste"]
    assert {c.block for c in columns({"pixel": PIXEL})} == {"pixel.tower", "pixel.bundled"}


def test_unknown_head_is_refused():
    with pytest.raises(ValueError, match="head takes one of"):
        columns({}, "p_fake")


def test_row_has_every_declared_column_and_nan_where_nobody_answered():
    row = feature_row([score("pixel", "tower", 1.5)], {"pixel": PIXEL, "seg": SEG})
    assert list(row) == sorted(row)
    assert row["pixel.tower"] == 1.5
    assert [k for k, v in row.items() if not math.isnan(v)] == ["pixel.tower"]


def test_silent_evidence_and_provenance_leave_the_row_empty():
    origin = {"plugin": "seg", "task": Task.SEGMENTATION, "model": "m"}
    said = [
        NotApplicable(**origin, reason="no"),
        Failed(**origin, reason="no", error="ValueError"),
        ProvenanceEvidence(
            plugin="file", task=Task.PROVENANCE, model="m", claim="made by x", claimant="x", verification="verified"
        ),
    ]
    assert all(math.isnan(v) for v in feature_row(said, {"seg": SEG}).values())


def test_order_of_evidence_does_not_matter_and_the_highest_of_two_counts():
    said = [score("pixel", "tower", 1.0), score("pixel", "tower", 2.0), score("pixel", "bundled", 0.5)]
    assert feature_row(said, {"pixel": PIXEL}) == feature_row(said[::-1], {"pixel": PIXEL})
    assert feature_row(said, {"pixel": PIXEL})["pixel.tower"] == 2.0


@pytest.mark.parametrize(
    ("p", "logit", "expected"),
    [(0.5, None, 0.0), (0.75, None, math.log(3)), (1.0, None, 10.0), (0.0, None, -10.0), (0.5, 99.0, 10.0)],
)
def test_scores_enter_as_clipped_log_odds(p, logit, expected):
    item = ScoreEvidence(plugin="pixel", task=Task.PIXEL, model="m", name="tower", score=p, logit=logit)
    assert feature_row([item], {"pixel": PIXEL})["pixel.tower"] == pytest.approx(expected, abs=1e-9)


def test_map_statistics_by_hand():
    grid = np.zeros((10, 20), np.float32)
    grid[0:2, 0:3] = 0.9
    grid[5, 5:9] = 0.8
    grid[9, 19] = 1.0
    assert map_statistic(grid, "share") == pytest.approx(11 / 200)
    assert map_statistic(grid, "max") == 1.0
    assert map_statistic(grid, "top") == pytest.approx((1.0 + 0.9) / 2)
    assert map_statistic(grid, "largest") == pytest.approx(6 / 200)


def test_largest_component_joins_arms_of_a_u_and_not_diagonals():
    u = np.array([[1, 0, 1], [1, 0, 1], [1, 1, 1]], np.float32)
    assert map_statistic(u, "largest") == pytest.approx(7 / 9)
    assert map_statistic(np.eye(4, dtype=np.float32), "largest") == pytest.approx(1 / 16)
    assert map_statistic(np.zeros((3, 3), np.float32), "largest") == 0


def test_largest_component_agrees_with_flood_fill():
    rng = np.random.default_rng(0)
    for _ in range(5):
        mask = rng.random((17, 23)) < 0.55
        left, best = mask.copy(), 0
        while left.any():
            stack, size = [tuple(np.argwhere(left)[0])], 0
            left[stack[0]] = False
            while stack:
                r, c = stack.pop()
                size += 1
                for a, b in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
                    if 0 <= a < 17 and 0 <= b < 23 and left[a, b]:
                        left[a, b] = False
                        stack.append((a, b))
            best = max(best, size)
        assert map_statistic(mask.astype(np.float32), "largest") == pytest.approx(best / mask.size)


def test_a_large_map_is_averaged_down_first():
    grid = np.zeros((1500, 1030), np.float32)
    grid[:750] = 1
    assert map_statistic(grid, "largest") == pytest.approx(0.5, abs=0.01)


def test_a_category_without_finding_is_zero_where_the_plugin_answered():
    full = Box(0, 0, 4, 4)
    mask = MapEvidence(
        plugin="seg", task=Task.SEGMENTATION, model="m", name="mask", map=np.ones((2, 2), np.float32), box=full
    )
    found = FindingEvidence(plugin="seg", task=Task.SEGMENTATION, model="m", category=Category.TEXTURE, strength=0.4)
    other = FindingEvidence(plugin="seg", task=Task.SEGMENTATION, model="m", category=Category.COLOR, strength=0.9)
    assert feature_row([mask, found, other], {"seg": SEG})["seg.texture"] == 0.4
    assert feature_row([mask], {"seg": SEG})["seg.texture"] == 0.0
    assert math.isnan(feature_row([], {"seg": SEG})["seg.texture"])


def test_blocks_of_a_row():
    cols = columns({"pixel": PIXEL})
    values = np.array([math.nan, 1.0])
    assert present_blocks(values, cols) == {"pixel.tower"}
    assert np.isnan(keep_blocks(values, cols, {"pixel.bundled"})).all()


@pytest.mark.parametrize(
    "change", [{"name": "other.x"}, {"direction": 2}, {"block": "other"}, {"block": "pixel.a+b"}, {"head": "p_fake"}]
)
def test_a_column_that_makes_no_sense_is_refused(change):
    good = {"name": "pixel.x", "direction": 1, "block": "pixel", "task": "pixel", "plugin": "pixel"}
    assert FeatureColumn(**good).task is Task.PIXEL
    with pytest.raises(InvalidValueError, match=next(iter(change))):
        FeatureColumn(**{**good, **change})
