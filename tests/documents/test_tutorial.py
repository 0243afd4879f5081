"""The tutorial, followed word for word in a fresh environment that sees this one's packages through a .pth file."""

import os
import re
import runpy
import subprocess

import pytest
from blocks import ROOT
from fresh import environment

TUTORIAL = (ROOT / "docs" / "tutorial-plugin.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:<!-- file: (\S+) -->\s*)?```(\w+)\n(.*?)```", TUTORIAL, re.S)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="its blocks are for a POSIX shell")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    return environment(tmp_path_factory.mktemp("venv"))


def test_it_is_a_tutorial():
    kinds = [kind for _, kind, _ in BLOCKS]
    assert kinds.count("sh") >= 8
    assert kinds.count("python") == 3
    assert set(kinds) == {"sh", "python"}
    minutes = {"two": 2, "three": 3, "five": 5, "one": 1}
    assert sum(minutes[word] for word in re.findall(r"^## .*\((\w+) minutes?\)$", TUTORIAL, re.M)) == 15


def test_the_number_of_checks_that_it_tells_is_right():
    from tellsign.devkit import CHECKS

    assert ("Seventeen named checks" in TUTORIAL) == (len(CHECKS) == 17)


def test_word_for_word(fresh, tmp_path):
    runpy.run_path(str(ROOT / ".ci" / "photo.py"))["photograph"](400, 300).save(tmp_path / "photo.jpg", quality=90)
    told = []
    for file, kind, text in BLOCKS:
        if file:
            path = tmp_path / file
            assert path.is_file(), f"{file} is replaced, so it should be there by now"
            path.write_text(text)
            continue
        command = ["bash", "-euo", "pipefail", "-c", text] if kind == "sh" else ["python", "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=fresh, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        told.append(done.stdout)
    everything = "\n".join(told)
    assert "smudge: 16 passed, 1 skipped, of 17 checks." in everything
    assert "smudge: 17 passed, of 17 checks." in everything
    assert "18 passed" in everything
    assert re.search(r"^smudge score$", everything, re.M)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert [p.name for p in (tmp_path / "dist").iterdir()] == ["tellsign_smudge-0.1.0-py3-none-any.whl"]


def test_the_fresh_environment_does_not_touch_this_one():
    from tellsign.host import discover

    assert "smudge" not in {r.name for r in discover(environ={})}
