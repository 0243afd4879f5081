"""Comparison of two sets of scores, other detectors in the same run, and the commands around both."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

import tellsign
from tellsign.cli import compare as compare_command
from tellsign.cli import eval as eval_command
from tellsign.evaluation import compare, metrics, peers, protocols
from tellsign.evaluation.dataset import DataError, load
from tellsign.evaluation.run import evaluate
from tellsign.schemas import Label, PredictionSet, Verdict


class Mean:
    """p is the mean of the pixels."""

    versions = {"mean": "1"}  # noqa: RUF012

    def __init__(self, **settings):
        self.settings = settings

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def detect_many(self, sources, *, batch_size=None, on_error="raise"):
        for picture in sources:
            p = float(picture.pixels.mean() / 255)
            label = Label.AI_GENERATED if p >= 0.5 else Label.AUTHENTIC
            yield Verdict(
                label=label,
                p_ai=p,
                prediction_set=PredictionSet(labels=(label,), error_rate=0.1),
                width=picture.width,
                height=picture.height,
            )


def spread(pictures):
    """A peer: how much the pixels differ from grey, as a probability."""
    return [float(abs(p.pixels.astype(float) - 128).mean() / 128) for p in pictures]


def log_odds(pictures):
    return [4 * float(p.pixels.mean() / 255) - 2 for p in pictures]


def broken(pictures):
    raise ValueError("no weights")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(1)
    for n in range(40):
        fake = n % 2
        level = int(np.clip(rng.normal(150 if fake else 105, 45), 5, 250))
        path = tmp_path / "data" / ("fake" if fake else "real") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (level, level, min(255, level + n))).save(path)
    return tmp_path / "data"


def delong_by_definition(label, first, second):
    """Placement values, pair by pair."""
    fake, real = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    out = []
    for s in (first, second):
        wins = (s[fake][:, None] > s[real]) + 0.5 * (s[fake][:, None] == s[real])
        out.append((wins.mean(1), wins.mean(0), wins.mean()))
    variance = 0.0
    for part, n in ((0, len(fake)), (1, len(real))):
        spread_of = np.cov(np.vstack([out[0][part], out[1][part]]))
        variance += (spread_of[0, 0] + spread_of[1, 1] - 2 * spread_of[0, 1]) / n
    return out[1][2] - out[0][2], math.sqrt(variance)


@pytest.mark.parametrize("ties", [False, True])
def test_delong_is_its_definition(ties):
    rng = np.random.default_rng(2)
    label = rng.integers(0, 2, 60)
    first, second = rng.random(60) + 0.3 * label, rng.random(60) + 0.6 * label
    if ties:
        first, second = first.round(1), second.round(1)
    found = compare.delong(label, first, second)
    difference, se = delong_by_definition(label, first, second)
    assert found["difference"] == pytest.approx(difference)
    assert found["difference"] == pytest.approx(metrics.auc(label, second) - metrics.auc(label, first))
    assert found["se"] == pytest.approx(se)
    assert found["p"] == pytest.approx(math.erfc(abs(difference / se) / math.sqrt(2)))
    assert compare.delong(label, first, first)["p"] == 1


def test_delong_keeps_its_level():
    rng = np.random.default_rng(3)
    label = np.r_[np.ones(40, int), np.zeros(40, int)]
    hits = sum(
        compare.delong(label, rng.normal(size=80) + label, rng.normal(size=80) + label)["p"] < 0.05 for _ in range(400)
    )
    assert 6 <= hits <= 38  # 20 expected; four standard deviations of a binomial either way


def test_mcnemar_by_hand_and_for_many_pictures():
    first = np.array([1, 1, 1, 1, 1, 0, 0, 1], bool)
    second = np.array([0, 0, 0, 0, 1, 1, 0, 1], bool)
    # 4 against 1: 2 * (C(5,0) + C(5,1)) / 32.
    assert compare.mcnemar(first, second) == {"only_first": 4, "only_second": 1, "p": pytest.approx(12 / 32)}
    assert compare.mcnemar(first, first)["p"] == 1
    many = np.arange(5000) < 2500
    assert compare.mcnemar(many, ~many)["p"] == 1
    assert compare.mcnemar(np.arange(5000) < 3000, np.arange(5000) >= 3000)["p"] < 1e-40


def test_the_paired_bootstrap_sees_a_difference_and_none_where_there_is_none():
    rng = np.random.default_rng(4)
    label = np.r_[np.ones(150, int), np.zeros(150, int)]
    noise = rng.normal(size=300)
    weak, strong = (1 / (1 + np.exp(-(noise + k * (label - 0.5)))) for k in (0.5, 3))
    group = np.array([str(i) for i in range(300)], dtype=object)
    found = compare.paired(label, weak, strong, group, draws=300)
    assert found["auc"]["difference"] == pytest.approx(metrics.auc(label, strong) - metrics.auc(label, weak))
    assert found["auc"]["ci"][0] > 0
    assert found["auc"]["p"] < 0.02
    assert found["delong"]["p"] < 0.001
    same = compare.paired(label, weak, weak, group, draws=100)
    assert (same["auc"]["difference"], same["auc"]["p"]) == (0, 1)
    grouped = compare.paired(label, weak, strong, np.array([str(i // 10) for i in range(300)], dtype=object), draws=100)
    assert grouped["delong"] is None  # pictures of one group are not independent
    assert grouped["mcnemar"] is None
    width = [np.diff(x["auc"]["ci"])[0] for x in (found, grouped)]
    assert width[0] > 0


def test_reports_are_paired_by_content_and_not_by_order(folder, tmp_path):
    first = evaluate(load(folder), Mean(), draws=0)
    (folder / "real" / "0.png").rename(folder / "real" / "z.png")
    Image.new("RGB", (9, 9), (1, 2, 3)).save(folder / "real" / "extra.png")
    second = evaluate(load(folder), Mean(), draws=0)
    found = compare.reports(first, second, draws=100)
    assert (found["only_first"], found["only_second"]) == (0, 1)
    block = found["by_condition"]["native"]
    assert block["n"] == 40
    assert block["auc"]["difference"] == 0
    with pytest.raises(DataError, match="holds no scores per picture"):
        compare.reports(evaluate(load(folder), Mean(), draws=0, scores=False), second)
    alien = json.loads(json.dumps(first))
    alien["pictures"]["content"] = ["0" * 16] * 40
    with pytest.raises(DataError, match="No picture is in both reports"):
        compare.reports(alien, second)


def test_a_peer_sits_in_the_same_tables(folder):
    here = f"{__name__}"
    live = peers.CallablePeer(name="spread", where=here, call=spread)
    odds = peers.CallablePeer(name="odds", where=here, call=log_odds)
    report = evaluate(load(folder), Mean(), conditions="native,jpeg70", draws=20, peers=[live, odds])
    assert list(report["peers"]) == ["spread", "odds"]
    assert report["peers"]["spread"]["scores_are"] == "probability"
    assert report["peers"]["odds"]["scores_are"] == "log-odds"
    # The same ranking as the detector's own, through the logistic function.
    assert report["peers"]["odds"]["overall"]["auc"] == pytest.approx(report["overall"]["auc"])
    assert report["peers"]["odds"]["by_condition"]["jpeg70"]["n"] == 40
    assert report["comparisons"]["odds"]["native"]["auc"]["difference"] == pytest.approx(0)
    assert report["comparisons"]["spread"]["native"]["n"] == 40
    json.dumps(report, allow_nan=False)


def test_a_peer_that_fails_says_so(folder):
    with pytest.raises(peers.PeerError, match=r"peer bad .* failed: ValueError: no weights"):
        evaluate(load(folder), Mean(), draws=0, peers=[peers.CallablePeer(name="bad", where="x:y", call=broken)])
    few = peers.CallablePeer(name="few", where="x:y", call=lambda pictures: [0.5])
    with pytest.raises(peers.PeerError, match="gave 1 scores for 8 pictures"):
        evaluate(load(folder), Mean(), draws=0, peers=[few])


def test_scores_in_a_csv(folder, tmp_path):
    names = [i.name for i in load(folder).items]
    rows = [f"{n},{k / 40}" for k, n in enumerate(names[:-2])]
    (tmp_path / "b_free.csv").write_text("filename,score\n" + "\n".join(rows))
    peer = peers.load(str(tmp_path / "b_free.csv"))
    report = evaluate(load(folder), Mean(), draws=0, peers=[peer])
    assert report["peers"]["b_free"]["overall"]["n_without_probability"] == 2
    assert report["comparisons"]["b_free"]["native"]["n"] == 38
    assert any("has no score for 2 of 40 pictures (native)" in w for w in report["warnings"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nothing", "takes module:callable or a CSV"),
        ("no_such_module:f", "cannot be imported: ModuleNotFoundError"),
        ("math:no_such_name", "cannot be imported: AttributeError"),
        ("math:pi", "is a float and cannot be called"),
        ("nowhere.csv", "cannot be read as a CSV"),
    ],
)
def test_peers_that_are_not_there(given, message):
    with pytest.raises(DataError, match=message):
        peers.load(given)


def test_a_csv_of_scores_that_cannot_be_used(tmp_path):
    for text, message in (
        ("file,score\na,1\n", "needs a column path"),
        ("path,score\na,x\n", "line 2: score must be a number, got 'x'"),
        ("path,score\na,1\na,2\n", "a has a second score, 2"),
    ):
        (tmp_path / "s.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            peers.load(str(tmp_path / "s.csv"))


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(tellsign, "Detector", Mean, raising=False)
    app = Typer()
    app.command("eval")(eval_command.command)
    app.command("compare")(compare_command.command)
    return lambda *words: CliRunner().invoke(app, [str(w) for w in words])


def test_commands_end_to_end(run, folder, tmp_path, monkeypatch):
    (tmp_path / "my_peer.py").write_text("def score(pictures):\n    return [0.25 for _ in pictures]\n")
    monkeypatch.chdir(tmp_path)
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    result = run(
        "eval", folder, "--json", one, "--html", tmp_path / "p.html", "--peer", "flat=my_peer:score",
        "--conditions", "native,jpeg90,jpeg40",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "one.json.journal").exists()
    report = json.loads(one.read_text())
    assert report["peers"]["flat"]["overall"]["auc"] == 0.5
    page = (tmp_path / "p.html").read_text()
    for words in (
        "ROC",
        "Reliability",
        "AUC by JPEG quality",
        "Worst mistakes",
        "data:image/jpeg",
        "tellsign less flat",
    ):
        assert words in page, words
    assert "http" not in page.replace("http-equiv", "")
    assert run("eval", folder, "--json", two, "--conditions", "jpeg40").exit_code == 0
    compared = run("compare", one, two, "--json", tmp_path / "c.json")
    assert compared.exit_code == 0, compared.output
    assert "two less one, jpeg40: 40 pictures" in compared.stdout
    assert json.loads((tmp_path / "c.json").read_text())["by_condition"]["jpeg40"]["auc"]["p"] == 1
    wrong = run("compare", one, tmp_path / "my_peer.py")
    assert wrong.exit_code == 2
    assert "cannot be read as JSON" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocol", "P1"], "--protocol genimage-jpeg96 is for genimage, and DATA was read as plain"),
        (["--protocol", "P9"], "--protocol takes one of genimage-jpeg96 (P1)"),
        (["--protocol", "robustness", "--conditions", "native"], "fixes --conditions"),
        (["--align", "png"], "--align takes one of jpeg96"),
        (["--align", "jpeg96", "--normalise"], "exclude each other"),
        (["--layout", "wildrff"], "Did you mean wildrf?"),
        (["--html", "nowhere/p.html"], "--html nowhere/p.html lies in a folder that does not exist"),
        (["--peer", "nothing"], "takes module:callable"),
    ],
)
def test_the_command_says_what_is_wrong_before_it_scores(run, folder, words, message):
    result = run("eval", folder, *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_genimage_protocol_saves_lossless_fakes_as_jpeg_and_leaves_reals(run, tmp_path):
    from tellsign.decoding import decode
    from tellsign.evaluation.run import Preparation, picture_of

    root = tmp_path / "GenImage" / "ADM" / "val"
    for side, suffix, level in (("ai", "PNG", 200), ("nature", "JPEG", 40)):
        for n in range(3):
            path = root / side / f"{n}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (level + n,) * 3).save(path)
    result = run("eval", tmp_path / "GenImage", "--protocol", "genimage-jpeg96", "--json", tmp_path / "g.json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "g.json").read_text())
    assert report["settings"]["align"].startswith("generated pictures stored without loss")
    assert report["audit"]["fake"]["formats"] == {"JPEG": 1.0}
    assert report["paper"]["rows"]["ADM"]["accuracy"] == 1
    assert report["settings"]["protocol"]["columns"] == ["accuracy"]
    fake, real = (next(i for i in load(tmp_path / "GenImage").items if i.label == y) for y in (1, 0))
    tables = picture_of(fake, "", Preparation(align="jpeg96")).facts.quantization
    assert [sum(t) for t in tables] == [292, 443]  # libjpeg's tables at quality 96
    assert picture_of(real, "", Preparation(align="jpeg96")).original == decode(real.path).original


def test_every_protocol_names_what_is_there():
    from tellsign.evaluation.conditions import parse
    from tellsign.evaluation.layouts import LAYOUTS
    from tellsign.evaluation.table import NAMES

    known = {layout.name for layout in LAYOUTS}
    for protocol in protocols.PROTOCOLS:
        assert set(protocol.layouts) <= known
        assert set(protocol.columns) <= set(NAMES)
        assert parse(protocol.conditions)
        assert protocols.by_name(protocol.alias) is protocol
    with pytest.raises(DataError, match="Did you mean robustness"):
        protocols.by_name("robustnes")
