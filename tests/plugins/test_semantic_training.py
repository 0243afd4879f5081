"""The training commands from pictures to weights files, on a tiny tower."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tellsign.data.purity import TAG, ImpureDataError, purpose, tag
from tellsign.data.rows import PictureRow
from tellsign.errors import SettingError
from tellsign.plugins.semantic.student import SIDE, Student, folded
from tellsign.plugins.semantic.training import export, finetune, lite, paper, probe
from tellsign.plugins.semantic.training.features import Squares, extract, read_tokens
from tellsign.plugins.semantic.training.prepare import VERSIONS, prepare, squares
from tellsign.plugins.semantic.weights_files import load_head, load_student, read_notes, version_of
from tellsign.schemas import Task
from tellsign.towers import ClipTower, class_tokens


def pixels_of(rng, made, topic):
    """Topics are colours; what is made lacks contrast between its halves, which no scrambler hides."""
    base = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]][topic], float)
    step = 5 if made else 60
    values = np.broadcast_to(base, (200, 210, 3)) + rng.normal(0, 6, (200, 210, 3))
    values[:, :105] -= step * rng.uniform(0.7, 1.3)
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Prepared squares of 8 sources in `fit` and 4 in `fuse`."""
    root, rng, rows = tmp_path_factory.mktemp("semantic"), np.random.default_rng(0), []
    for split, sources in (("fit", range(4)), ("fuse", range(4, 6))):
        for label in (0, 1):
            for source in sources:
                for i in range(8):
                    path = root / f"{split}-{label}-{source}-{i}.png"
                    Image.fromarray(pixels_of(rng, label, i % 3)).save(path)
                    rows.append(
                        PictureRow(
                            path=path,
                            label=label,
                            source=f"{label}{source}",
                            content="photo",
                            group=path.name,
                            split=split,
                        )
                    )
    small = root / "small.png"
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(small)
    rows.append(PictureRow(path=small, label=0, source="00", content="photo", group="small", split="fit"))
    out = root / "data"
    assert prepare(rows, out, skipped=[rows[0].path], workers=1) == len(rows) - 2
    return out


@pytest.fixture(scope="module")
def tower(make_tower):
    # 64 px, so positions are interpolated to the 14 x 14 patches of a prepared square.
    tower = ClipTower.from_state_dict(make_tower()).eval()
    tower.requires_grad_(False)
    return tower


@pytest.fixture(scope="module")
def data(folder, tower):
    found = Squares.read(folder)
    for version in VERSIONS:
        extract(found, version, tower, folder, splits=("fit", "fuse"), batch=64)
    data = probe.Data(folder, tower)
    # A random tower has no idea of topics: it is told the colours.
    data.topic = data.fine = np.array([int(g.split("-")[3].removesuffix(".png")) % 3 for g in data.group])
    near = np.eye(3)[data.topic] + 0.01 * np.random.default_rng(0).normal(size=(len(data.topic), 3))
    for version in VERSIONS:
        data.embedding[version] = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    return data


# -- prepare --------------------------------------------------------------------------------------------------------


def test_prepare_tags_the_folder_and_lists_what_it_leaves_out(folder):
    assert purpose(folder) is Task.SEMANTIC
    found = Squares.read(folder)
    assert found.pixels.shape == (95, 3, 224, 224, 3)
    assert sorted(set(found.split.tolist())) == ["fit", "fuse"]
    with (folder / "skipped.csv").open() as handle:
        assert [(Path(r["path"]).name, r["why"]) for r in csv.DictReader(handle)] == [("small.png", "too_small")]


def test_squares_repeat_themselves_and_know_nothing_of_the_class():
    pixels = pixels_of(np.random.default_rng(0), 1, 0)
    np.testing.assert_array_equal(squares(pixels, 3), squares(pixels, 3))
    # The view as a user's picture gives it takes no part in the draws.
    assert (squares(pixels, 3)[1] == squares(pixels, 4)[1]).all()
    assert (squares(pixels, 3)[0] != squares(pixels, 4)[0]).any()


# -- features -------------------------------------------------------------------------------------------------------


def test_tokens_are_the_towers_and_an_interrupted_extraction_goes_on(folder, data, tower):
    found = Squares.read(folder)
    tokens = read_tokens(folder, "overview")
    with torch.inference_mode():
        want = class_tokens(tower, np.asarray(found.pixels[5:6, 0]))
    np.testing.assert_allclose(tokens[5], want[0], atol=2e-2, rtol=2e-2)
    file = folder / "tokens-overview.npy"
    store = np.lib.format.open_memmap(file, "r+")
    kept = store.copy()
    store[7:12] = 0
    store.flush()
    extract(found, "overview", tower, folder, splits=("fit", "fuse"))
    np.testing.assert_allclose(read_tokens(folder, "overview"), kept, atol=2e-2, rtol=2e-2)


