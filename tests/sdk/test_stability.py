import numpy as np
import pytest

from tellsign import Detector, Label, Picture, UncertainReason
from tellsign.pipeline import Gathered
from tellsign.schemas import DEFINITE_LABELS
from tellsign.stability import flip, saved_again


def by_copy(original, jpeg85, jpeg70):
    """A plugin's answer that depends on which copy it is shown."""
    scores = {"original": original, "jpeg85": jpeg85, "jpeg70": jpeg70}
    return f"return [self.score('s', {scores}[view.key.split('.')[1]])]"


@pytest.mark.parametrize("label", Label)
@pytest.mark.parametrize("other", Label)
def test_only_a_definite_label_that_becomes_another_definite_one_is_a_flip(label, other):
    expected = label in DEFINITE_LABELS and other in DEFINITE_LABELS and label is not other
    assert (flip(label, {"jpeg85": label, "jpeg70": other}) is not None) is expected


def test_copies_have_other_pixels_and_no_file(picture):
    copies = dict(saved_again(Picture(pixels=picture, source="a.png", original=b"file")))
    assert list(copies) == ["jpeg85", "jpeg70"]
    error = [np.abs(c.pixels.astype(int) - picture).mean() for c in copies.values()]
    assert 0 < error[0] < error[1] < 10
    assert all((c.original, c.facts, c.source) == (None, None, "a.png") for c in copies.values())


@pytest.mark.parametrize("task", ["pixel", "semantic"])
@pytest.mark.parametrize("scores", [(0.9, 0.9, 0.1), (0.9, 0.1, 0.9), (0.1, 0.9, 0.9)])
def test_a_verdict_that_flips_when_saved_again_is_uncertain(site, fusion, picture, task, scores):
    site.install("a", by_copy(*scores), task=task)
    with Detector(fusion=fusion) as detector:
        verdict = detector.detect(picture)
    assert (verdict.label, verdict.reason) == (Label.UNCERTAIN, UncertainReason.UNSTABLE)
    (notice,) = verdict.warnings
    assert notice.code == "unstable"
    assert "jpeg70" in notice.message if scores[2] != scores[0] else "jpeg85" in notice.message
    assert verdict.p_ai == scores[0]  # what the picture itself was found to be stays readable
    assert [e.score for e in verdict.evidence] == [scores[0]]


@pytest.mark.parametrize(
    ("scores", "label"),
    [
        ((0.9, 0.8, 0.7), Label.AI_GENERATED),
        ((0.9, 0.5, 0.5), Label.AI_GENERATED),  # becoming uncertain is no flip
        ((0.1, 0.5, 0.1), Label.AUTHENTIC),
        ((0.5, 0.9, 0.1), Label.UNCERTAIN),
    ],
)
def test_a_verdict_that_holds_stays(site, fusion, picture, scores, label):
    site.install("a", by_copy(*scores))
    with Detector(fusion=fusion) as detector:
        verdict = detector.detect(picture)
    assert verdict.label is label
    assert verdict.reason is (UncertainReason.SEVERAL_LABELS if label is Label.UNCERTAIN else None)
    assert verdict.warnings == ()


def test_the_copies_of_a_batch_travel_together(site, fusion, picture, monkeypatch):
    detector = (
        "from tellsign.plugin import *\nclass Plugin(DetectorPlugin):\n"
        "    def detect(self, views, runtime):\n"
        "        return [[self.score('s', 0.9, model=str(len(views)))] for _ in views]"
    )
    site.install("a", detector=detector)
    shown = []
    with Detector(fusion=fusion) as detector:
        real = Gathered.copies

        def copies(one):
            shown.append({copy: evidence[0].model for copy, evidence in real(one).items()})
            return real(one)

        monkeypatch.setattr(Gathered, "copies", copies)
        assert detector.detect(picture).evidence[0].model == "1"
        assert [v.evidence[0].model for v in detector.detect_many([picture] * 2)] == ["2", "2"]
    assert shown == [{"jpeg85": "2", "jpeg70": "2"}] + [{"jpeg85": "4", "jpeg70": "4"}] * 2


def test_an_uncertain_picture_is_not_looked_at_again(site, fusion, picture):
    counting = (
        "from tellsign.plugin import *\nclass Plugin(DetectorPlugin):\n    seen = 0\n"
        "    def detect(self, views, runtime):\n"
        "        Plugin.seen += len(views)\n"
        "        return [[self.score('s', SCORE, model=str(Plugin.seen))] for _ in views]"
    )
    for name, score, looks in (("torn", 0.5, ["1", "2"]), ("sure", 0.9, ["1", "4"])):
        site.install(name, detector=counting.replace("SCORE", str(score)))
        with Detector(fusion=fusion, plugins=[name]) as detector:
            verdicts = [detector.detect(picture) for _ in range(2)]
        assert [v.is_definite for v in verdicts] == [score > 0.5] * 2
        assert [v.evidence[0].model for v in verdicts] == looks


def test_tasks_that_are_not_probed_keep_their_evidence(site, fusion, picture):
    """Provenance is about the file as it came: its weight stays in the fusion of the copies."""
    site.install("a", by_copy(0.9, 0.35, 0.35))
    site.install("file", "return [self.score('s', 0.95)]", task="provenance")
    with Detector(fusion=fusion) as detector:
        assert detector.detect(picture).label is Label.AI_GENERATED
    with Detector(fusion=fusion, plugins=["a"]) as detector:
        assert detector.detect(picture).reason is UncertainReason.UNSTABLE


def test_a_copy_on_which_a_plugin_fails_is_not_compared(site, fusion, picture):
    site.install("a", by_copy(0.9, 0.9, 0.9))
    site.install("b", "if 'jpeg' in view.key: raise ValueError\n" + "return [self.score('s', 0.9)]")
    site.install("c", by_copy(0.9, 0.0, 0.0))
    with Detector(fusion=fusion, plugins=["a", "b"]) as detector:
        assert detector.detect(picture).label is Label.AI_GENERATED
    with Detector(fusion=fusion, plugins=["c"]) as detector:
        assert detector.detect(picture).reason is UncertainReason.UNSTABLE
    with Detector(fusion=fusion, plugins=["b", "c"]) as detector:
        assert detector.detect(picture).label is Label.AI_GENERATED


def test_the_probe_can_be_switched_off(site, fusion, picture):
    site.install("a", by_copy(0.9, 0.1, 0.1))
    with Detector(fusion=fusion, stability_probe=False) as detector:
        verdict = detector.detect(picture)
    assert verdict.label is Label.AI_GENERATED
    assert "stability" not in verdict.timings
