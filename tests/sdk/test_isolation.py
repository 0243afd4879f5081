"""A plugin in a process of its own: what it does to that process, the batch does not notice but for a warning."""

import io
import os
import signal
import struct
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellsign import Detector, PluginError, PluginLoadError, SettingError
from tellsign.isolation import frames
from tellsign.isolation.guard import ENDS
from tellsign.isolation.limits import half_of_the_machine, memory_of
from tellsign.schemas import Box, Failed, MapEvidence, PixelView, ScoreEvidence, SegmentationView, Task, Unavailable
from tellsign.schemas.codec import CodecError, from_parts, to_parts

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the memory of a process")
posix = pytest.mark.skipif(os.name != "posix", reason="signals and sessions are POSIX")

GOOD = "return [self.score('s', 0.9)]"
ODD_ONE = "if view.width != 200: return [self.score('s', 0.25)]\n"
CRASH = "import ctypes; ctypes.string_at(0)"
EXIT = "import os; os._exit(3)"
HANG = "import time; time.sleep(60)"
BLOW_UP = "import numpy as np\nkept = []\nwhile True: kept.append(np.ones(1 << 22))"


@pytest.fixture
def apart(site, fusion):
    """A Detector with one well-behaved plugin in this process and one in its own, which answers as the text says."""
    made = []

    def make(answer, **options):
        site.install("well", GOOD)
        site.install("odd", answer, **options.pop("manifest", {}))
        options = {"isolate": ["odd"], "stability_probe": False, "device": "cpu", "time_limit": {"odd": 30.0}} | options
        made.append(Detector(fusion=fusion, **options))
        return made[-1]

    yield make
    for detector in made:
        detector.close()


def remote(detector):
    return next(g for g in detector._pipeline.guards if g.name == "odd").plugin


def from_odd(verdict):
    """What the isolated plugin said and what was warned of; the other one must be well."""
    assert [e.score for e in verdict.evidence if e.plugin == "well"] == [0.9]
    return [e for e in verdict.evidence if e.plugin == "odd"], [n for n in verdict.warnings if n.plugin == "odd"]


# -- the three that the process is for ----------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        pytest.param(CRASH, "plugin_crashed", "its process ended: killed by SIGSEGV", id="segfault"),
        pytest.param(EXIT, "plugin_crashed", "its process ended: exit status 3", id="exit"),
        pytest.param(HANG, "plugin_timeout", "it did not answer within 1 s; its process was ended", id="hang"),
        pytest.param(BLOW_UP, "plugin_memory", "in memory (limit 0.40 GB) and was ended", id="memory", marks=linux),
    ],
)
def test_a_batch_is_complete_whatever_one_picture_does_to_the_process(apart, picture, fault, code, words):
    limit = {"odd": 1.0 if fault is HANG else 30.0}  # a slow machine must not make a hang of the others
    detector = apart(ODD_ONE + fault, isolate_memory=400_000_000, time_limit=limit)
    pictures = [picture, picture[:, :200], picture, picture]
    verdicts = list(detector.detect_many(pictures, batch_size=4))
    assert len(verdicts) == 4
    for place, verdict in enumerate(verdicts):
        evidence, notices = from_odd(verdict)
        if place == 1:
            (failed,), (notice,) = evidence, notices
            assert isinstance(failed, Failed)
            assert notice.code == code
            assert words in notice.message
        else:
            assert [e.score for e in evidence] == [0.25]
            assert notices == []
    again, notices = from_odd(detector.detect(picture))  # and it is there for the next one
    assert ([e.score for e in again], notices) == ([0.25], [])


@posix
def test_the_process_is_not_started_for_ever(apart, picture):
    detector = apart(EXIT)
    verdicts = list(detector.detect_many([picture] * 8, batch_size=8))
    assert len(verdicts) == 8
    assert remote(detector).starts == ENDS
    words = [from_odd(v)[1][0].message for v in verdicts]
    assert all("its process ended: exit status 3" in w for w in words[: ENDS - 1])
    gone = f"odd: its process ended {ENDS} times in a row and is not started again"
    assert words[ENDS - 1 :] == [gone] * (8 - ENDS + 1)
    began = time.monotonic()
    assert from_odd(detector.detect(picture))[1][0].message == gone
    assert time.monotonic() - began < 1


def test_a_good_answer_in_between_starts_the_count_anew(apart, picture):
    detector = apart(ODD_ONE + EXIT)
    for _ in range(ENDS):
        from_odd(detector.detect(picture[:, :200]))
        assert from_odd(detector.detect(picture))[1] == []


