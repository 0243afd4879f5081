"""A native piece of a picture with the whole beside it: meaning is looked at in the whole, traces in the piece."""

import numpy as np
import pytest
from PIL import Image

from tellsign.data.normalise import OVERVIEW_SIDES, PROPORTIONS, SIDES, normalise, normalise_picture, overview
from tellsign.errors import SettingError
from tellsign.evaluation.dataset import load
from tellsign.evaluation.run import evaluate
from tellsign.schemas import Label, Picture, PredictionSet, Task, UncertainReason, Verdict
from tellsign.schemas.checks import InvalidValueError
from tellsign.stability import saved_again
from tellsign.views import build_view


def plain(colour, height=300, width=300):
    return np.full((height, width, 3), colour, np.uint8)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_views_of_meaning_show_the_whole_and_the_others_the_piece():
    picture = Picture(pixels=plain(20), overview=Picture(pixels=plain(220, 400, 500)))
    for task in Task:
        view = build_view(task, picture, "k")
        if task in (Task.SEMANTIC, Task.REASONING):
            assert view.image.mean() > 200
            assert (view.width, view.height) == (500, 400)
        elif task is Task.PIXEL:
            assert all(crop.mean() < 30 for crop in view.crops)
        elif task is Task.SEGMENTATION:
            assert view.image.mean() < 30


def test_a_picture_without_an_overview_is_its_own_whole():
    picture = Picture(pixels=plain(20))
    assert picture.whole is picture
    assert build_view(Task.SEMANTIC, picture, "k").image.mean() < 30


@pytest.mark.parametrize("bad", ["a.png", np.zeros((4, 4, 3), np.uint8), "nested"])
def test_an_overview_is_a_picture_and_has_none_itself(bad):
    if isinstance(bad, str) and bad == "nested":
        bad = Picture(pixels=plain(1), overview=Picture(pixels=plain(2)))
    with pytest.raises(InvalidValueError, match=r"Picture\.overview"):
        Picture(pixels=plain(0), overview=bad)


def test_copies_of_the_stability_probe_save_both_again():
    piece, whole = noise(64, 64), noise(80, 100, 1)
    for _, copy in saved_again(Picture(pixels=piece, overview=Picture(pixels=whole))):
        assert copy.pixels.shape == piece.shape
        assert copy.overview.pixels.shape == whole.shape
        assert np.abs(copy.overview.pixels.astype(int) - whole).mean() > 1


def test_the_window_does_not_depend_on_the_overview():
    pixels = noise(330, 500)
    made = normalise_picture(pixels, 7)
    np.testing.assert_array_equal(made.pixels, normalise(pixels, 7))
    np.testing.assert_array_equal(made.overview.pixels, overview(pixels, np.random.default_rng([7, 1])))


@pytest.mark.parametrize("shape", [(256, 256), (300, 900), (900, 300), (512, 512)])
def test_overviews_have_one_range_of_sizes_and_proportions(shape):
    pixels = noise(*shape)
    proportions = []
    for seed in range(12):
        height, width = overview(pixels, np.random.default_rng(seed)).shape[:2]
        assert OVERVIEW_SIDES[0] <= min(height, width) <= OVERVIEW_SIDES[1]
        proportions.append(width / height)
    assert PROPORTIONS[0] * 0.99 <= min(proportions) < 1 < max(proportions) <= PROPORTIONS[1] * 1.01


def test_an_overview_shows_nearly_everything_of_a_common_picture():
    # Corners marked: a cut from 3:4 to 4:3 of a 4:3 picture loses at most 44 % of it, and never the middle.
    pixels = plain(0, 300, 400)
    pixels[140:160, 190:210] = 255
    for seed in range(10):
        out = overview(pixels, np.random.default_rng(seed))
        assert (out.max(axis=2) > 200).mean() == pytest.approx(400 / (300 * 400), rel=0.9)


def test_what_is_a_window_already_is_not_cut():
    made = normalise_picture(noise(400, 380), 3, cut=False)
    assert made.overview is None
    assert SIDES[0] <= made.width == made.height <= SIDES[1]
    with pytest.raises(SettingError, match="192 px"):
        normalise_picture(noise(400, 100), 3, cut=False)


def test_conditions_apply_to_piece_and_whole_alike(tmp_path):
    for label in ("real", "fake"):
        (tmp_path / label).mkdir()
        for i in range(2):
            Image.fromarray(noise(330, 400, i + 10 * (label == "fake"))).save(tmp_path / label / f"{i}.png")
    seen = []

    class Recorder:
        versions = {}  # noqa: RUF012

        def detect_many(self, sources, *, batch_size=None, on_error="raise"):
            for picture in sources:
                seen.append((picture.pixels.shape, picture.overview.pixels.shape))
                yield Verdict(
                    label=Label.UNCERTAIN,
                    reason=UncertainReason.SEVERAL_LABELS,
                    p_ai=0.5,
                    prediction_set=PredictionSet(labels=(Label.AUTHENTIC, Label.AI_GENERATED), error_rate=0.05),
                    width=picture.width,
                    height=picture.height,
                )

    evaluate(load(tmp_path), Recorder(), conditions="native,half", normalise=True, draws=2)
    assert len(seen) == 8
    for native, half in zip(seen[::2], seen[1::2], strict=True):
        for before, after in zip(native, half, strict=True):
            assert [round(n / 2) for n in before[:2]] == pytest.approx(after[:2], abs=1)
        assert SIDES[0] <= native[0][0] <= SIDES[1]
        assert OVERVIEW_SIDES[0] <= min(native[1][:2]) <= OVERVIEW_SIDES[1]
