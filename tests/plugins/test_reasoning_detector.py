"""The reasoning plugin's mechanics, on tiny weights in the shipped files' format."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from tellsign.errors import SettingError, WeightsError
from tellsign.fusion.features import feature_row
from tellsign.plugin import UnavailableError
from tellsign.plugins import reasoning, semantic
from tellsign.plugins.reasoning import detector as detecting
from tellsign.plugins.reasoning import strengths, weights_files
from tellsign.plugins.reasoning.bank import PRECISION, Bank, Entry
from tellsign.plugins.reasoning.detector import MINIMUM, ReasoningDetector
from tellsign.plugins.reasoning.model import StudentModel, TowerModel
from tellsign.plugins.semantic.detector import SemanticDetector
from tellsign.plugins.semantic.model import SemanticHead
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import (
    Category,
    Declaration,
    NotApplicable,
    Picture,
    ScoreEvidence,
    StatementEvidence,
    Unavailable,
)
from tellsign.schemas.codec import loads
from tellsign.towers import BRANCH, ClipTower, shared
from tellsign.towers.lite import FEATURES, LiteTrunk
from tellsign.views import pixel_view, semantic_view
from tellsign.weights.files import read_notes, version_of

DECLARATION = loads((Path(reasoning.__file__).parent / "tellsign.json").read_text(), Declaration)
FIRST = max(0, 3 - BRANCH) + 1
"""Block at which a branch of the tiny tower of three begins."""


def view(width=120, height=100, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return semantic_view(Picture(pixels=pixels), key=f"{width}x{height}.{seed}")


def bank(dim, *, threshold=-1.0):
    entry = Entry(
        text="The light disagrees.", threshold=threshold, precision=0.9, retrieved=50, category=Category.PHYSICS
    )
    return Bank([entry], F.normalize(torch.ones(1, dim), dim=1))


def tower_file(path, *, first=FIRST, last=3, width=64, projected=True, threshold=-1.0):
    dim = 8 if projected else width
    model = TowerModel(width=width, dim=dim, first=first, last=last, rank=2, alpha=2.0, projected=projected, hidden=16)
    generator = torch.Generator().manual_seed(3)
    state = {k: torch.randn(v.shape, generator=generator) * 0.2 for k, v in model.state_dict().items()}
    state["std"] = state["std"].abs() + 1
    told = bank(dim, threshold=threshold)
    notes = {"first": str(first), "last": str(last), "alpha": "2.0", "projected": str(int(projected))}
    notes |= {"version": "1.2.3", "bank": told.told()}
    save_file({k: v.contiguous() for k, v in state.items()} | {"bank": told.vectors}, path, metadata=notes)
    return path


def student_file(path):
    torch.manual_seed(0)
    model = StudentModel(features=FEATURES, dim=8, hidden=16)
    state = {f"trunk.{k}": v.half() for k, v in LiteTrunk().state_dict().items()}
    state |= {f"model.{k}": v.half() if v.ndim else v for k, v in model.state_dict().items()}
    told = Bank.empty(8)
    state = {k: v.contiguous() for k, v in state.items()}
    save_file(state | {"bank": told.vectors}, path, metadata={"version": "1.2.3", "bank": told.told()})
    return path


@pytest.fixture
def runtime():
    return DeviceRuntime("cpu", batch_size=2)


@pytest.fixture
def files(make_tower, tmp_path, monkeypatch):
    """Tiny tower, updates and a random student in the place of those that ship. Yields the updates' file."""
    tower = tmp_path / "clip.safetensors"
    save_file({k: v.contiguous().half() for k, v in make_tower().items()}, tower)
    here = {"clip-vit-b16": tower}
    monkeypatch.setattr(shared, "locate", here.get)
    monkeypatch.setattr(detecting, "locate", here.get)
    updates, student = tower_file(tmp_path / "reasoning-tower.safetensors"), tmp_path / "reasoning-student.safetensors"
    student_file(student)
    monkeypatch.setattr(detecting, "TOWER", updates)
    monkeypatch.setattr(strengths, "STUDENT", student)
    monkeypatch.setattr(strengths, "load_student", lambda: weights_files.load_student(student))
    return updates


def detector(runtime, **settings):
    made = ReasoningDetector(DECLARATION, settings)
    made.setup(runtime)
    return made


# -- which model speaks, and what it says -------------------------------------------------------------------------


