"""Plugin settings on the command line: how they are read, and that `detect` and `eval` hand them on."""

import functools
import math

import pytest
import typer
from typer.testing import CliRunner

import tellsign
from tellsign.cli.app import app
from tellsign.cli.settings import parse_settings
from tellsign.detector import Detector
from tellsign.errors import SettingError

COMMANDS = ("detect", "eval")


class StopHereError(Exception):
    pass


class Recorder:
    """Notes how it was made and does nothing further."""

    made: list[dict[str, object]] = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, **options):
        Recorder.made.append(options)
        raise StopHereError


@pytest.fixture
def made(monkeypatch):
    Recorder.made = []
    monkeypatch.setattr("tellsign.detector.Detector", Recorder)
    monkeypatch.setattr(tellsign, "Detector", Recorder, raising=False)
    return Recorder.made


@pytest.fixture
def data(tmp_path, picture):
    """One picture of each class."""
    from PIL import Image

    for side in ("real", "fake"):
        (tmp_path / side).mkdir()
        Image.fromarray(picture).save(tmp_path / side / "a.png")
    return tmp_path


def run(command, data, *words):
    target = data / "real" / "a.png" if command == "detect" else data
    return CliRunner().invoke(app, [command, str(target), *words], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})


# -- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ("bundled", "bundled"),
        ("true", True),
        ("false", False),
        ("True", "True"),
        ("null", None),
        ("3", 3),
        ("-0.5", -0.5),
        ('"3"', "3"),
        ('["a", 1]', ["a", 1]),
        ('{"a": {"b": 2}}', {"a": {"b": 2}}),
        ("", ""),
        ("a=b", "a=b"),
        ("/weights/dda.pth", "/weights/dda.pth"),
        ("C:\\weights\\dda.pth", "C:\\weights\\dda.pth"),
        ("{broken", "{broken"),
    ],
)
def test_a_value_is_json_or_text(value, want):
    found = parse_settings([f"pixel.name={value}"])
    assert found == {"pixel": {"name": want}}
    assert type(found["pixel"]["name"]) is type(want)


def test_settings_are_gathered_by_plugin_and_the_last_one_counts():
    given = ["pixel.strength=dda", "other.limit=3", "pixel.download=true", "pixel.strength=tower"]
    assert parse_settings(given) == {"pixel": {"strength": "tower", "download": True}, "other": {"limit": 3}}


@pytest.mark.parametrize("given", [None, [], ()])
def test_nothing_given_is_no_setting(given):
    assert parse_settings(given) == {}


def test_only_the_first_dot_and_the_first_equals_sign_divide():
    assert parse_settings(["pixel.a.b=c.d=e"]) == {"pixel": {"a.b": "c.d=e"}}


WRONG = ["", "pixel", "pixel.strength", "strength=dda", "=dda", ".=dda", ".strength=dda", "pixel.=dda", "pixel=a.b"]


@pytest.mark.parametrize("text", WRONG)
def test_what_names_no_setting_is_refused(text):
    with pytest.raises(typer.BadParameter) as caught:
        parse_settings([text])
    assert caught.value.message == f"takes PLUGIN.NAME=VALUE, got {text!r}"
    assert caught.value.param_hint == "--set"


def test_a_number_that_is_none_stays_what_json_made_of_it():
    (value,) = parse_settings(["pixel.x=1e400"])["pixel"].values()
    assert math.isinf(value)


# -- handing on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_hands_its_settings_to_the_detector(made, data, command):
    words = ["--set", "pixel.strength=bundled", "--set", "pixel.download=false", "--set", "other.n=2"]
    result = run(command, data, *words)
    assert isinstance(result.exception, StopHereError), result.output
    (options,) = made
    assert options["settings"] == {"pixel": {"strength": "bundled", "download": False}, "other": {"n": 2}}


@pytest.mark.parametrize("command", COMMANDS)
def test_without_settings_the_detector_is_given_none(made, data, command):
    run(command, data)
    (options,) = made
    assert not options["settings"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("text", ["pixel", "strength=dda", "pixel.=x"])
def test_a_command_refuses_what_is_no_setting_before_it_starts(made, data, command, text):
    result = run(command, data, "--set", text)
    assert result.exit_code == 2
    assert "--set" in result.stderr
    assert f"takes PLUGIN.NAME=VALUE, got {text!r}" in result.stderr
    assert made == []
    assert result.stdout == ""


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("words", "want"), [([], True), (["--stability"], True), (["--no-stability"], False)])
def test_the_stability_check_is_on_unless_it_is_turned_off(made, data, command, words, want):
    run(command, data, *words)
    (options,) = made
    assert options["stability_probe"] is want


@pytest.mark.parametrize("command", COMMANDS)
def test_a_setting_that_the_detector_refuses_is_wrong_usage(monkeypatch, data, command):
    def refuse(**options):
        raise SettingError("strength", "one of auto, tower", options["settings"]["pixel"]["strength"])

    monkeypatch.setattr("tellsign.detector.Detector", refuse)
    monkeypatch.setattr(tellsign, "Detector", refuse, raising=False)
    result = run(command, data, "--set", "pixel.strength=x")
    assert result.exit_code == 2
    assert "strength takes one of auto, tower, got 'x'" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_of_it(command):
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert "--set" in result.stdout
    assert "PLUGIN.NAME=VALUE" in result.stdout
    assert "--no-stability" in result.stdout


# -- reaching a plugin --------------------------------------------------------------------------------------------


def test_a_plugin_is_given_what_was_set(site, data, fusion, monkeypatch):
    """Through the real detector: the plugin's answer repeats its settings."""
    monkeypatch.setattr("tellsign.detector.Detector", functools.partial(Detector, fusion=fusion))
    site.install("told", "return [self.not_applicable(repr(sorted(self.settings.items())))]")
    result = run("detect", data, "--json", "--no-stability", "--set", "told.depth=3", "--set", "told.mode=fast")
    assert result.exit_code == 0, result.output
    assert "[('depth', 3), ('mode', 'fast')]" in result.stdout
    result = run("detect", data, "--json", "--no-stability", "--set", "tolt.depth=3")
    assert result.exit_code == 2
    assert "settings takes" in result.stderr
    assert "tolt" in result.stderr
