"""Whatever a plugin does, the picture gets its verdict, and the verdict says what happened."""

import subprocess
import sys
import time

import pytest

from tellsign import Detector, PluginError, PluginLoadError
from tellsign.schemas import Failed, Label, ScoreEvidence, Unavailable

GOOD = "return [self.score('s', 0.9)]"


@pytest.fixture
def ask(site, fusion, picture):
    """The verdict with one well-behaved plugin and one that answers as the text says."""
    site.install("well", GOOD)

    def ask(answer, pictures=1, **options):
        site.install("odd", answer)
        with Detector(fusion=fusion, device="cpu", **options) as detector:
            verdicts = list(detector.detect_many([picture] * pictures))
        return verdicts[0] if pictures == 1 else verdicts

    return ask


def odd_one(verdict):
    """Evidence and notices of the plugin that misbehaves; the other one must be well."""
    assert [e.score for e in verdict.evidence if e.plugin == "well"] == [0.9]
    assert verdict.label is Label.AI_GENERATED
    return [e for e in verdict.evidence if e.plugin == "odd"], [n for n in verdict.warnings if n.plugin == "odd"]


@pytest.mark.parametrize(
    ("answer", "code", "error", "words"),
    [
        ("raise ValueError('oh no')", "plugin_failed", "ValueError", "it raised ValueError: oh no"),
        ("import sys; sys.exit(1)", "plugin_failed", "SystemExit", "it raised SystemExit: 1"),
        ("raise MemoryError", "plugin_failed", "MemoryError", "it raised MemoryError"),
        ("class E(Exception):\n    __str__ = None\nraise E", "plugin_failed", "E", "it raised E"),
        ("return [self.score('s', float('nan'))]", "plugin_bad_evidence", "BadEvidence", "ScoreEvidence.score takes"),
        (
            "e = self.score('s', 0.5); object.__setattr__(e, 'score', float('nan')); return [e]",
            "plugin_bad_evidence",
            "BadEvidence",
            "ScoreEvidence.score takes a number in [0, 1], got nan",
        ),
        (
            "import numpy as np\ne = self.map('m', np.zeros((2, 2)), box=Box(0, 0, 2, 2))\n"
            "object.__setattr__(e, 'map', np.full((2, 2), np.nan, np.float32))\nreturn [e]",
            "plugin_bad_evidence",
            "BadEvidence",
            "MapEvidence.map takes",
        ),
        ("return None", "plugin_bad_evidence", "BadEvidence", "the answer to a view must be a list of evidence, got"),
        ("return {'s': 0.5}", "plugin_bad_evidence", "BadEvidence", "must be a list of evidence, got a dict"),
        ("return [0.5]", "plugin_bad_evidence", "BadEvidence", "must hold evidence only, got a float"),
        (
            "return [ScoreEvidence(plugin='well', task=Task.PIXEL, model='m', name='s', score=0.1)]",
            "plugin_bad_evidence",
            "BadEvidence",
            "evidence must be under the plugin's own name, got 'well'",
        ),
        (
            "return [ScoreEvidence(plugin='odd', task=Task.SEMANTIC, model='m', name='s', score=0.1)]",
            "plugin_bad_evidence",
            "BadEvidence",
            "evidence must be under the declared task",
        ),
        (
            "return [self.score('s', 0.1), self.score('s', 0.2)]",
            "plugin_bad_evidence",
            "BadEvidence",
            "two pieces of score evidence are called 's'",
        ),
        (
            "with runtime.use('m', dict): pass",
            "plugin_failed",
            "TypeError",
            "build of 'm' must return a torch.nn.Module, got dict",
        ),
    ],
)
def test_what_a_plugin_does_wrong_becomes_a_warning(ask, answer, code, error, words):
    evidence, notices = odd_one(ask(answer))
    (failed,), (notice,) = evidence, notices
    assert isinstance(failed, Failed)
    assert (failed.error, notice.code) == (error, code)
    assert words in failed.reason
    assert words in notice.message


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("[[self.score('s', 0.1)]] * (len(views) + 1)", "items, one for each view, got"),
        ("[]", "items, one for each view, got 0"),
        ("None", "detect must return a list with one item for each view, got None"),
        ("(x for x in views)", "detect must return a list with one item for each view, got a generator"),
    ],
)
def test_an_answer_of_the_wrong_length_or_type_becomes_a_warning(site, fusion, picture, returned, words):
    detector = (
        "from tellsign.plugin import DetectorPlugin\nclass Plugin(DetectorPlugin):\n"
        f"    def detect(self, views, runtime): return {returned}"
    )
    site.install("well", GOOD)
    site.install("odd", detector=detector)
    with Detector(fusion=fusion) as detector:
        (failed,), (notice,) = odd_one(detector.detect(picture))
    assert notice.code == "plugin_bad_evidence"
    assert words in failed.reason


def test_evidence_that_does_not_apply_or_is_unavailable_is_no_failure(ask):
    evidence, notices = odd_one(ask("raise UnavailableError('fetch the weights first')"))
    assert [(type(e), e.reason) for e in evidence] == [(Unavailable, "fetch the weights first")]
    assert notices == []


