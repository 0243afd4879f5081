"""The pixel plugin's mechanics, on tiny weights in the shipped files' format."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from tellsign.errors import SettingError, WeightsError
from tellsign.fusion.features import feature_row
from tellsign.plugin import UnavailableError
from tellsign.plugins import pixel
from tellsign.plugins.pixel import strengths, weights_files
from tellsign.plugins.pixel.detector import CELLS, STRENGTHS, PixelDetector, heat_map, smooth
from tellsign.plugins.pixel.strengths import batches
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import (
    Box,
    Declaration,
    Evidence,
    MapEvidence,
    NotApplicable,
    Picture,
    PixelView,
    ScoreEvidence,
    SemanticView,
)
from tellsign.schemas.codec import dumps, loads
from tellsign.towers import CLIP_VIT_B16, shared
from tellsign.views import pixel_view
from tellsign.weights.files import version_of

DECLARATION = loads((Path(pixel.__file__).parent / "tellsign.json").read_text(), Declaration)


def view(width, height, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return pixel_view(Picture(pixels=pixels), key=f"{width}x{height}.{seed}")


def detector(runtime=None, **settings):
    made = PixelDetector(DECLARATION, settings)
    made.setup(runtime or DeviceRuntime("cpu"))
    return made


@pytest.fixture
def runtime():
    return DeviceRuntime("cpu", batch_size=4)


def logits(answers):
    return [next(e.logit for e in a if isinstance(e, ScoreEvidence)) for a in answers]


# -- which model speaks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", ["tower", "bundled"])
def test_a_strength_speaks_under_its_own_name_and_version(stand_ins, runtime, strength):
    (answer,) = detector(strength=strength).detect([view(256, 300)], runtime)
    score, where, residual = answer
    assert isinstance(score, ScoreEvidence)
    assert isinstance(where, MapEvidence)
    assert isinstance(residual, ScoreEvidence)
    assert residual.name == "residual"
    assert residual.model == version_of(weights_files.RESIDUAL)
    assert score.name == strength
    assert score.model == where.model == f"pixel-{strength} 1.2.3"
    assert score.score == pytest.approx(1 / (1 + np.exp(-score.logit)))
    assert (where.name, where.box) == ("traces", Box(0, 0, 256, 300))
    # The declared columns are those names: nothing that is said is lost on the way to the fusion.
    row = feature_row(answer, {"pixel": DECLARATION}, "p_ai")
    assert row[f"pixel.{strength}"] == pytest.approx(np.clip(score.logit, -10, 10))
    assert row["pixel.residual"] == pytest.approx(np.clip(residual.logit, -10, 10))
    assert {c.evidence for c in DECLARATION.columns} == set(STRENGTHS) - {"auto", "dda"} | {"residual"}


def test_the_score_is_the_models_mean_over_the_crops(stand_ins, runtime):
    seen = view(500, 460)
    model = weights_files.load_bundled(stand_ins.files[1]).eval()
    with torch.inference_mode():
        want = [model(torch.from_numpy(c.copy())[None])[0].item() for c in seen.crops]
    assert len(want) > 2
    assert logits(detector(strength="bundled").detect([seen], runtime)) == pytest.approx([np.mean(want)], abs=1e-5)


def test_auto_takes_the_tower_where_it_is(stand_ins, runtime):
    (answer,) = detector().detect([view(130, 130)], runtime)
    assert answer[0].name == "tower"
    assert runtime.counters.builds == {CLIP_VIT_B16: 1, "pixel-tower": 1, "pixel-residual": 1}


def test_auto_takes_what_ships_where_the_tower_is_not(stand_ins, runtime, monkeypatch):
    monkeypatch.setattr(shared, "locate", lambda name: None)
    (answer,) = detector().detect([view(130, 130)], runtime)
    assert answer[0].name == "bundled"
    assert runtime.counters.builds == {"pixel-bundled": 1, "pixel-residual": 1}


def test_the_tower_that_was_asked_for_and_is_not_here_is_unavailable(stand_ins, runtime, monkeypatch):
    monkeypatch.setattr(shared, "locate", lambda name: None)
    with pytest.raises(UnavailableError, match="tellsign models fetch clip-vit-b16"):
        detector(strength="tower").detect([view(130, 130)], runtime)


def test_both_strengths_share_one_runtime_and_build_each_model_once(stand_ins, runtime):
    for _ in range(2):
        for strength in ("tower", "bundled"):
            detector(strength=strength).detect([view(130, 130)], runtime)
    assert set(runtime.counters.builds.values()) == {1}
    assert set(runtime.counters.builds) == {CLIP_VIT_B16, "pixel-tower", "pixel-bundled", "pixel-residual"}


def test_a_damaged_weights_file_is_named(stand_ins, runtime):
    stand_ins.files[1].write_bytes(b"not safetensors")
    with pytest.raises(WeightsError, match=str(stand_ins.files[1])):
        detector(strength="bundled").detect([view(130, 130)], runtime)


def test_the_residual_score_is_the_probes_mean_over_the_crops(stand_ins, runtime):
    seen = [view(500, 460), view(10, 10), view(140, 160)]
    answers = detector(strength="bundled").detect(seen, runtime)
    probe = weights_files.load_residual().eval()
    for v, answer in zip(seen, answers, strict=True):
        found = [e.logit for e in answer if isinstance(e, ScoreEvidence) and e.name == "residual"]
        with torch.inference_mode():
            want = [probe(torch.from_numpy(c.copy())[None]).item() for c in v.crops]
        assert found == pytest.approx([np.mean(want)] if want else [], abs=1e-4)


def test_a_file_that_holds_no_probe_is_named(stand_ins):
    with pytest.raises(WeightsError, match="does not hold the probe on residuals"):
        weights_files.load_residual(stand_ins.files[0])


# -- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"strenght": "tower"}, "settings of pixel takes strength, dda_weights, download, got 'strenght'"),
        ({"strength": "large"}, "strength takes one of auto, tower, bundled, dda, got 'large'"),
        ({"strength": None}, "strength takes one of .*, got None"),
        ({"dda_weights": 7}, "dda_weights takes a path, got 7"),
        ({"download": "yes"}, "download takes true or false, got 'yes'"),
    ],
)
def test_wrong_settings_are_refused(settings, told):
    with pytest.raises(SettingError, match=told):
        PixelDetector(DECLARATION, settings)


def test_the_hook_returns_the_declared_class():
    found = pixel.tellsign_detector()
    assert f"{found.__module__}:{found.__qualname__}" == DECLARATION.detector


# -- pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (127, 500), (4000, 1)])
def test_a_picture_without_crops_is_not_applicable(stand_ins, runtime, size):
    (answer,) = detector(strength="bundled").detect([view(*size)], runtime)
    (only,) = answer
    assert isinstance(only, NotApplicable)
    assert f"{size[0]} x {size[1]} px" in only.reason
    assert not runtime.counters.builds  # nothing was loaded for it


@pytest.mark.parametrize("size", [(128, 128), (200, 500), (1200, 900), (3000, 130)])
@pytest.mark.parametrize("strength", ["tower", "bundled"])
def test_pictures_of_any_shape_get_a_score_and_a_map(stand_ins, runtime, size, strength):
    (answer,) = detector(strength=strength).detect([view(*size)], runtime)
    score, where, residual = answer
    assert np.isfinite(residual.logit)
    assert np.isfinite(score.logit)
    assert 0 <= score.score <= 1
    rows, columns = where.map.shape
    assert max(rows, columns) <= CELLS
    assert where.map.min() >= 0
    assert where.map.max() <= 1


def test_answers_keep_their_places_and_depend_on_their_own_picture_only(stand_ins, runtime):
    one = detector(strength="bundled")
    views = [view(300, 300), view(20, 20), view(128, 140), view(1, 1), view(500, 300, seed=3), view(128, 128)]
    together = one.detect(views, runtime)
    assert [len(a) for a in together] == [3, 1, 3, 1, 3, 3]
    for v, answer in zip(views, together, strict=True):
        (alone,) = one.detect([v], runtime)
        for a, b in zip(alone, answer, strict=True):
            assert type(a) is type(b)
            if isinstance(a, ScoreEvidence):
                assert a.logit == pytest.approx(b.logit, abs=1e-5)
            if isinstance(a, MapEvidence):
                np.testing.assert_allclose(a.map, b.map, atol=1e-5)
    assert one.detect(views, runtime) == together
    assert one.detect([], runtime) == []


@pytest.mark.parametrize("strength", ["tower", "bundled"])
def test_the_batch_size_does_not_decide(stand_ins, strength):
    views = [view(500, 460), view(300, 700, seed=1)]
    found = [logits(detector(strength=strength).detect(views, DeviceRuntime("cpu", batch_size=n))) for n in (1, 3, 64)]
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert found[0] == pytest.approx(found[2], abs=1e-5)


def test_no_more_crops_at_once_than_the_runtime_allows(stand_ins, monkeypatch):
    sizes = []
    original = strengths.PixelModel.forward

    def watched(model, crops):
        sizes.append(len(crops))
        return original(model, crops)

    monkeypatch.setattr(strengths.PixelModel, "forward", watched)
    detector(strength="bundled").detect([view(700, 700), view(700, 700, seed=1)], DeviceRuntime("cpu", batch_size=3))
    assert max(sizes) == 3
    assert sum(sizes) == 10


def test_eight_threads_get_what_one_gets(stand_ins, runtime):
    one = detector(strength="tower")
    views = [view(140 + 10 * i, 150, seed=i) for i in range(8)]
    want = [logits(one.detect([v], runtime)) for v in views]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda v: logits(one.detect([v], runtime)), views * 2))
    assert got == want * 2
    assert set(runtime.counters.builds.values()) == {1}


def test_another_tasks_view_is_refused(stand_ins, runtime):
    other = SemanticView(key="k", image=np.zeros((4, 4, 3), np.uint8), width=4, height=4)
    with pytest.raises(TypeError, match="PixelView only"):
        detector(strength="bundled").detect([view(130, 130), other], runtime)


def test_the_bare_forward_for_bench_runs_the_same_crops(stand_ins, runtime):
    seen = [view(300, 300), view(10, 10)]
    one = detector(strength="bundled")
    outputs = one.bench_forward(seen, runtime)()
    got = torch.cat([logit for logit, _ in outputs])
    assert len(got) == 2 * len(seen[0].crops)
    (answer,) = one.detect(seen[:1], runtime)
    want = [e.logit for e in answer if isinstance(e, ScoreEvidence)]
    assert got.view(2, -1).mean(dim=1).tolist() == pytest.approx(want, abs=1e-5)


def test_stacks_hold_neighbours_of_one_shape():
    big, small = np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    shapes = [b.shape for b in batches([big, big, big, small, big, big], 2)]
    assert shapes == [(2, 4, 4, 3), (1, 4, 4, 3), (1, 2, 2, 3), (2, 4, 4, 3)]
    assert batches([], 4) == []


# -- the map ------------------------------------------------------------------------------------------------------


def crop_view(width, height, *boxes):
    crops = tuple(np.zeros((b.height, b.width, 3), np.uint8) for b in boxes)
    return PixelView(key="k", crops=crops, boxes=boxes, kinds=("random",) * len(boxes), width=width, height=height)


def test_the_map_lies_where_the_crops_lie():
    seen = crop_view(640, 320, Box(0, 0, 128, 128), Box(512, 192, 640, 320))
    low, high = np.full((8, 8), -30, np.float32), np.full((8, 8), 30, np.float32)
    found = heat_map(seen, [low, high])
    assert found.shape == (20, 40)  # cells of 16 px
    assert found[12:, 32:] == pytest.approx(np.ones((8, 8)))
    found[12:, 32:] = 0
    assert found.max() < 1e-9


def test_one_hot_patch_shows_in_its_cell_and_its_neighbours():
    patch = np.zeros((8, 8), np.float32)
    patch[5, 2] = 18.0  # averaged over 3 x 3 patches: a logit of 2
    found = heat_map(crop_view(256, 256, Box(64, 128, 192, 256)), [patch])
    expected = np.zeros((16, 16))
    expected[8:16, 4:12] = 0.5
    expected[8 + 4 : 8 + 7, 4 + 1 : 4 + 4] = 1 / (1 + np.exp(-2))
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (3, 11), (1, 6), (2, 1), (1, 1)])
def test_smoothing_keeps_the_mean_and_reads_neighbours_alone(shape):
    patch = np.random.default_rng(0).normal(0, 3, shape).astype(np.float32)
    found = smooth(patch)
    assert (found.shape, found.dtype) == (shape, np.float32)
    # Patch logits average to the crop's logit: smoothed ones still do.
    assert found.mean() == pytest.approx(patch.mean(), abs=1e-5)
    for i, j in np.ndindex(shape):
        rows, columns = (np.clip([k - 1, k, k + 1], 0, n - 1) for k, n in zip((i, j), shape, strict=True))
        assert found[i, j] == pytest.approx(patch[np.ix_(rows, columns)].mean(), abs=1e-5)


def test_overlapping_crops_are_averaged():
    box = Box(0, 0, 128, 128)
    found = heat_map(crop_view(128, 128, box, box), [np.full((8, 8), 30, np.float32), np.full((8, 8), -30, np.float32)])
    assert found == pytest.approx(np.full((8, 8), 0.5))


def test_large_pictures_have_64_cells_a_side_and_no_holes_inside_a_crop():
    found = heat_map(crop_view(6400, 200, Box(0, 0, 200, 200)), [np.full((12, 12), 30, np.float32)])
    assert found.shape == (2, 64)
    assert found[:, :2] == pytest.approx(np.ones((2, 2)))
    assert found[:, 2:].max() == 0


def test_the_map_averages_to_the_score_where_one_crop_covers_all(stand_ins, runtime):
    """Patch logits average to the logit, so a map and a score of one crop never contradict each other."""
    (answer,) = detector(strength="bundled").detect([view(128, 128)], runtime)
    score, where, _ = answer
    cells = np.clip(where.map.astype(np.float64), 1e-9, 1 - 1e-9)
    assert where.map.shape == (8, 8)
    assert np.log(cells / (1 - cells)).mean() == pytest.approx(score.logit, abs=1e-2)


def test_extreme_logits_stay_finite_and_inside(stand_ins, runtime, monkeypatch):
    class Shouting:
        name, version, alone = "bundled", "shouting 1", False
        crops = staticmethod(lambda v: v.crops)

        @staticmethod
        def lent(runtime):
            return nullcontext(lambda x: (torch.full((len(x),), 1e6), torch.full((len(x), 8, 8), -1e6)))

    one = detector(strength="bundled")
    one.strength = Shouting()
    (answer,) = one.detect([view(128, 128)], runtime)
    assert 0.999 < answer[0].score <= 1
    assert 0 <= answer[1].map.max() < 1e-9


def test_evidence_survives_json(stand_ins, runtime):
    (answer,) = detector(strength="bundled").detect([view(200, 300)], runtime)
    for evidence in answer:
        text = dumps(evidence)
        assert json.loads(text)["plugin"] == "pixel"
        assert loads(text, Evidence).model == evidence.model
