"""The semantic plugin's mechanics, on tiny weights in the shipped files' format."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tellsign.errors import SettingError, WeightsError
from tellsign.fusion.features import feature_row
from tellsign.plugin import UnavailableError
from tellsign.plugins import semantic
from tellsign.plugins.semantic import detector as detecting
from tellsign.plugins.semantic import strengths, weights_files
from tellsign.plugins.semantic.detector import MINIMUM, SemanticDetector
from tellsign.plugins.semantic.model import SemanticHead
from tellsign.plugins.semantic.strengths import Answer, Strength
from tellsign.plugins.semantic.student import Student
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import (
    Declaration,
    NotApplicable,
    Picture,
    ScoreEvidence,
    StatementEvidence,
    Unavailable,
)
from tellsign.schemas.codec import loads
from tellsign.towers import ClipTower, shared
from tellsign.views import pixel_view, semantic_view
from tellsign.weights.files import version_of

DECLARATION = loads((Path(semantic.__file__).parent / "tellsign.json").read_text(), Declaration)


def view(width=120, height=100, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return semantic_view(Picture(pixels=pixels), key=f"{width}x{height}.{seed}")


def head_file(path, *, blocks=(2, 3), width=64, **notes):
    generator = torch.Generator().manual_seed(4)
    head = SemanticHead(blocks, width)
    state = {k: torch.randn(v.shape, generator=generator) * 0.1 for k, v in head.state_dict().items()}
    state["std"] = state["std"].abs() + 1
    save_file(state, path, metadata={"blocks": ",".join(map(str, blocks)), "version": "1.2.3", **notes})
    return path


@pytest.fixture
def runtime():
    return DeviceRuntime("cpu", batch_size=2)


@pytest.fixture
def files(make_tower, tmp_path, monkeypatch):
    """Tiny tower, head and a random student in the place of those that ship. Yields the head's file."""
    tower = tmp_path / "clip.safetensors"
    save_file({k: v.contiguous().half() for k, v in make_tower().items()}, tower)
    here = {"clip-vit-b16": tower}
    monkeypatch.setattr(shared, "locate", here.get)
    monkeypatch.setattr(detecting, "locate", here.get)
    head, student = head_file(tmp_path / "semantic-tower.safetensors"), tmp_path / "semantic-student.safetensors"
    torch.manual_seed(0)
    save_file({k: v.half() for k, v in Student().state_dict().items()}, student, metadata={"version": "1.2.3"})
    monkeypatch.setattr(detecting, "HEAD", head)
    monkeypatch.setattr(strengths, "STUDENT", student)
    monkeypatch.setattr(strengths, "load_student", lambda: weights_files.load_student(student))
    return head


def detector(runtime, **settings):
    made = SemanticDetector(DECLARATION, settings)
    made.setup(runtime)
    return made


# -- which model speaks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", ["tower", "student"])
def test_a_strength_speaks_under_its_own_name_and_version(files, runtime, strength):
    (answer,) = detector(runtime, strength=strength).detect([view()], runtime)
    (score,) = answer
    assert isinstance(score, ScoreEvidence)
    assert (score.name, score.model) == (strength, f"semantic-{strength} 1.2.3")
    assert score.score == pytest.approx(1 / (1 + np.exp(-score.logit)))
    row = feature_row(answer, {"semantic": DECLARATION}, "p_ai")
    assert row[f"semantic.{strength}"] == pytest.approx(score.logit)
    assert {c.evidence for c in DECLARATION.columns} == {"tower", "student", "vlm"}


def test_auto_takes_the_tower_where_it_is(files, runtime):
    (answer,) = detector(runtime).detect([view()], runtime)
    assert [e.name for e in answer] == ["tower"]


def test_without_the_tower_the_student_speaks_and_says_what_is_missing(files, runtime, monkeypatch):
    monkeypatch.setattr(shared, "locate", lambda name: None)
    monkeypatch.setattr(detecting, "locate", lambda name: None)
    (answer,) = detector(runtime).detect([view()], runtime)
    score, missing = answer
    assert score.name == "student"
    assert isinstance(missing, Unavailable)
    assert "tellsign models fetch clip-vit-b16" in missing.reason
    # One who asked for the student is not told about the tower.
    (answer,) = detector(runtime, strength="student").detect([view()], runtime)
    assert [e.name for e in answer] == ["student"]


def test_the_tower_that_was_asked_for_and_is_not_here_is_unavailable(files, runtime, monkeypatch):
    monkeypatch.setattr(shared, "locate", lambda name: None)
    with pytest.raises(UnavailableError, match="tellsign models fetch clip-vit-b16"):
        detector(runtime, strength="tower").detect([view()], runtime)


def test_what_is_said_of_one_picture_does_not_depend_on_the_others(files, runtime):
    views = [view(seed=s) for s in range(5)] + [view(30, 400, seed=9)]
    for strength in ("tower", "student"):
        made = detector(runtime, strength=strength)
        together = made.detect(views, runtime)
        alone = [made.detect([v], runtime)[0] for v in views]
        for a, b in zip(together[:5], alone[:5], strict=True):
            assert a[0].logit == pytest.approx(b[0].logit, abs=1e-4)
        assert together[5] == alone[5]


