"""A run that was killed goes on where it was, counts nothing twice, and holds no more memory at its end."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from tellsign.evaluation.dataset import DataError, load
from tellsign.evaluation.journal import Journal
from tellsign.evaluation.outcomes import Outcome
from tellsign.evaluation.run import evaluate
from tellsign.evaluation.shortcuts import Traits
from tellsign.schemas import Label, PredictionSet, Verdict

TRAITS = Traits(format="PNG", tables="none", quality=101.0, size=64.0, blockiness=1.0, sharpness=0.5, spectrum=0.1)
KILLED = """
    import sys, time
    from pathlib import Path
    from tellsign.evaluation.dataset import load
    from tellsign.evaluation.run import evaluate
    sys.path.insert(0, {folder!r})
    from helper import Mean
    evaluate(load({data!r}), Mean(pause=0.05), conditions="native,jpeg70", journal=Path({journal!r}))
"""
HELPER = """
    import time
    from tellsign.schemas import Label, PredictionSet, Verdict

    class Mean:
        versions = {"mean": "1"}

        def __init__(self, pause=0.0):
            self.pause, self.asked = pause, 0

        def detect_many(self, sources, *, batch_size=None, on_error="raise"):
            for picture in sources:
                self.asked += 1
                time.sleep(self.pause)
                p = float(picture.pixels.mean() / 255)
                label = Label.AI_GENERATED if p >= 0.5 else Label.AUTHENTIC
                yield Verdict(
                    label=label, p_ai=p, prediction_set=PredictionSet(labels=(label,), error_rate=0.1),
                    width=picture.width, height=picture.height,
                )
