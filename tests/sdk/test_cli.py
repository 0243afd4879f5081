"""The command line, with a detector that answers at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tellsign.cli import doctor, models
from tellsign.cli.app import COMMANDS, app
from tellsign.cli.detect import find
from tellsign.errors import DecodeError, SettingError, WeightsError
from tellsign.schemas import Column, Declaration, Label, PredictionSet, Task, Verdict
from tellsign.schemas.codec import from_json

HEAVY = ("torch", "torchvision", "timm", "open_clip", "transformers", "xgboost", "sklearn", "scipy")

needs_posix_names = pytest.mark.skipif(os.name != "posix", reason="file names with control characters need POSIX")


def run(*args, stdin=None):
    return CliRunner().invoke(app, list(args), input=stdin, env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"})


@attrs.frozen
class Unreadable:
    source: str | None
    error: DecodeError


class FakeDetector:
    """Answers by what the source is; remembers how it was made."""

    made: list[dict[str, object]] = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, **options):
        FakeDetector.made.append(options)
        if options.get("plugins") == ["nope"]:
            raise SettingError("plugins", "names of installed plugins: pixel", "nope")
        if options.get("plugins") == ["torn"]:
            raise WeightsError("tower.safetensors", "is truncated")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def detect_many(self, sources, *, on_error):
        assert on_error == "return"
        for source in sources:
            name = None if isinstance(source, bytes) else source
            if isinstance(source, bytes) and not source:
                yield Unreadable(None, DecodeError("empty", "holds no bytes"))
            elif name is not None and not Path(name).is_file():
                yield Unreadable(name, DecodeError("not_found", "there is no such file", name))
            elif name is not None and "broken" in name:
                yield Unreadable(name, DecodeError("truncated", "the file ends too early", name))
            else:
                yield answer(name)


def answer(source):
    found = PredictionSet(labels=(Label.AUTHENTIC, Label.TAMPERED), not_assessed=(Label.TAMPERED,), error_rate=0.05)
    return Verdict(
        label=Label.AUTHENTIC,
        p_ai=0.04,
        p_ai_at_1_percent=0.0004,
        prediction_set=found,
        source=source,
        width=8,
        height=6,
    )


@pytest.fixture(autouse=True)
def detector(monkeypatch):
    monkeypatch.setattr("tellsign.detector.Detector", FakeDetector)
    FakeDetector.made = []
    return FakeDetector


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """b.png, a.jpg and broken.jpg, a text, a hidden picture, and a folder with one more."""
    monkeypatch.chdir(tmp_path)
    pictures = tmp_path / "pictures"
    (pictures / "deeper").mkdir(parents=True)
    (pictures / ".hidden").mkdir()
    for name in ("b.png", "a.JPG", "deeper/c.webp", ".thumb.jpg", ".hidden/d.png"):
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(pictures / name)
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (pictures / "notes.txt").write_text("not a picture")
    return pictures


def lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


# Starting up


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize(
    "command", [["--help"], ["--version"], ["detect", "--help"], ["plugins", "--help"], ["models", "list"]]
)
def test_the_light_commands_import_nothing_heavy(command, tmp_path):
    code = (
        "import contextlib, io, os, sys\n"
        f"os.environ['TELLSIGN_HOME'] = {str(tmp_path)!r}\n"
        f"sys.argv = ['tellsign', *{command!r}]\n"
        "from tellsign.__main__ import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):\n    main()\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), bool(out.getvalue()))"
    )
    assert python(code).strip() == "[] True"


def test_importing_the_package_and_its_weights_imports_nothing_heavy():
    code = f"import sys, tellsign, tellsign.weights; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    assert python(code).strip() == "[]"


def test_help_answers_in_half_a_second_of_processor_time():
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'tellsign', '--help'], check=True, stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime)"
    )
    pytest.importorskip("resource", reason="processor time of children is told by POSIX systems")
    assert min(float(python(code)) for _ in range(3)) < 0.5


def test_the_overview_names_every_command_and_imports_none():
    code = (
        "import contextlib, io, sys\nfrom tellsign.__main__ import main\nsys.argv = ['tellsign', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n    main()\n"
        "print([m for m in sys.modules if m.startswith('tellsign.cli.') and m != 'tellsign.cli.app'])"
    )
    assert python(code).strip() == "[]"
    told = run("--help").stdout
    for name in COMMANDS:
        assert name in told


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_in_the_table_is_there_and_has_help(name):
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


def test_a_misspelt_command_is_answered_with_the_nearest():
    result = run("detct")
    assert result.exit_code == 2
    assert "'detect'" in result.output


# Which pictures


def names(*paths, **options):
    return [s.name for s in find(paths, **options)]


def test_a_folder_gives_its_pictures_sorted(folder):
    given = str(folder)
    expected = [os.path.join(given, n) for n in ("a.JPG", "b.png", "broken.jpg")]
    assert names(given) == expected
    assert names(given, recursive=True) == [*expected, os.path.join(given, "deeper", "c.webp")]


def test_a_file_is_taken_whatever_it_is_called(folder):
    assert names(str(folder / "notes.txt"), "missing.jpg") == [str(folder / "notes.txt"), "missing.jpg"]


def test_a_folder_without_pictures_is_a_problem_of_its_own(folder):
    for picture in (folder / "deeper").iterdir():
        picture.unlink()
    result = run("detect", str(folder / "deeper"), "--json")
    assert result.exit_code == 1
    (told,) = lines(result)
    assert told["error"]["code"] == "no_pictures"
    assert "--recursive" in told["error"]["message"]


# detect --json


def test_json_is_one_verdict_a_line_and_reads_back(folder):
    result = run("detect", str(folder / "a.JPG"), str(folder / "b.png"), "--json")
    assert result.exit_code == 0
    told = lines(result)
    assert [Path(one["source"]).name for one in told] == ["a.JPG", "b.png"]
    wanted = {
        "source", "label", "reason", "p_ai", "p_tampered", "prior", "p_ai_at_1_percent", "prediction_set",
        "contributions", "evidence", "warnings", "versions", "timings",
    }  # fmt: skip
    assert wanted <= set(told[0])
    assert from_json(told[0], Verdict) == answer(str(folder / "a.JPG"))


def test_an_unreadable_picture_is_an_object_in_its_place_and_the_exit_status_says_so(folder):
    result = run("detect", str(folder), "missing.jpg", "--json")
    assert result.exit_code == 1
    told = lines(result)
    assert [("error" in one, Path(one["source"]).name) for one in told] == [
        (False, "a.JPG"), (False, "b.png"), (True, "broken.jpg"), (True, "missing.jpg"),
    ]  # fmt: skip
    assert told[2] == {
        "source": str(folder / "broken.jpg"), "error": {"code": "truncated", "message": "the file ends too early"},
    }  # fmt: skip
    assert told[3]["error"]["code"] == "not_found"


def test_a_dash_is_one_pictures_bytes(folder):
    result = run("detect", "-", "--json", stdin=(folder / "b.png").read_bytes())
    assert result.exit_code == 0
    assert lines(result)[0]["source"] == "-"
    assert lines(run("detect", "-", "--json", stdin=b""))[0] == {
        "source": "-", "error": {"code": "empty", "message": "holds no bytes"},
    }  # fmt: skip


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"])
def test_paths_can_come_on_stdin(folder, separator):
    listed = separator.join([str(folder / "b.png"), str(folder / "a.JPG"), ""]).encode()
    result = run("detect", "--files-from-stdin", "--json", stdin=listed)
    assert [Path(one["source"]).name for one in lines(result)] == ["b.png", "a.JPG"]


@needs_posix_names
def test_odd_file_names_survive_json_and_terminal(folder):
    odd = os.path.join(os.fsencode(folder), b"\xff\x1b[31m\n.png")
    with open(odd, "wb") as file:
        file.write((folder / "b.png").read_bytes())
    name = os.fsdecode(odd)
    told = lines(run("detect", name, "--json"))
    assert told[0]["source"] == name
    shown = run("detect", name, "--report", str(folder / "r.html"))
    assert shown.exit_code == 0, shown.output
    assert "\x1b[31m" not in shown.output


# detect for people


def test_the_panel_is_shown(folder):
    result = run("detect", str(folder / "a.JPG"))
    assert result.exit_code == 0
    assert "Looks authentic" in result.stdout
    assert "--report" in result.stdout  # how to see where
    assert "\x1b" not in result.stdout


def test_many_pictures_end_with_a_count(folder):
    result = run("detect", str(folder))
    assert result.exit_code == 1
    assert "3 pictures in" in result.stdout
    assert "2 authentic, 1 not read" in result.stdout


def test_quiet_is_a_line_a_picture(folder):
    told = run("detect", str(folder), "--quiet").stdout.splitlines()
    assert told == [
        f"{folder / 'a.JPG'}: authentic (AI 4 %)",
        f"{folder / 'b.png'}: authentic (AI 4 %)",
        f"{folder / 'broken.jpg'}: not read: the file ends too early",
    ]


def test_the_report_holds_every_picture(folder):
    result = run("detect", str(folder), "--report", str(folder / "out.html"), "--json")
    assert result.exit_code == 1
    text = (folder / "out.html").read_text(encoding="utf-8")
    assert text.count("<article") == 3
    assert text.count("data:image/jpeg") == 2
    assert "the file ends too early" in text
    assert len(lines(result)) == 3  # the report's own line goes to stderr


def test_the_report_of_stdin_shows_the_picture(folder):
    run("detect", "-", "--report", "out.html", stdin=(folder / "b.png").read_bytes())
    assert "data:image/jpeg" in Path("out.html").read_text(encoding="utf-8")


# detect: options


def test_options_reach_the_detector(folder):
    picture = str(folder / "a.JPG")
    args = [
        "--prior",
        "0.1",
        "--error-rate",
        "0.2",
        "--device",
        "cpu",
        "--no-stability",
        "--plugin",
        "pixel",
        "--plugin",
        "x",
    ]
    run("detect", picture, *args)
    assert FakeDetector.made == [
        {"prior": 0.1, "error_rate": 0.2, "device": "cpu", "stability_probe": False, "plugins": ["pixel", "x"]}
        | {"settings": {}}
    ]
    FakeDetector.made.clear()
    run("detect", picture)
    assert FakeDetector.made == [{"error_rate": None, "device": "auto", "stability_probe": True, "settings": {}}]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["detect"], "name a picture or a folder"),
        (["detect", "-", "-"], "stdin can be read once"),
        (["detect", "-", "--files-from-stdin"], "stdin can be read once"),
        (["detect", "x", "--prior", "1"], "between 0 and 1"),
        (["detect", "x", "--error-rate", "0"], "between 0 and 1"),
        (["detect", "x", "--prior", "much"], "number"),
        (["detect", "x", "--report", "no/such/folder/r.html"], "does not exist"),
        (["detect", "x", "--nonsense"], "--nonsense"),
        (["detect", "x", "--plugin", "nope"], "names of installed plugins: pixel"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_why(tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    result = run(*args)
    assert result.exit_code == 2
    told = " ".join(result.output.replace("│", " ").split())
    assert words in told


def test_an_error_of_the_package_is_one_line_and_no_traceback():
    result = run("detect", "x", "--plugin", "torn")
    assert result.exit_code == 1
    assert result.stderr == "tellsign: tower.safetensors: is truncated\n"


def test_the_detector_is_the_real_ones_shape():
    """The fake must not drift from what it stands for."""
    import importlib
    import inspect

    from tellsign.stream import Unreadable as Real

    source = inspect.getsource(importlib.import_module("tellsign.detector"))
    for option in ("plugins", "device", "error_rate", "stability_probe", "prior"):
        assert f"{option}: " in source
    assert [f.name for f in attrs.fields(Real)] == [f.name for f in attrs.fields(Unreadable)]


# plugins


def declaration():
    return Declaration(
        name="toy", version="2.0", api_version=1, task=Task.PIXEL, detector="toy:Toy", summary="a toy",
        columns=(Column(name="c", evidence="s"),), code_licence="MIT", weights_licence="none", commercial_use=False,
    )  # fmt: skip


@pytest.fixture
def records(monkeypatch):
    from tellsign.host import PluginRecord

    found = (
        PluginRecord("toy", "toy-dist", "1.1", "toy.mod", "ok", "", declaration()),
        PluginRecord("bad", "bad-dist", "0.1", "bad.mod", "failed", "\x1b[2Jno manifest", None),
    )
    monkeypatch.setattr("tellsign.host.discover", lambda **_: found)
    return found


def test_plugins_are_listed_with_what_they_say_and_why_they_fail(records):
    result = run("plugins", "list")
    assert result.exit_code == 0
    for part in (
        "toy",
        "pixel",
        "2.0",
        "toy-dist 1.1",
        "MIT / none (no commercial use)",
        "toy.c",
        "bad is failed",
        "no manifest",
    ):
        assert part in result.stdout, part
    assert "\x1b" not in result.stdout


def test_plugins_as_json(records):
    told = json.loads(run("plugins", "list", "--json").stdout)
    assert [(one["name"], one["state"], one["task"], one["version"]) for one in told] == [
        ("toy", "ok", "pixel", "2.0"), ("bad", "failed", None, None),
    ]  # fmt: skip
    assert told[0]["columns"][0]["name"] == "c"
    assert told[0]["code_licence"] == "MIT"
    assert (told[1]["reason"], told[1]["distribution"]) == ("\x1b[2Jno manifest", "bad-dist")


# models


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A registry of one entry of one tensor, and a file that fits it."""
    from safetensors.numpy import save_file

    from tellsign.weights import SPECS, WeightsSpec

    monkeypatch.setenv("TELLSIGN_HOME", str(tmp_path / "home"))
    for name in list(SPECS):
        monkeypatch.delitem(SPECS, name)
    spec = WeightsSpec(name="tiny", summary="one tensor", layout={"w": (2,)}, licence="MIT", commercial_use=True)
    monkeypatch.setitem(SPECS, "tiny", spec)
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_models_are_absent_then_fetched_then_present_then_broken(tiny):
    told = json.loads(run("models", "list", "--json").stdout)
    assert [(m["name"], m["state"]) for m in told] == [("tiny", "absent")]
    assert "absent" in run("models", "list").stdout
    fetched = run("models", "fetch", "tiny", "--from", str(tiny))
    assert fetched.exit_code == 0
    assert "from file: w.safetensors" in fetched.stdout
    (model,) = models.describe()
    assert (model["state"], model["source"]) == ("present", "file")
    assert "present" in run("models", "list").stdout
    Path(model["path"]).write_bytes(b"torn")
    assert json.loads(run("models", "list", "--json").stdout)[0]["state"] == "broken"
    assert "--force" in run("models", "list").stdout


