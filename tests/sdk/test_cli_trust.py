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
    assert trust_options(plugin=["a", "b.py"]) == {"plugins": ["a", "b.py"]}
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


# -- the other commands that make a Detector ----------------------------------------------------------------------

GIVEN = [
    *("--deny", "odd", "--commercial-only", "--isolate", "well", "--isolate-memory", "1", "--time-limit", "well=20"),
    *("--allow", "well", "--set", "well.x=1"),
]
REACH = {
    "deny": ["odd"],
    "commercial_only": True,
    "isolate": ["well"],
    "isolate_memory": 1_000_000_000,
    "time_limit": {"well": 20.0},
    "plugins": ["well"],
    "settings": {"well": {"x": 1}},
}


@pytest.fixture
def labelled(tmp_path):
    """Three pictures of each class."""
    rng = np.random.default_rng(0)
    for side in ("real", "fake"):
        (tmp_path / "data" / side).mkdir(parents=True)
        for n in range(3):
            Image.fromarray(rng.integers(0, 256, (160, 160, 3), np.uint8)).save(tmp_path / "data" / side / f"{n}.png")
    return tmp_path / "data"


class StopError(Exception):
    """Raised where the Detector would be made."""


@pytest.mark.parametrize("command", ["detect", "eval", "audit", "tune"])
def test_every_command_that_makes_a_detector_takes_the_same_options(command, labelled, tmp_path, monkeypatch):
    import tellsign
    from tellsign.tuning import scoring

    got = []

    def make(**options):
        got.append(options)
        raise StopError

    monkeypatch.setattr(tellsign, "Detector", make)
    monkeypatch.setattr("tellsign.detector.Detector", make)
    monkeypatch.setitem(scoring.score.__kwdefaults__, "make", make)
    more = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")] if command == "tune" else []
    where = labelled / "real" / "0.png" if command == "detect" else labelled
    done = CliRunner().invoke(app, [command, str(where), *more, *GIVEN])
    assert isinstance(done.exception, StopError), done.output
    assert REACH.items() <= got[0].items()


def test_eval_with_a_plugin_that_crashes_in_its_own_process_is_complete(site, labelled, tmp_path):
    site.install("well", "return [self.score('s', 0.9)]")
    site.install("odd", "import os; os._exit(3)")
    report = tmp_path / "report.json"
    options = ["--isolate", "odd", "--no-stability", "--json", str(report)]
    done = CliRunner().invoke(app, ["eval", str(labelled), *options])
    assert report.is_file(), done.output
    told = json.loads(report.read_text())
    assert len(told["pictures"]["name"]) == 6
    assert "plugin_crashed" in json.dumps(told["warnings"])
    assert {"plugin:well", "plugin:odd"} <= set(told["versions"])
    done = CliRunner().invoke(app, ["eval", str(labelled), "--deny", "odd", "--no-stability", "--json", str(report)])
    assert [n for n in json.loads(report.read_text())["versions"] if n.startswith("plugin:")] == ["plugin:well"]


def test_tune_takes_a_plugin_in_a_file_and_scores_it_anew_when_the_file_changes(site, labelled, tmp_path):
    from tellsign.evaluation.dataset import load
    from tellsign.tuning.scoring import score

    def write(value):
        (tmp_path / "mine.py").write_text(
            "from tellsign.plugin import DetectorPlugin\n"
            "DECLARATION = {'task': 'pixel', 'columns': [{'name': 's', 'evidence': 's'}]}\n"
            "class Mine(DetectorPlugin):\n    def detect(self, views, runtime):\n"
            f"        return [[self.score('s', {value})] for _ in views]\n"
        )

    items = load(labelled).items
    trust = {"isolate": ["mine"], "time_limit": {"mine": 30.0}}
    site.allow("mine")
    for value in (0.25, 0.75):
        write(value)
        options = {"plugins": [str(tmp_path / "mine.py")], "trust": trust, "device": "cpu", "cache": tmp_path / "c"}
        first, again = score(items, **options), score(items, **options)
        assert (first.from_cache, again.from_cache) == (0, 6)
        assert {round(p.values["mine.s"], 3) for p in first.pictures} == {round(float(np.log(value / (1 - value))), 3)}
        assert [p.values for p in again.pictures] == [p.values for p in first.pictures]


def test_what_is_about_other_plugins_is_left_out():
    from tellsign.tuning.scoring import narrowed

    trust = {"deny": ["a"], "isolate": ["a", "b", "*"], "time_limit": {"a": 1.0, "b": 2.0}, "commercial_only": True}
    assert narrowed(trust, {"b"}) == {"isolate": ["b", "*"], "time_limit": {"b": 2.0}, "commercial_only": True}
    assert narrowed({"time_limit": 3.0}, {"b"}) == {"time_limit": 3.0}
    assert narrowed({}, {"b"}) == {}
