"""The options of `tellsign detect` that say which detectors run, and how far they are trusted."""

import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from tellsign.cli.app import app
from tellsign.cli.trust import trust_options


def test_only_what_was_given_is_passed_on():
    assert trust_options() == {}
    given = trust_options(deny=["a"], commercial_only=True, isolate=["b", "*"], isolate_memory=0.5, time_limit=["2.5"])
    assert given == {
        "deny": ["a"],
        "commercial_only": True,
        "isolate": ["b", "*"],
        "isolate_memory": 500_000_000,
        "time_limit": 2.5,
    }
    assert trust_options(time_limit=["a=1", "b=2"]) == {"time_limit": {"a": 1.0, "b": 2.0}}


@pytest.mark.parametrize(
    "options",
    [{"isolate_memory": 0}, {"time_limit": ["a=soon"]}, {"time_limit": ["soon"]}, {"time_limit": ["1", "a=2"]}],
)
def test_what_makes_no_sense_is_wrong_usage(options):
    with pytest.raises(typer.BadParameter):
        trust_options(**options)


@pytest.fixture
def detect(site, tmp_path):
    site.install("well", "return [self.score('s', 0.9)]")
    site.install("odd", "import os; os._exit(3)", commercial_use=False)
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(tmp_path / "a.png")

    def run(*args):
        path = str(tmp_path / "a.png")
        done = CliRunner().invoke(app, ["detect", path, "--json", "--no-stability", *args], env={"COLUMNS": "100"})
        return done, json.loads(done.stdout) if done.stdout.startswith("{") else None

    return run


def plugins_of(told):
    return {e["plugin"]: e["kind"] for e in told["evidence"]}


def test_a_crash_in_its_own_process_leaves_the_verdict(detect):
    done, told = detect("--isolate", "odd", "--isolate-memory", "1", "--time-limit", "odd=20")
    assert done.exit_code == 0, done.output
    assert plugins_of(told) == {"odd": "failed", "well": "score"}
    assert "plugin_crashed" in {n["code"] for n in told["warnings"]}


@pytest.mark.parametrize("option", [["--deny", "odd"], ["--commercial-only"]])
def test_what_may_not_run_does_not(detect, option):
    done, told = detect(*option)
    assert done.exit_code == 0, done.output
    assert plugins_of(told) == {"well": "score"}


def test_the_environment_says_the_same(detect, monkeypatch):
    monkeypatch.setenv("TELLSIGN_COMMERCIAL_ONLY", "1")
    assert plugins_of(detect()[1]) == {"well": "score"}
    monkeypatch.setenv("TELLSIGN_COMMERCIAL_ONLY", "maybe")
    done, _ = detect()
    assert done.exit_code == 2
    assert "TELLSIGN_COMMERCIAL_ONLY takes 1 or 0" in done.output


def test_wrong_names_are_wrong_usage(detect):
    done, _ = detect("--isolate", "od")
    assert done.exit_code == 2
    assert "did you mean 'odd'?" in done.output
