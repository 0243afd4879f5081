"""What `tellsign plugins new` writes works as it stands."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tellsign import Detector, SettingError
from tellsign.cli.app import app
from tellsign.devkit import check
from tellsign.devkit.new import new
from tellsign.schemas import Task

TASKS = list(Task)


def as_installed(folder):
    """Metadata beside the package, as an editable installation has it."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    [(group, entries)] = project["entry-points"].items()
    (info / "entry_points.txt").write_text(f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in entries.items()) + "\n")


def child(folder, *command):
    path = os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])
    return subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )


@pytest.mark.parametrize("task", [Task.PIXEL, Task.SEGMENTATION])
def test_the_package_is_found_and_passes_its_own_tests(tmp_path, task):
    written = new("my-detector", task=task, folder=tmp_path)
    folder = tmp_path / "tellsign-my-detector"
    assert {p.relative_to(folder).as_posix() for p in written} == {
        "README.md",
        "pyproject.toml",
        "tellsign_my_detector/__init__.py",
        "tellsign_my_detector/detector.py",
        "tellsign_my_detector/tellsign.json",
        "tests/test_my_detector.py",
    }
    as_installed(folder)
    listed = child(folder, "-m", "tellsign", "plugins", "list", "--json")
    (mine,) = [r for r in json.loads(listed.stdout) if r["name"] == "my-detector"]
    assert (mine["state"], mine["task"], mine["distribution"]) == ("ok", task.value, "tellsign-my-detector")
    tested = child(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert tested.returncode == 0, tested.stdout
    assert "18 passed" in tested.stdout


@pytest.mark.parametrize("task", TASKS)
def test_the_file_passes_every_check_that_is_about_it(tmp_path, task):
    (path,) = new("my-detector", task=task, folder=tmp_path, single=True)
    report = check(path)
    assert report.passed, [r for r in report.results if r.state == "failed"]
    assert [r.name for r in report.results if r.state == "skipped"] == ["cheap_listing"]


def test_what_is_written_is_clean(tmp_path):
    ruff = pytest.importorskip("ruff", reason="ruff is in the extra `dev`")
    assert ruff
    for task in TASKS:
        new(f"a-{task.value}", task=task, folder=tmp_path)
        new(f"b-{task.value}", task=task, folder=tmp_path, single=True)
    for command in (["check", "--select", "E,F,UP,B"], ["format", "--check"]):
        done = child(tmp_path, "-m", "ruff", *command, "--line-length", "120", "--no-cache", "--isolated", ".")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["", "Smudge", "9lives", "a b", "../up", "bias", "x" * 41])
def test_names_that_are_not_allowed(tmp_path, name):
    with pytest.raises(SettingError, match="name takes"):
        new(name, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_and_no_name_is_taken_twice(tmp_path):
    new("smudge", folder=tmp_path)
    with pytest.raises(SettingError, match="whose folder is not there yet"):
        new("smudge", folder=tmp_path)
    new("smudge", folder=tmp_path, single=True)
    with pytest.raises(SettingError, match="whose file is not there yet"):
        new("smudge", folder=tmp_path, single=True)
    with pytest.raises(SettingError, match=r"one that no installed plugin has \(tellsign brings it\), got 'pixel'"):
        new("pixel", folder=tmp_path)
    with pytest.raises(SettingError, match="a folder that is there"):
        new("other", folder=tmp_path / "nowhere")


def run(*args):
    return CliRunner().invoke(app, ["plugins", "new", *args], env={"COLUMNS": "100"})


def test_the_command_says_what_to_do_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("smudge", "--task", "semantic")
    assert result.exit_code == 0
    assert "Install it:  pip install -e tellsign-smudge" in result.output
    assert '"task": "semantic"' in Path("tellsign-smudge/tellsign_smudge/tellsign.json").read_text()
    result = run("smudge", "--one-file")
    assert "tellsign detect PICTURE --plugin smudge.py" in result.output
    assert run("smudge").exit_code == 2
    assert run("other", "--task", "smell").exit_code == 2


def test_a_file_just_written_answers(tmp_path, monkeypatch, picture):
    monkeypatch.delenv("TELLSIGN_PLUGINS", raising=False)
    (path,) = new("smudge", folder=tmp_path, single=True)
    with Detector(plugins=[path]) as detector:
        (score,) = detector.collect(picture)
    assert (score.plugin, score.name) == ("smudge", "flat")
