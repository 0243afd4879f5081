"""What a plugin adds, and evidence that is kept so that nobody is asked twice."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tellsign
from tellsign.cli.app import app
from tellsign.detector import Detector
from tellsign.errors import SettingError
from tellsign.evaluation.conditions import parse
from tellsign.evaluation.dataset import DataError, load
from tellsign.evaluation.kept import Kept
from tellsign.evaluation.peers import CallablePeer
from tellsign.evaluation.run import Preparation, content_hash, evaluate, picture_of
from tellsign.evaluation.without import Without
from tellsign.schemas import ScoreEvidence
from tellsign.schemas.codec import to_json

BRIGHT = """
            if view.centre is None:
                return [self.not_applicable('too small')]
            return [self.score('s', float(view.centre.mean() / 255))]
"""
RED = "return [self.score('s', float(view.image[..., 0].mean() / 255))]"
MAPPED = """
            import numpy as np
            rng = np.random.default_rng(int(view.image.sum()))
            return [
                self.score('s', float(view.image[..., 2].mean() / 255)),
                self.map('m', rng.random((5, 7), dtype=np.float32), box=Box(0, 0, view.width, view.height)),
            ]
"""


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures: made ones are bright, and red where they are not."""
    rng = np.random.default_rng(0)
    for label in (0, 1):
        for i in range(6):
            base = np.array([60 + 15 * i, 90, 90]) if not label else np.array([130 + 10 * i, 90 + 5 * i, 60])
            pixels = np.clip(base + rng.normal(0, 12, (240, 260, 3)), 0, 255).astype(np.uint8)
            path = tmp_path / "data" / ("fake" if label else "real") / f"s{i % 2}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return tmp_path / "data"


@pytest.fixture
def plugins(site):
    site.install("bright", BRIGHT)
    site.install("red", RED, task="semantic")
    return site


def detector(fusion, **options):
    return Detector(fusion=fusion, stability_probe=False, device="cpu", **options)


def filled(keep, made, data, conditions="native,jpeg40", *, asked=None, settings=None):
    """A run with kept evidence; names of the plugins that had to be asked go to `asked`."""
    preparation = Preparation(normalise=True)

    def make(name):
        (asked if asked is not None else []).append(name)
        others = [n for n in made.declarations if n != name]
        return detector(None, deny=others, settings={name: settings[name]} if settings else None)

    kept = Kept(keep, made, preparation={"normalise": True}, settings=settings or {})
    kept.fill(
        load(data), parse(conditions), make=make, prepared=lambda item, content: picture_of(item, content, preparation)
    )
    return kept


def strip(report):
    return {k: v for k, v in report.items() if k not in ("seconds", "versions")}


def test_evidence_that_was_kept_gives_the_verdicts_that_asking_gives(plugins, folder, fusion, tmp_path):
    conditions = "native,jpeg40,half"
    with detector(fusion) as made:
        want = evaluate(load(folder), made, conditions=conditions, normalise=True, draws=20)
        with filled(tmp_path / "keep", made, folder, conditions) as kept:
            calls = type(made._pipeline.guards[0].plugin).calls
            got = evaluate(load(folder), made, conditions=conditions, normalise=True, draws=20, kept=kept)
            assert type(made._pipeline.guards[0].plugin).calls == calls
    assert strip(got) == strip(want)
    assert want["overall"]["auc"] is not None
    assert len(set(want["pictures"]["p"]["native"])) == 12


def test_a_plugin_that_comes_later_is_the_only_one_that_is_asked(plugins, folder, fusion, tmp_path):
    first, again, later, other = [], [], [], []
    with detector(fusion) as made:
        filled(tmp_path / "keep", made, folder, asked=first).close()
        filled(tmp_path / "keep", made, folder, asked=again).close()
    assert sorted(first) == ["bright", "red"]
    assert again == []
    plugins.install("blue", MAPPED, task="semantic")
    with detector(fusion) as made:
        with filled(tmp_path / "keep", made, folder, asked=later) as kept:
            item = load(folder).items[0]
            said = kept.answered(content_hash(item), "native").verdict
            picture = picture_of(item, content_hash(item), Preparation(normalise=True))
            asked = made.detect(picture)
        assert [to_json(e) for e in said.evidence] == [to_json(e) for e in asked.evidence]
        assert (said.p_ai, said.label, said.width) == (asked.p_ai, asked.label, asked.width)
        # Other settings of a plugin are other answers, and the old ones stay.
        settings = {n: {"more": 1} if n == "red" else {} for n in made.declarations}
        filled(tmp_path / "keep", made, folder, asked=other, settings=settings).close()
    assert later == ["blue"]
    assert other == ["red"]


def test_a_run_that_was_killed_asks_for_the_rest_only(plugins, folder, fusion, tmp_path):
    with detector(fusion) as made:
        filled(tmp_path / "keep", made, folder).close()
        file = tmp_path / "keep" / "red.jsonl"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[:-3]) + lines[-3][:20])
        asked = []
        with filled(tmp_path / "keep", made, folder, asked=asked):
            pass
        assert asked == ["red"]
        again = file.read_text().splitlines()
        assert sum('"of"' in line for line in again) == 24
        assert sorted(json.loads(x)["answer"]["evidence"][0]["score"] for x in again if '"of"' in x) == sorted(
            json.loads(x)["answer"]["evidence"][0]["score"] for x in lines if '"of"' in x
        )


