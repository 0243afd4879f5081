"""The metrics and tables that say whether the maps see anything."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from tellsign.errors import SettingError
from tellsign.plugins.segmentation.model import CELL
from tellsign.plugins.segmentation.training import __main__ as commands
from tellsign.plugins.segmentation.training import evaluate as evaluating
from tellsign.plugins.segmentation.training.baselines import best_cut, noise_map
from tellsign.plugins.segmentation.training.data import load, read_forged
from tellsign.plugins.segmentation.training.evaluate import auc, half, in_markdown, jpeg90, look_at_all, table
from tellsign.plugins.segmentation.training.metrics import Counts, pool


@pytest.fixture(scope="module")
def forged(toys, tmp_path_factory):
    return toys.draw_forged(tmp_path_factory.mktemp("forged") / "set", count=8, side=128)


def knowing(forged):
    """A network that knows the truth: it recognises each picture and gives its masks."""
    truth = {}
    for row in read_forged(forged):
        sample = load(row)
        truth[sample.pixels[:8, :8].tobytes()] = (row, sample)

    def forward(batch):
        logits, masks = [], []
        for tile in batch:
            row, sample = truth[tile[:8, :8].tobytes()]
            logits.append(3.0 if row.cls else -3.0)
            masks.append(np.stack([sample.ai, sample.manipulation], axis=-1)[::CELL, ::CELL])
        return np.array(logits, np.float32), np.stack(masks).astype(np.float32)

    return forward


def blind(batch):
    shape = (len(batch), batch.shape[1] // CELL, batch.shape[2] // CELL, 2)
    return np.zeros(len(batch), np.float32) - 1, np.zeros(shape, np.float32)


def test_counts_by_hand():
    marked = np.array([[True, True], [False, False]])
    truth = np.array([[True, False], [True, False]])
    counts = Counts.of(marked, truth)
    assert (counts.tp, counts.fp, counts.fn) == (1, 1, 1)
    assert (counts.f1, counts.iou) == (0.5, pytest.approx(1 / 3))
    assert counts.f1 == pytest.approx(2 * counts.iou / (1 + counts.iou))
    assert Counts().f1 is None
    # Pooling sums before it divides; the mean of the pictures' F1 would be 0.75.
    pooled = pool([Counts(1, 1, 1), Counts(100, 0, 0)])
    assert pooled.f1 == pytest.approx(202 / 204)


def test_the_auc_counts_ties_half():
    assert auc([1, 2], [0, 1]) == 0.875
    assert auc([], [1]) is None


def test_one_that_knows_scores_one(forged):
    told = table(look_at_all(read_forged(forged), knowing(forged), progress=False))
    assert told["masks"]["ai blend/blur"]["f1"] > 0.9
    assert told["masks"]["manipulation copymove/paste"]["f1"] > 0.9
    assert told["masks"]["ai generated"]["f1"] == 1
    assert told["masks"]["ai generated"]["all_ones_f1"] == 1
    assert "manipulation generated" not in told["masks"]
    assert told["classes"]["all"]["auc_max"] == 1
    assert told["classes"]["all"]["balanced_accuracy"] == 1
    assert told["false_alarm"]["ai"] == {"median": 0, "p95": 0, "mean": 0}
    assert told["untouched"] == 2
    for line in told["masks"].values():
        assert line["above"] == pytest.approx(line["f1"] - max(line["all_ones_f1"], line["noise_f1"]))


def test_one_that_is_blind_scores_nothing(forged):
    told = table(look_at_all(read_forged(forged), blind, progress=False))
    assert told["masks"]["ai blend/blur"]["f1"] == 0
    assert told["classes"]["all"]["auc_max"] == 0.5
    assert told["classes"]["all"]["balanced_accuracy"] == 0.5


def test_the_noise_map_is_a_real_rival(forged):
    """It finds blurred regions in noise far better than marking everything does."""
    told = table(look_at_all(read_forged(forged), blind, progress=False))
    line = told["masks"]["ai blend/blur"]
    assert line["noise_f1"] > line["all_ones_f1"] + 0.2


def test_the_noise_map_of_even_noise_is_low():
    rng = np.random.default_rng(0)
    even = np.clip(rng.normal(128, 10, (128, 128, 3)), 0, 255).astype(np.uint8)
    assert np.median(noise_map(even)) < 0.35


def test_the_best_cut_is_the_best():
    good = [Counts(0, 0, 10)] * 9 + [Counts(8, 2, 2)] + [Counts(0, 0, 10)] * 9
    cut, counts = best_cut([good, good])
    assert cut == pytest.approx(0.5)
    assert counts.tp == 16


def test_conditions_keep_picture_and_masks_together(forged):
    sample = load(read_forged(forged)[1])
    small = half(sample)
    assert small.pixels.shape == (64, 64, 3)
    assert small.ai.shape == (64, 64)
    assert small.ai.mean() == pytest.approx(sample.ai.mean(), abs=0.02)
    assert jpeg90(sample).pixels.shape == sample.pixels.shape
    assert (jpeg90(sample).pixels != sample.pixels).any()
    with pytest.raises(SettingError, match="condition"):
        look_at_all([], blind, "upside down")


def test_tables_are_markdown(forged):
    told = {"native": table(look_at_all(read_forged(forged), knowing(forged), progress=False))}
    text = in_markdown(told)
    assert "| native | ai blend/blur | 2 |" in text
    assert "| native | ai | 2 | 0.00 % | 0.00 % | 0.00 % |" in text


# -- the commands -------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(monkeypatch):
    monkeypatch.setattr(commands, "_forward", lambda weights: blind)
    return CliRunner()


def test_evaluate_prints_tables_and_writes_json(shell, forged, tmp_path):
    out = tmp_path / "numbers.json"
    done = shell.invoke(commands.app, ["evaluate", "--folder", str(forged), "--out", str(out), "--limit", "1"])
    assert done.exit_code == 0, done.output
    assert "| half | manipulation copymove/paste | 1 |" in done.output
    assert set(json.loads(out.read_text())) == {"native", "jpeg90", "half"}


def test_hand_edited_pictures_are_measured(shell, forged, tmp_path):
    (tmp_path / "manifest.csv").write_text("image,mask,manipulation\n")
    picture, mask = (forged / "pictures" / "1.png"), (forged / "masks" / "1.png")
    (tmp_path / "manifest.csv").write_text(f"image,mask,manipulation\n{picture},{mask},brush\n")
    done = shell.invoke(commands.app, ["tampered", "--folder", str(tmp_path), "--conditions", "native"])
    assert done.exit_code == 0, done.output
    assert "| native | manipulation hand/brush | 1 | 0.000 |" in done.output


def test_overlays_draw_every_picture(shell, forged, tmp_path):
    from PIL import Image

    out = tmp_path / "sheet.png"
    done = shell.invoke(commands.app, ["overlays", "--folder", str(forged), "--out", str(out), "--count", "4"])
    assert done.exit_code == 0, done.output
    assert Image.open(out).size == (8 * 256, 2 * 256)


def test_an_overlay_shows_truth_and_maps(forged):
    row = read_forged(forged)[1]
    sample = load(row)
    _, seen = evaluating.look(row, sample, knowing(forged))
    strip = evaluating.overlay(sample, seen, side=128)
    assert strip.shape == (128, 512, 3)
    inside = sample.ai > 0
    red = strip[:, 256:384, 0].astype(float)
    assert red[inside].mean() > red[~inside].mean() + 80


def test_a_loud_manipulation_map_is_cut_higher_unless_asked_for_one_cut(forged):
    def loud(batch):
        masks = np.full((len(batch), batch.shape[1] // CELL, batch.shape[2] // CELL, 2), 0.6, np.float32)
        return np.zeros(len(batch), np.float32), masks

    rows = read_forged(forged)
    own, one = (look_at_all(rows, loud, own=own, progress=False) for own in (True, False))
    assert {s.area["manipulation"] for s in own} == {0}
    assert {s.area["manipulation"] for s in one} == {1}
    assert {s.area["ai"] for s in own + one} == {1}
