"""Every check has a plugin here that fails it, and one plugin passes them all."""

import hashlib
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from tellsign.cli.app import app
from tellsign.devkit import CHECKS, check, describe
from tellsign.devkit import subject as subjects
from tellsign.errors import SettingError

GOOD = """
import numpy as np
if not view.crops:
    return [self.not_applicable('too small')]
return [self.score('s', float(np.mean([c.mean() for c in view.crops])) / 255)]
"""
START = "import numpy as np\nif not view.crops: return [self.not_applicable('too small')]\n"
MODULE = "from tellsign.plugin import *\nfrom tellsign.schemas import *\nimport numpy as np\n"


def plugin(body, more=""):
    """A detector's module whose `answer(view, runtime)` is `body`."""
    indented = "\n".join(" " * 8 + line for line in (START + body).splitlines())
    return (
        f"{MODULE}{more}\nclass Plugin(DetectorPlugin):\n"
        "    def detect(self, views, runtime): return [self.answer(v, runtime) for v in views]\n"
        f"    def answer(self, view, runtime):\n{indented}\n"
    )


def weights_of(folder, **wrong):
    content = b"weights"
    (folder / "net.safetensors").write_bytes(content)
    (folder / "CARD.md").write_text("net: data, licence")
    told = {"file": "net.safetensors", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)} | wrong
    manifest = json.loads((folder / "tellsign.json").read_text()) | {"weights_licence": "MIT", "weights": [told]}
    (folder / "tellsign.json").write_text(json.dumps(manifest))
    return folder


KEEPS = "kept = []\n"
SHARED = "import time\nscratch = [0.0]\n"
BUILD = "def build():\n    import torch\n    return torch.nn.Linear(1, 1)\n"
NOISY = "view.image.astype(int) % 2"

BUSY = f"""{MODULE}
class Plugin(DetectorPlugin):
    busy = False

    def detect(self, views, runtime):
        if self.busy:
            raise RuntimeError("busy")
        self.busy = True
        answers = [[self.score("s", v.width / 5000) if v.crops else self.not_applicable("small")] for v in views]
        self.busy = False
        return answers
"""