@posix
def test_what_the_plugin_started_itself_ends_with_it(apart, picture, tmp_path):
    note = tmp_path / "pid"
    start = f"import subprocess, time, pathlib\np = subprocess.Popen(['sleep', '60'])\npathlib.Path({str(note)!r})"
    detector = apart(f"{start}.write_text(str(p.pid)); time.sleep(60)", time_limit=2.0)
    from_odd(detector.detect(picture))
    grandchild = int(note.read_text())
    for _ in range(50):
        status = Path(f"/proc/{grandchild}/stat")
        if not status.exists() or status.read_text().split()[2] == "Z":
            break
        time.sleep(0.1)
    else:
        os.kill(grandchild, signal.SIGKILL)
        pytest.fail("it is still there")


def test_threads_that_wait_behind_a_hang_are_answered(apart, picture):
    detector = apart(ODD_ONE + HANG, time_limit={"odd": 1.0})
    answers = {}

    def ask(name, one):
        answers[name] = from_odd(detector.detect(one))

    threads = [threading.Thread(target=ask, args=(n, picture[:, :200] if n == 0 else picture)) for n in range(4)]
    threads[0].start()
    time.sleep(0.3)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [n.code for n in answers[0][1]] == ["plugin_timeout"]
    assert [[e.score for e in answers[n][0]] for n in (1, 2, 3)] == [[0.25]] * 3


# -- an ordinary plugin does not notice ---------------------------------------------------------------------------

ALL_KINDS = """
import numpy as np
where = Box(0, 0, 320, 256)
grid = np.linspace(0, 1, 12).reshape(3, 4)
crop = float(view.crops[0].mean() / 255)
return [
    self.score('s', crop, logit=-1.5), self.map('m', grid, box=where),
    self.finding(Category.TEXTURE, 0.5, region=where),
    self.statement('six fingers', 0.7, origin='generated'), self.unavailable('a part of it'),
]
"""


def test_every_kind_of_evidence_comes_back_equal(apart, site, picture):
    detector = apart(ALL_KINDS)
    with Detector(fusion=detector._fusion_given, device="cpu", stability_probe=False) as here:
        assert from_odd(detector.detect(picture)) == from_odd(here.detect(picture))


def test_batch_and_single_and_probe_are_as_in_process(apart, picture):
    mean = "import numpy as np\nreturn [self.score('s', float(np.mean([c.mean() for c in view.crops])) / 255)]"
    detector = apart(mean, stability_probe=True)
    pictures = [picture, picture[:, :200], 255 - picture]
    assert list(detector.detect_many(pictures)) == [detector.detect(p) for p in pictures]
    assert remote(detector).starts == 1


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ("raise ValueError('oh no')", "plugin_failed", "it raised ValueError: oh no"),
        ("import sys; sys.exit(1)", "plugin_failed", "it raised SystemExit: 1"),
        ("return [0.5]", "plugin_bad_evidence", "must hold evidence only, got a float"),
        ("return [self.score('s', float('nan'))]", "plugin_bad_evidence", "ScoreEvidence.score takes"),
        ("with runtime.use('m', dict): pass", "plugin_failed", "must return a torch.nn.Module, got dict"),
        (
            "return [ScoreEvidence(plugin='well', task=Task.PIXEL, model='m', name='s', score=0.1)]",
            "plugin_bad_evidence",
            "evidence must be under the plugin's own name, got 'well'",
        ),
    ],
)
def test_what_a_plugin_does_wrong_reads_as_in_process(apart, picture, answer, code, words):
    (failed,), (notice,) = from_odd(apart(answer, time_limit=30).detect(picture))
    assert isinstance(failed, Failed)
    assert notice.code == code
    assert words in notice.message


def test_one_bad_answer_leaves_the_others_of_its_batch_alone(apart, picture):
    detector = apart("return [0.5] if view.width == 200 else [self.score('s', 0.25)]")
    verdicts = list(detector.detect_many([picture, picture[:, :200], picture]))
    assert [type(from_odd(v)[0][0]) for v in verdicts] == [ScoreEvidence, Failed, ScoreEvidence]
    assert remote(detector).starts == 1


def test_unavailable_is_no_failure(apart, picture):
    ((evidence,), notices) = from_odd(apart("raise UnavailableError('fetch the weights first')").detect(picture))
    assert (type(evidence), evidence.reason, notices) == (Unavailable, "fetch the weights first", [])


def test_building_a_model_does_not_count_against_the_limit(apart, picture):
    slow = "def build():\n    import time, torch; time.sleep(1.5); return torch.nn.Identity()\n"
    detector = apart(f"{slow}with runtime.use('m', build): {GOOD}", time_limit={"odd": 1.0})
    assert from_odd(detector.detect(picture))[1] == []


