"""Tuning from pictures: the cache, the checks, the bundle, the reports, the commands."""

import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tellsign
from tellsign import Detector, SettingError
from tellsign.cli.app import app
from tellsign.evaluation.items import DataError
from tellsign.fusion.bundle import Bundle
from tellsign.fusion.errors import BundleError
from tellsign.fusion.features import columns
from tellsign.fusion.table import ScoreTable
from tellsign.fusion.train import train_bundle
from tellsign.schemas import Column, Declaration, Task
from tellsign.tuning import known, tables
from tellsign.tuning.scoring import score
from tellsign.tuning.tune import tune

# How red a picture is on average is how suspicious: 128 is even odds.
RED = "return [self.score('s', 0.5, logit=(float(view.image[..., 0].mean()) - 128) / 16)]"


def shade(red, seed, side=240):
    """Noise whose low frequencies differ from picture to picture, with a mean red of about `red`."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 110, (9, 9, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(small).astype(float)
    pixels[..., 0] += red - pixels[..., 0].mean()
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture
def red(site):
    return site.install("red", RED, task="semantic")


DECLARED = {
    "red": Declaration(
        name="red",
        version="1.2.3",
        api_version=1,
        task=Task.SEMANTIC,
        detector="acme_red.detector:Plugin",
        summary="A detector made for a test.",
        columns=(Column(name="s", evidence="s"),),
        code_licence="Apache-2.0",
        weights_licence="none",
        commercial_use=True,
    )
}


@pytest.fixture(scope="session")
def red_fusion():
    """A fusion that takes the red plugin at its word."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    rows = ((2 * y - 1) + rng.normal(0, 1.4, 300))[:, None]
    table = ScoreTable(
        rows=rows, columns=columns(DECLARED), label=y, group=np.arange(300), source=np.where(y, "gen", "real")
    )
    return train_bundle(table, declarations=DECLARED, head="logistic", folds=3)[0]


@pytest.fixture
def base(red, red_fusion):
    return red_fusion


