"""Every code block in the documents runs, or says why it does not."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"((?:<!--[^\n]*-->\s*\n)*)^```(\w*)\n(.*?)^```$", re.M | re.S)
RUN_BY = re.compile(r"<!-- run by: (\S+) -->")
"""A page that a test of its own runs, word for word."""
RUNS = ("python", "sh")
SHOWN = ("text", "json", "toml", "csv", "yaml", "html", "xml", "")
"""Languages of blocks that nobody types."""


@attrs.frozen
class Block:
    language: str
    code: str
    marks: dict[str, str]

    @property
    def runs(self):
        return self.language in RUNS and not self.marks.keys() & {"not run", "ci", "file"}


def blocks(page):
    for comments, language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        marks = dict(re.findall(r"<!-- ([\w ]+): (.*?) -->", comments))
        yield Block(language, code, marks)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_blocks_are_of_known_languages_and_give_reasons(page):
    for block in blocks(page):
        assert block.language in RUNS + SHOWN, f"a block of {block.language!r} in {page.name}: {block.code[:60]!r}"
        assert set(block.marks) <= {"not run", "ci", "file"}, block.marks
        if "not run" in block.marks:
            assert len(block.marks["not run"]) > 10
    for test in RUN_BY.findall(page.read_text(encoding="utf-8")):
        assert page.name in (ROOT / test).read_text(encoding="utf-8"), f"{test} does not run {page.name}"
    # Commands that are only indented would be run by nobody.
    outside = FENCE.sub("", page.read_text(encoding="utf-8"))
    stray = re.findall(r"^    (?:tellsign|python|pip) .*", outside, re.M)
    assert not stray, f"{page.name}: put these into a fence: {stray}"


@pytest.fixture
def folder(tmp_path):
    """The pictures that the documents speak of, anew for each page."""
    out = tmp_path / "pictures"
    photograph = runpy.run_path(str(ROOT / ".ci" / "photo.py"))["photograph"]
    names = ["photo.jpg", *(f"holiday/{n}.jpg" for n in "ab")]
    names += [f"photos/{n}.jpg" for n in "abcdef"]
    names += [f"labelled/{side}/{n}.jpg" for side in ("real", "fake") for n in "abc"]
    for number, name in enumerate(names):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        photograph(400, 300, seed=number).save(out / name, quality=90)
    return out


DRIVER = """
import shlex, sys
from typer.testing import CliRunner
from tellsign.cli.app import app

space = {"__name__": "__main__"}
for language, code in BLOCKS:
    if language == "python":
        exec(compile(code, "document", "exec"), space)
        continue
    for line in code.splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] != "tellsign":
            sys.exit(f"not a tellsign command: {line}")
        out = words[words.index(">") + 1] if ">" in words else None
        words = words[1 : words.index(">")] if out else words[1:]
        done = CliRunner().invoke(app, words, prog_name="tellsign")
        if done.exit_code:
            sys.exit(f"{line}\\n{done.output}\\n{done.exception!r}")
        if out:
            open(out, "w").write(done.stdout)
"""


def runs_here(page):
    return not RUN_BY.search(page.read_text(encoding="utf-8")) and any(b.runs for b in blocks(page))


@pytest.mark.parametrize("page", [p for p in PAGES if runs_here(p)], ids=lambda p: p.stem)
def test_the_blocks_of_a_page_run(page, folder, tmp_path):
    """One page in one process, offline, with the bundled weights alone."""
    told = [(b.language, b.code) for b in blocks(page) if b.runs]
    env = os.environ | {"TELLSIGN_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests" / "offline"), env.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", f"BLOCKS = {told!r}\n{DRIVER}"], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