# -- probes and the head --------------------------------------------------------------------------------------------

RECIPE = probe.Recipe(blocks=(2, 3), strength=0.1, topics=3)


def test_folds_hold_out_whole_sources_of_both_classes(data):
    fit = data.split == "fit"
    label, source = data.label[fit], data.source[fit]
    fold = probe.folds(label, source, seed=0)
    for name in np.unique(source):
        assert len(set(fold[source == name].tolist())) == 1
    for f in range(probe.FOLDS):
        assert set(label[fold == f].tolist()) == {0, 1}
    with pytest.raises(ValueError, match="at least 4 of each class, got 2 of class 0"):
        probe.folds(label[np.isin(source, ["00", "01", "10", "11", "12", "13"])],
                    source[np.isin(source, ["00", "01", "10", "11", "12", "13"])], seed=0)  # fmt: skip


def test_the_table_beats_topics(data):
    topics, learned = probe.table(data, [("both", RECIPE)], seeds=(0,))
    assert learned["fuse"] > topics["fuse"] + 0.1
    assert learned["fuse within"] > 0.8
    assert set(topics) == set(learned)


def test_the_head_says_what_the_probe_says_with_its_zero_at_its_threshold(data, tmp_path):
    head = export.fit_head(data, RECIPE, versions=("overview", "plain"), least=5)
    fit, fuse = (np.flatnonzero(data.split == s) for s in ("fit", "fuse"))
    raw = probe.Probe.fit(data, RECIPE, fit).score(data, "overview", fuse)
    with torch.inference_mode():
        said = head(torch.from_numpy(np.asarray(data.tokens["overview"][fuse], np.float32))).numpy()
    assert np.corrcoef(raw, said)[0, 1] > 0.9999
    assert probe.auc(data.label[fuse], said) == pytest.approx(probe.auc(data.label[fuse], raw))
    file = export.export_head(head, RECIPE, tmp_path, version="9.9", tower="tiny")
    read = load_head(file)
    tokens = torch.randn(3, 3, 64)
    torch.testing.assert_close(read(tokens), head(tokens))
    assert version_of(file) == "semantic-tower 9.9"
    assert json.loads(read_notes(file)["recipe"])["topics"] == 3
    with pytest.raises(ValueError, match="blocks from 1 on"):
        export.fit_head(data, probe.Recipe(blocks=(0,)))


def test_no_real_source_is_accused_above_the_share():
    rng = np.random.default_rng(0)
    unseen, label = rng.normal(size=400) + np.repeat([0, 2], 200), np.repeat([0, 1], 200)
    reals = {"a": rng.normal(size=60), "b": rng.normal(size=40) + 1}
    made = export.stretch(unseen, label, np.array(["s"] * 400), reals)
    assert made.slope > 0
    assert max((made(v) > 0).mean() for v in reals.values()) <= export.SHARE


# -- the student ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_squares(monkeypatch):
    """Squares of 32 px, so that the network is quick."""
    for module in (lite, finetune):
        monkeypatch.setattr(module, "squares_of", lambda s, r, v: torch.from_numpy(s.pixels[r, v, ::7, ::7].copy()))


def test_the_students_head_learns_the_teachers_scores(folder, data, small_squares, tmp_path):
    torch.manual_seed(0)
    own = [k for k in Student(folded=False).state_dict() if not k.startswith("head.")]
    start = tmp_path / "published.pth"
    torch.save({f"_{k}": Student(folded=False).state_dict()[k] for k in own}, start)
    teacher = export.fit_head(data, RECIPE, least=5)
    found = Squares.read(folder)
    file = lite.distil(lite.Recipe(strength=0.1), found, data, teacher, start, tmp_path / "run")
    fuse = np.flatnonzero(data.split == "fuse")
    student = Student()
    student.load_state_dict({k: v.float() for k, v in load_file(file).items()})
    said = lite.score(student, found, data.rows[fuse], "overview")
    assert probe.auc(data.label[fuse], said) > 0.9
    moved = lite.calibration(found, data, file, ("overview",), least=5)
    reals = said[data.label[fuse] == 0]
    assert (moved(reals) > 0).mean() <= export.SHARE


