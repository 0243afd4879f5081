"""The recipe of the shipped fusion, with a detector that reads the label off a picture's colour."""

import json
import math

import attrs
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tellsign.data import default_fusion, scoring
from tellsign.data.default_fusion import MACHINES, score_table
from tellsign.data.forged import read_forged
from tellsign.data.rows import PictureRow
from tellsign.data.scoring import VERSIONS, Skipped, score_plugin, scored, version_of
from tellsign.errors import SettingError
from tellsign.fusion.bundle import Bundle
from tellsign.fusion.features import columns
from tellsign.fusion.table import ScoreTable
from tellsign.schemas import Column, Declaration, NotApplicable, ScoreEvidence, Task

STRENGTHS = tuple(strengths["pixel"] for strengths in MACHINES.values())
DECLARATION = Declaration(
    name="pixel",
    version="1",
    api_version=1,
    task=Task.PIXEL,
    detector="a.b:C",
    summary="A stand-in.",
    columns=tuple(Column(name=s, evidence=s, block=s) for s in STRENGTHS),
    code_licence="Apache-2.0",
    weights_licence="none",
    commercial_use=True,
)
ORIGIN = {"plugin": "pixel", "task": Task.PIXEL, "model": "stand-in 1"}


class RedDetector:
    """Fakes are redder than reals; to a green picture it does not apply."""

    made: list[dict[str, object]] = []  # noqa: RUF012 - emptied by the fixture
    sizes: list[int] = []  # noqa: RUF012

    def __init__(self, **options):
        RedDetector.made.append(options)
        self.name = options["settings"]["pixel"]["strength"]
        self.declarations = {"pixel": DECLARATION}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def collect_many(self, pictures):
        RedDetector.sizes.append(len(pictures))
        for picture in pictures:
            red, green, blue = picture.pixels.reshape(-1, 3).mean(axis=0)
            if green > 200:
                yield (NotApplicable(**ORIGIN, reason="green"),)
                continue
            logit = float(red - blue) / 10 + (0.5 if self.name == "tower" else 0)
            yield (ScoreEvidence(**ORIGIN, name=self.name, score=1 / (1 + math.exp(-logit)), logit=logit),)


@pytest.fixture(autouse=True)
def detector(monkeypatch):
    RedDetector.made, RedDetector.sizes = [], []
    monkeypatch.setattr(scoring, "Detector", RedDetector)
    return RedDetector


def picture(redness, seed, size=(330, 340)):
    rng = np.random.default_rng(seed)
    out = 100 + rng.normal(0, 15, (*size, 3)) + np.array([redness, 0, 0])
    return np.clip(out, 0, 255).astype(np.uint8)


def row(folder, label, source, number, pixels, split="fuse"):
    path = folder / f"{source}-{number}.png"
    Image.fromarray(pixels).save(path)
    group = f"{source}/{number}"
    return PictureRow(path=path, label=label, source=source, content="photo", group=group, split=split)


# -- versions -----------------------------------------------------------------------------------------------------


def same(one, other):
    return np.array_equal(one.pixels, other.pixels) and np.array_equal(one.whole.pixels, other.whole.pixels)


def test_a_version_depends_on_the_picture_its_name_and_its_number(tmp_path):
    pixels = picture(0, 0, (500, 600))
    one, other = row(tmp_path, 0, "a", 1, pixels), row(tmp_path, 0, "a", 2, pixels)
    made = [version_of(pixels, one, v) for v in range(VERSIONS)]
    for v, out in enumerate(made):
        assert same(out, version_of(pixels.copy(), one, v))
        assert not same(out, version_of(pixels, other, v))
        assert not same(out, version_of(pixels, attrs.evolve(one, source="b"), v))
    assert not same(made[0], made[1])
    # Neither the folder that it lies in nor its class decides anything.
    moved = attrs.evolve(one, path=tmp_path / "elsewhere" / one.path.name, label=1, group="g", tampered=1)
    assert same(made[1], version_of(pixels, moved, 1))