def test_fetching_what_is_not_there_ends_with_1_and_an_unknown_name_with_2(tiny):
    result = run("models", "fetch", "tiny", "--from", "none.safetensors")
    assert result.exit_code == 1
    assert "none.safetensors: there is no such file" in result.stderr
    result = run("models", "fetch", "tinny")
    assert result.exit_code == 2
    assert "did you mean tiny?" in result.stderr


def test_each_step_of_a_fetch_is_told_once_where_there_is_no_terminal(tiny):
    result = run("models", "fetch", "tiny", "--from", str(tiny))
    assert result.stderr.splitlines() == ["tiny: convert (file)", "tiny: check (file)"]
    assert run("models", "fetch", "tiny", "--from", str(tiny), "--quiet").stderr == ""


# doctor

WELL = {
    "torch": "2.15.0+cpu",
    "torchvision": "0.30.0+cpu",
    "device": "cpu",
    "threads": 2,
    "built_for_cuda": None,
    "kept": [0, 2],
}


@pytest.fixture
def wanted(monkeypatch):
    """torchvision's own metadata, as the test wants it."""

    def say(version):
        monkeypatch.setattr(doctor, "_torch_wanted_by_torchvision", lambda: version)

    say("2.15.0")
    return say


def test_a_matching_pair_is_well(wanted):
    check = doctor.pair_check(WELL, "")
    assert (check.state, check.cure) == ("ok", None)
    assert "2.15.0+cpu" in check.message


