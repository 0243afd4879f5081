import json
from collections import Counter
from io import BytesIO

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer import Typer
from typer.testing import CliRunner

from tellsign import Detector
from tellsign.bench import run as run_module
from tellsign.bench.gate import count_problems, cpu_gate
from tellsign.bench.null import DECLARATION, NullDetector
from tellsign.bench.parts import NothingToMeasureError, take_apart, with_plugin
from tellsign.bench.pictures import made_up
from tellsign.bench.run import Plan, bench
from tellsign.bench.start import FirstVerdictError, Starts, first_verdict
from tellsign.bench.table import show
from tellsign.cli.bench import command
from tellsign.errors import SettingError
from tellsign.fusion.bundle import Fused
from tellsign.plugin import DetectorPlugin
from tellsign.runtime import Counters
from tellsign.schemas import DEFINITE_LABELS, Label, PixelView, PredictionSet, UncertainReason


class NoFusion:
    """Abstains at once: what is measured here is the host."""

    version = "none"

    def fuse(self, evidence, declarations, *, prior=0.5, error_rate=None, versions=None):
        return Fused(
            label=Label.UNCERTAIN,
            reason=UncertainReason.TOO_FEW_PLUGINS,
            p_ai=None,
            p_tampered=None,
            p_ai_at_1_percent=None,
            prediction_set=PredictionSet(labels=DEFINITE_LABELS, error_rate=0.05),
            contributions=(),
            notices=(),
            prior=prior,
            pattern="",
        )


class ConvDetector(DetectorPlugin):
    """A small convolution over the crops; `times` makes it heavy against the host, or not."""

    times = 8
    build_key = "conv"

    def build(self):
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 5))

    def batch(self, views, runtime):
        crops = [torch.from_numpy(c.copy()) for v in views if isinstance(v, PixelView) for c in v.crops]
        return torch.stack(crops).permute(0, 3, 1, 2).float().to(runtime.device)

    def forward(self, x, runtime):
        with runtime.use(self.build_key, self.build) as model, torch.inference_mode():
            for _ in range(self.times):
                out = model(x).mean(dim=(1, 2, 3))
            return out

    def detect(self, views, runtime):
        def compute(missing):
            return [self.forward(self.batch([views[i]], runtime), runtime).mean().item() for i in missing]

        values = runtime.shared_forwards("conv", [v.key for v in views], compute)
        return [[self.score("conv", 1 / (1 + abs(x)))] for x in values]

    def bench_forward(self, views, runtime):
        batches = [self.batch([view], runtime) for view in views]
        return lambda: [self.forward(x, runtime) for x in batches]


def detector(plugin=ConvDetector, **options):
    options = {"device": "cpu", "stability_probe": False, "plugins": (), "fusion": NoFusion()} | options
    found = Detector(**options)
    return with_plugin(found, plugin(DECLARATION, {})) if plugin else found


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # CPU time of spinning threads is not the host's
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures():
    return [made_up(480, 360, seed=i) for i in range(4)]


def test_made_up_pictures_differ_and_repeat():
    image = Image.open(BytesIO(made_up(320, 200, seed=1)))
    assert (image.format, image.size) == ("JPEG", (320, 200))
    assert made_up(320, 200, seed=1) == made_up(320, 200, seed=1) != made_up(320, 200, seed=2)


def test_parts_do_what_the_whole_does(pictures):
    with detector() as found:
        seen = []
        plugin = found._pipeline.guards[0].plugin
        forward, plugin.forward = plugin.forward, lambda x, runtime: seen.append(x) or forward(x, runtime)
        parts = take_apart(found, pictures)
        assert seen == []
        parts.forward()
        bare, seen[:] = list(seen), []
        list(found.detect_many(pictures))
    assert len(bare) == len(seen) == 4
    assert all(torch.equal(a, b) for a, b in zip(bare, seen, strict=True))  # the same tensors
    assert (parts.bare, parts.whole) == (("null",), ())
    assert list(parts.named()) == ["decode", "views", "forward"]
    assert [p.width for p in parts.decode()] == [480] * 4
    assert all(len(views) == 4 for views in parts.views().values())