def test_the_second_version_is_compressed_once_more(tmp_path, monkeypatch):
    pixels = picture(0, 0, (500, 600))
    one = row(tmp_path, 0, "a", 1, pixels)
    twice = version_of(pixels, one, 1)
    monkeypatch.setattr(scoring, "reencode", lambda pixels, quality: pixels)
    once = version_of(pixels, one, 1)
    for a, b in ((once, twice), (once.whole, twice.whole)):
        assert a.pixels.shape == b.pixels.shape
        assert 0 < np.abs(a.pixels.astype(int) - b.pixels).mean() < 20


def test_a_forgery_is_shown_whole_and_without_an_overview(tmp_path):
    # A left half in red: a cut of 320 px out of 420 could lose a region at the edge.
    pixels = picture(0, 0, (420, 420))
    pixels[:, :20] = (255, 0, 0)
    one = attrs.evolve(row(tmp_path, 1, "a", 1, pixels), forged=True)
    for version in range(VERSIONS):
        out = version_of(pixels, one, version)
        assert out.overview is None
        assert (out.pixels[:, 2] - np.array([255, 0, 0])).mean() < 30


# -- scoring ------------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path):
    """Two reals, a broken file, a small picture, a green one and two fakes."""
    rows = [row(tmp_path, 0, "a", i, picture(0, i)) for i in range(2)]
    rows.append(attrs.evolve(rows[0], path=tmp_path / "broken.png", group="broken"))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    rows.append(row(tmp_path, 0, "a", 7, picture(0, 7, (60, 400))))
    rows.append(row(tmp_path, 0, "green", 0, np.full((330, 330, 3), (0, 255, 0), np.uint8)))
    rows += [row(tmp_path, 1, "b", i, picture(60, 10 + i)) for i in range(2)]
    return rows


@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_every_version_of_what_can_be_used_is_scored_in_order(mixed, chunk):
    detector = RedDetector(settings={"pixel": {"strength": "bundled"}})
    answers = list(scored(mixed, detector, versions=2, chunk=chunk))
    skipped = [a for a in answers if isinstance(a, Skipped)]
    found = [a for a in answers if not isinstance(a, Skipped)]
    assert [s.path.name for s in skipped] == ["broken.png", "a-7.png"]
    assert "192 px" in skipped[1].why
    used = [r for r in mixed if r.path.name not in ("broken.png", "a-7.png")]
    assert [(r, v) for r, v, _ in found] == [(r, v) for r in used for v in range(2)]
    assert max(RedDetector.sizes) <= max(chunk, 2)
    assert sum(RedDetector.sizes) == 2 * len(used)
    for r, _, line in found:
        assert set(line) == {"pixel.tower", "pixel.bundled"}
        assert math.isnan(line["pixel.tower"])
        assert math.isnan(line["pixel.bundled"]) == (r.source == "green")
        if r.source != "green":
            assert (line["pixel.bundled"] > 3) == (r.label == 1)