@pytest.mark.parametrize("strength", ["tower", "student"])
def test_a_strength_speaks_under_its_own_name_and_version(files, runtime, strength):
    (answer,) = detector(runtime, strength=strength, statements=False).detect([view()], runtime)
    (score,) = answer
    assert isinstance(score, ScoreEvidence)
    assert (score.name, score.model) == (strength, f"reasoning-{strength} 1.2.3")
    assert score.score == pytest.approx(1 / (1 + np.exp(-score.logit)))
    row = feature_row(answer, {"reasoning": DECLARATION}, "p_ai")
    assert row[f"reasoning.{strength}"] == pytest.approx(score.logit)
    assert {(c.evidence, c.direction) for c in DECLARATION.columns} == {("tower", 1), ("student", 1)}


def test_reasons_are_retrieved_with_their_measured_support_and_category(files, runtime):
    (answer,) = detector(runtime, strength="tower").detect([view()], runtime)
    _, reason = answer
    assert isinstance(reason, StatementEvidence)
    assert (reason.statement, reason.origin, reason.support) == ("The light disagrees.", "retrieved", 0.9)
    assert reason.category is Category.PHYSICS


def test_what_is_not_near_is_not_said(files, runtime, tmp_path):
    far = tower_file(tmp_path / "far.safetensors", threshold=1.1)
    (answer,) = detector(runtime, strength="tower", weights=str(far)).detect([view()], runtime)
    assert [type(e) for e in answer] == [ScoreEvidence]


def test_auto_takes_the_tower_where_it_is_and_tells_where_it_is_not(files, runtime, monkeypatch):
    (answer,) = detector(runtime, statements=False).detect([view()], runtime)
    assert [e.name for e in answer] == ["tower"]
    monkeypatch.setattr(detecting, "locate", lambda name: None)
    (answer,) = detector(runtime).detect([view()], runtime)
    score, missing = answer
    assert score.name == "student"
    assert isinstance(missing, Unavailable)
    assert "tellsign models fetch clip-vit-b16" in missing.reason


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


@pytest.mark.parametrize(("width", "height"), [(MINIMUM - 1, 500), (1, 1)])
def test_to_a_tiny_picture_it_does_not_apply(files, runtime, width, height):
    small, large = detector(runtime, strength="student").detect([view(width, height), view(MINIMUM, MINIMUM)], runtime)
    assert [type(e) for e in small] == [NotApplicable]
    assert isinstance(large[0], ScoreEvidence)


def test_another_view_is_refused(files, runtime):
    other = pixel_view(Picture(pixels=np.zeros((200, 200, 3), np.uint8)), key="k")
    with pytest.raises(TypeError, match="SemanticView"):
        detector(runtime, strength="student").detect([other], runtime)


# -- two plugins, one tower -----------------------------------------------------------------------------------------


@pytest.fixture
def semantic_plugin(files, tmp_path):
    head = SemanticHead((2, 3), 64)
    file = tmp_path / "semantic-tower.safetensors"
    save_file(head.state_dict(), file, metadata={"blocks": "2,3", "version": "1.2.3"})
    declaration = loads((Path(semantic.__file__).parent / "tellsign.json").read_text(), Declaration)
    return SemanticDetector(declaration, {"strength": "tower", "head": str(file)})


@pytest.mark.parametrize("order", ["semantic first", "reasoning first", "reasoning alone"])
def test_two_plugins_cost_one_build_and_one_forward_per_view(files, runtime, semantic_plugin, order):
    mine = detector(runtime, strength="tower")
    plugins = {"semantic first": [semantic_plugin, mine], "reasoning first": [mine, semantic_plugin]}
    views = [view(seed=s) for s in range(3)]
    with runtime.scope():
        for plugin in plugins.get(order, [mine]):
            plugin.detect(views, runtime)
    counts = runtime.counters
    assert counts.forwards == {"clip-vit-b16/semantic": 3}
    assert counts.builds["clip-vit-b16"] == 1
    assert set(counts.builds.values()) == {1}


def test_the_bare_forward_pass_is_no_shared_one(files, runtime):
    mine = detector(runtime, strength="tower")
    forward = mine.bench_tower([view(), view(seed=1)], runtime)
    assert forward().shape == (2, 3, 64)
    assert not runtime.counters.forwards
    assert detector(runtime, strength="student").bench_tower([view()], runtime) is None