def test_settings_and_prints_and_stdin(apart, picture, capfd):
    detector = apart(
        "import sys\nprint('chatter'); assert sys.stdin.read() == ''\nreturn [self.score('s', self.settings['x'][0])]",
        settings={"odd": {"x": [0.125], "path": Path("a")}},
    )
    assert [e.score for e in from_odd(detector.detect(picture))[0]] == [0.125]
    assert capfd.readouterr().out == ""


def test_the_parent_imports_nothing_of_it(apart, picture):
    detector = apart(GOOD)
    detector.detect(picture)
    assert "acme_well.detector" in sys.modules
    assert not [m for m in sys.modules if m.startswith("acme_odd")]


def test_the_process_loads_no_torch_for_a_plugin_that_needs_none(apart, picture):
    heavy = "import sys; return [self.score('s', float('torch' in sys.modules or 'xgboost' in sys.modules))]"
    assert [e.score for e in from_odd(apart(heavy).detect(picture))[0]] == [0.0]


@posix
def test_closing_ends_the_process(apart, picture):
    detector = apart("import os; return [self.score('s', 0.5, model=str(os.getpid()))]")
    (evidence,), _ = from_odd(detector.detect(picture))
    os.kill(int(evidence.model), 0)
    detector.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(evidence.model), 0)


# -- what goes wrong before the first picture ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("init", "reason"),
    [
        ("raise OSError('disk')", "OSError: disk"),
        ("import os; os._exit(5)", "while it was set up, its process ended: exit status 5"),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    ],
)
def test_what_cannot_be_loaded_is_a_record_and_a_warning(site, fusion, picture, init, reason):
    site.install("well", GOOD)
    site.install("odd", init=init)
    with Detector(fusion=fusion, isolate=["odd"]) as detector:
        assert next(r for r in detector.records if r.name == "odd").reason == reason
        _, (notice,) = from_odd(detector.detect(picture))
        assert (notice.code, notice.message) == ("plugin_not_loaded", f"odd was not loaded: {reason}")
    with pytest.raises(PluginLoadError, match="plugin 'odd'"):
        Detector(fusion=fusion, isolate=["odd"], strict=True)


def test_strict_raises(apart, picture):
    with pytest.raises(PluginError, match="plugin 'odd': its process ended: exit status 3"):
        apart(EXIT, strict=True).detect(picture)


def test_by_environment_and_all_at_once(site, fusion, picture, monkeypatch):
    site.install("well", GOOD)
    site.install("odd", EXIT)
    monkeypatch.setenv("TELLSIGN_ISOLATE", "odd")
    with Detector(fusion=fusion, stability_probe=False) as detector:
        assert [n.code for n in from_odd(detector.detect(picture))[1]] == ["plugin_crashed"]
    monkeypatch.delenv("TELLSIGN_ISOLATE")
    with Detector(fusion=fusion, stability_probe=False, isolate=["*"]) as detector:
        assert [n.code for n in from_odd(detector.detect(picture))[1]] == ["plugin_crashed"]
        assert len({type(g).__name__ for g in detector._pipeline.guards} & {"IsolatedGuard"}) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"isolate": ["od"]}, "isolate takes names of installed plugins"),
        ({"isolate": "odd"}, "isolate takes a list of names"),
        ({"isolate": ["odd"], "isolate_memory": 0}, "isolate_memory takes bytes above 0"),
        ({"isolate": ["odd"], "settings": {"odd": {"f": print}}}, "odd.f takes text, a number"),
        ({"deny": ["nobody"]}, "deny takes names of installed plugins"),
        ({"time_limit": {"odd": 0}}, "time_limit takes seconds above 0"),
        ({"time_limit": {"nobody": 1}}, "time_limit takes names of installed plugins"),
    ],
)
def test_settings_that_are_not_allowed(site, fusion, options, words):
    site.install("odd")
    with pytest.raises(SettingError, match=words.replace("(", r"\(")):
        Detector(fusion=fusion, **options)


def test_a_denied_plugin_takes_no_part(site, fusion, picture):
    site.install("well", GOOD)
    site.install("odd", init="raise RuntimeError('ran')")
    with Detector(fusion=fusion, deny=["odd"]) as detector:
        assert from_odd(detector.detect(picture)) == ([], [])
        assert next(r for r in detector.records if r.name == "odd").state == "disabled"


# -- the child is not trusted -------------------------------------------------------------------------------------

SAYS = """
import os, struct

def replies(f):
    flags = open(f'/proc/self/fdinfo/{f}').read().split('flags:')[1].split()[0]
    return f > 2 and 'pipe' in os.readlink(f'/proc/self/fd/{f}') and int(flags, 8) & 1

out = next(f for f in sorted(map(int, os.listdir('/proc/self/fd'))) if replies(f))
os.write(out, %s)
import time; time.sleep(60)
"""