def test_what_offers_no_bare_forward_takes_part_whole(pictures):
    """And within a scope, where two that share a pass share it."""

    class Shy(ConvDetector):
        bench_forward = property()  # hasattr says no

    with detector(Shy) as found:
        parts = take_apart(found, pictures, batch_size=3)
        assert (parts.bare, parts.whole) == ((), ("null",))
        before = found.runtime.counters.forwards["conv"]
        parts.forward()
        assert found.runtime.counters.forwards["conv"] - before == 4


def test_without_a_plugin_there_is_nothing_to_measure(pictures):
    with detector(None) as found, pytest.raises(NothingToMeasureError, match="no plugin is loaded"):
        take_apart(found, pictures)


def test_null_plugin_leaves_a_verdict(pictures):
    with detector(NullDetector) as found:
        verdict = found.detect(pictures[0])
    assert verdict.label is Label.UNCERTAIN
    assert [e.plugin for e in verdict.evidence] == ["null"]
    assert {n.code for n in verdict.warnings} <= {"no_evidence"}


def test_gate_is_passed_by_the_host(pictures):
    """CI's gate: one build, one forward pass per view, and at most three tenths of a light model's CPU time.

    Most of that is the model's own: its crops are stacked and made floats, which the bare forward pass finds done.
    """
    with detector() as found:
        gate = cpu_gate(found, pictures, limit=0.30, views_per_key={"conv": 4}, pairs=6)
    assert gate.problems == ()


def test_gate_stops_a_host_that_wastes_cpu_time(pictures):
    class Wasteful(ConvDetector):
        def detect(self, views, runtime):
            for view in views:
                self.forward(self.batch([view], runtime), runtime)
            return super().detect(views, runtime)

    with detector(Wasteful) as found:
        gate = cpu_gate(found, pictures, limit=0.30, pairs=3)
    assert gate.overhead.median > 0.7
    assert len(gate.problems) == 1
    assert "allowed are 30.0%" in gate.problems[0]


def test_gate_stops_a_host_that_builds_or_computes_twice():
    fine = Counters(Counter(conv=1), Counter(conv=4), 0), Counters(Counter(conv=1), Counter(conv=8), 0)
    assert count_problems(*fine, {"conv": 4}) == []
    assert count_problems(*fine, {"conv": 3}) == [
        "conv made 4 forward passes in the first run, allowed are 3",
        "conv made 4 forward passes in the second run, allowed are 3",
    ]
    rebuilt = Counters(Counter(conv=2), Counter(conv=8), 1)
    assert count_problems(fine[0], rebuilt, {}) == ["conv was built 2 times"]
    nothing = Counters(Counter(), Counter(), 0)
    assert count_problems(nothing, nothing, {}) == ["no model was built"]


class LightDetector(ConvDetector):
    times = 2


SIDES = {"side": (320, 240), "small": (320, 240), "big": (640, 480)}
TINY = Plan(pairs=4, warmup=1, many=4, memory=(4, 12), batches=(1, 2), repeats=2, **SIDES)


def make(**options):
    plugins = options.pop("plugins", None)
    return detector(None if plugins == () else LightDetector, **options)


def test_bench_end_to_end(monkeypatch):
    starts = Starts(np.array([1.0, 1.2]), np.array([2.0, 2.2]))
    monkeypatch.setattr(run_module, "first_verdict", lambda repeats, tick: starts)
    said = []
    report = bench(make, plan=TINY, device="cpu", tick=said.append)
    text = json.dumps(report, allow_nan=False)
    assert json.loads(text)["settings"]["pairs"] == 4
    lines = {line["name"]: line for line in report["lines"]}
    assert list(lines) == [
        "first verdict",
        "one picture: host over forward",
        "one picture: detect",
        "one picture: bare forwards",
        "one picture: decode over forward",
        "one picture: views over forward",
        "4 pictures: over the sum of parts",
        "4 pictures: over the longest stage",
        "4 pictures: per picture",
        "memory: 12 against 4 pictures",
        "host's floor",
        "stability probe",
        "0 megapixels",
    ]
    assert lines["first verdict"]["value"]["median"] == 1.1
    assert lines["first verdict"]["judgement"] == "pass"
    assert "2.1 s of CPU time" in lines["first verdict"]["note"]
    for name in ("one picture: host over forward", "4 pictures: over the sum of parts"):
        assert lines[name]["aa"] is not None
        assert lines[name]["judgement"] in ("pass", "fail", "inconclusive")
    one = lines["one picture: detect"]["value"]["median"]
    assert one > lines["one picture: bare forwards"]["value"]["median"] > 0
    assert 0 < lines["host's floor"]["value"]["median"] < one
    assert lines["0 megapixels"]["judgement"] == "pass"
    assert 0 < lines["stability probe"]["value"]["median"] < 1
    assert [p["batch_size"] for p in report["batch_curve"]] == [1, 2]
    assert report["machine"]["torch_threads"] == 1
    assert {"one picture", "4 pictures", "null plugin", "batches of 2"} <= set(said)
    console = Console(width=150)
    with console.capture() as captured:
        show(report, console)
    for words in ("host over forward", "A/A", "pictures per batch", "10.0%", "MB after loading"):
        assert words in captured.get(), words


