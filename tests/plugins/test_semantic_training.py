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
from tellsign.plugins.semantic.training import crossfit, export, finetune, lite, paper, probe
from tellsign.plugins.semantic.training.features import Squares, extract, read_tokens
from tellsign.plugins.semantic.training.prepare import VERSIONS, prepare, squares
from tellsign.plugins.semantic.weights_files import load_head, load_student
from tellsign.schemas import Task
from tellsign.towers import ClipTower, class_tokens
from tellsign.weights.files import read_notes, version_of


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


def test_the_students_features_are_kept_and_an_interrupted_extraction_goes_on(folder, small_squares, tmp_path):
    torch.manual_seed(0)
    found, student, rows = Squares.read(folder), Student(), np.arange(10)
    whole = lite.trunk_features(student, found, rows, "overview", tmp_path / "a.npy", batch=4)
    assert whole.dtype == np.float32
    assert whole.any(axis=1).all()
    store = np.lib.format.open_memmap(tmp_path / "a.npy", "r+")
    kept = store[:3].copy()
    store[3:] = 0
    store.flush()
    again = lite.trunk_features(student, found, rows, "overview", tmp_path / "a.npy", batch=4)
    np.testing.assert_array_equal(again[:3], kept.astype(np.float32))
    np.testing.assert_allclose(again, whole, atol=2e-2, rtol=2e-2)
    with pytest.raises(ValueError, match="remove it first"):
        lite.trunk_features(student, found, rows[:4], "overview", tmp_path / "a.npy")


def test_the_student_command_goes_on_where_it_stopped_and_repeats_itself(
    folder, data, tower, small_squares, tmp_path, monkeypatch
):
    """Twice into different folders, once cut off in the middle: the same tensors, bit for bit."""
    from typer.testing import CliRunner

    from tellsign.plugins.semantic.training import __main__ as commands

    torch.manual_seed(0)
    network = Student(folded=False).state_dict()
    torch.save({f"_{k}": v for k, v in network.items() if not k.startswith("head.")}, tmp_path / "published.pth")
    teacher = export.export_head(export.fit_head(data, RECIPE, least=5), RECIPE, tmp_path, version="1", tower="tiny")
    monkeypatch.setattr(commands, "clip_tower", lambda name: tower)
    monkeypatch.setattr(probe, "Data", lambda folder, tower: data)
    monkeypatch.setattr(lite.calibration, "__kwdefaults__", {"least": 5})

    def run(where):
        given = [
            "--folder",
            folder,
            "--teacher",
            teacher,
            "--start",
            tmp_path / "published.pth",
            "--run",
            where / "run",
        ]
        options = [*given, "--out", where, "--version", "9.9", "--recipe", '{"strength": 1e-6}']
        return CliRunner().invoke(commands.app, ["student", *map(str, options)])

    assert run(tmp_path / "whole").exit_code == 0
    real, asked = lite.score, []

    def cut(student, squares, rows, version):
        asked.append(version)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(student, squares, rows, version)

    monkeypatch.setattr(lite, "score", cut)
    assert run(tmp_path / "cut").exit_code != 0
    monkeypatch.setattr(lite, "score", real)
    store = np.lib.format.open_memmap(tmp_path / "cut" / "run" / "features-overview.npy", "r+")
    assert store.any(axis=1).all()
    assert run(tmp_path / "cut").exit_code == 0
    whole, cut_off = (load_file(tmp_path / name / "semantic-student.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut_off.keys()
    assert all(torch.equal(whole[k], cut_off[k]) for k in whole)
    assert asked == ["overview", "plain"]
    given = [
        "--folder",
        folder,
        "--teacher",
        teacher,
        "--start",
        tmp_path / "published.pth",
        "--run",
        tmp_path / "cut/run",
    ]
    told = CliRunner().invoke(commands.app, ["student-table", *map(str, given)])
    assert told.exception is None
    assert len(told.stdout.splitlines()) == 6
    # A finished file of either kind is held against real pictures by one command.
    for file in (teacher, tmp_path / "cut" / "semantic-student.safetensors"):
        for version in ("overview", "plain"):
            words = ["accusations", "--folder", folder, "--weights", file, "--version", version, "--each", "3"]
            told = CliRunner().invoke(commands.app, list(map(str, words)))
            assert told.exception is None
            first, *sources = told.stdout.splitlines()
            assert first.startswith(f"fuse, {version}: AUC")
            assert [line.split()[2:4] for line in sources] == [["of", "3"], ["of", "3"]]
    monkeypatch.setattr(lite, "read_tokens", lambda folder, version: np.zeros((len(Squares.read(folder)), 3, 64)))
    told = CliRunner().invoke(commands.app, ["accusations", "--folder", str(folder), "--weights", str(teacher)])
    assert isinstance(told.exception, ValueError)
    assert "run `features --versions overview --splits fuse` first" in str(told.exception)


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


# -- scores for the fusion's balance --------------------------------------------------------------------------------


def test_cross_fitted_scores_are_those_of_heads_without_the_source(folder, data):
    found, recipe, taught = Squares.read(folder), probe.Recipe(blocks=(1, 2)), lite.Recipe()
    fit = np.flatnonzero(data.split == "fit")
    trunk = np.random.default_rng(0).normal(size=(len(fit), 2024)).astype(np.float32)
    trunk[:, 0] += 4 * data.label[fit]
    lines = crossfit.cross_fitted(found, data, trunk, recipe=recipe, student=taught, seeds=(0,))
    paths = [str(Path(p).resolve()) for p in found.path[data.rows[fit]]]
    assert list(lines) == [(p, 0) for p in paths]
    unseen, fold = probe.held_out(data, probe.probe_scorer(data, recipe), seed=0)
    tower = np.array([line["semantic.tower"] for line in lines.values()])
    np.testing.assert_allclose(tower, unseen / unseen.std(), rtol=1e-5)
    # A source's own rows of the trunk teach its student nothing: another trunk there, the same scores elsewhere.
    other = trunk.copy()
    other[fold == 0] = 0
    again = crossfit.cross_fitted(found, data, other, recipe=recipe, student=taught, seeds=(0,))
    student, changed = (np.array([line["semantic.student"] for line in x.values()]) for x in (lines, again))
    assert np.ptp(changed[fold == 0]) == pytest.approx(0, abs=1e-6)
    assert np.ptp(student[fold == 0]) > 0
    alone = crossfit.cross_fitted(found, data, None, recipe=recipe, student=taught, seeds=(0,))
    assert all(set(line) == {"semantic.tower"} for line in alone.values())
    with pytest.raises(ValueError, match="trunk takes a row for each of the"):
        crossfit.cross_fitted(found, data, trunk[1:], recipe=recipe, student=taught)