def test_the_branch_is_what_the_whole_tower_with_the_updates_gives(files, runtime, make_tower):
    (answer,) = detector(runtime, strength="tower").detect([view()], runtime)
    model = weights_files.load_tower_model(files)
    tower = ClipTower.from_state_dict(make_tower()).eval()
    from tellsign.towers import clip_input, semantic_square

    x = clip_input(torch.from_numpy(semantic_square(view().image, 64).copy())[None])
    with torch.inference_mode():
        token = tower.tokens(x, (3,), model.lora)[3][:, 0]
        want = model.head(model.vector(tower, token))
    assert answer[0].logit == pytest.approx(want.item(), abs=2e-2)  # the tower was stored in half precision


# -- settings and broken files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"strenght": "tower"}, "strenght"),
        ({"strength": "vlm"}, "auto, tower, student"),
        ({"tower": "clip"}, "clip-vit-b16, clip-vit-l14-336"),
        ({"tower": "clip-vit-l14-336"}, "weights that were trained on clip-vit-l14-336"),
        ({"weights": 3}, "weights takes a path"),
        ({"statements": "yes"}, "statements takes true or false"),
    ],
)
def test_settings_are_checked(runtime, settings, match):
    with pytest.raises(SettingError, match=match):
        detector(runtime, **settings)


def test_a_broken_or_foreign_file_is_an_error_that_names_it(files, runtime, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(files.read_bytes()[:50])
    wide = tower_file(tmp_path / "wide.safetensors", width=128)
    early = tower_file(tmp_path / "early.safetensors", first=FIRST + 1)
    empty = tmp_path / "empty.safetensors"
    save_file({"weight": torch.zeros(2, 64)}, empty, metadata={"first": "1"})
    for file in (broken, wide, early, empty, tmp_path / "none.safetensors"):
        with pytest.raises(WeightsError) as caught:
            detector(runtime, strength="tower", weights=str(file)).detect([view()], runtime)
        assert str(file) in str(caught.value)
    for load in (weights_files.load_student, weights_files.load_bank):
        with pytest.raises(WeightsError, match=str(empty)):
            load(empty)


# -- the bank -----------------------------------------------------------------------------------------------------


def test_a_statement_below_the_line_cannot_be_in_a_bank():
    entry = Entry(text="Perhaps.", threshold=0.0, precision=PRECISION - 0.01, retrieved=99)
    with pytest.raises(ValueError, match="at least 0"):
        Bank([entry], torch.ones(1, 4))
    told = json.dumps([{"text": "x", "threshold": 0, "precision": 0.1, "retrieved": 9, "category": None}])
    with pytest.raises(ValueError, match="precision"):
        Bank.read(told, torch.ones(1, 4))
    with pytest.raises(ValueError, match="shape"):
        Bank([], torch.ones(1, 4))


def test_the_surest_comes_first_and_notes_come_back():
    entries = [
        Entry(text="a", threshold=0.5, precision=0.85, retrieved=40),
        Entry(text="b", threshold=0.2, precision=0.95, retrieved=40, category=Category.SYMBOL),
    ]
    made = Bank(entries, torch.eye(2))
    again = Bank.read(made.told(), made.vectors)
    assert again.entries == made.entries
    found = again.retrieve(torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.1, -1.0]]))
    assert [[e.text for e in row] for row in found] == [["b", "a"], ["a"], []]
    assert Bank.empty(3).retrieve(torch.ones(2, 3)) == [[], []]


# -- what ships -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [weights_files.TOWER, weights_files.STUDENT])
def test_what_ships_is_what_the_declaration_says_and_holds_no_text_encoder(file):
    if not file.is_file():
        pytest.skip(f"{file.name} is not in the package")
    declared = {w.file: w for w in DECLARATION.weights}
    assert file.stat().st_size == declared[f"weights/{file.name}"].size
    load = weights_files.load_tower_model if file == weights_files.TOWER else weights_files.load_student
    assert all(p.isfinite().all() for p in load(file).parameters())
    assert DECLARATION.version in version_of(file)
    assert sum(f.stat().st_size for f in file.parent.iterdir()) < 12e6
    assert not [k for k in read_notes(file) if "token" in k]
    for entry in weights_files.load_bank(file).entries:
        assert entry.precision >= PRECISION


def test_the_entry_point_comes_with_the_weights():
    """A plugin without weights must not be installed, and one with them must be."""
    import tomllib

    root = Path(__file__).parents[2]
    points = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"]["tellsign.detectors"]
    assert ("reasoning" in points) is weights_files.TOWER.is_file()