def folder_of(path, n=40, shift=40.0, seed=0):
    """n pictures of each class, all of them redder than the base expects."""
    rng = np.random.default_rng(seed)
    for label, side in enumerate(("real", "fake")):
        where = path / side / ("camera" if label == 0 else "gen")
        where.mkdir(parents=True, exist_ok=True)
        for i in range(n):
            level = 128 + shift + 16 * ((2 * label - 1) + rng.normal(0, 1.0))
            Image.fromarray(shade(level, seed * 10_000 + 2 * i + label)).save(where / f"{i}.png")
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def data(pictures, tmp_path):
    return Path(shutil.copytree(pictures, tmp_path / "data"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Scores that every test may use: a picture is scored once in a session."""
    return tmp_path_factory.mktemp("scores")


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    return {"out": tmp_path_factory.mktemp("tuned") / "out"}


@pytest.fixture
def tuned(data, base, cache, once, tmp_path):
    """What tuning on `data` came to, in a folder of the test's own."""
    if "result" not in once:
        once["result"] = tune(data, out=once["out"], fusion=base, cache=cache, max_fpr=0.1)
    shutil.copytree(once["out"], tmp_path / "out")
    return once["result"]


def test_a_shifted_domain_gives_a_bundle_that_a_detector_takes(tuned, tmp_path, base):
    assert tuned.written, tuned.reasons
    loaded = Bundle.load(tmp_path / "out")
    assert loaded.sha256 == tuned.bundle.sha256
    picture = shade(168, 999)
    with (
        Detector(fusion=base, stability_probe=False) as before,
        Detector(fusion=tmp_path / "out", stability_probe=False) as after,
    ):
        assert before.detect(picture).p_ai > 0.7
        assert after.detect(picture).p_ai < 0.7
        assert after.versions["bundle"] == loaded.version


def test_the_reports_say_what_happened(tuned, tmp_path):
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["written"] is True
    assert report["held_out"]["after"]["log_loss"] < report["held_out"]["before"]["log_loss"]
    assert report["gain"]["p_ai"]["moved"]["low"] > 0
    assert report["by_generator"][0]["generator"] == "gen"
    assert report["learning_curve"]
    assert report["reliability"]["after"]
    assert report["operating"]["promised"]
    assert report["operating"]["bound"] <= 0.1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "A tuned bundle was written" in page
    assert "://" not in page
    assert "<script" not in page


def test_hostile_names_do_not_reach_the_page_raw(base, tmp_path, cache):
    path = folder_of(tmp_path / "data", n=12)
    (path / "fake" / "gen").rename(path / "fake" / "<img src=x onerror=1>")
    tune(path, out=tmp_path / "out", fusion=base, cache=cache)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<img" not in page
    assert "&lt;img" in page


def test_the_same_data_and_seed_give_the_same_bytes(data, base, tuned, tmp_path):
    tune(data, out=tmp_path / "again", fusion=base, cache=tmp_path / "cache2", max_fpr=0.1)
    for name in ("manifest.json", "heads.json", "conformal.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_without_a_gain_the_base_is_kept_and_nothing_is_written(base, tmp_path, cache):
    path = folder_of(tmp_path / "data", n=25, shift=0.0, seed=3)
    result = tune(path, out=tmp_path / "out", fusion=base, cache=cache)
    assert not result.written
    assert result.bundle is base
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert "not proven" in json.loads((tmp_path / "out" / "report.json").read_text())["reasons"][0]
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.load(tmp_path / "out")


def test_a_killed_run_goes_on_where_it_was(data, base, tmp_path):
    from tellsign.evaluation.dataset import load

    items = load(data).items
    seen = 0

    def stop(done, total):
        nonlocal seen
        seen = done
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(items, cache=tmp_path / "cache", progress=stop)
    (file,) = (tmp_path / "cache").glob("red-*.jsonl")
    kept = file.read_bytes()
    assert kept.count(b"\n") >= 30
    file.write_bytes(kept + b'["cut off in the mid')
    again = score(items, cache=tmp_path / "cache")
    assert len(again.pictures) == 80
    assert again.from_cache >= 30
    assert score(items, cache=tmp_path / "cache").from_cache == 80
    assert all(line.startswith(b'["') and line.endswith(b"]") for line in file.read_bytes().splitlines())


def test_another_version_or_setting_is_scored_anew(site, data, tmp_path):
    from tellsign.evaluation.dataset import load

    package = site.install("red", RED, task="semantic")
    items = load(data).items[:6]
    score(items, cache=tmp_path / "cache")
    manifest = json.loads((package / "tellsign.json").read_text())
    (package / "tellsign.json").write_text(json.dumps(manifest | {"version": "9"}))
    assert score(items, cache=tmp_path / "cache").from_cache == 0
    assert score(items, cache=tmp_path / "cache").from_cache == 6


def test_a_new_plugin_is_the_only_one_that_runs(site, data, tmp_path):
    from tellsign.evaluation.dataset import load

    site.install("red", RED, task="semantic")
    items = load(data).items[:6]
    score(items, cache=tmp_path / "cache")
    site.install("green", "return [self.score('s', 0.25)]", task="semantic")
    before = sys.modules["acme_red.detector"].Plugin.calls
    found = score(items, cache=tmp_path / "cache")
    assert sys.modules["acme_red.detector"].Plugin.calls == before
    assert found.pictures[0].values["green.s"] == pytest.approx(math.log(1 / 3))
    assert found.pictures[0].values["red.s"] == found.pictures[0].values["red.s"]


def test_a_plugin_that_fails_is_said_and_asked_again(site, data, tmp_path):
    from tellsign.evaluation.dataset import load

    site.install("red", RED, task="semantic")
    site.install("bad", "raise UnavailableError('its weights are not here')", task="semantic")
    items = load(data).items[:4]
    found = score(items, cache=tmp_path / "cache")
    assert all("not here" in p.silent["bad"] for p in found.pictures)
    assert score(items, cache=tmp_path / "cache").from_cache == 0


def test_unreadable_pictures_are_rows_and_not_the_end(data, base, tmp_path, cache):
    (data / "fake" / "gen" / "broken.png").write_bytes(b"no picture")
    (data / "fake" / "gen" / "empty.png").write_bytes(b"")
    result = tune(data, out=tmp_path / "out", fusion=base, cache=cache)
    assert result.report["data"]["unreadable_count"] == 2
    assert {t["code"] for t in result.report["data"]["unreadable"]} == {"unknown_format", "empty"}


def test_pictures_that_a_plugin_trained_on_are_left_out_and_counted(data, base, red, tmp_path, cache):
    from tellsign.data.duplicates import perceptual_hash

    names = sorted((data / "real" / "camera").glob("*.png"))[:7]
    known.write([int(perceptual_hash(np.asarray(Image.open(n)))) for n in names], red / known.FILE)
    result = tune(data, out=tmp_path / "out", fusion=base, cache=cache)
    assert result.report["data"]["left_out_trained_on"] == {"red": 7}
    assert result.report["data"]["rows"] == 73
    assert any(f["code"] == "trained_on" and "7 pictures" in f["text"] for f in result.report["findings"])


def test_what_is_wrong_with_the_data_is_said(data, base, tmp_path, cache):
    picture = (data / "real" / "camera" / "0.png").read_bytes()
    (data / "fake" / "gen" / "copy.png").write_bytes(picture)  # the same bytes with both labels
    (data / "fake" / "gen" / "again.png").write_bytes((data / "fake" / "gen" / "1.png").read_bytes())
    Image.open(data / "fake" / "gen" / "2.png").resize((200, 200)).save(data / "fake" / "gen" / "near.png")
    for path in sorted((data / "real" / "camera").glob("*.png")):
        Image.open(path).save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    (data / "real" / "camera" / "0.png").write_bytes(picture)
    (data / "real" / "camera" / "0.jpg").unlink()
    found = tune(data, out=tmp_path / "out", fusion=base, cache=cache).report["findings"]
    codes = {f["code"] for f in found}
    assert {"contradiction", "repeated", "leak", "shortcut", "few_for_sets", "one_source"} <= codes
    assert all(f["text"].endswith((".", "0")) for f in found)


def test_near_duplicates_share_a_group(data, base, tmp_path, cache):
    Image.open(data / "fake" / "gen" / "2.png").resize((200, 200)).save(data / "fake" / "gen" / "near.png")
    tune(data, out=tmp_path / "out", fusion=base, cache=cache, export=tmp_path / "t.csv")
    table = ScoreTable.load(tmp_path / "t.csv", columns(DECLARED))
    assert (len(table), len(set(table.group.tolist()))) == (81, 80)


def test_too_few_real_pictures_for_a_promise_are_counted(data, base, tmp_path, cache):
    result = tune(data, out=tmp_path / "out", fusion=base, cache=cache, max_fpr=0.01)
    point = result.report["operating"]
    assert (point["promised"], point["needed"], point["missing"]) == (False, 299, 259)


def test_a_table_gives_the_same_bundle_as_its_pictures(data, base, tuned, tmp_path, cache):
    tune(
        data,
        out=tmp_path / "x",
        fusion=base,
        cache=cache,
        max_fpr=0.1,
        export=tmp_path / "t.csv",
    )
    result = tune(table=tmp_path / "t.csv", out=tmp_path / "y", fusion=base, max_fpr=0.1)
    assert result.bundle.sha256 == tuned.bundle.sha256


def test_a_bundle_in_the_way_is_not_lost(data, base, tuned, tmp_path, cache):
    arguments = {"fusion": base, "cache": cache, "max_fpr": 0.1}
    with pytest.raises(SettingError, match="overwrite"):
        tune(data, out=tmp_path / "out", **arguments)
    assert tune(data, out=tmp_path / "out", overwrite=True, **arguments).written


def test_weights_by_hand_are_written_whatever_they_gain(data, base, tmp_path, cache):
    result = tune(data, out=tmp_path / "out", fusion=base, cache=cache, weights={"semantic": 0.5})
    assert result.written
    assert result.bundle.training["weights"] == {"semantic": 0.5}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"max_fpr": 2}, "max_fpr"),
        ({"prior": 0}, "prior"),
        ({"folds": "x"}, "folds"),
        ({"cost": (1, 0)}, "cost"),
        ({"cost": (1, 1), "max_fpr": 0.1}, "cost"),
        ({"weights": {"pixel": 1}}, "weights"),
        ({"table": "t.csv"}, "data"),
        ({"error_rate": 1.5}, "error_rate"),
    ],
)
def test_settings_outside_their_range_are_refused_before_scoring(data, base, tmp_path, change, word):
    with pytest.raises(SettingError, match=word):
        tune(data, **({"out": tmp_path / "out", "fusion": base, "cache": tmp_path / "cache"} | change))
    assert not (tmp_path / "cache").exists()


