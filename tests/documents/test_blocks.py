"""Every code block in the documents runs: here, by a test of its own, or by `.ci/run`."""

import re
import runpy

import pytest
from blocks import FENCE, KINDS, PAGES, ROOT, RUNS, SHOWN, blocks, page_run_by
from driver import run


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_blocks_are_of_known_languages_and_name_what_runs_them(page):
    for block in blocks(page):
        assert block.language in RUNS + SHOWN, f"a block of {block.language!r} in {page.name}: {block.code[:60]!r}"
        assert set(block.marks) <= KINDS, block.marks
        assert len(block.marks) < 2, f"two marks that exclude each other: {block.marks}"
    named = [*page_run_by(page), *(b.marks["run by"] for b in blocks(page) if "run by" in b.marks)]
    for test in named:
        assert page.name in (ROOT / test).read_text(encoding="utf-8"), f"{test} does not run {page.name}"
    # Commands that are only indented would be run by nobody.
    outside = FENCE.sub("", page.read_text(encoding="utf-8"))
    stray = re.findall(r"^    (?:tellsign|python|pip) .*", outside, re.M)
    assert not stray, f"{page.name}: put these into a fence: {stray}"


def test_what_ci_runs_it_runs():
    """`.ci/run` reads the block of that name out of README.md, and nowhere else."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    read = set(re.findall(r"\breadme ([\w-]+)", script))
    marked = {(b.page.name, b.marks["ci"]) for page in PAGES for b in blocks(page) if "ci" in b.marks}
    assert marked == {("README.md", name) for name in read}


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


def runs_here(page):
    return not page_run_by(page) and any(b.runs for b in blocks(page))


@pytest.mark.parametrize("page", [p for p in PAGES if runs_here(p)], ids=lambda p: p.stem)
def test_the_blocks_of_a_page_run(page, folder, tmp_path):
    """One page in one process, offline, with the bundled weights alone."""
    run([b for b in blocks(page) if b.runs], folder, tmp_path / "home")