def test_a_killed_scoring_goes_on_where_it_was(mixed, tmp_path):
    cache = tmp_path / "scores.jsonl"
    whole, _ = score_plugin(mixed, "pixel", {"strength": "tower"}, cache, versions=2)
    text = cache.read_text()
    cache.write_text(text[: len(text) // 2])  # in the middle of a line
    RedDetector.sizes = []
    again, _ = score_plugin(mixed, "pixel", {"strength": "tower"}, cache, versions=2)
    assert again.keys() == whole.keys()
    assert all(repr(again[k]) == repr(whole[k]) for k in whole)
    assert 0 < sum(RedDetector.sizes) < 2 * 5


def test_the_scores_are_found_again_however_the_folder_is_named(mixed, tmp_path, monkeypatch):
    cache = tmp_path / "scores.jsonl"
    monkeypatch.chdir(tmp_path)
    whole, _ = score_plugin(mixed[:2], "pixel", {"strength": "tower"}, cache, versions=1)
    RedDetector.sizes = []
    near = [attrs.evolve(r, path=r.path.relative_to(tmp_path)) for r in mixed[:2]]
    again, _ = score_plugin(near, "pixel", {"strength": "tower"}, cache, versions=1)
    assert not RedDetector.sizes
    assert again.keys() == whole.keys()


def test_a_table_has_every_machines_rows_and_none_that_said_nothing(mixed, tmp_path):
    table, skipped = score_table(mixed, {"pixel": DECLARATION}, device="cpu", out=tmp_path)
    assert {s.path.name for s in skipped} == {"broken.png", "a-7.png"}
    assert [o["settings"]["pixel"]["strength"] for o in RedDetector.made] == list(STRENGTHS)
    assert {o["device"] for o in RedDetector.made} == {"cpu"}
    assert {tuple(o["plugins"]) for o in RedDetector.made} == {("pixel",)}
    assert sorted(c.name for c in table.columns) == ["pixel.bundled", "pixel.tower"]
    assert len(table) == 2 * 4 * VERSIONS  # four usable pictures that are not green
    half = len(table) // 2
    for at, column in enumerate(table.columns):
        first = column.name == "pixel.tower"  # each strength's rows know its own column and not the other's
        assert (~np.isnan(table.rows[:, at])).tolist() == [first] * half + [not first] * half
    # A picture's versions share its group under both strengths: they count as one picture.
    groups, counts = np.unique(table.group, return_counts=True)
    assert set(groups) == {"a/0", "a/1", "b/0", "b/1"}
    assert set(counts) == {2 * VERSIONS}
    assert table.label.tolist() == [int(g.startswith("b")) for g in table.group]
    assert table.source.tolist() == [g[0] for g in table.group]


def test_what_was_scored_before_is_not_scored_again(mixed, tmp_path):
    before, _ = score_table(mixed, {"pixel": DECLARATION}, device="cpu", out=tmp_path)
    (tmp_path / "scores-pixel-bundled.jsonl").unlink()
    RedDetector.sizes = []
    again, _ = score_table(mixed, {"pixel": DECLARATION}, device="cpu", out=tmp_path)
    assert sum(RedDetector.sizes) == 5 * VERSIONS
    np.testing.assert_array_equal(again.rows, before.rows)
    assert again.group.tolist() == before.group.tolist()


def test_a_plugin_without_strengths_joins_the_rows_of_every_machine(mixed, tmp_path, monkeypatch):
    other = attrs.evolve(DECLARATION, name="blue", columns=(Column(name="blue", evidence="blue"),))

    class Both(RedDetector):
        def __init__(self, **options):
            (self.plugin,) = options["plugins"]
            if self.plugin == "pixel":
                super().__init__(**options)
            self.declarations = {self.plugin: {"pixel": DECLARATION, "blue": other}[self.plugin]}

        def collect_many(self, pictures):
            if self.plugin == "pixel":
                yield from super().collect_many(pictures)
            else:
                for _ in pictures:
                    yield (ScoreEvidence(plugin="blue", task=Task.PIXEL, model="m", name="blue", score=0.5, logit=0.0),)

    monkeypatch.setattr(scoring, "Detector", Both)
    table, _ = score_table(mixed, {"pixel": DECLARATION, "blue": other}, device="cpu", out=tmp_path)
    assert set(table.pattern_names()) == {"blue", "blue+pixel.bundled", "blue+pixel.tower"}
    assert sorted(p.name for p in tmp_path.glob("scores-*")) == [
        "scores-blue.jsonl",
        "scores-pixel-bundled.jsonl",
        "scores-pixel-tower.jsonl",
    ]


# -- forgeries ----------------------------------------------------------------------------------------------------


def test_forged_rows_say_what_was_synthesised_and_what_was_moved(tmp_path):
    (tmp_path / "manifest.csv").write_text(
        "path,cls,kind,tool,ai_mask,ma_mask,group,source\n"
        "pictures/1.png,1,blend,migan,masks/1-ai.png,masks/1-ma.png,g1,phone\n"
        "pictures/2.png,0,copymove,paste,,masks/2-ma.png,g1,phone\n"
        "pictures/3.png,1,generated,sdxl,ones,,g2,sdxl\n"
        "pictures/4.png,0,untouched,none,,,g3,phone\n"
    )
    rows = read_forged(tmp_path, "fuse")
    assert [(r.label, r.tampered, r.edited) for r in rows] == [(1, -1, 1), (0, 1, 0), (1, -1, 0), (0, 0, 0)]
    assert [r.source for r in rows] == ["blend/migan", "phone", "generated/sdxl", "phone"]
    assert {r.split for r in rows} == {"fuse"}
    assert all(r.forged for r in rows)
    assert rows[0].path == tmp_path / "pictures/1.png"


def test_a_folder_that_was_not_forged_is_refused(tmp_path):
    with pytest.raises(SettingError, match=r"forged takes a folder with manifest\.csv"):
        read_forged(tmp_path, "fuse")
    (tmp_path / "manifest.csv").write_text("path,label\na.png,1\n")
    with pytest.raises(SettingError, match="ai_mask"):
        read_forged(tmp_path, "fuse")


# -- photographs as they are --------------------------------------------------------------------------------------


def test_whole_photographs_are_drawn_evenly_from_real_sources(tmp_path):
    rows = [row(tmp_path, y, s, i, picture(0, i)) for y, s in ((0, "a"), (0, "b"), (1, "c")) for i in range(5)]
    rows.append(attrs.evolve(row(tmp_path, 0, "a", 9, picture(0, 9)), forged=True))
    drawn = default_fusion.whole_photographs(rows, 3)
    assert [(r.source, r.path.name) for r in drawn] == [(s, f"{s}-{i}.png") for s in "ab" for i in (0, 2, 4)]
    assert all(r.as_is for r in drawn)
    assert default_fusion.whole_photographs(rows, 0) == []
    pixels = np.zeros((900, 40, 3), np.uint8)
    np.testing.assert_array_equal(scoring.version_of(pixels, drawn[0], 0).pixels, pixels)
    assert scoring.key_of(drawn[0], 0) != scoring.key_of(rows[0], 0)


def test_a_photograph_as_it_is_is_shown_to_segmentation_alone(mixed, tmp_path):
    regions = attrs.evolve(
        DECLARATION, name="regions", task=Task.SEGMENTATION, columns=(Column(name="tower", evidence="tower"),)
    )
    rows = [mixed[0], attrs.evolve(mixed[0], as_is=True)]
    shown = []
    kept = default_fusion.score_plugin
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            default_fusion,
            "score_plugin",
            lambda mine, plugin, *a, **k: (
                shown.append((plugin, len(mine))) or kept(mine, "pixel", {"strength": "tower"}, *a[1:], **k)
            ),
        )
        table, _ = score_table(rows, {"pixel": DECLARATION, "regions": regions}, device="cpu", out=tmp_path)
    assert set(shown) == {("pixel", 1), ("regions", 2)}
    assert len(table) == len(MACHINES) * (VERSIONS + 1)


# -- scores of `fit` ----------------------------------------------------------------------------------------------


def test_cross_fitted_scores_make_a_row_per_machine_of_pictures_that_all_plugins_know(tmp_path):
    rows = [row(tmp_path, y, "ab"[y], i, picture(0, i), "fit") for y in (0, 1) for i in range(3)]
    rows.append(row(tmp_path, 0, "c", 9, picture(0, 50)))  # of `fuse`
    known = {scoring.key_of(r, 0): {"pixel.tower": 1.0, "pixel.bundled": 2.0, "pixel.old": 3.0} for r in rows}
    scoring.write_scores(tmp_path / "crossfit-pixel.jsonl", known)
    part = {scoring.key_of(r, 0): {} for r in rows[1:]}
    scoring.write_scores(tmp_path / "crossfit-other.jsonl", part)
    table = default_fusion.cross_fitted(rows, {"pixel": DECLARATION}, tmp_path)
    assert len(table) == len(MACHINES) * 5
    assert {tuple(x) for x in np.nan_to_num(table.rows, nan=-1).tolist()} == {(-1.0, 1.0), (2.0, -1.0)}
    assert set(table.split.tolist()) == {"fit"}


def test_cross_fitted_scores_that_are_not_there_are_named(tmp_path):
    with pytest.raises(SettingError, match=r"beside takes a folder with crossfit-PLUGIN\.jsonl"):
        default_fusion.cross_fitted([], {"pixel": DECLARATION}, tmp_path)
    scoring.write_scores(tmp_path / "crossfit-pixel.jsonl", {})
    with pytest.raises(SettingError, match="beside takes scores of pictures of fit"):
        default_fusion.cross_fitted([], {"pixel": DECLARATION}, tmp_path)


# -- the command --------------------------------------------------------------------------------------------------


def test_the_command_trains_a_bundle_on_fuse_alone(tmp_path, monkeypatch):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rows = [
        row(pictures, label, f"{'rf'[label]}{s}", i, picture(25 * label, 100 * label + 10 * s + i))
        for label in (0, 1)
        for s in range(3)
        for i in range(5)
    ]
    rows += [row(pictures, 0, split, 0, picture(0, 999), split) for split in ("fit", "user", "test")]
    # A near-duplicate of a picture of `fit` is what `prepare` left out there: it is left out here too.
    rows.append(row(pictures, 0, "r0", 9, picture(0, 9)))
    skipped = tmp_path / "skipped.csv"
    skipped.write_text(f"path,why\n{rows[-1].path},near-duplicate in a later split\n")
    asked = []
    monkeypatch.setattr(default_fusion, "read_rows", lambda *where: asked.append(where) or rows)
    record = attrs.make_class("Record", ["name", "declaration", "state"])
    found = [record("pixel", DECLARATION, "ok"), record("torn", None, "failed"), record("off", DECLARATION, "disabled")]
    monkeypatch.setattr(default_fusion, "discover", lambda: found)
    options = {
        "shared": tmp_path / "s",
        "work": tmp_path / "w" / "x",
        "out": tmp_path / "bundle",
        "device": "cpu",
        "skipped": skipped,
    }
    result = CliRunner().invoke(
        default_fusion.app, [str(w) for k, v in options.items() for w in (f"--{k}", v)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    assert asked == [(tmp_path / "s" / "data", None)]
    bundle = Bundle.load(tmp_path / "bundle")
    rows_of, pictures_of = 30 * VERSIONS * len(STRENGTHS), 30
    told, last = result.stdout.splitlines()[0], result.stdout.splitlines()[-1]
    assert told == f"p_ai: {bundle.training['compared']['p_ai']['why']}"
    assert last.startswith(f"{rows_of} rows of {pictures_of} pictures; bundle {bundle.version} in ")
    table = ScoreTable.load(options["work"] / "fuse.csv", columns({"pixel": DECLARATION}))
    assert set(table.split.tolist()) == {"fuse"}
    assert "r0/9" not in table.group
    assert len(table) == rows_of
    json.loads((options["work"] / "report.json").read_text(), parse_constant=pytest.fail)
    # It fuses what either strength says.
    for strength in STRENGTHS:
        p = [
            bundle.fuse(
                [ScoreEvidence(**ORIGIN, name=strength, score=1 / (1 + math.exp(-x)), logit=x)], {"pixel": DECLARATION}
            ).p_ai
            for x in (-2.0, 4.0)
        ]
        assert p[0] < 0.3
        assert p[1] > 0.7


def test_a_plugin_with_other_weights_is_scored_anew_and_no_other(tmp_path):
    for name in ("pixel-tower", "pixel-bundled", "pixel-like", "segmentation"):
        (tmp_path / f"scores-{name}.jsonl").write_text("")
    default_fusion.forget("pixel", tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["scores-pixel-like.jsonl", "scores-segmentation.jsonl"]
    default_fusion.forget("segmentation", tmp_path)
    with pytest.raises(SettingError, match="rescore takes a plugin with kept scores"):
        default_fusion.forget("segmentation", tmp_path)


def test_what_was_compared_is_told_line_by_line():
    stack = {"auc": 0.93, "log_loss": 0.4151, "beside": {"auc": 0.82, "log_loss": 0.5}}
    found = {"why": "it does not lose", "penalties": {"logistic l2 0.3": stack}, "contenders": {"or": stack}}
    lines = default_fusion.comparison({"p_ai": found, "p_tampered": found | {"penalties": {}, "contenders": {}}})
    assert lines[0] == "p_ai: it does not lose"
    assert lines[1].split() == ["logistic", "l2", "0.3", "0.930", "0.415", "0.820", "0.500"]
    assert lines[2].split()[0] == "or"
    assert lines[3] == "p_tampered: it does not lose"
    blank = {"auc": None, "log_loss": None}
    assert default_fusion.comparison({"p_ai": found | {"contenders": {"or": blank}}})[2].split() == ["or", "-", "-"]
