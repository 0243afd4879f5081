"""Findings of plain rules: lettering against a dictionary, the lattice, and how their false alarms are counted."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from typer.testing import CliRunner

from tellsign.errors import SettingError
from tellsign.plugin import UnavailableError
from tellsign.plugins.artifacts import lettering, lexicon, reading
from tellsign.plugins.artifacts.detector import ArtifactsDetector
from tellsign.plugins.artifacts.lattice import PERIOD, WINDOW, lattice
from tellsign.plugins.artifacts.lettering import garbled
from tellsign.plugins.artifacts.measure import looking, table
from tellsign.plugins.artifacts.measure.__main__ import app
from tellsign.plugins.artifacts.reading import MANY, Line
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import Category, Declaration, FindingEvidence, NotApplicable, SegmentationView, Task, Unavailable

WORDS = {"coffee", "house", "morning", "garden", "straße"}


@pytest.fixture
def dictionary(monkeypatch):
    monkeypatch.setattr(lexicon, "lexicon", lambda: frozenset(lexicon._bare(w) for w in WORDS))
    monkeypatch.setattr(lexicon, "rare_words", lambda: frozenset({"veranda"}))


def line(text, sure=0.95, box=(10.0, 10.0, 90.0, 30.0)):
    return Line(box=box, height=20.0, found=0.9, text=text, sure=sure)


# -- words --------------------------------------------------------------------------------------------------------


def test_words_are_latin_letters_in_a_row_and_long_enough():
    assert lexicon.words("Coffee-HOUSE 24 abc кофе Straße café9bar") == ["coffee", "house", "strasse", "café"]


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("coffee", 1),
        ("strasse", 1),
        ("coffeehouse", 1),
        ("gärden", 1),
        ("coffeeish", 0),
        ("gardens", 1),
        ("ftraffe", 1),
        ("cofefe", 0),
    ],
)
def test_what_a_word_is(word, known, dictionary):
    assert lexicon.is_word(word) == bool(known)
    assert lexicon.is_word("veranda")
    assert not lexicon.is_word("veranda", rare=False)


@pytest.mark.slow
def test_the_real_lists_know_words_and_not_everything():
    pytest.importorskip("wordfreq", reason="extra lettering: the word lists")
    assert all(map(lexicon.is_word, ("coffee", "kaffeehaus", "strasse", "fotografie", "señora")))
    assert not any(map(lexicon.is_word, ("drettnind", "dreauty", "tiractaerr", "nigtmare")))


# -- the rule -----------------------------------------------------------------------------------------------------


def test_lines_that_are_well_read_and_hold_no_words_are_garbled(dictionary):
    found = garbled([line("Cofefe Mronnig"), line("garden", box=(5.0, 50.0, 60.0, 70.0))])
    assert found.unknown == ("cofefe", "mronnig")
    assert found.known == ("garden",)
    assert found.box == (10.0, 10.0, 90.0, 30.0)
    assert found.strength == 13 / 19


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [line("coffee house")],
        [line("Xyzzyk")],  # one short word may be a name
        [line("Cofefe Mronnig", sure=0.5)],  # cannot be made out
        [line("Cofefe Mronnig"), line("coffee house garden")],  # names among words
        [line("cofefemronnig.com")],
        [line("/cofefe/mronnig")],
        [line("CofefeMronnig")],  # how products and programs are written
        [line("Cofefe Mronnig")] * (lettering.MOST_LINES + 1),  # a document or a screen
        [line("Cofefe verandas")],
        [line("кофейня утренняя")],
    ],
)
def test_what_may_be_right_is_left_alone(lines, dictionary):
    assert garbled(lines) is None


def test_the_same_word_twice_counts_once(dictionary):
    assert garbled([line("Cofefe"), line("Cofefe")]) is None


# -- reading ------------------------------------------------------------------------------------------------------


def test_printed_lettering_is_read_where_it_is():
    pytest.importorskip("rapidocr", reason="extra lettering: reads letters")
    pytest.importorskip("wordfreq", reason="extra lettering: the word lists")
    for text, wrong in (("COFFEE GARDEN", False), ("COFEFRE GRADNEI", True)):
        image = Image.new("RGB", (640, 400), (200, 190, 170))
        ImageDraw.Draw(image).text((80, 150), text, (20, 20, 20), ImageFont.load_default(size=60))
        lines = reading.read(np.asarray(image))
        assert " ".join(each.text for each in lines).replace(" ", "") == text.replace(" ", "")
        left, top, right, bottom = lines[0].box
        assert 60 < left < 100
        assert 130 < top < 180
        assert bottom < 240
        assert right < 640
        assert (garbled(lines) is not None) == wrong


def test_without_the_extra_the_plugin_says_what_would_help(monkeypatch):
    reading.reader.cache_clear()
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(UnavailableError, match=r"tellsign\[lettering\]"):
        reading.read(np.zeros((64, 64, 3), np.uint8))
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    lexicon.lexicon.cache_clear()
    with pytest.raises(UnavailableError, match=r"tellsign\[lettering\]"):
        lexicon.is_word("coffee")


class Engine:
    """Finds two lines in a picture of 1000 px, one of them small, and reads what it is told."""

    def __init__(self, count=2):
        self.count, self.read = count, []

    def __call__(self, image, *, use_det, use_cls, use_rec):
        if not use_det:
            self.read.append(image.shape)
            return SimpleNamespace(txts=("Cofefe",), scores=(0.9,))
        scale = image.shape[1] / 1000
        corners = np.array([[100, 100], [500, 100], [500, 150], [100, 150]], float)
        boxes = [corners * scale, (corners / 10 + 700) * scale] * (self.count // 2)
        return SimpleNamespace(boxes=np.array(boxes), scores=[0.8] * len(boxes))


@pytest.mark.parametrize("side", [800, 1000, 3000])
def test_boxes_are_in_the_pictures_own_pixels_and_small_lines_are_not_read(side, monkeypatch):
    engine = Engine()
    monkeypatch.setattr(reading, "reader", lambda: engine)
    lines = reading.read(np.zeros((side, side, 3), np.uint8))
    assert lines[0].box == pytest.approx([v * side / 1000 for v in (100, 100, 500, 150)], abs=2)
    assert lines[0].height == pytest.approx(50 * side / 1000, abs=1)
    assert [each.text for each in lines] == ["Cofefe", ""]
    assert len(engine.read) == 1


def test_where_there_are_many_lines_none_is_read(monkeypatch):
    engine = Engine(MANY + 2)
    monkeypatch.setattr(reading, "reader", lambda: engine)
    assert len(reading.read(np.zeros((900, 900, 3), np.uint8))) > MANY
    assert not engine.read


# -- the lattice --------------------------------------------------------------------------------------------------


def noise(side=WINDOW, seed=0):
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(128, 12, (side, side, 3)), 0, 255).astype(np.uint8)


def test_a_pattern_every_16_pixels_stands_out_and_one_every_8_does_not():
    rng = np.random.default_rng(1)
    levels = {}
    for period in (PERIOD, PERIOD // 2):
        tile = rng.normal(0, 6, (period, period, 1))
        tiled = np.tile(tile, (2 * WINDOW // period, 2 * WINDOW // period, 1))
        levels[period] = lattice(np.clip(noise(2 * WINDOW) + tiled, 0, 255).astype(np.uint8))
    plain = lattice(noise(2 * WINDOW))
    assert abs(plain) < 0.15
    assert levels[PERIOD] > 0.8
    assert levels[PERIOD // 2] < 0.3


def test_drawn_and_small_pictures_say_nothing():
    assert lattice(np.full((WINDOW, WINDOW, 3), 200, np.uint8)) is None
    assert lattice(noise(WINDOW - 1)) is None


# -- the plugin ---------------------------------------------------------------------------------------------------


def detector(**settings):
    declaration = Declaration(
        name="artifacts", version="0", api_version=1, task=Task.SEGMENTATION, detector="a:B", summary="s", columns=(),
        code_licence="Apache-2.0", weights_licence="none", commercial_use=True,
    )  # fmt: skip
    return ArtifactsDetector(declaration, settings)


def ask(pixels):
    return detector().detect([SegmentationView(key="k", image=pixels)], DeviceRuntime("cpu"))[0]


def test_a_finding_has_category_region_strength_and_words(monkeypatch, dictionary):
    said = [line("Cofefe Mronnig", box=(-2.0, 3.2, 130.0, 40.5))]
    monkeypatch.setattr("tellsign.plugins.artifacts.detector.read", lambda pixels: said)
    (found,) = ask(np.zeros((64, 100, 3), np.uint8))
    assert isinstance(found, FindingEvidence)
    assert found.category is Category.SYMBOL
    assert found.strength == 1
    assert (found.region.left, found.region.top, found.region.right, found.region.bottom) == (0, 3, 100, 41)
    assert '"cofefe", "mronnig"' in found.note


def test_no_finding_is_no_statement(monkeypatch, dictionary):
    monkeypatch.setattr("tellsign.plugins.artifacts.detector.read", lambda pixels: [line("coffee house")])
    (said,) = ask(np.zeros((64, 100, 3), np.uint8))
    assert isinstance(said, NotApplicable)
    assert "nothing either way" in said.reason


def test_without_the_extra_it_is_unavailable(monkeypatch):
    def missing(pixels):
        raise UnavailableError(reading.MISSING)

    monkeypatch.setattr("tellsign.plugins.artifacts.detector.read", missing)
    (said,) = ask(np.zeros((64, 100, 3), np.uint8))
    assert isinstance(said, Unavailable)
    with pytest.raises(SettingError, match="none"):
        detector(smell=1)


# -- false alarms -------------------------------------------------------------------------------------------------


def seen(domain, source, score, n=1):
    label = int(domain == "generated")
    return [
        looking.Seen(
            row=looking.Row(path=f"{source}{k}", domain=domain, source=source, label=label),
            size=(9, 9),
            lattice=score,
            lines=(),
        )
        for k in range(n)
    ]


def named(half, word):
    """A source whose hash puts it into a half."""
    for k in range(99):
        name = f"{word}{k}"
        if looking.Row(path="", domain="", source=name, label=0).half == half:
            return name
    raise AssertionError


def test_the_cut_is_chosen_on_one_half_and_told_on_the_other():
    tune, told = named("tune", "a"), named("report", "b")
    pictures = []
    for half in (tune, told):
        pictures += seen("photo", half, 0.1, 99) + seen("photo", half, 0.9, 1)
        pictures += seen("scan", half, 0.305, 100)
        pictures += seen("generated", half, 0.5, 30) + seen("generated", half, 0.31, 10)
    out = table.report("lattice", pictures)
    assert out["setting"] == [0.31]  # every scan would fire below, and fewer generated pictures above
    assert out["parts"]["report"]["photo"] | {"interval": None} == {
        "fired": 1,
        "n": 100,
        "share": 0.01,
        "interval": None,
    }
    assert out["parts"]["report"]["generated"]["fired"] == 40
    assert out["on"]
    loud = pictures + seen("screenshot", told, 0.9, 1)
    assert table.report("lattice", loud)["setting"] == [0.31]
    assert not table.report("lattice", loud)["on"]
    assert "| photo | 1 of 100" in table.in_markdown({"lattice": out})


def test_a_check_that_finds_nothing_is_off():
    pictures = seen("photo", named("tune", "a"), 0.1, 5) + seen("generated", named("tune", "a"), 0.1, 5)
    out = table.report("lattice", pictures)
    assert out["setting"] is None
    assert not out["on"]
    assert "no setting" in table.in_markdown({"lattice": out})


def test_wilson_by_hand():
    low, high = table.wilson(0, 381)
    assert low == 0
    assert high == pytest.approx(0.00998, abs=1e-5)
    assert table.wilson(0, 0) == (0, 1)


@given(st.integers(0, 50), st.integers(1, 50))
def test_an_interval_holds_its_share(fired, more):
    n = fired + more
    low, high = table.wilson(fired, n)
    assert 0 <= low <= fired / n + 1e-9
    assert fired / n <= high + 1e-9 <= 1 + 1e-9


def test_halves_part_sources():
    rows = [looking.Row(path=str(k), domain="photo", source="s", label=0) for k in range(5)]
    assert len({r.half for r in rows}) == 1
    assert {looking.Row(path="", domain="", source=str(k), label=0).half for k in range(40)} == {"tune", "report"}


def test_the_commands_keep_what_was_seen(tmp_path, monkeypatch):
    asked = []

    def read(pixels):
        asked.append(pixels.shape)
        return [line("coffee")]

    monkeypatch.setattr(looking, "read", read)
    for name in ("a.png", "b.png"):
        Image.fromarray(noise()).save(tmp_path / name)
    with (tmp_path / "list.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(looking.NEEDED)
        writer.writerows([("a.png", "photo", "x", 0), ("b.png", "generated", "y", 1), ("none.png", "scan", "z", 0)])
    words = ["look", str(tmp_path / "list.csv"), "--kept", str(tmp_path / "seen.jsonl")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "2 of 3" in done.output
    assert "none.png" in done.output
    first = looking.read_kept(tmp_path / "seen.jsonl")
    assert [s.lines for s in first] == [(line("coffee"),)] * 2
    assert first[0].size == (WINDOW, WINDOW)
    assert CliRunner().invoke(app, words).exit_code == 0
    assert len(asked) == 2
    done = CliRunner().invoke(app, ["table", "--kept", str(tmp_path / "seen.jsonl"), "--out", str(tmp_path / "t.json")])
    assert done.exit_code == 0, done.output
    assert set(json.loads((tmp_path / "t.json").read_text())) == {"lattice", "lettering", "lettering as it ships"}
    (tmp_path / "bad.csv").write_text("path\n")
    with pytest.raises(SettingError, match="domain"):
        looking.read_list(tmp_path / "bad.csv")


def test_the_rule_that_ships_is_told_on_pictures_that_came_after_it(dictionary):
    said = [line("Cofefe Mronnig")]
    made = seen("photo", "a", None, 3) + [attrs.evolve(s, lines=said) for s in seen("generated", "b", None, 2)]
    later = seen("photo", "c", None, 200) + [attrs.evolve(s, lines=said) for s in seen("generated", "d", None, 9)]
    out = table.report_shipped(made + later, 5)
    assert out["setting"] == [lettering.SURE, lettering.LETTERS]
    assert out["parts"]["made on"]["photo"]["n"] == 3
    assert out["parts"]["report"]["generated"]["fired"] == 9
    assert out["on"]
    assert out["pictures"]["photo/c"] == 200
    loud = later + [attrs.evolve(s, lines=said) for s in seen("scan", "e", None, 1)]
    assert not table.report_shipped(made + loud, 5)["on"]


def test_what_ships_is_what_was_measured():
    """docs/artifacts.json has the table; a change of the rule's settings asks for a new one."""
    told = json.loads((Path(__file__).parents[2] / "docs" / "artifacts.json").read_text())["findings"]
    row = told["lettering as it ships"]
    assert row["setting"] == [lettering.SURE, lettering.LETTERS]
    assert row["on"]
    for domain, share in row["parts"]["all"].items():
        assert share["share"] <= table.MOST or domain == "generated"