def test_what_failed_or_cannot_be_read_is_not_kept(site, folder, fusion, tmp_path):
    site.install("weak", "if view.centre.mean() > 110: raise ValueError('too bright')\nreturn [self.score('s', 0.2)]")
    (folder / "real" / "s0" / "broken.png").write_bytes(b"\x89PNG no more")
    with detector(fusion) as made, filled(tmp_path / "keep", made, folder, "native") as kept:
        report = evaluate(load(folder), made, normalise=True, draws=0, kept=kept)
    lines = (tmp_path / "keep" / "weak.jsonl").read_text().splitlines()
    assert 0 < sum('"of"' in line for line in lines) < 12
    assert report["errors"]["unreadable"] == 1
    assert report["notices"]["weak: plugin_failed"] == 12 - sum('"of"' in line for line in lines)


def test_a_file_of_something_else_is_not_touched(plugins, fusion, tmp_path):
    (tmp_path / "red.jsonl").write_text("mine\n")
    with detector(fusion) as made, pytest.raises(DataError, match=r"red\.jsonl is no file of kept evidence"):
        Kept(tmp_path, made, preparation={}, settings={})
    assert (tmp_path / "red.jsonl").read_text() == "mine\n"


def test_without_a_plugin_is_the_verdict_of_the_others(plugins, folder, fusion):
    with detector(fusion) as made:
        less = Without(plugin="red", detector=made)
        report = evaluate(load(folder), made, conditions="native,jpeg40", draws=50, peers=[less])
        with detector(fusion, deny=["red"]) as others:
            alone = evaluate(load(folder), others, conditions="native,jpeg40", draws=50)
        for condition in ("native", "jpeg40"):
            block = report["comparisons"]["without red"][condition]
            assert block["auc"]["first"] == pytest.approx(alone["by_condition"][condition]["auc"])
            assert block["auc"]["second"] == pytest.approx(report["by_condition"][condition]["auc"])
            assert block["auc"]["difference"] == pytest.approx(block["auc"]["second"] - block["auc"]["first"])
        assert report["pictures"]["peers"]["without red"]["native"] == alone["pictures"]["p"]["native"]
        with pytest.raises(SettingError, match="bright, red"):
            Without(plugin="blue", detector=made)
        peer = CallablePeer(name="x", where="x", call=lambda pictures: [])
        with (
            filled(folder.parent / "keep", made, folder) as kept,
            pytest.raises(SettingError, match="kept"),
        ):
            evaluate(load(folder), made, peers=[peer], kept=kept)


def test_a_journal_of_a_run_without_that_question_is_not_used(plugins, folder, fusion, tmp_path):
    with detector(fusion) as made:
        evaluate(load(folder), made, draws=0, journal=tmp_path / "j")
        less = Without(plugin="red", detector=made)
        report = evaluate(load(folder), made, draws=0, journal=tmp_path / "j", peers=[less])
        assert all(p is not None for p in report["pictures"]["peers"]["without red"]["native"])
        again = evaluate(load(folder), made, draws=0, journal=tmp_path / "j", peers=[less])
    assert again["pictures"] == report["pictures"]
    assert any("were taken from the journal" in w for w in again["warnings"])


def test_the_command_asks_once_and_compares(plugins, folder, fusion, tmp_path, monkeypatch):
    real = tellsign.Detector
    made = []

    def fused(**options):
        made.append(options)
        return real(fusion=fusion, **options)

    monkeypatch.setattr(tellsign, "Detector", fused)
    words = ["eval", str(folder), "--normalise", "--no-stability", "--conditions", "native,jpeg40"]
    words += ["--keep", str(tmp_path / "keep"), "--without", "red", "--json", str(tmp_path / "out.json")]
    first = CliRunner().invoke(app, words, env={"COLUMNS": "120"})
    assert first.exit_code == 0, first.output
    assert "tellsign beside without red (jpeg40)" in first.output
    assert len(made) == 3  # all together, and one for each plugin that was asked
    second = CliRunner().invoke(app, words, env={"COLUMNS": "120"})
    assert second.exit_code == 0
    assert len(made) == 4
    assert second.output == first.output
    assert not (tmp_path / "out.json.journal").exists()
    assert set(json.loads((tmp_path / "out.json").read_text())["comparisons"]) == {"without red"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--keep", "k"], "--keep needs --no-stability"),
        (["--keep", "k", "--no-stability", "--journal", "j"], "exclude each other"),
        (["--no-stability", "--without", "blue"], "plugins that take part: bright, red"),
    ],
)
def test_the_command_refuses_what_does_not_go_together(plugins, folder, words, told):
    answer = CliRunner().invoke(app, ["eval", str(folder), *words], env={"COLUMNS": "200"})
    assert answer.exit_code == 2
    assert told in " ".join((answer.output + (answer.stderr or "")).split())


def test_conclude_takes_evidence_of_those_who_take_part(plugins, fusion, picture):
    with detector(fusion) as made:
        evidence = made.collect(picture)
        height, width = picture.shape[:2]
        verdict, asked = made.conclude(evidence, width=width, height=height), made.detect(picture)
        assert (verdict.label, verdict.p_ai, verdict.evidence) == (asked.label, asked.p_ai, asked.evidence)
        assert verdict.versions == asked.versions
        less = made.conclude([e for e in evidence if e.plugin == "red"], width=width, height=height)
        (red,) = [e.score for e in evidence if e.plugin == "red" and isinstance(e, ScoreEvidence)]
        assert less.p_ai == pytest.approx(red)
        with detector(fusion, deny=["red"]) as others, pytest.raises(SettingError, match="evidence of bright"):
            others.conclude(evidence, width=width, height=height)
