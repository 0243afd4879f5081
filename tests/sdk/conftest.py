"""Small detector plugins, installed for one test, and a fusion that anybody can compute by hand."""

import importlib
import json
import sys
import textwrap

import numpy as np
import pytest

DETECTOR = """
    from tellsign.plugin import DetectorPlugin, UnavailableError
    from tellsign.schemas import *

    class Plugin(DetectorPlugin):
        calls = 0

        def detect(self, views, runtime):
            Plugin.calls += 1
            return [self.answer(view, runtime) for view in views]

        def answer(self, view, runtime):
            {answer}
"""
HOOK = """
    from tellsign.plugin import hookimpl

    @hookimpl
    def tellsign_detector():
        from .detector import Plugin
        return Plugin
"""


class Site:
    """A folder on sys.path into which plugins are installed."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        self.names, self.entries = [], {}

    def install(
        self,
        name,
        answer="return [self.score('s', 0.9)]",
        *,
        distribution=None,
        detector=None,
        init=HOOK,
        module=None,
        entry=None,
        **manifest,
    ):
        """One plugin; `answer` is the body of `answer(self, view, runtime)`, the rest overrides what is usual."""
        distribution = distribution or f"acme-{name}"
        module = module or f"acme_{name}"
        package = self.folder.joinpath(*module.split("."))
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(textwrap.dedent(init))
        source = textwrap.dedent(DETECTOR.format(answer=textwrap.indent(textwrap.dedent(answer), " " * 12).strip()))
        (package / "detector.py").write_text(source if detector is None else textwrap.dedent(detector))
        declared = {
            "name": name,
            "version": "1.2.3",
            "api_version": 1,
            "task": "pixel",
            "detector": f"{module}.detector:Plugin",
            "summary": "A detector made for a test.",
            "columns": [{"name": "s", "evidence": "s"}],
            "code_licence": "Apache-2.0",
            "weights_licence": "none",
            "commercial_use": True,
        }
        (package / "tellsign.json").write_text(json.dumps(declared | manifest))
        self.entries.setdefault(distribution, []).append(f"{entry or name} = {module}")
        self.write_metadata(distribution, self.entries[distribution])
        self.allow(entry or name)
        return package

    def allow(self, *names):
        self.names += names
        self.monkeypatch.setenv("TELLSIGN_PLUGINS", ",".join(self.names))

    def write_metadata(self, distribution, entries, version="3.1"):
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("\n".join(["[tellsign.detectors]", *entries, ""]))
        importlib.invalidate_caches()
        return info


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("TELLSIGN_PLUGINS", "")
    monkeypatch.delenv("TELLSIGN_DISABLED_PLUGINS", raising=False)
    yield Site(folder, monkeypatch)
    for name in [n for n in sys.modules if n.startswith(("acme", "broken_parent"))]:
        del sys.modules[name]


class MeanFusion:
    """p_ai is the mean of the scores; from .4 to .6 it abstains."""

    version = "mean 1"

    def fuse(self, evidence, declarations, *, prior=0.5, error_rate=None, versions=None):
        from tellsign.fusion.bundle import Fused
        from tellsign.schemas import DEFINITE_LABELS, Label, Notice, PredictionSet, ScoreEvidence, UncertainReason

        scores = [e.score for e in evidence if isinstance(e, ScoreEvidence)]
        p, label, reason, notices = None, Label.UNCERTAIN, UncertainReason.TOO_FEW_PLUGINS, ()
        labels = DEFINITE_LABELS
        if scores:
            p, reason = float(np.mean(scores)), None
            label = Label.AI_GENERATED if p > 0.6 else Label.AUTHENTIC if p < 0.4 else Label.UNCERTAIN
            labels = (label,)
            if label is Label.UNCERTAIN:
                reason, labels = UncertainReason.SEVERAL_LABELS, (Label.AUTHENTIC, Label.AI_GENERATED)
        else:
            notices = (Notice(code="no_evidence", message="nobody said anything"),)
        return Fused(
            label=label,
            reason=reason,
            p_ai=p,
            p_tampered=None,
            p_ai_at_1_percent=None,
            prediction_set=PredictionSet(labels=labels, error_rate=error_rate or 0.1),
            contributions=(),
            notices=notices,
            prior=prior,
            pattern="",
        )


@pytest.fixture
def fusion():
    return MeanFusion()


@pytest.fixture
def picture():
    """RGB uint8 (256, 320, 3), smooth with some noise."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(30, 200, 320)[None, :, None] + np.linspace(0, 40, 256)[:, None, None]
    return np.clip(ramp + rng.normal(0, 6, (256, 320, 3)), 0, 255).astype(np.uint8)
