"""Tiles, regions and what the plugin says of a picture, on tiny weights in the shipped file's format."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tellsign.errors import SettingError, WeightsError
from tellsign.fusion.features import feature_row
from tellsign.plugin import UnavailableError
from tellsign.plugins import segmentation
from tellsign.plugins.segmentation import detector as detecting
from tellsign.plugins.segmentation.detector import CELLS, SegmentationDetector, highest, shrink
from tellsign.plugins.segmentation.model import CELL, MASKS, GammaConfig, GammaModel
from tellsign.plugins.segmentation.regions import log_odds, own_cut, regions, snap
from tellsign.plugins.segmentation.sam import on_grid, sam_proposer
from tellsign.plugins.segmentation.scan import MINIMUM, coarse_places, scan
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import (
    Box,
    Declaration,
    FindingEvidence,
    MapEvidence,
    NotApplicable,
    Picture,
    ScoreEvidence,
    SemanticView,
)
from tellsign.schemas.codec import loads
from tellsign.views import segmentation_view

DECLARATION = loads((Path(segmentation.__file__).parent / "tellsign.json").read_text(), Declaration)


def bright(batch):
    """A stand-in for a network that marks what is bright: exact, so that stitching can be checked."""
    height, width = batch.shape[1] // CELL, batch.shape[2] // CELL
    light = batch[..., 0].reshape(len(batch), height, CELL, width, CELL).mean(axis=(2, 4)) / 255
    masks = np.stack([light, 1 - light], axis=-1).astype(np.float32)
    return masks[..., 0].mean(axis=(1, 2)) * 10 - 5, masks


def ramp(height, width):
    """A picture whose brightness rises to the right in steps of a cell."""
    column = (np.arange(width) // CELL * CELL) / max(1, width) * 255
    return np.broadcast_to(column[None, :, None], (height, width, 3)).astype(np.uint8)


# -- tiles --------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(32, 900), st.integers(32, 900))
def test_what_the_tiles_say_comes_back_in_its_place(height, width):
    image = ramp(height, width)
    seen = scan(image, bright, tile=128, overlap=16, most=100)
    rows, columns = -(-height // CELL), -(-width // CELL)
    assert seen.maps["ai"].shape == (rows, columns)
    assert seen.looked == 1
    # A last cell that reaches beyond the picture is filled up from its mirror image.
    whole = width // CELL
    expected = image[0, ::CELL, 0][:whole] / 255
    np.testing.assert_allclose(seen.maps["ai"][:, :whole], np.tile(expected, (rows, 1)), atol=0.02)
    np.testing.assert_allclose(seen.maps["manipulation"], 1 - seen.maps["ai"], atol=1e-5)


def test_a_small_picture_is_one_tile_of_its_own_size():
    shapes = []

    def note(batch):
        shapes.append(batch.shape)
        return bright(batch)

    scan(ramp(230, 301), note)
    assert shapes == [(1, 232, 304, 3)]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 30), st.integers(1, 30))
def test_coarse_tiles_are_distinct_within_the_budget_and_spread(most, rows, columns):
    boxes = [Box(x * 10, y * 10, x * 10 + 10, y * 10 + 10) for y in range(rows) for x in range(columns)]
    places, more = coarse_places(boxes, most)
    assert len(set(places)) == len(places) <= most
    assert more == (len(boxes) > most)
    if not more:
        assert places == list(range(len(boxes)))


def test_coarse_tiles_leave_no_half_of_a_large_picture_out():
    boxes = [Box(x * 10, y * 10, x * 10 + 10, y * 10 + 10) for y in range(20) for x in range(30)]
    places, _ = coarse_places(boxes, 80)
    for half in (
        lambda b: b.left < 150,
        lambda b: b.left >= 150,
        lambda b: b.top < 100,
        lambda b: b.top >= 100,
    ):
        assert 10 <= sum(half(boxes[i]) for i in places) <= 30


def test_a_large_picture_is_looked_at_where_it_is_suspicious():
    image = np.zeros((64 * 20, 64 * 20, 3), np.uint8)
    image[700:1000, 200:500] = 255
    looked = []

    def note(batch):
        looked.extend(batch[..., 0].mean(axis=(1, 2)))
        logits, masks = bright(batch)
        masks[..., 1] = 0
        return logits, masks

    seen = scan(image, note, tile=64, overlap=0, most=100, batch=4)
    assert len(looked) == 100
    assert seen.looked == pytest.approx(0.25)
    # 25 tiles of 400 touch the bright square; evenly chosen ones would hit about six of them.
    assert sum(v > 0 for v in looked) > 20
    heat = seen.maps["ai"]
    assert heat[175:250, 50:125].mean() > 0.9
    assert heat[:150].mean() < 0.05


def test_tiles_do_not_depend_on_the_batch():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (300, 410, 3)).astype(np.uint8)
    one, other = (scan(image, bright, tile=96, overlap=16, batch=b) for b in (1, 7))
    for name in MASKS:
        np.testing.assert_allclose(one.maps[name], other.maps[name], atol=1e-6)


# -- regions ------------------------------------------------------------------------------------------------------


def test_a_region_is_where_it_is():
    heat = np.full((50, 100), 0.1, np.float32)
    heat[10:20, 30:60] = 0.9
    (found,) = regions(heat, 400, 200)
    assert found.box == Box(120, 40, 240, 80)
    assert found.area == pytest.approx(300 / 5000)
    assert found.strength == pytest.approx(0.9, abs=1e-5)
    assert found.contrast == pytest.approx(0.8, abs=1e-5)


@pytest.mark.parametrize("case", ["speck", "everything", "faint", "nothing"])
def test_what_is_no_region(case):
    heat = np.full((100, 100), 0.45 if case == "faint" else 0.1, np.float32)
    if case == "speck":
        heat[3:5, 3:5] = 0.9
    elif case == "everything":
        heat[:80] = 0.9
    elif case == "faint":
        heat[20:50, 20:50] = 0.6
    assert regions(heat, 400, 400) == []


def test_a_quiet_map_is_cut_at_a_half_and_a_loud_one_higher():
    heat = np.full((20, 20), 0.05, np.float32)
    heat[:5, :5] = 0.9
    assert own_cut(heat) == pytest.approx(0.5)
    assert own_cut(heat, 0.7) == pytest.approx(0.7)
    # Log-odds -1 all over are .75 above the level of -1.75, so that the cut rises by 2.25.
    loud = np.where(heat > 0.5, heat, np.float32(1 / (1 + np.e)))
    assert log_odds(own_cut(loud)) == pytest.approx(2.25, abs=1e-4)
    # Raising the cut by what the map is raised by leaves the same cells marked.
    raised = 1 / (1 + np.exp(-(np.log(loud / (1 - loud)) + 0.4)))
    assert log_odds(own_cut(raised, 1 / (1 + np.exp(-0.4)))) == pytest.approx(2.65, abs=1e-4)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.99))
def test_a_cut_never_falls_below_what_was_asked(low, high, cut):
    heat = np.array([[low, high], [low, low]], np.float32)
    assert cut - 1e-9 <= own_cut(heat, cut) <= 1


def test_a_region_of_a_loud_map_is_what_stands_out_of_it():
    heat = np.full((40, 40), 0.55, np.float32)
    heat[10:20, 10:20] = 0.9999
    assert regions(heat, 160, 160) == []
    (one,) = regions(heat, 160, 160, own_cut(heat))
    assert (one.box.left, one.box.top, one.box.right, one.box.bottom) == (40, 40, 80, 80)


def test_a_map_snaps_to_objects_and_stays_where_there_are_none():
    heat = np.full((40, 40), 0.1, np.float32)
    heat[10:20, 10:20] = 0.9
    thing, other = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    thing[10:21, 10:21], other[30:35, 30:35] = True, True
    snapped = snap(heat, [thing, other])
    assert (snapped > 0).sum() == 121
    assert snapped[12, 12] == pytest.approx(heat[thing].mean())
    assert snap(heat, [other]) is heat
    assert snap(heat, [np.ones((40, 40), bool)]) is heat


def test_masks_are_brought_to_the_maps_grid():
    mask = np.zeros((100, 200), bool)
    mask[50:, 100:] = True
    small = on_grid(mask, (10, 10))
    assert small.shape == (10, 10)
    assert (small[5:, 5:]).all()
    assert not small[:5].any()


def test_a_checkpoint_must_be_there(tmp_path):
    with pytest.raises(SettingError, match="MobileSAM"):
        sam_proposer(tmp_path / "mobile_sam.pt")


def test_a_file_that_is_no_checkpoint_is_told_at_the_first_picture(tmp_path):
    pytest.importorskip("segment_anything")
    (tmp_path / "sam.pt").write_bytes(b"no zip")
    propose = sam_proposer(tmp_path / "sam.pt")
    with pytest.raises(WeightsError, match="checkpoint"):
        propose(np.zeros((64, 64, 3), np.uint8), (16, 16))


def test_maps_are_averaged_down_and_keep_their_mean():
    heat = np.random.default_rng(0).random((CELLS * 2, CELLS * 2)).astype(np.float32)
    small = shrink(heat)
    assert small.shape == (CELLS, CELLS)
    assert small.mean() == pytest.approx(heat.mean(), abs=1e-5)
    assert shrink(heat[:10, :10]).shape == (10, 10)
    assert highest(np.linspace(0, 1, 200, dtype=np.float32)[None]) == pytest.approx((199 + 198) / 199 / 2)


# -- the plugin ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A tiny network in the shipped file's format; nobody trained it."""
    torch.manual_seed(0)
    config = GammaConfig(encoder="timm:tf_efficientnet_lite0", width=16, heads=2, residual=2)
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    state = {k: v.half() if v.is_floating_point() else v for k, v in GammaModel(config).state_dict().items()}
    save_file(state, file, metadata={"config": config.to_json(), "version": "9"})
    return file


