import hashlib
import json

import attrs
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer import Typer
from typer.testing import CliRunner

import tellsign
from tellsign.cli.eval import command
from tellsign.decoding import decode
from tellsign.errors import DecodeError
from tellsign.evaluation import shortcuts
from tellsign.evaluation.dataset import load
from tellsign.evaluation.run import POOLED, SMALL, Row, evaluate, summary
from tellsign.evaluation.table import show
from tellsign.schemas import Label, Notice, PredictionSet, UncertainReason, Verdict


@attrs.frozen
class Unreadable:
    source: object
    error: Exception


class BrightnessDetector:
    """Calls bright pictures AI: p is the mean of the pixels; definite from .65 up and from .35 down."""

    versions = {"brightness": "1.0"}  # noqa: RUF012

    def __init__(self, **changes):
        self.changes, self.pictures = changes, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def detect_many(self, sources, *, batch_size=None, on_error="raise"):
        assert on_error == "return"
        for picture in sources:
            self.pictures.append((picture.source, picture.facts and picture.facts.container, picture.pixels.shape))
            p = float(picture.pixels.mean() / 255)
            label = Label.AI_GENERATED if p > 0.65 else Label.AUTHENTIC if p < 0.35 else Label.UNCERTAIN
            reason = UncertainReason.SEVERAL_LABELS if label is Label.UNCERTAIN else None
            labels = (label,) if reason is None else (Label.AUTHENTIC, Label.AI_GENERATED)
            fields = {"label": label, "reason": reason, "p_ai": p}
            fields |= {k: v for k, v in self.changes.items() if k in ("warnings", "versions")}
            if self.changes.get("no_probability_below", 0) > p:
                fields |= {"label": Label.UNCERTAIN, "reason": UncertainReason.TOO_FEW_PLUGINS, "p_ai": None}
            yield Verdict(
                prediction_set=PredictionSet(labels=labels, error_rate=0.05),
                width=picture.width,
                height=picture.height,
                **fields,
            )


