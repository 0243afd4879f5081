"""The audit on toys: it tells a detector of traces from a detector of meaning, and says so in numbers."""

import json

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from tellsign.audit import matrix
from tellsign.audit.changes import CHANGES, changed, fitted, partners, round_trip, split
from tellsign.audit.page import html
from tellsign.audit.run import audit
from tellsign.errors import SettingError
from tellsign.evaluation.dataset import DataError, load
from tellsign.schemas import Column, Declaration, Picture, ScoreEvidence, Task

KINDS = {c.name: c.kind for c in CHANGES}


# -- changes --------------------------------------------------------------------------------------------------------


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.name)
def test_a_change_keeps_the_size_and_repeats_itself(change):
    picture = Picture(pixels=noise(70, 90), overview=Picture(pixels=noise(50, 40, 1)))
    partner = Picture(pixels=noise(64, 200, 2), overview=Picture(pixels=noise(80, 80, 3)))
    once, again = (changed(picture, partner, change, seed=4) for _ in range(2))
    assert once == again
    assert once.pixels.shape == (70, 90, 3)
    assert once.overview.pixels.shape == (50, 40, 3)
    assert once != picture


def test_content_and_trace_are_exchanged():
    flat = np.full((60, 60, 3), 90, np.uint8)
    grainy = np.clip(160 + np.random.default_rng(0).normal(0, 12, (60, 60, 3)), 0, 255).astype(np.uint8)
    by_name = {c.name: c for c in CHANGES}
    a, b = Picture(pixels=flat), Picture(pixels=grainy)
    moved = changed(a, b, by_name["foreign trace"], seed=0).pixels.astype(float)
    assert moved.mean() == pytest.approx(90, abs=1)
    assert moved.std() == pytest.approx(grainy.std(), rel=0.1)
    other = changed(a, b, by_name["foreign content"], seed=0).pixels.astype(float)
    assert other.mean() == pytest.approx(160, abs=1)
    assert other.std() < 0.3 * grainy.std()


@settings(max_examples=20, deadline=None)
@given(st.integers(8, 60), st.integers(8, 60), st.integers(0, 99))
def test_content_and_trace_add_up_to_the_picture(height, width, seed):
    pixels = noise(height, width, seed)
    np.testing.assert_allclose(sum(split(pixels)), pixels, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(*(st.integers(1, 80) for _ in range(4)))
def test_a_partner_fits_any_size(height, width, own_height, own_width):
    partner = noise(own_height, own_width)
    got = fitted(partner, height, width)
    assert got.shape == (height, width, 3)
    if own_height >= height and own_width >= width:  # its native pixels
        top, left = (own_height - height) // 2, (own_width - width) // 2
        np.testing.assert_array_equal(got, partner[top : top + height, left : left + width])


def test_partners_are_others_of_the_source_or_of_the_other_class():
    labels, sources = [0, 0, 0, 1, 1, 1], ["a", "a", "b", "c", "c", "d"]
    same = partners(labels, sources, seed=0, same_source=True)
    assert same[:2] == [1, 0]
    assert same[3:5] == [4, 3]
    assert labels[same[2]] == 0
    assert same[2] != 2
    other = partners(labels, sources, seed=0, same_source=False)
    assert [labels[j] for j in other] == [1, 1, 1, 0, 0, 0]
    assert partners([0], ["a"], seed=0, same_source=True) == [0]


def test_a_folder_without_an_autoencoder_is_refused(tmp_path):
    with pytest.raises(SettingError, match="autoencoder takes a folder"):
        round_trip(tmp_path)


def test_the_round_trip_keeps_the_size(tmp_path):
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    blocks = {"0.weight": torch.randn(8, 3, 3, 3) * 0.1, "0.bias": torch.zeros(8)}
    blocks |= {"1.weight": torch.randn(4, 8, 3, 3) * 0.1}  # without a bias: halves the size
    save_file(blocks, tmp_path / "taesd_encoder.safetensors")
    back = {"1.weight": torch.randn(8, 4, 3, 3) * 0.1, "1.bias": torch.zeros(8)}
    back |= {"4.weight": torch.randn(3, 8, 3, 3) * 0.1, "4.bias": torch.zeros(3)}
    save_file(back, tmp_path / "taesd_decoder.safetensors")
    change = round_trip(tmp_path)
    assert (change.name, change.kind) == ("autoencoder", "pixel")
    picture = Picture(pixels=noise(37, 45))
    made = changed(picture, picture, change, seed=0).pixels
    assert made.shape == (37, 45, 3)
    assert (made[32:] == picture.pixels[32:]).all()
    assert (made[:32, :40] != picture.pixels[:32, :40]).any()


# -- numbers --------------------------------------------------------------------------------------------------------


def test_sensitivity_is_in_standard_deviations():
    before = np.array([0.0, 2.0, np.nan, 4.0])
    spread = np.std([0.0, 2.0, 4.0])
    after = np.array([1.0, 1.0, 5.0, 4.0])
    assert matrix.sensitivity(before, after) == pytest.approx((2 / 3) / spread)
    assert matrix.sensitivity(before, before) == 0
    assert matrix.sensitivity(np.zeros(3), np.ones(3)) is None
    label = np.array([0, 0, 0, 1])
    assert matrix.drift(label, before, after, 0) == pytest.approx(0)
    assert matrix.drift(label, before, before + 1, 1) == pytest.approx(1 / spread)
    rng = np.random.default_rng(0)
    two = rng.normal(size=(2, 20000))
    assert matrix.sensitivity(*two) == pytest.approx(1.13, abs=0.03)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.floats(0, 0.9))
