"""Reading verdicts back, and the reference that a bundle brings."""

import json
import math

import numpy as np
import pytest

from tellsign import SettingError
from tellsign.fusion.bundle import Bundle
from tellsign.tuning.monitor import in_words, monitor, read_reference, read_scores, reference_of


def lines(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_json_lines_and_csv_say_the_same_at_any_prior(tmp_path):
    rows = [{"p_ai": 0.5}, {"p_ai": 0.2, "prior": 0.2}, {"p_ai": None}, {"source": "x", "error": {}}]
    stream = read_scores(lines(tmp_path / "a.jsonl", rows))
    assert stream.log_odds == pytest.approx([0, 0], abs=1e-12)
    assert (stream.passed_over, stream.groups) == (2, None)
    (tmp_path / "a.csv").write_text("p_ai,prior,group\n.5,,a\n.2,.2,a\n,,b\n")
    stream = read_scores(tmp_path / "a.csv")
    assert stream.log_odds == pytest.approx([0, 0], abs=1e-12)
    assert (stream.passed_over, stream.groups) == (1, ("a", "a"))


def test_verdicts_that_a_claim_moved_are_passed_over(tmp_path):
    rows = [{"p_ai": 0.5}, {"p_ai": 0.99, "warnings": [{"code": "file_claim", "message": "m", "plugin": "provenance"}]}]
    stream = read_scores(lines(tmp_path / "a.jsonl", rows))
    assert (len(stream.log_odds), stream.passed_over) == (1, 1)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.jsonl", '{"p_ai": 2}\n', "line 1"),
        ("a.jsonl", '{"p_ai": "x"}\n', "line 1"),
        ("a.jsonl", '{"p_ai": 0.5}\n[1]\n', "line 2"),
        ("a.jsonl", '{"p_ai": 0.5}\n{"p_a', "line 2"),
        ("a.jsonl", '{"p_ai": null}\n', "none in"),
        ("a.csv", "p\n1\n", "p_ai"),
        ("a.csv", "p_ai\n-1\n", "line 2"),
        ("a.csv", "", "p_ai"),
    ],
)
def test_what_is_no_verdict_is_refused_in_one_line(tmp_path, name, content, word):
    (tmp_path / name).write_text(content)
    with pytest.raises(SettingError, match=word) as caught:
        read_scores(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_the_shipped_bundle_brings_a_reference():
    bundle = Bundle.load()
    if "p_tampered" in bundle.heads:
        pytest.skip("the shipped bundle has tamper evidence: monitor takes --reference with it")
    reference = reference_of(bundle)
    assert min(len(reference.real), len(reference.ai)) >= 20
    assert np.median(reference.real) < np.median(reference.ai)
    with pytest.raises(SettingError, match="pattern"):
        reference_of(bundle, "nothing")


def test_a_reference_can_be_given(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(label, 1 / (1 + math.exp(-rng.normal(3 * label - 1.5, 1)))) for label in (0, 1) for _ in range(60)]
    (tmp_path / "r.csv").write_text("label,p_ai\n" + "".join(f"{y},{p}\n" for y, p in rows))
    reference = read_reference(tmp_path / "r.csv")
    assert (len(reference.real), len(reference.ai)) == (60, 60)
    (tmp_path / "s.csv").write_text("p_ai\n" + "".join(f"{p}\n" for _, p in rows[20:100]))
    stream = read_scores(tmp_path / "s.csv")
    # Sorted by class, as a folder is: the share jumps, unless the order is said to mean nothing.
    assert monitor(stream, reference).alarm
    calm = monitor(stream, reference, shuffle=True)
    assert not calm.alarm
    assert "No drift" in in_words(calm, reference)
    (tmp_path / "s.csv").write_text("p_ai\n" + "0.99999\n" * 60)
    wild = monitor(read_scores(tmp_path / "s.csv"), reference)
    assert wild.alarm
    assert "DRIFT" in in_words(wild, reference)
    with pytest.raises(SettingError, match="rate"):
        monitor(stream, reference, rate=3)


@pytest.mark.parametrize("content", ["p_ai\n1\n", "label,p_ai\n2,.5\n", "label,p_ai\n1,x\n"])
def test_what_is_no_reference_is_refused(tmp_path, content):
    (tmp_path / "r.csv").write_text(content)
    with pytest.raises(SettingError):
        read_reference(tmp_path / "r.csv")