@pytest.mark.parametrize(
    ("pieces", "names"),
    [
        (("shared",), []),  # nobody shares a tower here
        (("memory",), ["memory: 12 against 4 pictures"]),
        (("big", "floor"), ["host's floor", "0 megapixels"]),
    ],
)
def test_a_piece_is_measured_by_itself(pieces, names):
    report = bench(make, plan=attrs.evolve(TINY, pieces=pieces), device="cpu")
    assert [line["name"] for line in report["lines"]] == names
    assert report["batch_curve"] == []
    console = Console(width=150)
    with console.capture() as captured:
        show(report, console)
    assert "pictures per batch" not in captured.get()


def test_a_first_verdict_takes_a_process():
    starts = first_verdict(1)
    assert starts.wall.shape == starts.cpu.shape == (1,)
    assert 0 < starts.wall[0] < 120
    assert starts.cpu[0] > 0


def test_a_process_that_fails_is_told(monkeypatch):
    monkeypatch.setattr("sys.executable", "false")
    with pytest.raises(FirstVerdictError, match="ended with 1"):
        first_verdict(1)


def test_plans():
    assert Plan().pairs == 60
    assert Plan().memory == (64, 512)
    assert Plan.quick().pairs < 60
    with pytest.raises(SettingError, match="pairs"):
        Plan(pairs=2)
    with pytest.raises(SettingError, match=r"pieces.*start, one.*twelve"):
        Plan(pieces=("one", "twelve"))


@pytest.fixture
def cli(monkeypatch):
    from tellsign.bench.timing import Estimate

    calls = []

    def fake(make, plan, device, tick):
        calls.append((plan, device, make.keywords))
        tick("one picture")
        value = Estimate(median=0.2, low=0.15, high=0.25)
        judgement = "fail" if plan.pairs == 7 else "pass"
        line = run_module.Line(name="a line", summary="what", value=value, unit="share", limit=0.3, judgement=judgement)
        machine = {"device": "cpu", "cores": 2, "torch_threads": 1, "torch": "2"}
        return {
            "lines": [attrs.asdict(line)],
            "batch_curve": [],
            "settings": attrs.asdict(plan),
            "machine": machine,
        }

    monkeypatch.setattr(run_module, "bench", fake)
    app = Typer()
    app.command()(command)
    return lambda *words: (CliRunner().invoke(app, list(words)), calls)


def test_command_prints_a_table_or_json(cli):
    result, calls = cli()
    assert result.exit_code == 0, result.output
    assert "a line" in result.stdout
    assert calls[-1][0] == Plan()
    result, calls = cli("--json", "--quick", "--device", "cpu")
    assert json.loads(result.stdout)["lines"][0]["judgement"] == "pass"
    assert calls[-1] == (Plan.quick(), "cpu", {})


def test_command_measures_the_detectors_that_are_asked_for(cli):
    _, calls = cli("--plugin", "a", "--deny", "b", "--commercial-only")
    assert calls[-1][2] == {"plugins": ["a"], "deny": ["b"], "commercial_only": True}


def test_command_fails_where_a_line_fails(cli):
    result, calls = cli("--pairs", "7")
    assert result.exit_code == 1
    assert calls[-1][0].pairs == 7
    assert "fail" in result.stdout


def test_command_measures_the_pieces_that_are_asked_for(cli):
    _, calls = cli("--only", "shared", "--only", "one")
    assert calls[-1][0].pieces == ("shared", "one")
    result, calls = cli("--only", "speed")
    assert result.exit_code == 2
    assert "shared" in result.output
    assert len(calls) == 1


def test_command_wants_enough_pairs(cli):
    result, calls = cli("--pairs", "2")
    assert result.exit_code == 2
    assert calls == []
