"""A plugin in one file: read without being run, asked beside installed ones, held to the same lists."""

import pytest

from tellsign import Detector, PluginLoadError, SettingError
from tellsign.host import Host, discover
from tellsign.onefile import declaration_of, is_file
from tellsign.schemas import API_VERSION, Task

FILE = '''"""Scores something. And more words."""
from tellsign.plugin import DetectorPlugin

DECLARATION = {"task": "pixel"}

class Smudge(DetectorPlugin):
    def detect(self, views, runtime):
        return [[self.score("flat", 0.25)] for view in views]
'''


@pytest.fixture
def smudge(tmp_path):
    path = tmp_path / "smudge.py"
    path.write_text(FILE)
    return path


def test_what_a_file_declares_has_defaults_that_suit_a_trial(smudge):
    told = declaration_of(smudge)
    assert (told.name, told.task, told.api_version) == ("smudge", Task.PIXEL, API_VERSION)
    assert told.summary == "Scores something. And more words."
    assert told.detector == "tellsign_onefile_smudge:Smudge"
    assert (told.columns, told.commercial_use, told.code_licence) == ((), False, "LicenseRef-unstated")


def test_it_is_read_and_not_run(smudge):
    smudge.write_text(FILE + "\nraise RuntimeError('ran')\n")
    (record,) = [r for r in discover(files=[smudge]) if r.file]
    assert record.declaration.task is Task.PIXEL


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = (", "is no Python"),
        ("x = 1", "does not say its task"),
        ("DECLARATION = dict(task='pixel')", "must be a dict of plain values"),
        ("DECLARATION = {'task': 'pixel'}", "must have one class that derives from DetectorPlugin"),
        (FILE + "class Other(DetectorPlugin): pass", "it has Smudge, Other"),
        (FILE.replace('"pixel"', '"smell"'), "task"),
        (FILE.replace('"pixel"', '"pixel", "colour": 1'), "colour"),
        ("\0", "is no Python"),
    ],
)
def test_what_is_no_plugin_is_a_record_with_the_reason(smudge, text, words):
    smudge.write_text(text)
    (record,) = [r for r in discover(files=[smudge]) if r.file]
    assert (record.state, record.name) == ("failed", "smudge")
    assert words in record.reason


def test_a_file_that_is_not_there(tmp_path):
    (record,) = [r for r in discover(files=[tmp_path / "gone.py"]) if r.file]
    assert "cannot be read: No such file" in record.reason


def test_a_name_and_a_class_can_be_chosen(smudge):
    more = FILE.replace('"task"', '"name": "blur", "detector": "Other", "task"') + "class Other(Smudge): pass\n"
    smudge.write_text(more)
    told = declaration_of(smudge)
    assert (told.name, told.detector) == ("blur", "tellsign_onefile_smudge:Other")


@pytest.mark.parametrize("isolate", [(), ("smudge",)])
def test_a_detector_asks_it_beside_installed_plugins(site, fusion, picture, smudge, isolate):
    site.install("well")
    site.allow("smudge")
    for given in (smudge, str(smudge)):
        with Detector(fusion=fusion, plugins=["well", given], isolate=isolate) as detector:
            assert [(e.plugin, e.score) for e in detector.collect(picture)] == [("smudge", 0.25), ("well", 0.9)]
    with Detector(fusion=fusion, plugins=[smudge], isolate=isolate) as detector:
        assert [e.plugin for e in detector.collect(picture)] == ["smudge"]


def test_it_is_read_again_by_the_next_detector(site, fusion, picture, smudge):
    site.allow("smudge")
    for score in ("0.25", "0.75"):
        smudge.write_text(FILE.replace("0.25", score))
        with Detector(fusion=fusion, plugins=[smudge]) as detector:
            assert [e.score for e in detector.collect(picture)] == [float(score)]


@pytest.mark.parametrize(
    ("options", "environ", "reason"),
    [
        ({}, {"TELLSIGN_PLUGINS": "pixel"}, "not in TELLSIGN_PLUGINS"),
        ({}, {"TELLSIGN_DISABLED_PLUGINS": "smudge"}, "in TELLSIGN_DISABLED_PLUGINS"),
        ({"deny": ["smudge"]}, {}, "in the list of plugins not to use"),
        ({"commercial_only": True}, {}, "its licences (code LicenseRef-unstated, weights LicenseRef-unstated) allow"),
    ],
)
def test_it_is_held_to_the_lists(smudge, options, environ, reason):
    (record,) = [r for r in discover(allow=(), files=[smudge], environ=environ, **options) if r.file]
    assert record.state == "disabled"
    assert reason in record.reason


def test_the_name_of_an_installed_plugin_is_a_duplicate(site, smudge):
    site.install("smudge")
    records = [r for r in discover(files=[smudge]) if r.name == "smudge"]
    assert [r.state for r in records] == ["duplicate", "duplicate"]
    assert str(smudge) in records[0].reason
    (alone,) = [r for r in discover(allow=(), files=[smudge]) if r.file]
    assert alone.state == "ok"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("raise OSError('disk')", "OSError: disk"),
        ("del Smudge", "there is no Smudge in"),
        ("Smudge = 7", "must return a subclass of DetectorPlugin"),
    ],
)
def test_what_cannot_be_loaded_is_told(site, fusion, smudge, more, reason):
    site.allow("smudge")
    smudge.write_text(FILE + more)
    host = Host()
    assert host.load(discover(allow=(), files=[smudge])) == {}
    assert reason in next(r.reason for r in host.records if r.file)
    with pytest.raises(PluginLoadError, match="plugin 'smudge'"):
        Detector(fusion=fusion, plugins=[smudge], strict=True)


def test_names_and_files_are_told_apart(site, fusion):
    assert [is_file(p) for p in ("smudge", "smudge.py", "a/b.py", "a.pyc")] == [False, True, True, False]
    with pytest.raises(SettingError, match="names of installed plugins"):
        Detector(fusion=fusion, plugins=["smudge"])