def test_the_tower_costs_one_pass_per_view_however_often_it_is_asked(files, runtime):
    made = detector(runtime, strength="tower")
    with runtime.scope():
        made.detect([view(seed=1), view(seed=2)], runtime)
        made.detect([view(seed=2)], runtime)
    assert runtime.counters.forwards == {"clip-vit-b16/semantic": 2}


@pytest.mark.parametrize(("width", "height"), [(MINIMUM - 1, 500), (1, 1), (500, MINIMUM - 1)])
def test_to_a_tiny_picture_it_does_not_apply(files, runtime, width, height):
    small, large = detector(runtime, strength="student").detect([view(width, height), view(MINIMUM, MINIMUM)], runtime)
    assert [type(e) for e in small] == [NotApplicable]
    assert f"{width} x {height}" in small[0].reason
    assert isinstance(large[0], ScoreEvidence)


def test_another_view_is_refused(files, runtime):
    other = pixel_view(Picture(pixels=np.zeros((200, 200, 3), np.uint8)), key="k")
    with pytest.raises(TypeError, match="SemanticView"):
        detector(runtime, strength="student").detect([other], runtime)


# -- answers of any strength ----------------------------------------------------------------------------------------


class Spoken(Strength):
    name, version = "vlm", "spoken 1"

    def __init__(self, *answers):
        self.answers = answers

    def answer(self, views, runtime):
        return self.answers[: len(views)]


def test_an_answer_that_cannot_be_read_is_missing_evidence(files, runtime):
    made = detector(runtime, strength="student")
    made.strength = Spoken(Answer(logit=None, why_not="no verdict"), Answer(logit=-2.0, rationale="Shadows agree."))
    unread, read = made.detect([view(), view(seed=1)], runtime)
    assert [type(e) for e in unread] == [NotApplicable]
    assert unread[0].reason == "no verdict"
    assert np.isnan(feature_row(unread, {"semantic": DECLARATION}, "p_ai")["semantic.vlm"])
    score, reasons = read
    assert score.logit == -2.0
    assert isinstance(reasons, StatementEvidence)
    assert (reasons.statement, reasons.origin) == ("Shadows agree.", "generated")


# -- settings and broken files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"strenght": "tower"}, "strenght"),
        ({"strength": "huge"}, "auto, tower, student, vlm"),
        ({"tower": "clip"}, "clip-vit-b16, clip-vit-l14-336"),
        ({"tower": "clip-vit-l14-336"}, "a head that was trained on clip-vit-l14-336"),
        ({"head": 3}, "head takes a path"),
        ({"download": "yes"}, "download takes true or false"),
        ({"strength": "vlm"}, "vlm takes"),
    ],
)
def test_settings_are_checked(runtime, settings, match):
    with pytest.raises(SettingError, match=match):
        detector(runtime, **settings)


def test_a_broken_or_foreign_head_is_an_error_that_names_the_file(files, runtime, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(files.read_bytes()[:50])
    wide = head_file(tmp_path / "wide.safetensors", width=128)
    deep = head_file(tmp_path / "deep.safetensors", blocks=(3, 9))
    student = weights_files.STUDENT.with_name("none.safetensors")
    for file in (broken, wide, deep, student):
        with pytest.raises(WeightsError) as caught:
            detector(runtime, strength="tower", head=str(file)).detect([view()], runtime)
        assert str(file) in str(caught.value)
    empty = tmp_path / "empty.safetensors"
    save_file({"weight": torch.zeros(2, 64)}, empty, metadata={"blocks": "1,2"})
    for load in (weights_files.load_head, weights_files.load_student):
        with pytest.raises(WeightsError, match=str(empty)):
            load(empty)


def test_a_broken_tower_is_an_error_that_names_the_file(files, runtime, tmp_path, monkeypatch):
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"\x10" * 40)
    monkeypatch.setattr(shared, "locate", lambda name: torn)
    with pytest.raises(WeightsError, match=str(torn)):
        detector(runtime, strength="tower").detect([view()], runtime)


# -- the head -------------------------------------------------------------------------------------------------------


def test_the_head_reads_the_blocks_it_names(make_tower):
    head = SemanticHead((1, 3), 64)
    with torch.no_grad():
        head.weight.normal_()
        head.mean.normal_()
        head.bias.fill_(0.5)
    tokens = torch.randn(4, 3, 64)
    want = 0.5 + ((tokens[:, [0, 2]] - head.mean) * head.weight).sum((1, 2))
    torch.testing.assert_close(head(tokens), want)
    other = tokens.clone()
    other[:, 1] += 10
    torch.testing.assert_close(head(other), head(tokens))
    head.fits(ClipTower.from_state_dict(make_tower()), Path("x"))


# -- what ships -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [weights_files.HEAD, weights_files.STUDENT])
def test_what_ships_is_what_the_declaration_says(file):
    if not file.is_file():
        pytest.skip(f"{file.name} is not in the package")
    declared = {w.file: w for w in DECLARATION.weights}
    assert file.stat().st_size == declared[f"weights/{file.name}"].size
    load = weights_files.load_head if file == weights_files.HEAD else weights_files.load_student
    assert sum(p.numel() for p in load(file).parameters()) > 0
    assert file.stat().st_size < 12e6
    assert DECLARATION.version in version_of(file)