def test_data_that_cannot_be_used_are_refused(tmp_path, base):
    with pytest.raises(DataError):
        tune(tmp_path / "nothing", out=tmp_path / "out", fusion=base)


def test_it_is_public():
    assert tellsign.tune is tune


# -- tables ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(red):
    declarations = DECLARED
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 1, (9, 1))
    rows[3] = np.nan
    made = ScoreTable(
        rows=rows, columns=columns(declarations), label=[0, 1] * 4 + [0], group=list("aabbccdde"), source=["x"] * 9
    )
    return made, declarations


def test_parquet_brings_back_the_same_table(table, tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    made, declarations = table
    tables.save(made, tmp_path / "t.parquet", declarations)
    again = tables.load(tmp_path / "t.parquet", declarations)
    assert again.sha256 == made.sha256
    # It says itself what its columns mean, so nothing needs to be installed where it is read.
    assert tables.load(tmp_path / "t.parquet", {}).sha256 == made.sha256
    head = tables.heading(tmp_path / "t.parquet", {})
    assert (head.rows, head.plugins["red"]["version"]) == (9, "1.2.3")
    parts = list(tables.batches(tmp_path / "t.parquet", head, size=4))
    assert [len(p) for p in parts] == [4, 4, 1]
    assert tables.joined(parts).sha256 == made.sha256


def test_a_parquet_table_of_another_meaning_is_refused(table, tmp_path):
    import attrs

    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    made, declarations = table
    tables.save(made, tmp_path / "t.parquet", declarations)
    turned = attrs.evolve(declarations["red"], columns=(attrs.evolve(declarations["red"].columns[0], direction=-1),))
    with pytest.raises(SettingError, match=r"red\.s"):
        tables.load(tmp_path / "t.parquet", {"red": turned})


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("red.s,label,group\n1,0,a\n", "lacks source"),
        ("red.s,label,group,source,else.x\n1,0,a,x,2\n", "else.x"),
        ("red.s,red.s,label,group,source\n1,1,0,a,x\n", "twice"),
        ("label,group,source\n0,a,x\n", "at least one column"),
        ("red.s,label,group,source\nhello,0,a,x\n", "numbers"),
        ("red.s,label,group,source\n1,3,a,x\n", "label"),
        ("", "lacks label"),
    ],
)
def test_hostile_tables_are_refused_in_one_line(red, tmp_path, content, word):
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(SettingError, match=word) as caught:
        tables.load(path, DECLARED)
    assert "\n" not in str(caught.value)