@pytest.fixture(scope="module")
def runtime():
    return DeviceRuntime("cpu", batch_size=4)


def view(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return segmentation_view(Picture(pixels=pixels), key=f"{width}x{height}.{seed}")


def made(weights, **more):
    return SegmentationDetector(DECLARATION, {"weights": str(weights), **more})


def test_it_says_where_and_how_much(weights, runtime):
    (answer,) = made(weights, classes=True).detect([view(340, 200)], runtime)
    (plain,) = made(weights).detect([view(340, 200)], runtime)
    assert {e.name for e in plain if isinstance(e, ScoreEvidence)} == {"tampered"}
    scores = {e.name: e for e in answer if isinstance(e, ScoreEvidence)}
    maps = {e.name: e for e in answer if isinstance(e, MapEvidence)}
    assert set(scores) == {"generated", "edited", "tampered"}
    assert set(maps) == {"ai", "manipulation"}
    for e in maps.values():
        assert e.map.shape == (50, 85)
        assert e.box == Box(0, 0, 340, 200)
    assert {e.model for e in answer} == {"tiny 9"}
    assert scores["edited"].logit >= scores["generated"].logit
    row = feature_row(answer, {"segmentation": DECLARATION})
    assert len(row) == len(DECLARATION.columns)
    assert np.isfinite(list(row.values())).all()


def test_the_fusion_gets_both_questions():
    by_head = {h: {c.name for c in DECLARATION.columns if c.head == h} for h in ("p_ai", "p_tampered")}
    # Class and AI map are near chance on unseen sources, so nothing of theirs may move p_ai.
    assert not by_head["p_ai"]
    # A share would decide between generated and edited (schemas/labels.py); the AI map cannot carry that yet.
    assert "share" not in {c.statistic for c in DECLARATION.columns}
    assert by_head["p_tampered"] == {"tampered", "manipulation_top", "manipulation_largest"}


def test_a_picture_below_the_minimum_is_not_spoken_of(weights, runtime):
    answers = made(weights).detect([view(MINIMUM - 1, 400), view(MINIMUM, MINIMUM)], runtime)
    assert [type(e) for e in answers[0]] == [NotApplicable]
    assert any(isinstance(e, MapEvidence) for e in answers[1])


def test_regions_are_told_as_findings_with_their_place(weights, runtime, monkeypatch):
    monkeypatch.setattr(detecting, "forward_of", lambda model, device: bright)
    image = np.zeros((200, 300, 3), np.uint8)
    image[80:120, 100:160] = 255
    # The stand-in's manipulation map marks all that is dark, which is too much to be a place.
    (answer,) = made(weights).detect([segmentation_view(Picture(pixels=image), key="k")], runtime)
    (finding,) = [e for e in answer if isinstance(e, FindingEvidence)]
    assert finding.region == Box(100, 80, 160, 120)
    assert "4.0 % of the picture looks synthesised" in finding.note


def test_regions_of_an_unsure_map_are_no_findings(weights, runtime, monkeypatch):
    monkeypatch.setattr(detecting, "forward_of", lambda model, device: bright)
    image = np.zeros((200, 300, 3), np.uint8)
    image[80:120, 100:160] = 255
    seen = [segmentation_view(Picture(pixels=image), key="k")]
    monkeypatch.setattr(detecting, "SURE", {"ai": 0.85, "manipulation": 0.95})
    (told,) = made(weights).detect(seen, runtime)
    assert [e for e in told if isinstance(e, FindingEvidence)]
    monkeypatch.setattr(detecting, "SURE", {"ai": 1.01, "manipulation": 1.01})
    (silent,) = made(weights).detect(seen, runtime)
    assert not [e for e in silent if isinstance(e, FindingEvidence)]
    assert [e for e in silent if isinstance(e, MapEvidence)]


def test_a_lattice_is_a_finding_about_the_whole_picture_and_moves_no_score(weights, runtime):
    rng = np.random.default_rng(0)
    plain = np.clip(rng.normal(120, 2, (200, 220, 3)), 0, 255)
    tiled = plain + np.tile(rng.integers(-3, 4, (4, 4, 1)), (50, 55, 1))
    images = [np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in (plain, tiled)]
    views = [segmentation_view(Picture(pixels=image), key=f"{i}") for i, image in enumerate(images)]
    without, answer = (
        [e for e in found if isinstance(e, FindingEvidence) and e.region is None]
        for found in made(weights).detect(views, runtime)
    )
    assert not without
    (finding,) = answer
    assert "does not count towards the verdict" in finding.note
    assert 0 < finding.strength < 1
    assert not {
        c for c in DECLARATION.columns if c.evidence not in {"generated", "edited", "tampered", "ai", "manipulation"}
    }


def test_maps_snap_to_the_proposed_objects(weights, runtime, monkeypatch):
    monkeypatch.setattr(detecting, "forward_of", lambda model, device: bright)
    image = np.zeros((200, 300, 3), np.uint8)
    image[80:120, 100:160] = 255
    plugin = made(weights)

    def propose(pixels, shape):
        mask = np.zeros(shape, bool)
        mask[18:32, 22:42] = True
        return [mask]

    plugin.sam = propose
    (answer,) = plugin.detect([segmentation_view(Picture(pixels=image), key="k")], runtime)
    heat = next(e.map for e in answer if isinstance(e, MapEvidence) and e.name == "ai")
    assert (heat > 0).sum() == 14 * 20


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"colour": 1}, "colour"), ({"weights": 3}, "weights"), ({"tiles": 1}, "tiles"), ({"tiles": True}, "tiles")],
)
def test_settings_say_what_they_take(settings, named):
    with pytest.raises(SettingError, match=named):
        SegmentationDetector(DECLARATION, settings)


def test_missing_weights_are_unavailable_and_no_failure(tmp_path, runtime):
    with pytest.raises(UnavailableError, match="weights"):
        made(tmp_path / "none.safetensors").setup(runtime)


def test_another_view_is_refused(weights, runtime):
    semantic = SemanticView(key="k", image=np.zeros((8, 8, 3), np.uint8), width=8, height=8)
    with pytest.raises(TypeError, match="SegmentationView"):
        made(weights).detect([semantic], runtime)


def test_the_bench_runs_the_bare_network(weights, runtime):
    (logits,) = made(weights).bench_forward([view(200, 200), view(20, 20)], runtime)()
    assert logits.shape == (1,)