def test_a_plugin_may_say_in_setup_that_it_is_unavailable(site, fusion, picture):
    detector = (
        "from tellsign.plugin import *\nclass Plugin(DetectorPlugin):\n"
        "    def setup(self, runtime): raise UnavailableError('no weights')\n"
        "    def detect(self, views, runtime): raise AssertionError('asked anyway')"
    )
    site.install("well", GOOD)
    site.install("odd", detector=detector)
    with Detector(fusion=fusion) as detector:
        (evidence,), notices = odd_one(detector.detect(picture))
    assert (type(evidence), evidence.reason, notices) == (Unavailable, "no weights", [])


def test_a_setup_that_raises_is_a_failed_record_and_a_warning_in_every_verdict(site, fusion, picture):
    detector = (
        "from tellsign.plugin import *\nclass Plugin(DetectorPlugin):\n"
        "    def setup(self, runtime): raise OSError('disk')\n"
        "    def detect(self, views, runtime): return [[] for _ in views]"
    )
    site.install("well", GOOD)
    site.install("odd", detector=detector)
    with Detector(fusion=fusion) as detector:
        record = next(r for r in detector.records if r.name == "odd")
        verdict = detector.detect(picture)
    assert (record.state, record.reason) == ("failed", "its setup raised OSError: disk")
    evidence, (notice,) = odd_one(verdict)
    assert evidence == []
    assert (notice.code, notice.message) == ("plugin_not_loaded", "odd was not loaded: its setup raised OSError: disk")


def test_one_odd_picture_does_not_take_its_batch_with_it(site, fusion, picture):
    site.install("odd", "if view.width == 200: raise ValueError('that one')\nreturn [self.score('s', 0.9)]")
    pictures = [picture, picture[:, :200], picture]
    with Detector(fusion=fusion) as detector:
        many = list(detector.detect_many(pictures))
        single = [detector.detect(p) for p in pictures]
    assert many == single
    assert [v.label for v in many] == [Label.AI_GENERATED, Label.UNCERTAIN, Label.AI_GENERATED]
    assert [len(v.warnings) for v in many] == [0, 2, 0]  # plugin_failed and no_evidence


def test_bad_evidence_for_one_picture_leaves_the_others_alone(site, fusion, picture):
    site.install("odd", "return [0.5] if view.width == 200 else [self.score('s', 0.9)]")
    with Detector(fusion=fusion) as detector:
        verdicts = list(detector.detect_many([picture, picture[:, :200]]))
    assert [type(v.evidence[0]) for v in verdicts] == [ScoreEvidence, Failed]


# -- hanging ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hang",
    ["import time; time.sleep(60)", "with runtime.use('m', __import__('torch').nn.Identity):\n    while 1: pass"],
)
def test_a_plugin_that_hangs_is_quarantined_and_the_rest_goes_on(site, fusion, picture, hang):
    """The second one spins while it holds the device, which the other plugin then needs."""
    site.install("odd", f"if view.width == 200: return [self.score('s', 0.5)]\n{hang}")
    site.install("well", "with runtime.use('w', __import__('torch').nn.Identity): return [self.score('s', 0.9)]")
    with Detector(fusion=fusion, time_limit=0.7, stability_probe=False) as detector:
        detector.detect(picture[:, :200])  # what is imported on first use is imported now
        began = time.monotonic()
        first = detector.detect(picture)
        assert time.monotonic() - began < 5
        began = time.monotonic()
        second = detector.detect(picture)
        assert time.monotonic() - began < 0.6
    (failed,), (notice,) = odd_one(first)
    assert (failed.error, notice.code) == ("TimeLimit", "plugin_timeout")
    assert "it did not answer within 0.7 s and is not asked again" in notice.message
    (failed,), (notice,) = odd_one(second)
    assert (failed.error, notice.code) == ("TimeLimit", "plugin_timeout")
    assert "it hung in an earlier call" in notice.message


def test_the_limit_is_what_the_plugin_declares_unless_set(site, fusion, picture):
    site.install("odd", "import time; time.sleep(60)", time_limit=0.3)
    with Detector(fusion=fusion) as detector:
        verdict = detector.detect(picture)
    assert "within 0.3 s" in verdict.warnings[0].message
    assert verdict.timings["plugin:odd"] + verdict.timings["stability"] >= 0.3


def test_the_process_can_exit_while_a_plugin_hangs(site):
    site.install("odd", "while True: pass")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import numpy as np\nfrom tellsign import Detector\n"
        "detector = Detector(time_limit=0.3, stability_probe=False)\n"
        "(e,) = detector.collect(np.full((200, 200, 3), 90, np.uint8))\n"
        "print(e.error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(site.folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "TimeLimit\n"), done.stderr


# -- strict -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("raise ValueError('oh no')", "plugin 'odd': it raised ValueError: oh no"),
        ("return [0.5]", "plugin 'odd': it gave a bad answer"),
        ("import time; time.sleep(60)", "plugin 'odd': it did not answer within 0.5 s"),
    ],
)
def test_strict_raises_instead(ask, answer, words):
    with pytest.raises(PluginError, match=words) as caught:
        ask(answer, strict=True, time_limit=0.5)
    assert caught.value.plugin == "odd"


def test_strict_refuses_plugins_that_do_not_load(site):
    site.install("odd", init="raise OSError('disk')")
    with pytest.raises(PluginLoadError, match="plugin 'odd': OSError: disk"):
        Detector(strict=True)