"""


class Mean:
    """p is the mean of the pixels; can break down after a while."""

    def __init__(self, stop_after=None, version="1"):
        self.stop_after, self.asked, self.versions = stop_after, 0, {"mean": version}

    def detect_many(self, sources, *, batch_size=None, on_error="raise"):
        for picture in sources:
            if self.asked == self.stop_after:
                raise KeyboardInterrupt
            self.asked += 1
            p = float(picture.pixels.mean() / 255)
            label = Label.AI_GENERATED if p >= 0.5 else Label.AUTHENTIC
            yield Verdict(
                label=label,
                p_ai=p,
                prediction_set=PredictionSet(labels=(label,), error_rate=0.1),
                width=picture.width,
                height=picture.height,
            )


@pytest.fixture
def folder(tmp_path):
    for n in range(24):
        path = tmp_path / "data" / ("fake" if n % 2 else "real") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24), (n * 9,) * 3).save(path)
    # One content that is there twice: one answer in the journal, two pictures in the report.
    (tmp_path / "data" / "fake" / "again.png").write_bytes((tmp_path / "data" / "fake" / "1.png").read_bytes())
    return tmp_path / "data"


def same(first, second):
    def kept(report):
        drop = ("seconds", "warnings", "versions")
        return json.dumps({k: v for k, v in report.items() if k not in drop}, sort_keys=True)

    return kept(first) == kept(second)


def test_a_broken_run_goes_on_and_counts_nothing_twice(folder, tmp_path):
    whole = evaluate(load(folder), Mean(), conditions="native,jpeg70", draws=30)
    journal = tmp_path / "run.journal"
    with pytest.raises(KeyboardInterrupt):
        evaluate(load(folder), Mean(stop_after=17), conditions="native,jpeg70", draws=30, journal=journal)
    second = Mean()
    resumed = evaluate(load(folder), second, conditions="native,jpeg70", draws=30, journal=journal)
    assert second.asked <= 2 * 25 - 17
    assert same(whole, resumed)
    assert resumed["overall"]["n"] == 25
    assert any("answers were taken from the journal" in w for w in resumed["warnings"])
    third = Mean()
    again = evaluate(load(folder), third, conditions="native,jpeg70", draws=30, journal=journal)
    assert third.asked == 0
    assert same(whole, again)


def test_a_killed_process_leaves_a_journal_that_can_be_used(folder, tmp_path):
    (tmp_path / "helper.py").write_text(textwrap.dedent(HELPER))
    journal = tmp_path / "k.journal"
    code = textwrap.dedent(KILLED.format(folder=str(tmp_path), data=str(folder), journal=str(journal)))
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") > 8:
            break
        time.sleep(0.02)
    process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    process.wait()
    there = journal.read_bytes().count(b'"of"')
    assert 0 < there < 50
    rest = Mean()
    report = evaluate(load(folder), rest, conditions="native,jpeg70", draws=0, journal=journal)
    assert report["overall"]["n"] == 25
    assert rest.asked <= 50 - there + 1  # the line that was being written may be lost


def test_another_version_is_another_answer(folder, tmp_path):
    journal = tmp_path / "j"
    evaluate(load(folder), Mean(), draws=0, journal=journal)
    newer = Mean(version="2")
    report = evaluate(load(folder), newer, draws=0, journal=journal)
    assert newer.asked == 25
    assert any("answers of other versions or settings; they were not used" in w for w in report["warnings"])
    other = Mean()
    evaluate(load(folder), other, draws=0, journal=journal, setup={"device": "cuda"})
    assert other.asked == 25


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "j"
    answer = Outcome(label="authentic", p_ai=0.25, p_tampered=None, traits=TRAITS, hits=(1, 2, 3), notices=("a: b",))
    with Journal(path, {"v": 1}) as journal:
        journal.add("aa", "native", answer)
        journal.add("bb", "native", answer)
    path.write_bytes(path.read_bytes()[:-20])
    with Journal(path, {"v": 1}) as journal:
        assert len(journal) == 1
        assert journal.get("aa", "native") == answer
        assert journal.get("bb", "native") is None
        journal.add("bb", "native", answer)
    with Journal(path, {"v": 1}) as journal:
        assert len(journal) == 2
        assert journal.get("bb", "native") == answer
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_journal_cut_off_in_its_first_line_starts_anew(tmp_path):
    (tmp_path / "j").write_bytes(b'{"tellsign-ev')
    with Journal(tmp_path / "j", {}) as journal:
        assert len(journal) == 0
    with Journal(tmp_path / "j", {}) as journal:
        assert len(journal) == 0


def test_a_file_that_is_no_journal_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("my notes\n")
    with pytest.raises(DataError, match="is no journal of tellsign eval"):
        Journal(tmp_path / "notes.txt", {})
    assert (tmp_path / "notes.txt").read_text() == "my notes\n"


def test_a_damaged_mask_and_an_unreadable_picture_are_tried_again(folder, tmp_path):
    (folder / "real" / "late.png").write_bytes(b"")
    journal = tmp_path / "j"
    first = evaluate(load(folder), Mean(), draws=0, journal=journal)
    assert first["errors"]["unreadable"] == 1
    Image.new("RGB", (24, 24), (7, 7, 7)).save(folder / "real" / "late.png")
    second = evaluate(load(folder), Mean(), draws=0, journal=journal)
    assert (second["errors"]["unreadable"], second["overall"]["n"]) == (0, 26)


def test_memory_does_not_grow_with_the_pictures(tmp_path):
    """Bytes that Python holds after 100 and after 450 of 500 thumbnails; arrays are allocated before the first."""
    rng = np.random.default_rng(0)
    for n in range(500):
        path = tmp_path / ("fake" if n % 2 else "real") / f"{n}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path, quality=50 + n % 50)
    dataset, marks = load(tmp_path), {}

    def tick(done, total):
        if done in (100, 450):
            marks[done] = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        evaluate(dataset, Mean(), draws=0, progress=tick, journal=tmp_path / "j")
    finally:
        tracemalloc.stop()
    # A row that stayed for each picture would be 500 bytes and more; a path keeps its text, which is some 130.
    assert marks[450] - marks[100] < 350 * 250, marks


def test_the_grid_does_not_make_all_its_pictures_at_once(folder, monkeypatch):
    import tellsign.evaluation.run as run
    from tellsign.evaluation.conditions import GRID

    alive, most = [0], [0]
    true = run.damaged

    def counting(picture, condition):
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        return true(picture, condition)

    class Slow(Mean):
        def detect_many(self, sources, *, batch_size=None, on_error="raise"):
            for source in sources:
                yield from super().detect_many([source], on_error=on_error)
                alive[0] -= 1

    monkeypatch.setattr(run, "damaged", counting)
    names = ["native", *GRID]
    report = evaluate(load(folder, limit=2), Slow(), conditions=names, draws=0)
    assert list(report["by_condition"]) == names
    assert most[0] <= 20


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX file modes")
def test_files_that_may_not_be_read_are_named(folder):
    path = folder / "real" / "0.png"
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    report = evaluate(load(folder), Mean(), draws=0)
    assert report["errors"]["files"][0]["path"] == "real/0.png"