def paint(path, p, size=(40, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (round(255 * p),) * 3).save(path)


@pytest.fixture
def folder(tmp_path):
    """Seven pictures whose numbers can be counted by hand."""
    reals = {"phone/a": 0.2, "phone/b": 0.6, "phone/c": 0.8, "web/d": 0.0}
    fakes = {"sd/e": 1.0, "sd/f": 0.4, "flux/g": 0.8}
    for side, pictures in (("real", reals), ("fake", fakes)):
        for name, p in pictures.items():
            paint(tmp_path / "data" / side / f"{name}.png", p)
    return tmp_path / "data"


def test_numbers_of_the_hand_made_folder(folder):
    report = evaluate(load(folder), BrightnessDetector(), draws=50)
    overall = report["overall"]
    assert (overall["n"], overall["n_real"], overall["n_ai"], overall["groups"]) == (7, 4, 3, 7)
    assert overall["auc"] == pytest.approx((4 + 2 + 3.5) / 12)
    assert overall["balanced_accuracy"] == pytest.approx((2 / 4 + 2 / 3) / 2)
    assert overall["brier"] == pytest.approx((0.2**2 + 0.6**2 + 0.8**2 + 0 + 0 + 0.6**2 + 0.2**2) / 7)
    assert overall["tpr_at_5_fpr"] == pytest.approx(1 / 3)
    assert overall["tpr_at_1_fpr"] is None
    assert overall["uncertain"] == pytest.approx(2 / 7)
    assert (overall["uncertain_real"], overall["uncertain_ai"]) == (pytest.approx(1 / 4), pytest.approx(1 / 3))
    assert overall["definite_error_rate"] == pytest.approx(1 / 5)
    assert overall["false_accusation_rate"] == pytest.approx(1 / 3)
    phone = report["by_real_source"]["phone"]
    assert (phone["n"], phone["definite"], phone["accused"], phone["rate"]) == (3, 2, 1, 0.5)
    assert phone["rate_ci"] == pytest.approx((0.0945, 0.9055), abs=1e-4)
    assert report["by_real_source"]["web"]["rate"] == 0
    assert report["worst_real_source"]["name"] == "phone"
    assert report["by_generator"][POOLED]["n"] == 3
    assert report["by_generator"][POOLED]["auc"] == overall["auc"]
    assert report["by_generator"][POOLED]["generators"] == {"flux": 1, "sd": 2}
    assert report["worst_generator"] is None
    assert report["risk_coverage"]["verdicts"] == {"coverage": pytest.approx(5 / 7), "risk": pytest.approx(1 / 5)}
    assert report["errors"] == {"unreadable": 0, "not_scored": 0, "files": []}
    assert report["versions"]["brightness"] == "1.0"
    assert report["settings"]["conditions"] == {"native": "as it is"}


def test_the_report_is_strict_json_and_repeats(folder):
    reports = [evaluate(load(folder), BrightnessDetector(), conditions="native,half", draws=50) for _ in range(2)]
    for report in reports:
        del report["seconds"]
    text = json.dumps(reports[0], allow_nan=False)
    assert text == json.dumps(reports[1], allow_nan=False)
    assert {"overall", "by_generator", "by_condition", "trivial_rules", "versions", "data_hash"} <= set(reports[0])


def test_native_files_go_to_the_detector_as_they_are(folder):
    detector = BrightnessDetector()
    evaluate(load(folder), detector, draws=0)
    assert sorted(p[0] for p in detector.pictures) == sorted(str(p) for p in folder.rglob("*.png"))
    assert {p[1] for p in detector.pictures} == {"PNG"}


def test_conditions_reach_both_classes(folder):
    detector = BrightnessDetector()
    report = evaluate(load(folder), detector, conditions="jpeg40,half,screenshot", draws=0)
    sent = [(None, "JPEG", (40, 40, 3)), (None, None, (20, 20, 3)), (None, "PNG", (32, 32, 3))]
    assert detector.pictures == sent * 7
    assert list(report["by_condition"]) == ["jpeg40", "half", "screenshot"]
    for block in report["by_condition"].values():
        assert (block["n_real"], block["n_ai"]) == (4, 3)
        # A patch of one colour comes through all three nearly as it was.
        assert block["auc"] == pytest.approx(9.5 / 12, abs=0.05)
    assert report["overall"]["auc"] == report["by_condition"]["jpeg40"]["auc"]


def test_unreadable_files_are_counted_and_named(folder):
    (folder / "real" / "web" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (folder / "fake" / "sd" / "empty.png").touch()
    steps = []
    report = evaluate(
        load(folder),
        BrightnessDetector(),
        conditions="native,blur",
        draws=0,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert report["overall"]["n"] == 7
    assert report["errors"]["unreadable"] == 2
    named = {f["path"]: f for f in report["errors"]["files"]}
    assert set(named) == {"real/web/broken.jpg", "fake/sd/empty.png"}
    assert named["fake/sd/empty.png"]["code"] == "empty"
    assert all(f["condition"] is None and f["message"] for f in named.values())
    assert report["warnings"][0].startswith("2 of 9 pictures could not be read")
    assert [s for s, _ in steps] == sorted(s for s, _ in steps)
    assert steps[-1] == (18, 18)


def test_a_csv_may_name_files_that_are_not_there(tmp_path):
    paint(tmp_path / "a.png", 0.1)
    paint(tmp_path / "b.png", 0.9)
    (tmp_path / "folder").mkdir()
    (tmp_path / "data.csv").write_text("path,label\na.png,0\nb.png,1\nc.png,1\nfolder,1\n")
    report = evaluate(load(tmp_path / "data.csv"), BrightnessDetector(), draws=0)
    assert [f["code"] for f in report["errors"]["files"]] == ["not_found", "not_a_file"]
    assert report["overall"]["auc"] == 1


def test_a_picture_that_the_detector_refuses_is_named(folder):
    class Picky(BrightnessDetector):
        def detect_many(self, sources, *, batch_size=None, on_error="raise"):
            for i, source in enumerate(sources):
                if i == 2:
                    yield Unreadable(
                        source.source, DecodeError("too_wide", "wider than this detector takes", source.source)
                    )
                else:
                    yield from super().detect_many([source], on_error=on_error)

    report = evaluate(load(folder), Picky(), draws=0)
    assert report["overall"]["n"] == 6
    assert report["errors"]["files"] == [
        {
            "path": "real/phone/c.png",
            "condition": "native",
            "code": "too_wide",
            "message": "wider than this detector takes",
        }
    ]


def test_a_format_that_cannot_hold_the_picture_spoils_only_its_condition(folder):
    paint(folder / "real" / "web" / "wide.png", 0.3, size=(16_400, 2))  # WebP ends at 16,383
    report = evaluate(load(folder), BrightnessDetector(), conditions="native,webp", draws=0)
    assert (report["by_condition"]["native"]["n"], report["by_condition"]["webp"]["n"]) == (8, 7)
    assert report["errors"]["unreadable"] == 0
    assert [(f["path"], f["condition"]) for f in report["errors"]["files"]] == [("real/web/wide.png", "webp")]


def test_a_detector_that_loses_pictures_is_caught(folder):
    class Lossy(BrightnessDetector):
        def detect_many(self, sources, *, batch_size=None, on_error="raise"):
            answers = list(super().detect_many(sources, on_error=on_error))
            yield from answers[:-1]

    with pytest.raises(RuntimeError, match="answered 6 of 7"):
        evaluate(load(folder), Lossy(), draws=0)


def test_pictures_without_a_probability_count_as_uncertain_only(folder):
    report = evaluate(load(folder), BrightnessDetector(no_probability_below=0.1), draws=20)
    overall = report["overall"]
    assert (overall["n"], overall["n_without_probability"]) == (7, 1)
    assert overall["uncertain"] == pytest.approx(3 / 7)
    assert overall["auc"] == pytest.approx((3 + 1 + 2.5) / 9)
    assert any("1 pictures got no probability" in w for w in report["warnings"])


def test_no_probability_at_all_gives_a_report_without_auc(folder):
    report = evaluate(load(folder), BrightnessDetector(no_probability_below=2), draws=20)
    assert report["overall"]["auc"] is None
    assert report["overall"]["uncertain"] == 1
    assert report["worst_real_source"] is None
    assert any("No AUC" in w for w in report["warnings"])
    json.dumps(report, allow_nan=False)


def test_failing_plugins_are_told(folder):
    notice = Notice(code="plugin_timeout", message="too slow", plugin="pixel")
    report = evaluate(load(folder), BrightnessDetector(warnings=(notice,)), draws=0)
    assert report["notices"] == {"pixel: plugin_timeout": 7}
    assert "Plugins failed: pixel: plugin_timeout (7 times)." in report["warnings"]


def test_the_same_bytes_under_both_labels_are_told(folder):
    paint(folder / "fake" / "copied.png", 0.2)
    paint(folder / "fake" / "copied2.png", 0.2)
    warnings = evaluate(load(folder), BrightnessDetector(), draws=0)["warnings"]
    # .2 is there three times, and .8 was there twice already, under either label.
    assert "2 files are there byte for byte under both labels." in warnings
    assert any(w.startswith("3 files repeat another one byte for byte") for w in warnings)


def test_data_hash_is_of_labels_and_contents(folder, tmp_path):
    first = evaluate(load(folder), BrightnessDetector(), draws=0)["data_hash"]
    lines = []
    for path in folder.rglob("*.png"):
        label = int("fake" in path.parts)
        lines.append(f"{label} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    assert first == hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    (folder / "fake" / "sd" / "e.png").rename(folder / "fake" / "sd" / "z.png")
    assert evaluate(load(folder), BrightnessDetector(), draws=0)["data_hash"] == first
    paint(folder / "fake" / "sd" / "z.png", 0.9)
    assert evaluate(load(folder), BrightnessDetector(), draws=0)["data_hash"] != first


def test_few_pictures_are_alive_at_once(tmp_path, monkeypatch):
    """Eval must not hold pictures in memory: only a few are decoded ahead of the detector."""
    import tellsign.evaluation.run as run

    for i in range(12):
        paint(tmp_path / ("fake" if i % 2 else "real") / f"{i}.png", i / 12)
    decoded = []
    monkeypatch.setattr(run, "decode", lambda source, **k: decoded.append(source) or decode(source, **k))
    ahead = []

    class Slow(BrightnessDetector):
        def detect_many(self, sources, *, batch_size=None, on_error="raise"):
            for i, source in enumerate(sources):
                ahead.append(len(decoded) - i)
                yield from super().detect_many([source], on_error=on_error)

    evaluate(load(tmp_path), Slow(), draws=0)
    assert len(decoded) == 12
    assert max(ahead) <= 4


def test_normalise_treats_both_classes_alike_and_leaves_small_pictures_out(tmp_path):
    for i in range(3):
        paint(tmp_path / "real" / f"{i}.jpg", 0.1 + i / 10, (400 + i, 300))
        paint(tmp_path / "fake" / f"{i}.png", 0.7 + i / 10, (256, 256))
    paint(tmp_path / "fake" / "tiny.png", 0.9, (100, 400))
    detector = BrightnessDetector()
    report = evaluate(load(tmp_path), detector, normalise=True, draws=0)
    assert {p[:2] for p in detector.pictures} == {(None, None)}
    assert len(detector.pictures) == 6
    assert report["settings"]["pipeline"] == "normalise"
    assert report["trivial_rules"]["format"] == 0.5
    assert report["trivial_rules"]["tables"] == 0.5
    assert [(f["path"], f["code"]) for f in report["errors"]["files"]] == [("fake/tiny.png", "left_out")]
    native = evaluate(load(tmp_path), BrightnessDetector(), draws=0)
    assert native["trivial_rules"]["size"] == 1
    (told,) = [w for w in native["warnings"] if "Trivial rules tell the classes apart" in w]
    assert "size 1.00" in told
    assert "With so few pictures chance alone reaches 0.96." in told  # 3 against 4: .5 + 1.96 (8 / 144) ** .5 = .96
    assert "--normalise" in told
    assert not any("--normalise" in w for w in report["warnings"])


def row(label, p, verdict, source="s", *, mask=False, group=None, fmt="PNG"):
    from pathlib import Path

    from tellsign.evaluation.dataset import Item

    row.count += 1
    item = Item(
        path=Path("x"), name=str(row.count), label=label, source=source, group=group or str(row.count), mask=mask
    )
    flat = shortcuts.Traits(
        format=fmt, tables="none", quality=101.0, size=1.0, blockiness=1.0, sharpness=0.0, spectrum=0.0
    )
    return Row(item=item, p_ai=p, label=verdict, traits=flat)


row.count = 0


def test_generators_from_thirty_on_stand_alone():
    rows = [row(0, 0.3, "authentic", "web") for _ in range(20)]
    rows += [row(1, 0.9, "ai_generated", "good") for _ in range(SMALL)]
    rows += [row(1, 0.3, "uncertain", "bad") for _ in range(SMALL)]
    rows += [row(1, 0.1, "authentic", "few") for _ in range(SMALL - 1)]
    block = summary(rows, draws=20)
    assert list(block["by_generator"]) == ["bad", "good", POOLED]
    assert [block["by_generator"][k]["auc"] for k in ("good", "bad", POOLED)] == [1.0, 0.5, 0.0]
    assert block["by_generator"]["bad"]["uncertain"] == 1
    assert block["by_generator"]["good"]["called_ai"] == 1
    assert block["worst_generator"]["name"] == "bad"


def test_tampered_accuses_a_real_picture_unless_data_names_a_mask():
    rows = [row(0, 0.2, "tampered", "web"), row(0, 0.2, "tampered", "web", mask=True), row(1, 0.9, "ai_edited")]
    block = summary(rows, draws=0)
    assert block["by_real_source"]["web"]["accused"] == 1
    assert block["overall"]["definite_error_rate"] == pytest.approx(1 / 3)


def test_an_authentic_verdict_on_a_fake_is_an_error_and_no_accusation():
    block = summary([row(0, 0.1, "authentic"), row(1, 0.1, "authentic")], draws=0)
    assert block["overall"]["definite_error_rate"] == 0.5
    assert block["overall"]["false_accusation_rate"] == 0


def test_format_that_tells_the_classes_apart_is_found():
    kinds = ["PNG"] * 50 + ["JPEG"] * 50
    label = np.r_[np.ones(50, int), np.zeros(50, int)]
    assert shortcuts.trivial.separation(shortcuts.kind_scores(kinds, label), label) == 1.0


def test_kinds_that_say_nothing_stay_at_one_half():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 800)
    assert np.all(shortcuts.kind_scores(["PNG"] * 800, label) == 0)
    for kinds in (rng.integers(0, 3, 800), np.arange(800), rng.integers(0, 300, 800)):
        auc = shortcuts.trivial.separation(shortcuts.kind_scores([str(k) for k in kinds], label), label)
        assert auc < 0.56  # rated in sample, 300 random kinds would reach .9


def test_the_tables_in_the_terminal(folder):
    (folder / "real" / "x [bold] y.png").write_bytes(b"")
    for name, p in (("sd/e", 1.0), ("sd/f", 0.4), ("flux/g", 0.8)):
        paint(folder / "fake" / f"{name}.png", p, (80, 40))
    report = evaluate(load(folder), BrightnessDetector(), conditions="native,half", draws=50)
    console = Console(width=140, record=True, force_terminal=False)
    with console.capture() as captured:
        show(report, console)
    text = captured.get()
    for words in ("0.792", "By condition", "phone (worst)", POOLED, "definite verdicts", "x [bold] y.png", "suspect"):
        assert words in text, words


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(tellsign, "Detector", BrightnessDetector, raising=False)
    app = Typer()
    app.command()(command)
    return lambda *words: CliRunner().invoke(app, [str(w) for w in words])


def test_command_end_to_end(run, folder, tmp_path):
    out = tmp_path / "out.json"
    result = run(folder, "--json", out, "--conditions", "native,jpeg70", "--limit", "6")
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert list(report["by_condition"]) == ["native", "jpeg70"]
    assert report["overall"]["n"] == 6
    assert isinstance(report["overall"]["auc"], float)
    assert "AUC" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--conditions", "jpeg91"], "conditions takes some of"),
        (["--json", "nowhere/out.json"], "folder that does not exist"),
        (["--limit", "1"], "--limit must be at least 2"),
    ],
)
def test_command_says_what_is_wrong_before_it_scores(run, folder, words, message):
    result = run(folder, *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_command_with_data_that_cannot_be_used(run, tmp_path):
    (tmp_path / "data.csv").write_text("file,label\n")
    result = run(tmp_path / "data.csv")
    assert result.exit_code == 2
    assert "needs a column path" in result.stderr


def test_command_fails_where_no_auc_can_be_had(run, folder):
    for path in (folder / "fake").rglob("*.png"):
        path.write_bytes(b"")
    result = run(folder)
    assert result.exit_code == 1
    assert "No AUC" in result.stdout