def test_a_mismatched_pair_is_named_in_words_with_the_cure(wanted):
    wanted("2.14.1")
    told = {k: v for k, v in WELL.items() if k != "kept"}
    told["torchvision_error"] = "RuntimeError: operator torchvision::nms does not exist"
    check = doctor.pair_check(told, "")
    assert check.state == "broken"
    assert "torchvision 0.30.0+cpu was built for torch 2.14.1, and torch 2.15.0+cpu is installed" in check.message
    assert "nms does not exist" in check.message
    assert "torch torchvision" in check.cure
    assert "torch==2.14.1" in check.cure


def test_a_cpu_and_a_cuda_build_are_told_apart(wanted):
    told = WELL | {"torchvision": "0.30.0+cu132", "kept": None, "torchvision_error": "OSError: libcudart.so"}
    assert "torch is the cpu build and torchvision the cu132 build" in doctor.pair_check(told, "").message


def test_a_wrong_answer_a_missing_partner_and_a_crash_are_broken(wanted, monkeypatch):
    wrong = doctor.pair_check(WELL | {"kept": [0, 1, 2]}, "")
    assert (wrong.state, "nms answers [0, 1, 2]" in wrong.message) == ("broken", True)
    told = {k: v for k, v in WELL.items() if k not in ("kept", "torchvision")}
    crash = doctor.pair_check(told | {"torchvision": "0.30.0+cpu"}, "the process ended with status -11")
    assert (crash.state, "status -11" in crash.message) == ("broken", True)
    monkeypatch.setattr(doctor, "_version_of", lambda name: None)
    alone = doctor.pair_check(told, "")
    assert (alone.state, "torchvision is not" in alone.message) == ("broken", True)