# check: (what is wrong, words of the message, arguments of `site.install`, what is done to the package's folder)
BAD = [
    ("declaration", "commercial_use is true, but its weights_licence", {"weights_licence": "CC-BY-NC-4.0"}, None),
    ("declaration", "no columns", {"columns": []}, None),
    ("declaration", "no SPDX expression", {"code_licence": "free for all"}, None),
    ("declaration", "the host refuses it (failed)", {"time_limit": -1}, None),
    ("declaration", "the host refuses it (incompatible)", {"api_version": 9}, None),
    ("weights", "the SHA-256 of net.safetensors is", {}, lambda f: weights_of(f, sha256="0" * 64)),
    ("weights", "has 7 bytes, 8 are declared", {}, lambda f: weights_of(f, size=8)),
    ("weights", "is declared and not there", {}, lambda f: (weights_of(f) / "net.safetensors").unlink()),
    ("weights", "no model card", {}, lambda f: (weights_of(f) / "CARD.md").unlink()),
    ("weights", "can hold a pickle: net.pt", {}, lambda f: (f / "net.pt").write_bytes(b"x")),
    (
        "weights",
        "does not name: more.safetensors",
        {},
        lambda f: (weights_of(f) / "more.safetensors").write_bytes(b"x"),
    ),
    (
        "weights",
        "asks for the weights clip-vit-b16, which shared_weights does not name",
        {"answer": "from tellsign.weights import locate\nlocate('clip-vit-b16')\n" + GOOD},
        None,
    ),
    ("cheap_listing", "imports scipy", {"init": "import scipy\nfrom tellsign.plugin import hookimpl"}, None),
    ("cheap_listing", "importing its package fails: OSError: disk", {"init": "raise OSError('disk')"}, None),
    ("loads", "OSError: disk", {"init": "raise OSError('disk')"}, None),
    (
        "loads",
        "its setup raised OSError: disk",
        {
            "detector": plugin("").replace(
                "    def detect", "    def setup(self, runtime): raise OSError('disk')\n    def detect"
            )
        },
        None,
    ),
    ("every_picture", "RGB 1x1: IndexError", {"answer": "return [self.score('s', view.crops[0].mean() / 255)]"}, None),
    (
        "every_picture",
        "nothing to say about an ordinary picture",
        {"answer": "return [self.not_applicable('no face')]"},
        None,
    ),
    ("every_picture", "an empty answer", {"answer": "return []"}, None),
    (
        "every_picture",
        "NaN",
        {
            "answer": START + "c = view.crops[0]; return [self.map('m', c[..., 0] / c.max() - "
            "c.min() * np.nan, box=view.boxes[0])]"
        },
        None,
    ),
    ("evidence", "but its logit", {"answer": "return [self.score('s', 0.9, logit=-3)]"}, None),
    (
        "evidence",
        "evidence over Box",
        {"answer": "return [self.map('m', [[0.5]], box=Box(0, 0, view.width + 1, 1))]"},
        None,
    ),
    (
        "evidence",
        "does not apply and has something to say",
        {"answer": "return [self.score('s', 0.5), self.not_applicable('no')]"},
        None,
    ),
    ("columns", "no column takes the score typo", {"answer": "return [self.score('typo', 0.5)]"}, None),
    ("columns", "no column was filled", {"answer": "return [self.finding(Category.COLOR, 0.5)]"}, None),
    (
        "deterministic",
        "a second call says something else",
        {"answer": "import numpy as np\nreturn [self.score('s', np.random.default_rng().random())]"},
        None,
    ),
    (
        "deterministic",
        "a second instance says something else",
        {
            "detector": plugin(
                "return [self.score('s', self.bias)]", "import itertools\ncounter = itertools.count()"
            ).replace(
                "    def detect", "    def setup(self, runtime): self.bias = (next(counter) % 7) / 7\n    def detect", 1
            )
        },
        None,
    ),
    (
        "batch_equals_single",
        "in a batch of",
        {
            "detector": plugin("return [self.score('s', self.n / 100)]").replace(
                "return [self.answer(v", "self.n = len(views); return [self.answer(v"
            )
        },
        None,
    ),
    (
        "threads",
        "calls went wrong",
        {
            "detector": plugin(
                "scratch[0] = view.crops[0].mean() / 255; time.sleep(0.02); return [self.score('s', scratch[0])]",
                SHARED,
            )
        },
        None,
    ),
    (
        "device_moves",
        "its model having left the device",
        {
            "detector": plugin(
                "with runtime.use('acme', build) as net: return [self.score('s', net.weight.sigmoid().item())]", BUILD
            )
        },
        None,
    ),
    (
        "device_moves",
        "it keeps a model of its own (net)",
        {
            "detector": plugin(
                "self.net = getattr(self, 'net', None) or build().requires_grad_(False)\nreturn [self.score('s', 0.5)]",
                BUILD,
            )
        },
        None,
    ),
    (
        "failures_isolated",
        "after a picture that cannot be read it fails",
        {"detector": BUSY},
        None,
    ),
    (
        "failures_isolated",
        "where it should have raised",
        {"answer": "try: s = view.crops[0].mean() / 255\nexcept Exception: s = 0.5\nreturn [self.score('s', s)]"},
        None,
    ),
    (
        "failures_isolated",
        "after a device that was out of memory once it fails",
        {
            "detector": plugin(
                "if getattr(self, 'lost', False): raise RuntimeError('no')\nself.lost = True\n"
                "with runtime.use('acme', build): self.lost = False; return [self.score('s', 0.5)]",
                BUILD,
            )
        },
        None,
    ),
    (
        "globals_untouched",
        "numpy's global random state",
        {"answer": "import numpy as np; np.random.rand(); return [self.score('s', 0.5)]"},
        None,
    ),
    (
        "globals_untouched",
        "the working directory",
        {"detector": "import os; os.chdir(os.path.dirname(__file__))\n" + plugin("return [self.score('s', 0.5)]")},
        None,
    ),
    (
        "offline",
        "it reached out",
        {
            "answer": "import socket\ntry: socket.create_connection(('127.0.0.1', 9))\n"
            "except OSError: pass\nreturn [self.score('s', 0.5)]"
        },
        None,
    ),
    (
        "time",
        "the declared time_limit is 0.02 s",
        {"time_limit": 0.02, "answer": "import time; time.sleep(0.05); return [self.score('s', 0.5)]"},
        None,
    ),
    (
        "memory",
        "it keeps what it was shown",
        {
            "detector": plugin(
                "kept.append(view); kept.append(np.array(view.crops)); return [self.score('s', 0.5)]", KEEPS
            )
        },
        None,
    ),
    (
        "task_alignment",
        "the picture's size alone moves a score",
        {"answer": "return [self.score('s', float(view.width == 1024))]"},
        None,
    ),
    (
        "task_alignment",
        "the crops in another order",
        {"answer": START + "return [self.score('s', view.crops[0].mean() / 255)]"},
        None,
    ),
    ("task_alignment", "another key", {"answer": "return [self.score('s', len(view.key) / 100)]"}, None),
    (
        "task_alignment",
        "it reads pixel traces",
        {
            "task": "semantic",
            "answer": "return [self.score('s', int(view.image.sum()) * 7919 % 1009 / 1009)]",
        },
        None,
    ),
    (
        "task_alignment",
        "of a picture without a file it says",
        {
            "task": "provenance",
            "columns": [],
            "answer": "return [self.provenance('made by X', claimant='X', verification='unverified')]",
        },
        None,
    ),
]


