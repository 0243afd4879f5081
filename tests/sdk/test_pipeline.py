import numpy as np
import pytest

import tellsign.views
from tellsign import Detector, Label
from tellsign.schemas import SCHEMA_VERSION, Failed


@pytest.fixture
def built(monkeypatch):
    """Which views were built: (task, key)."""
    calls, real = [], tellsign.views.build_view

    def build_view(task, picture, key):
        calls.append((task.value, key))
        return real(task, picture, key)

    monkeypatch.setattr(tellsign.views, "build_view", build_view)
    return calls


def test_one_view_per_kind_is_built_and_shared(site, fusion, picture, built):
    for name, task in (("a", "pixel"), ("b", "pixel"), ("c", "semantic"), ("d", "reasoning"), ("e", "provenance")):
        site.install(name, "return [self.score('s', 0.1, model=f'{id(view)} {type(view).__name__}')]", task=task)
    with Detector(fusion=fusion, stability_probe=False) as detector:
        verdict = detector.detect(picture)
    model = {e.plugin: e.model for e in verdict.evidence}
    assert model["a"] == model["b"]
    assert model["c"] == model["d"]
    assert [m.split()[1] for m in model.values()] == ["PixelView"] * 2 + ["SemanticView"] * 2 + ["ProvenanceView"]
    assert len(built) == len({key for _, key in built}) == 3


def test_views_that_no_plugin_wants_are_not_built(site, fusion, picture, built):
    site.install("a", task="provenance")
    with Detector(fusion=fusion) as detector:
        detector.detect(picture)
    assert [task for task, _ in built] == ["provenance"]


def test_two_plugins_on_one_tower_make_one_build_and_one_forward_per_view(site, fusion, picture):
    answer = """
        import torch
        def forward():
            with runtime.use("tower", lambda: torch.nn.Linear(1, 1)) as tower, torch.inference_mode():
                return float(tower(torch.full((1, 1), float(view.image.mean()) / 255)).sigmoid())
        return [self.score("s", runtime.shared_forward("tower", view.key, forward))]
    """
    site.install("c", answer, task="semantic")
    site.install("d", answer, task="reasoning")
    with Detector(fusion=fusion, stability_probe=False) as detector:
        verdicts = list(detector.detect_many([picture, picture[:200], picture[:150]], batch_size=2))
        counters = detector.runtime.counters
    assert counters.builds == {"tower": 1}
    assert counters.forwards == {"tower": 3}
    for verdict in verdicts:
        first, second = verdict.evidence
        assert first.score == second.score
    assert len({v.evidence[0].score for v in verdicts}) == 3


def test_the_order_of_plugins_never_matters(site, fusion, picture, monkeypatch):
    for name, score in (("b", 0.8), ("a", 0.7), ("c", 0.95)):
        site.install(name, f"return [self.score('s', {score})]")
    verdicts = []
    for names in (["c", "a", "b"], ["a", "b", "c"]):
        with Detector(fusion=fusion, plugins=names) as detector:
            assert list(detector.declarations) == ["a", "b", "c"]
            verdicts.append(detector.detect(picture))
    assert verdicts[0] == verdicts[1]
    assert [e.plugin for e in verdicts[0].evidence] == ["a", "b", "c"]


def test_timings_and_versions_name_everything_that_took_part(site, fusion, picture):
    site.install("a", "import time; time.sleep(0.01); return [self.score('s', 0.9, model='big 7')]")
    site.install("b", "return [self.not_applicable('no face')]", task="semantic")
    with Detector(fusion=fusion) as detector:
        verdict = detector.detect(picture)
        versions = detector.versions
    stages = {"decode", "views", "plugin:a", "plugin:b", "fusion", "stability", "total"}
    assert set(verdict.timings) == stages
    assert all(seconds >= 0 for seconds in verdict.timings.values())
    parts = sum(seconds for stage, seconds in verdict.timings.items() if stage != "total")
    assert parts <= verdict.timings["total"] < parts + 0.5
    assert verdict.timings["plugin:a"] >= 0.01
    assert verdict.timings["stability"] >= 0.02  # the two copies were shown to plugin a
    assert verdict.versions == {**versions, "model:a": "big 7"}
    assert set(versions) == {"tellsign", "schema", "plugin:a", "plugin:b", "bundle"}
    assert (versions["plugin:a"], versions["schema"], versions["bundle"]) == ("1.2.3", SCHEMA_VERSION, "mean 1")