@linux
@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ("b'\\x80\\x04K\\x01.' * 4", "its process sent a head of"),
        ("struct.pack('>I', 2) + b'{}'", "its process sent a head that is not what it should be"),
        ('struct.pack(\'>I\', 31) + b\'{"message": {"say": 5},"sizes":[]}\'[:31]', "its process sent"),
        (
            '(lambda h: struct.pack(\'>I\', len(h)) + h)(b\'{"message": {"say": "answers", "items": '
            '[[{"kind": "score"}]], "bad": []}, "sizes": []}\')',
            "its process sent what is no evidence",
        ),
        (
            '(lambda h: struct.pack(\'>I\', len(h)) + h)(b\'{"message": {"say": "answers"}, "sizes": [99999999999]}\')',
            "its process sent 99999999999 bytes of arrays",
        ),
    ],
)
def test_what_is_no_answer_is_refused_and_the_process_ended(apart, picture, sent, words):
    detector = apart(SAYS % sent, time_limit=10)
    _, (notice,) = from_odd(detector.detect(picture))
    assert notice.code == "plugin_crashed"
    assert words in notice.message


@linux
def test_an_answer_for_more_pictures_than_asked_is_bad_evidence(apart, picture):
    head = '{"message": {"say": "answers", "items": [[], []], "bad": []}, "sizes": []}'
    more = f"(lambda h: struct.pack('>I', len(h)) + h)(b'{head}')"
    _, (notice,) = from_odd(apart(SAYS % more).detect(picture))
    assert notice.code == "plugin_bad_evidence"


def test_no_module_of_it_can_unpickle():
    from importlib.util import find_spec

    for folder in find_spec("tellsign.isolation").submodule_search_locations:
        for file in Path(folder).glob("*.py"):
            assert "import pickle" not in file.read_text(), file.name
            assert "import multiprocessing" not in file.read_text(), file.name


# -- the pipe -----------------------------------------------------------------------------------------------------


@given(
    message=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    blobs=st.lists(st.binary(max_size=50), max_size=4),
)
def test_a_frame_comes_over_as_it_is(message, blobs):
    pipe = io.BytesIO()
    frames.write(pipe, message, blobs)
    frames.write(pipe, "next")
    pipe.seek(0)
    assert frames.read(pipe) == (message, blobs)
    assert frames.read(pipe) == ("next", [])
    assert frames.read(pipe) is None


@given(st.binary(min_size=1, max_size=200))
def test_noise_is_a_frame_error_or_nothing(noise):
    pipe = io.BytesIO(struct.pack(">I", len(noise)) + noise)
    with pytest.raises(frames.FrameError):
        frames.read(pipe)


def test_a_frame_that_is_cut_is_told():
    pipe = io.BytesIO()
    frames.write(pipe, [1], [b"abc"])
    for length in range(1, len(pipe.getvalue())):
        with pytest.raises(frames.FrameError, match="a frame that ends in the middle"):
            frames.read(io.BytesIO(pipe.getvalue()[:length]))


def test_views_and_maps_go_over_as_raw_bytes():
    rng = np.random.default_rng(0)
    crops = tuple(rng.integers(0, 256, (2, 8, 8, 3), np.uint8))
    boxes = (Box(0, 0, 8, 8), Box(1, 1, 9, 9))
    pixel = PixelView(key="a", crops=crops, boxes=boxes, kinds=("x", "y"), width=9, height=9, centre=crops[0])
    whole = SegmentationView(key="b", image=np.asfortranarray(crops[0]))
    grid = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    where = MapEvidence(plugin="p", task=Task.PIXEL, model="m", name="n", map=grid, box=boxes[0])
    for value in (pixel, whole, where):
        (told,), blobs = to_parts([value])
        back = from_parts(told, [bytes(b) for b in blobs], type(value))
        assert back == value
        if value is whole:
            assert not back.image.flags.writeable
    told, blobs = to_parts(pixel)
    assert blobs[0].nbytes == crops[0].nbytes
    for wrong in (-1, len(blobs), "0", True, None):
        told["crops"][0]["data"] = wrong
        with pytest.raises(CodecError, match=r"crops\[0\]"):
            from_parts(told, blobs, PixelView)


@linux
def test_memory_is_read_and_the_default_is_half_of_it():
    import psutil

    mine = memory_of(os.getpid())
    assert abs(mine - psutil.Process().memory_info().rss) < 50e6
    assert memory_of(2**22 + 1) is None
    assert 0 < half_of_the_machine() <= psutil.virtual_memory().total / 2