@pytest.fixture(autouse=True)
def _back(monkeypatch, tmp_path):
    """Whatever a plugin does to the process is undone."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("name", "words", "options", "spoil"), BAD, ids=[f"{b[0]}-{b[1][:30]}" for b in BAD])
def test_a_plugin_that_fails_the_check(site, name, words, options, spoil):
    if name == "device_moves" or "runtime.use" in str(options):
        pytest.importorskip("torch")
    folder = site.install("acme", **({"answer": GOOD} | options))
    if spoil is not None:
        spoil(folder)
    report = check("acme", only=[name])
    (result,) = report.results
    assert (result.name, result.state) == (name, "failed"), result.said
    assert words in result.said
    assert not report.passed


def test_every_check_has_a_plugin_that_fails_it():
    assert {b[0] for b in BAD} == set(CHECKS)


GOOD_ONES = {
    "pixel": {"answer": GOOD},
    "semantic": {"task": "semantic", "answer": "return [self.score('s', view.image.mean() / 255)]"},
    "reasoning": {
        "task": "reasoning",
        "answer": "m = view.image.mean() / 255\n"
        "return [self.score('s', m), self.statement('it is bright', m, origin='generated')]",
    },
    "segmentation": {
        "task": "segmentation",
        "columns": [{"name": "s", "evidence": "m", "statistic": "max"}],
        "answer": "h, w = view.image.shape[:2]\n"
        "return [self.map('m', [[view.image.mean() / 255]], box=Box(0, 0, w, h))]",
    },
    "provenance": {
        "task": "provenance",
        "columns": [],
        "answer": "s = view.facts.software if view.facts else ()\n"
        "if not s: return [self.not_applicable('nothing is claimed')]\n"
        "return [self.provenance(s[0], claimant='the file', verification='unverified')]",
    },
}


@pytest.mark.parametrize("task", GOOD_ONES)
def test_a_good_plugin_of_each_task_passes_every_check(site, task):
    site.install("acme", **GOOD_ONES[task])
    told = []
    report = check("acme", tell=told.append)
    assert [(r.name, r.state) for r in report.results] == [(name, "passed") for name in CHECKS], [
        r.said for r in report.results if r.state != "passed"
    ]
    assert report.passed
    assert tuple(told) == report.results
    assert report.counts == {"passed": len(CHECKS), "failed": 0, "expected": 0, "skipped": 0}
    assert all(r.said and r.seconds >= 0 for r in report.results)
    counted = {r.name: r.said for r in report.results}
    assert counted["every_picture"].startswith("19 pictures answered")
    if task == "pixel":
        assert counted["evidence"] == "3 not_applicable; 16 score"
        assert "16 calls by 2 instances" in counted["threads"]


def test_weights_that_are_declared_with_a_card_pass(site):
    weights_of(site.install("acme", GOOD))
    (result,) = check("acme", only=["weights"]).results
    assert (result.state, result.said) == ("passed", "1 files of 0.0 MB in all, hashes right")


def test_shared_weights_that_are_declared_pass(site):
    asks = "from tellsign.weights import locate\nlocate('clip-vit-b16')\n" + GOOD
    site.install("acme", asks, shared_weights=["clip-vit-b16"])
    (result,) = check("acme", only=["weights"]).results
    assert (result.state, result.said) == ("passed", "it ships none; shares clip-vit-b16")


def test_a_model_of_the_runtime_moves(site):
    pytest.importorskip("torch")
    build = "def build():\n    import torch\n    net = torch.nn.Linear(1, 1)\n"
    build += "    torch.nn.init.ones_(net.weight)\n    return net\n"
    site.install(
        "acme",
        detector=plugin(
            "with runtime.use('acme', build) as net:\n"
            "    return [self.score('s', float(view.crops[0].mean() / 255 * net.weight.item()))]",
            build,
        ),
    )
    (result,) = check("acme", only=["device_moves"]).results
    assert result.state == "passed", result.said
    assert result.said.startswith("1 models left the device and came back")


# -- expectations, and plugins that cannot be looked at --------------------------------------------------------------


def test_an_expected_failure_has_its_reason_and_an_unexpected_pass_fails(site):
    site.install("acme", GOOD, code_licence="free for all")
    expected = {"declaration": "the lawyers are at it", "weights": "none are here"}
    report = check("acme", only=["declaration", "weights", "columns"], expected=expected)
    declaration, weights, columns = report.results
    assert (declaration.state, declaration.reason) == ("expected", "the lawyers are at it")
    assert "no SPDX" in declaration.said
    assert (weights.state, weights.reason) == ("failed", "none are here")
    assert "take the expectation away" in weights.said
    assert columns.state == "passed"
    assert not report.passed
    assert check("acme", only=["declaration"], expected={"declaration": "the lawyers are at it"}).passed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"expected": {"declaration": "  "}}, "a reason why declaration fails"),
        ({"expected": {"speed": "slow"}}, "expected takes names of checks"),
        ({"only": ["speed"]}, "only takes names of checks"),
    ],
)
def test_what_check_does_not_take(site, options, words):
    site.install("acme", GOOD)
    with pytest.raises(SettingError, match=words):
        check("acme", **options)


def test_a_plugin_that_is_not_there(site):
    site.install("acme", GOOD)
    with pytest.raises(SettingError, match=r"did you mean 'acme'\?"):
        check("acmee")


@pytest.mark.parametrize("where", ["setup", "detect"])
def test_a_plugin_that_is_unavailable_is_not_passed(site, where):
    raising = f"    def {where}(self, *_): raise UnavailableError('fetch the weights')\n"
    detect = "" if where == "detect" else "    def detect(self, views, runtime): return []\n"
    site.install("acme", detector=f"{MODULE}class Plugin(DetectorPlugin):\n{raising}{detect}")
    report = check("acme")
    states = {r.name: r.state for r in report.results}
    assert report.unavailable == "fetch the weights"
    assert not report.passed
    assert states["loads"] == "passed"
    assert states["every_picture"] == "skipped"
    assert next(r for r in report.results if r.name == "time").said == "it is unavailable here: fetch the weights"


def test_a_plugin_that_does_not_load_fails_one_check_and_skips_those_that_need_it(site):
    site.install("acme", init="raise OSError('disk')")
    states = {r.name: r.state for r in check("acme").results}
    assert [n for n, s in states.items() if s == "failed"] == ["cheap_listing", "loads"]
    assert [n for n, s in states.items() if s == "passed"] == ["declaration", "weights"]


def test_a_plugin_that_hangs_is_given_up(site, monkeypatch):
    monkeypatch.setattr(subjects, "PATIENCE", 0.3)
    site.install("acme", "import time; time.sleep(60)", time_limit=0.01)
    every, memory = check("acme", only=["every_picture", "memory"]).results
    assert (every.state, memory.state) == ("failed", "skipped")
    assert "it did not come back within 0.3 s" in every.said


def test_every_check_says_what_it_demands():
    for name in CHECKS:
        assert describe(name).endswith("."), name
        assert len(describe(name)) < 130


# -- as a command ---------------------------------------------------------------------------------------------------


def run(*args):
    return CliRunner().invoke(app, ["plugins", "check", *args], env={"COLUMNS": "100"})


def test_the_command_prints_every_check_and_counts(site):
    site.install("acme", GOOD, code_licence="free for all")
    result = run("acme", "--only", "declaration", "--only", "loads")
    assert result.exit_code == 1
    assert "failed  declaration" in result.output
    assert "acme: 1 passed, 1 failed, of 2 checks." in result.output
    result = run("acme", "--only", "declaration", "--expect", "declaration=the lawyers are at it")
    assert result.exit_code == 0
    assert "expected: the lawyers are at it" in result.output
    told = json.loads(run("acme", "--only", "loads", "--json").output)
    assert told["passed"] is True
    assert told["counts"]["passed"] == 1
    assert told["results"][0]["name"] == "loads"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["acme", "--expect", "declaration"], "takes CHECK=REASON"),
        (["acme", "--set", "other.x=1"], "takes settings of acme"),
        (["acme", "--only", "speed"], "names of checks"),
        (["acmee"], "did you mean 'acme'?"),
        (["nowhere.py"], "the path of a file that is there, got 'nowhere.py'"),
    ],
)
def test_wrong_usage_of_the_command(site, args, words):
    site.install("acme", GOOD)
    result = run(*args)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_settings_reach_the_plugin(site):
    site.install("acme", "return [self.score('s', self.settings['x'])]")
    assert "KeyError" in run("acme", "--only", "every_picture").output
    assert run("acme", "--only", "every_picture", "--set", "acme.x=0.5").exit_code == 0


def test_pictures_are_what_they_say():
    from tellsign import decode
    from tellsign.devkit.pictures import PICTURES

    names = [p.name for p in PICTURES]
    assert len(set(names)) == len(names)
    for shown in PICTURES:
        if "x" in shown.name.split()[-1]:
            width, height = map(int, shown.name.split()[-1].split("x"))
            assert decode(shown.make()).pixels.shape == (height, width, 3)
    turned = decode(next(p for p in PICTURES if "turned" in p.name).make())
    assert (turned.width, turned.height) == (128, 160)
    assert turned.facts.camera["Make"] == "Acme"
    assert np.array_equal(*[decode(next(p for p in PICTURES if p.name == "CMYK 140x128").make()).pixels for _ in "ab"])