def test_at_the_threshold_no_more_reals_are_accused_than_allowed(scores, fpr):
    label, values = np.zeros(len(scores), int), np.array(scores)
    assert (values > matrix.threshold(label, values, fpr)).mean() <= fpr


def test_blind_spots_of_two_specialists():
    """Each detector sees one half of the fakes and nothing of the other; what one misses the other catches."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1, 1], 200)
    source = ["real"] * 200 + ["traces"] * 200 + ["meaning"] * 200
    pixel, semantic = rng.normal(size=(2, 600)) * 0.3 - 2
    pixel[200:400] += 4
    semantic[400:] += 4
    told = matrix.blind_spots(label, source, {"pixel": pixel, "semantic": semantic}, fpr=0.05)
    assert told["caught"]["traces"]["pixel"] == 1
    assert told["caught"]["traces"]["semantic"] < 0.15  # chance is the rate of false accusations
    assert told["caught"]["meaning"]["semantic"] == 1
    assert told["caught"]["meaning"]["pixel"] < 0.15
    assert told["rescued"]["pixel"]["semantic"] == 1
    rules = matrix.or_against_fusion(label, {"pixel": pixel, "semantic": semantic}, np.full(600, np.nan))
    assert rules["or"]["tpr"] == 1
    assert rules["or"]["auc"] > max(matrix.accuracy(label, s)["auc"] for s in (pixel, semantic)) + 0.2
    assert rules["fusion"]["n"] == 0


def test_small_generators_are_pooled_and_missing_scores_catch_nothing():
    label = np.array([0, 0, 1, 1])
    told = matrix.blind_spots(label, ["r", "r", "a", "b"], {"d": np.array([0.0, 1.0, np.nan, 5.0])})
    assert told["caught"] == {matrix.POOLED: {"n": 2, "d": 0.5}}


def test_the_or_of_missing_answers_takes_those_that_are_there():
    label = np.array([0, 1, 1])
    scores = {"a": np.array([-1.0, np.nan, np.nan]), "b": np.array([np.nan, 2.0, np.nan])}
    told = matrix.or_against_fusion(label, scores, np.array([0.1, 0.9, 0.2]))
    assert told["or"]["n"] == 2
    assert (told["or"]["tpr"], told["or"]["fpr"]) == (1, 0)
    assert told["fusion"]["tpr"] == 0.5


# -- the whole run --------------------------------------------------------------------------------------------------


def declaration(name, task):
    return Declaration(
        name=name,
        version="1",
        api_version=1,
        task=task,
        detector="toy:Toy",
        summary="toy",
        columns=(Column(name="score", evidence="score"),),
        code_licence="Apache-2.0",
        weights_licence="none",
        commercial_use=True,
    )


@attrs.frozen
class Said:
    """A verdict's two parts that the audit reads."""

    evidence: tuple
    p_ai: float


class Toys:
    """One toy looks at the finest detail only, the other at the mean colour only."""

    versions = {"toys": "1"}  # noqa: RUF012
    declarations = {"fine": declaration("fine", Task.PIXEL), "coarse": declaration("coarse", Task.SEMANTIC)}  # noqa: RUF012

    def collect(self, picture):
        pixels = picture.pixels.astype(float)
        fine = np.log(np.abs(np.diff(pixels, axis=1)).mean() + 1)
        coarse = (pixels.mean() - 128) / 16
        return tuple(
            ScoreEvidence(
                plugin=n, task=self.declarations[n].task, model="toy 1", name="score", score=0.5, logit=float(v)
            )
            for n, v in (("fine", fine), ("coarse", coarse))
        )

    def collect_many(self, sources, *, batch_size=None):
        return map(self.collect, sources)