def test_soft_labels_are_fitted():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (4000, 3)).astype(np.float32)
    target = 1 / (1 + np.exp(-(x @ [1.0, -0.5, 0.0] - 1)))
    weight, bias = lite.fit_linear(x, target, np.ones(len(x)), strength=1e3)
    np.testing.assert_allclose(weight, [1, -0.5, 0], atol=0.02)
    assert bias == pytest.approx(-1, abs=0.05)
    assert np.abs(lite.fit_linear(x, target, np.ones(len(x)), strength=1e-6)[0]).max() < 0.05


def test_fine_tuning_goes_on_where_it_stopped(folder, data, small_squares, tmp_path, monkeypatch):
    torch.manual_seed(0)
    start = Student(folded=False).state_dict()
    found = Squares.read(folder)
    rows = data.rows[data.split == "fit"]
    teacher = np.where(found.label[rows] == 1, 3.0, -3.0)
    recipe = lite.Recipe(epochs=1, batch=8, rate=3e-3)

    def run(where):
        return finetune.finetune(recipe, found, rows, np.ones(len(rows)), teacher, start, where)

    whole = load_file(run(tmp_path / "whole"))
    with (tmp_path / "whole" / "curve.csv").open() as handle:
        assert len(list(csv.DictReader(handle))) == len(rows) // 8
    assert set(whole) == set(folded(start))
    monkeypatch.setattr(finetune, "EVERY", 3)
    write = finetune.save_checkpoint

    def cut(state, file):
        write(state, file)
        raise KeyboardInterrupt

    monkeypatch.setattr(finetune, "save_checkpoint", cut)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    monkeypatch.setattr(finetune, "save_checkpoint", write)
    resumed = load_file(run(tmp_path / "cut"))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, atol=2e-3, rtol=2e-2)


def test_the_exported_student_carries_its_calibration(tmp_path):
    torch.manual_seed(0)
    run = tmp_path / "run"
    run.mkdir()
    state = {k: v.half() for k, v in Student().state_dict().items()}
    save_file(state, run / "student.safetensors")
    (run / "recipe.json").write_text("{}")
    file = export.export_student(run, tmp_path, export.Stretch(slope=2.0, offset=-1.5), version="9.9")
    raw, made = Student(), load_student(file)
    raw.load_state_dict({k: v.float() for k, v in state.items()})
    x = torch.randint(0, 256, (2, SIDE, SIDE, 3), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(made.eval()(x), 2 * raw.eval()(x) - 1.5, atol=2e-2, rtol=2e-2)
    assert version_of(file) == "semantic-student 9.9"


# -- purity and the paper's measurement -----------------------------------------------------------------------------


def test_pixel_pairs_are_refused_unless_forced(tmp_path, tower):
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (6, 240, 240, 3), dtype=np.uint8)
    np.save(tmp_path / "pairs_real.npy", real)
    np.save(tmp_path / "pairs_fake.npy", real // 2)
    with pytest.raises(SettingError, match=TAG):
        paper.pair_tokens(tmp_path, tower, count=4)
    tag(tmp_path, Task.PIXEL)
    with pytest.raises(ImpureDataError, match="pixel task"):
        paper.pair_tokens(tmp_path, tower, count=4)
    tokens = paper.pair_tokens(tmp_path, tower, count=4, force=True)
    assert tokens.shape == (4, 2, 3, 64)
    assert (tokens[:, 0] != tokens[:, 1]).any()


def test_supervision_transfers_to_its_own_task(data, monkeypatch):
    """Pairs that differ in something the squares do not show teach nothing about them."""
    rng = np.random.default_rng(0)
    content = rng.normal(size=(40, 1, 3, 64)).repeat(2, axis=1)
    trace = np.zeros((40, 2, 3, 64))
    trace[:, 1, :, 0] = 4
    pairs = (content + trace).astype(np.float16)
    assert paper.held_out_pairs(pairs, 3, 1e-2) > 0.95
    monkeypatch.setattr(paper, "Recipe", lambda **k: probe.Recipe(topics=3, **k))
    lines = paper.transfer(data, pairs, (3,), strength=0.1)
    found = {line["supervision"]: line for line in lines}
    assert found["semantic"]["fuse"] > 0.8
    assert found["pixel"]["own task"] > 0.95


def test_the_head_is_not_fitted_to_untagged_data(tmp_path):
    from typer.testing import CliRunner

    from tellsign.plugins.semantic.training.__main__ import app

    answer = CliRunner().invoke(app, ["head", "--folder", str(tmp_path), "--out", str(tmp_path), "--version", "1"])
    assert isinstance(answer.exception, SettingError)
    assert TAG in str(answer.exception)