def test_truncated_parquet_is_refused(table, tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    made, declarations = table
    tables.save(made, tmp_path / "t.parquet", declarations)
    (tmp_path / "u.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-20])
    with pytest.raises(SettingError, match="Parquet") as caught:
        tables.load(tmp_path / "u.parquet", declarations)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_large_table_is_read_in_batches(red, base, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    from tellsign.fusion import outofcore
    from tellsign.tuning import tune as module

    monkeypatch.setattr("tellsign.tuning.tune.IN_MEMORY", 100)
    monkeypatch.setattr(outofcore, "SAMPLE", 150)
    declarations = DECLARED
    rng = np.random.default_rng(0)
    y = np.arange(1200) % 2
    rows = (2.5 + (2 * y - 1) + rng.normal(0, 1.4, 1200))[:, None]
    made = ScoreTable(
        rows=rows, columns=columns(declarations), label=y, group=np.arange(1200), source=np.where(y, "gen", "real")
    )
    tables.save(made, tmp_path / "t.parquet", declarations)
    result = tune(table=tmp_path / "t.parquet", out=tmp_path / "out", fusion=base)
    assert module is not None
    assert result.written, result.reasons
    assert result.report["data"]["rows"] == 1200
    assert any(f["code"] == "batches" for f in result.report["findings"])


# -- the commands ------------------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def test_the_commands_from_pictures_to_drift(data, base, cache, tmp_path):
    base.save(tmp_path / "base")
    done = run(
        "tune",
        data,
        "--out",
        tmp_path / "out",
        "--fusion",
        tmp_path / "base",
        "--cache",
        cache,
        "--cost",
        "5,1",
    )
    assert done.exit_code == 0, done.output
    assert "A tuned bundle was written" in done.output
    shown = run("fusion", "show", tmp_path / "out")
    assert shown.exit_code == 0
    assert "semantic" in shown.output
    assert "Threshold" in shown.output
    assert (
        json.loads(run("fusion", "show", tmp_path / "out", "--json").output)["training"]["operating"]["how"] == "cost"
    )
    assert run("fusion", "check", tmp_path / "out").exit_code == 0
    assert run("fusion", "diff", tmp_path / "out", tmp_path / "out").exit_code == 0
    assert run("fusion", "diff", tmp_path / "base", tmp_path / "out").exit_code == 1

    pictures = sorted(data.rglob("*.png"))[::3]
    answer = run("detect", *pictures, "--json", "--fusion", tmp_path / "out", "--no-stability")
    (tmp_path / "same.jsonl").write_text(answer.stdout)
    same = run("monitor", tmp_path / "same.jsonl", "--fusion", tmp_path / "out")
    assert same.exit_code == 0, same.output
    assert "No drift" in same.output
    far = "".join(f"{0.999999 if i % 2 else 0.9999985}\n" for i in range(60))
    (tmp_path / "far.csv").write_text("p_ai\n" + far)
    drift = run("monitor", tmp_path / "far.csv", "--fusion", tmp_path / "out", "--json")
    assert drift.exit_code == 1
    assert json.loads(drift.output)["alarm"] is True


@pytest.mark.parametrize(
    "arguments",
    [
        ("tune", "nowhere", "--out", "o"),
        ("tune", "nowhere"),
        ("tune", ".", "--out", "o", "--weights", "pixel"),
        ("tune", ".", "--out", "o", "--cost", "1"),
        ("monitor", "nowhere.csv"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.output


def broken(folder, how):
    manifest = json.loads((folder / "manifest.json").read_text())
    if how == "another hash":
        data = bytearray((folder / "heads.json").read_bytes())
        data[-3] ^= 1
        (folder / "heads.json").write_bytes(data)
    elif how == "truncated":
        data = (folder / "conformal.safetensors").read_bytes()
        (folder / "conformal.safetensors").write_bytes(data[: len(data) // 2])
    elif how == "truncated manifest":
        (folder / "manifest.json").write_bytes((folder / "manifest.json").read_bytes()[:100])
    elif how == "huge":
        with (folder / "conformal.safetensors").open("r+b") as file:
            file.truncate(1 << 40)
    elif how == "huge manifest":
        with (folder / "manifest.json").open("r+b") as file:
            file.truncate(1 << 40)
    elif how == "foreign columns":
        manifest["columns"][0]["name"] = "red.other"
        (folder / "manifest.json").write_text(json.dumps(manifest))
    elif how == "outside the folder":
        manifest["files"]["../../etc/passwd"] = {"sha256": "0" * 64, "size": 1}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    elif how == "nested":
        (folder / "manifest.json").write_text("[" * 100_000)


HOSTILE = (
    "another hash",
    "truncated",
    "truncated manifest",
    "huge",
    "huge manifest",
    "foreign columns",
    "outside the folder",
    "nested",
)


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_bundle_is_refused_in_one_line(base, tmp_path, how):
    base.save(tmp_path / "b")
    broken(tmp_path / "b", how)
    for command in (("fusion", "show"), ("fusion", "check")):
        done = run(*command, tmp_path / "b")
        assert done.exit_code == 1
        assert len(done.stderr.strip().splitlines()) == 1
        assert "fusion bundle" in done.stderr
    with Detector(fusion=tmp_path / "b", stability_probe=False) as detector, pytest.raises(BundleError):
        detector.detect(shade(128, 0))