@pytest.fixture
def toys(monkeypatch):
    from tellsign.audit import run

    monkeypatch.setattr(run, "Verdict", Said)
    made = Toys()
    made.detect_many = lambda sources, *, batch_size=None: (Said(made.collect(p), 0.6) for p in sources)
    return made


@pytest.fixture
def folder(tmp_path):
    """Pictures that differ in brightness, generated ones in grain too."""
    rng = np.random.default_rng(0)
    for side, grain in (("real", 2), ("fake", 14)):
        for source in ("one", "two"):
            where = tmp_path / "data" / side / source
            where.mkdir(parents=True)
            for i in range(6):
                values = rng.uniform(60, 190) + rng.normal(0, grain * rng.uniform(0.8, 1.2), (210, 230, 3))
                Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(where / f"{i}.png")
    return tmp_path / "data"


def test_the_audit_tells_traces_from_meaning(toys, folder):
    ticks = []
    found = audit(load(folder), toys, normalise=False, progress=lambda done, total: ticks.append((done, total)))
    told = found.report["detectors"]
    assert set(told) == {"fine.score", "coarse.score"}
    fine, coarse = told["fine.score"], told["coarse.score"]
    assert fine["auc"] == 1
    assert 0.2 < coarse["auc"] < 0.8
    for change, kind in KINDS.items():
        if kind == "pixel":
            assert coarse["sensitivity"][change] < 0.05
    assert fine["sensitivity"]["foreign trace"] > 0.5
    assert fine["sensitivity"]["foreign content"] < 0.1
    assert coarse["sensitivity"]["foreign content"] > 0.5
    assert coarse["mean_sensitivity"]["semantic_share"] > 0.9 > 0.5 > fine["mean_sensitivity"]["semantic_share"]
    total = 24 * (len(CHANGES) + 1)
    assert ticks == [(i, total) for i in range(1, total + 1)]
    assert audit(load(folder), toys, normalise=False).report == json.loads(json.dumps(found.report))


def test_the_page_shows_every_change_and_asks_for_nothing(toys, folder):
    found = audit(load(folder), toys, normalise=True)
    assert found.report["settings"]["pipeline"] == "normalise"
    page = html(found)
    for change in CHANGES:
        assert change.name in page
    assert page.count("<img ") == 4 * (len(CHANGES) + 1)
    assert 'src="data:image/jpeg;base64,' in page
    assert "://" not in page
    assert "<script" not in page


def test_one_class_or_no_detector_is_refused(toys, folder):
    (tmp := folder / "real" / "one" / "0.png").write_bytes(b"no picture")
    found = audit(load(folder), toys, normalise=False)
    assert [e["path"] for e in found.report["errors"]] == [str(tmp.relative_to(folder))]
    toys.collect = lambda picture: ()
    with pytest.raises(SettingError, match="at least one detector"):
        audit(load(folder), toys, normalise=False)
    for file in (folder / "real").rglob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(SettingError, match="readable pictures of both classes"):
        audit(load(folder), toys, normalise=False)


def test_the_command_refuses_bad_input_before_it_scores(folder, tmp_path):
    from tellsign.cli.app import app

    def run(*words):
        return CliRunner().invoke(app, ["audit", *map(str, words)])

    assert run(tmp_path / "nowhere").exit_code == 2
    answer = run(folder, "--html", tmp_path / "no" / "page.html")
    assert answer.exit_code == 2
    assert "does not exist" in answer.output
    answer = run(folder, "--autoencoder", tmp_path)
    assert answer.exit_code == 2
    assert "takes a folder with weights" in answer.output


# -- blind spots of a table of scores -------------------------------------------------------------------------------


def test_blind_spots_are_read_off_a_table_of_scores(tmp_path):
    from tellsign.audit.__main__ import app

    lines = ["a,b,label,group,source"]
    lines += [f"{-1 - i},{-2 + i / 10},0,r{i},camera" for i in range(10)]
    lines += [f"5,-9,1,f{i},one" for i in range(6)] + [f"-9,5,1,g{i},two" for i in range(6)]
    lines += ["-9,-9,1,f0,one", ",5,1,h,two"]  # a second version, and a picture that one detector did not judge
    table = tmp_path / "scores.csv"
    table.write_text("\n".join(lines) + "\n")
    told = CliRunner().invoke(app, [str(table), "--columns", "a,b"])
    assert told.exit_code == 0, told.output
    assert "22 pictures, 10 real" in told.output
    assert "| one | 6 | 1.00 | 0.00 |" in told.output
    assert "| two | 6 | 0.00 | 1.00 |" in told.output
    assert "of what a misses, b catches 1.00" in told.output
    told = CliRunner().invoke(app, [str(table), "--columns", "a,c"])
    assert isinstance(told.exception, DataError)
    assert "no column c" in str(told.exception)