def test_a_pair_that_works_against_its_metadata_is_a_note(wanted):
    wanted("2.14.1")
    assert doctor.pair_check(WELL, "").state == "note"


def test_the_probe_outlives_a_torch_that_kills_its_process(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("import os\nos._exit(139)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told, crash = doctor.probe()
    assert told == {}
    assert "status 139" in crash
    (check,) = doctor.check_torch()
    assert check.state == "broken"
    assert "status 139" in check.message


def test_the_probe_reads_what_torch_and_torchvision_say(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text(
        "__version__ = '9.9'\nclass _No:\n    is_available = staticmethod(lambda: False)\ncuda = _No\n"
        "class backends:\n    mps = _No\nclass version:\n    cuda = None\nget_num_threads = lambda: 3\ntensor = list\n"
    )
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text("__version__ = '8.8'\n")
    (tmp_path / "torchvision/ops.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told, crash = doctor.probe()
    assert (told["torch"], told["torchvision"], told["device"], told["threads"]) == ("9.9", "8.8", "cpu", 3)
    assert told["torchvision_error"] == "RuntimeError: operator torchvision::nms does not exist"
    assert crash == ""


@pytest.mark.parametrize(
    ("have", "least", "older"),
    [
        ("2.15.0+cu132", "2.6", False),
        ("2.6", "2.6.0", False),
        ("2.10", "2.9", False),
        ("2.5.9", "2.6", True),
        ("0.9", "1", True),
    ],
)
def test_versions_compare_by_number(have, least, older):
    assert (doctor._numbers(have) < doctor._numbers(least)) is older


def test_missing_and_old_packages_are_named(monkeypatch):
    monkeypatch.setattr(
        doctor.metadata,
        "requires",
        lambda name: ["numpy>=99", "no-such-package>=1", "attrs>=1", 'onnx>=1; extra == "convert"'],
    )
    (check,) = doctor.check_packages()
    assert check.state == "broken"
    assert "not installed: no-such-package" in check.message
    assert f"numpy {np.__version__} (needs 99)" in check.message
    assert check.cure == "pip install --upgrade no-such-package numpy"
    assert "onnx" not in check.details


def test_broken_weights_and_plugins_are_broken_and_absent_weights_are_not(tiny, records):
    (absent,) = doctor.check_weights()
    assert absent.state == "note"
    run("models", "fetch", "tiny", "--from", str(tiny))
    (present,) = doctor.check_weights()
    assert present.state == "ok"
    path = Path(models.describe()[0]["path"])
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    (torn,) = doctor.check_weights()
    assert (torn.state, torn.cure) == ("broken", "tellsign models fetch tiny --force")
    assert [(c.name, c.state) for c in doctor.check_plugins()] == [("plugin toy", "ok"), ("plugin bad", "broken")]


def test_without_any_detector_no_verdict_is_possible(monkeypatch):
    monkeypatch.setattr("tellsign.host.discover", lambda **_: ())
    (check,) = doctor.check_plugins()
    assert (check.name, check.state) == ("plugins", "broken")


def checks(*states):
    return lambda: iter([doctor.Check(name=f"c{n}", state=s, message="m", cure="do x") for n, s in enumerate(states)])


@pytest.mark.parametrize(("states", "code"), [(("ok", "note"), 0), (("ok", "broken"), 1)])
def test_the_doctors_exit_status_and_json(monkeypatch, states, code):
    monkeypatch.setattr(doctor, "examine", checks(*states))
    told = run("doctor")
    assert told.exit_code == code
    assert "cure: do x" in told.stdout
    assert ("All is well" in told.stdout) is (code == 0)
    as_json = run("doctor", "--json")
    assert as_json.exit_code == code
    assert json.loads(as_json.stdout)["ok"] is (code == 0)
    assert [c["state"] for c in json.loads(as_json.stdout)["checks"]] == list(states)


def test_a_check_that_raises_is_a_finding_and_the_others_go_on(monkeypatch):
    def check_memory():
        raise RuntimeError("no memory")

    for name in ("check_python", "check_packages", "check_torch", "check_cache", "check_weights", "check_plugins"):
        monkeypatch.setattr(doctor, name, checks("ok"))
    monkeypatch.setattr(doctor, "check_bundle", checks("note"))
    monkeypatch.setattr(doctor, "check_memory", check_memory)
    found = list(doctor.examine())
    assert len(found) == 8
    assert [(c.name, c.message) for c in found if c.state == "broken"] == [
        ("memory", "could not be checked (RuntimeError: no memory)")
    ]
    assert found[-1].state == "note"


def test_a_reader_that_leaves_ends_the_run_quietly(folder):
    """`tellsign detect --json ... | head -1`, with the pipe closed before the first line."""
    code = (
        "import sys\nimport tellsign.detector\n"
        "class Fake:\n"
        "    def __init__(self, **options): pass\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self, *_): pass\n"
        "    def detect_many(self, sources, on_error):\n"
        "        from tellsign.stream import Unreadable\n"
        "        from tellsign.errors import DecodeError\n"
        "        for s in sources: yield Unreadable(s, DecodeError('broken', 'x' * 100000))\n"
        "tellsign.detector.Detector = Fake\n"
        "from tellsign.__main__ import main\n"
        f"sys.argv = ['tellsign', 'detect', {str(folder)!r}, '--json']\n"
        "main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        told = process.stderr.read()
    assert process.returncode == 1
    assert told == ""