def test_without_any_evidence_the_verdict_is_uncertain_and_says_so(site, fusion, picture):
    site.install("a", "return [self.not_applicable('no face')]")
    with Detector(fusion=fusion) as detector:
        verdict = detector.detect(picture)
    assert (verdict.label, verdict.p_ai) == (Label.UNCERTAIN, None)
    assert [n.code for n in verdict.warnings] == ["no_evidence"]


def test_without_any_plugin_the_verdict_is_uncertain_and_says_so(site, fusion, picture):
    with Detector(fusion=fusion) as detector:
        verdict = detector.detect(picture)
    assert (verdict.label, verdict.evidence) == (Label.UNCERTAIN, ())
    assert [n.code for n in verdict.warnings] == ["no_evidence"]


def test_a_fusion_that_does_not_say_that_there_was_no_evidence_is_helped(site, fusion, picture, monkeypatch):
    import attrs

    real = fusion.fuse
    monkeypatch.setattr(fusion, "fuse", lambda *a, **k: attrs.evolve(real(*a, **k), notices=()))
    with Detector(fusion=fusion) as detector:
        assert [n.code for n in detector.detect(picture).warnings] == ["no_evidence"]


def test_a_view_that_cannot_be_made_costs_only_the_plugins_that_wanted_it(site, fusion, picture, monkeypatch):
    real = tellsign.views.build_view

    def build_view(task, picture, key):
        if task == "semantic":
            raise ZeroDivisionError("odd shape")
        return real(task, picture, key)

    monkeypatch.setattr(tellsign.views, "build_view", build_view)
    site.install("a")
    site.install("b", task="semantic")
    with Detector(fusion=fusion) as detector:
        verdict = detector.detect(picture)
    assert verdict.label is Label.AI_GENERATED
    assert isinstance(verdict.evidence[1], Failed)
    assert [(n.code, n.plugin) for n in verdict.warnings] == [("view_failed", "b")]
    assert "ZeroDivisionError: odd shape" in verdict.warnings[0].message


def test_collecting_evidence_needs_no_fusion(site, picture):
    site.install("a")
    with Detector(fusion="/nowhere/to/be/found") as detector:
        (evidence,) = detector.collect(picture)
        assert list(detector.collect_many([picture, picture])) == [(evidence,)] * 2
    assert evidence.score == 0.9


def test_a_trained_bundle_fuses_from_its_folder(site, picture, tmp_path):
    """The real fusion, with the contract of tellsign.fusion and nothing made up in between."""
    from tellsign.fusion import ScoreTable, columns, train_bundle

    site.install("a", "return [self.score('s', 1 / (1 + 2.718281828 ** -4), logit=4.0)]")
    with Detector(fusion=tmp_path) as detector:
        declarations = detector.declarations
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 120)
    table = ScoreTable(
        rows=(rng.normal(0, 1, 240) + 3 * label)[:, None],
        columns=columns(declarations),
        label=label,
        group=[str(n) for n in range(240)],
        source=[f"{'ai' if ai else 'real'} {n % 4}" for n, ai in enumerate(label)],
    )
    bundle, _ = train_bundle(table, declarations=declarations, seed=0, head="logistic")
    bundle.save(tmp_path / "bundle")
    with Detector(fusion=tmp_path / "bundle") as detector:
        verdict = detector.detect(picture)
        rare = detector.detect(picture, prior=0.01)
    assert verdict.label is Label.AI_GENERATED
    assert verdict.warnings == ()
    assert verdict.versions["bundle"] == bundle.version
    assert rare.p_ai == pytest.approx(verdict.p_ai_at_1_percent)
    rows = {c.plugin: c.log_odds for c in verdict.contributions}
    assert set(rows) == {"a", "bias", "prior"}
    assert sum(rows.values()) == pytest.approx(np.log(verdict.p_ai / (1 - verdict.p_ai)), abs=1e-5)
    site.monkeypatch.setenv("TELLSIGN_PLUGINS", "")
    with Detector(fusion=bundle) as detector:
        nothing = detector.detect(picture)
    assert (nothing.label, nothing.p_ai) == (Label.UNCERTAIN, None)
    assert [n.code for n in nothing.warnings] == ["no_evidence"]
