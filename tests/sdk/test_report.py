"""Verdicts for people: the words, the terminal and the page."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tellsign.errors import SettingError
from tellsign.report import words
from tellsign.report.page import Page
from tellsign.report.terminal import WIDEST, VerdictPanel, error_panel, one_line, summary
from tellsign.schemas import (
    Box,
    Category,
    Contribution,
    Facts,
    Failed,
    FindingEvidence,
    Label,
    MapEvidence,
    NotApplicable,
    Notice,
    Picture,
    PredictionSet,
    ProvenanceEvidence,
    ScoreEvidence,
    StatementEvidence,
    Task,
    Unavailable,
    UncertainReason,
    Verdict,
)

NOT_ASSESSED = (Label.AI_EDITED, Label.TAMPERED)
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>\x1b]0;owned\x07\u202egpj.exe'


def hot(row, column):
    values = np.zeros((6, 9), np.float32)
    values[row, column] = 0.8
    return values


def verdict(**changes):
    origin = {"plugin": "pixel", "task": Task.PIXEL, "model": "pixel-tower 1.0.0"}
    given = {
        "label": Label.AI_GENERATED,
        "p_ai": 0.973,
        "p_ai_at_1_percent": 0.267,
        "prediction_set": PredictionSet(
            labels=(Label.AI_GENERATED, *NOT_ASSESSED), not_assessed=NOT_ASSESSED, error_rate=0.05
        ),
        "contributions": (
            Contribution(head="p_ai", plugin="pixel", task=Task.PIXEL, log_odds=4.1),
            Contribution(head="p_ai", plugin="bias", log_odds=-0.52),
            Contribution(head="p_ai", plugin="prior", log_odds=0.0),
        ),
        "evidence": (
            ScoreEvidence(**origin, name="tower", score=0.93, logit=2.6),
            MapEvidence(**origin, name="where", map=hot(0, 8), box=Box(100, 50, 300, 150)),
            FindingEvidence(
                **origin, category=Category.TEXTURE, strength=0.7, region=Box(0, 0, 200, 100), note="mushy"
            ),
            StatementEvidence(**origin, statement="six fingers", support=0.6, origin="generated"),
            ProvenanceEvidence(**origin, claim="made by X", claimant="XMP", verification="unverified"),
            NotApplicable(**origin, reason="no face"),
            Failed(**origin, reason="ran out of memory", error="MemoryError"),
            Unavailable(**origin, reason="weights are not here"),
        ),
        "warnings": (Notice(code="plugin_failed", message="it did not answer", plugin="semantic"),),
        "source": "holiday/photo.jpg",
        "width": 400,
        "height": 200,
        "timings": {"total": 0.66, "pixel": 0.6},
        "versions": {"tellsign": "0.1.0", "pixel": "1.2.3"},
    }
    return Verdict(**(given | changes))


def uncertain(reason, labels=(Label.AUTHENTIC, Label.AI_GENERATED), **changes):
    found = PredictionSet(labels=(*labels, *NOT_ASSESSED), not_assessed=NOT_ASSESSED, error_rate=0.1)
    return verdict(label=Label.UNCERTAIN, reason=reason, prediction_set=found, **changes)


def picture(width=400, height=200, **facts):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)
    told = {"container": "JPEG", "mode": "RGB", "width": width, "height": height, "quality": 90} | facts
    return Picture(pixels=pixels, facts=Facts(**told))


def printed(*things, width=80, encoding="utf-8", colour=False):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    console = Console(
        file=stream, width=width, force_terminal=colour, markup=False, highlight=False, no_color=not colour
    )
    for thing in things:
        console.print(thing)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


# Words


@pytest.mark.parametrize(
    ("p", "told"),
    [
        (0.0, "< 0.1 %"), (0.0009, "< 0.1 %"), (0.0042, "0.4 %"), (0.02, "2 %"), (0.5, "50 %"), (0.9, "90 %"),
        (0.973, "97.3 %"), (0.9989, "99.9 %"), (0.99951, "> 99.9 %"), (1.0, "> 99.9 %"),
    ],
)  # fmt: skip
def test_a_percentage_never_rounds_to_certainty(p, told):
    assert words.percent(p) == told


def test_a_definite_verdict_says_how_often_each_label_is_ruled_out_wrongly():
    rates = {"authentic": 0.02, "ai_generated": 0.05, "tampered": 0.5}
    chosen = PredictionSet(
        labels=(Label.AUTHENTIC, Label.AI_EDITED),
        not_assessed=(Label.AI_EDITED,),
        error_rate=0.5,
        error_rates=rates,
    )
    told = words.explanation(verdict(label=Label.AUTHENTIC, p_ai=0.1, prediction_set=chosen))
    assert told.endswith("ruled out wrongly, at most: AI-generated 5 % and tampered with 50 %.")
    torn = PredictionSet(labels=(Label.AUTHENTIC, Label.TAMPERED), error_rate=0.5, error_rates=rates)
    told = words.explanation(verdict(label=Label.UNCERTAIN, reason=UncertainReason.SEVERAL_LABELS, prediction_set=torn))
    assert told == "More than one label fits at an error rate of 2 % to 50 %."


@pytest.mark.parametrize(
    ("p", "told"),
    [
        (0.001, "virtually ruled out"), (0.05, "very unlikely"), (0.2, "unlikely"), (0.33, "about as likely as not"),
        (0.66, "about as likely as not"), (0.67, "likely"), (0.9, "likely"), (0.95, "very likely"),
        (0.995, "virtually certain"),
    ],
)  # fmt: skip
def test_a_probability_in_words(p, told):
    assert words.likelihood(p) == told


@pytest.mark.parametrize(
    ("share", "told"), [(0.5, "1 in 2"), (0.01, "1 in 100"), (0.3, "30 in 100"), (0.9, "90 in 100")]
)
def test_a_prior_in_words(share, told):
    assert words.one_in(share) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plain é 日本 👍🏽.jpg", "plain é 日本 👍🏽.jpg"),
        ("\x1b[2Jcleared", "\\x1b[2Jcleared"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("lone\udc80", "lone\\udc80"),
        ("c1\x9b31m", "c1\\x9b31m"),
    ],
)
def test_what_could_command_a_terminal_is_written_out(text, told):
    assert words.printable(text) == told


@pytest.mark.parametrize(
    ("row", "column", "told"), [(0, 0, "upper left"), (0, 4, "upper"), (3, 4, "middle"), (5, 8, "lower right")]
)
def test_the_place_of_a_map(row, column, told):
    evidence = MapEvidence(plugin="p", task=Task.PIXEL, model="m", name="n", map=hot(row, column), box=Box(0, 0, 9, 9))
    assert words.place(evidence) == told


def test_every_label_and_every_reason_has_words():
    for label in Label:
        assert words.LABELS[label]
    told = {words.explanation(uncertain(reason)) for reason in UncertainReason}
    assert len(told) == len(UncertainReason)
    assert "10 %" in words.explanation(uncertain(UncertainReason.SEVERAL_LABELS))


def test_every_kind_of_evidence_has_words():
    told = [words.said(e) for e in verdict().evidence]
    assert all(told)
    assert len(set(told)) == len(told)


def test_the_set_in_words():
    assert words.set_in_words(uncertain(UncertainReason.SEVERAL_LABELS)) == "authentic or AI-generated"
    assert words.set_in_words(uncertain(UncertainReason.NOTHING_LIKE_IT, labels=())) == "none of the labels assessed"
    assert words.not_assessed(verdict()).startswith("AI-edited or tampered with")
    whole = PredictionSet(labels=(Label.AI_GENERATED,), error_rate=0.05)
    assert words.not_assessed(verdict(prediction_set=whole)) is None


def test_categories_without_a_finding_are_told_as_not_assessed():
    origin = {"plugin": "gamma", "task": Task.SEGMENTATION, "model": "gamma 1"}
    found = FindingEvidence(category=Category.TEXTURE, strength=0.7, **origin)
    nothing, one = verdict(evidence=()), verdict(evidence=(found, found))
    assert words.artifacts_found(nothing) is None
    assert words.artifacts_found(one) == "texture"
    every = words.artifacts_not_assessed(nothing)
    assert all(w in every for w in words.ARTIFACTS.values())
    assert set(words.ARTIFACTS) == set(Category)
    rest = words.artifacts_not_assessed(one)
    assert "texture" not in rest
    assert "physics" in rest


# The terminal


def test_the_panel_says_everything_that_matters():
    told = printed(VerdictPanel(verdict()))
    for part in (
        "holiday/photo.jpg", "Looks AI-generated", "97.3 %", "very likely", "AI, if 1 in 2 is", "AI, if 1 in 100 is",
        "27 %", "Tampering", "no detector looked for it", "Could be", "Not assessed", "+4.10", "-0.52", "together",
        "+3.58", "pixel-tower 1.0.0", "strongest upper right", "ran out of memory", "! it did not answer [semantic]",
        "400 x 200", "0.66 s", "tellsign 0.1.0",
    ):  # fmt: skip
        assert part in told, part


@pytest.mark.parametrize("width", [20, 30, 40, 63, 64, 80, 200])
def test_no_line_is_wider_than_the_terminal_or_than_one_can_read(width):
    told = printed(VerdictPanel(verdict(source="a/very/long/path/" * 9 + "photo.jpg")), width=width)
    lines = told.splitlines()
    assert max(map(len, lines)) <= min(width, WIDEST)
    assert "photo.jpg" in lines[0] or width < 24


def test_without_colour_there_is_no_escape_and_with_it_there_is():
    assert "\x1b" not in printed(VerdictPanel(verdict()))
    assert "\x1b[" in printed(VerdictPanel(verdict()), colour=True)


def test_an_ascii_terminal_gets_ascii_only():
    told = printed(VerdictPanel(verdict()), summary({"authentic": 2}, 1.0), encoding="ascii")
    assert "\\u" not in told
    assert "####" in told


def test_a_hostile_name_commands_nothing():
    hostile = verdict(source=HOSTILE, warnings=(Notice(code="x", message=HOSTILE, plugin=HOSTILE),))
    for told in (printed(VerdictPanel(hostile)), one_line(hostile), printed(error_panel(HOSTILE, HOSTILE))):
        assert "\x1b" not in told
        assert "\x07" not in told
        assert "\u202e" not in told


def test_markup_in_a_name_is_text():
    assert "[red]x[/red]" in printed(VerdictPanel(verdict(source="[red]x[/red]")))


def test_a_verdict_without_evidence_says_so():
    bare = uncertain(
        UncertainReason.TOO_FEW_PLUGINS, p_ai=None, p_ai_at_1_percent=None, evidence=(), contributions=(), source=None
    )
    told = printed(VerdictPanel(bare))
    assert "Cannot tell" in told
    assert "no evidence" in told
    assert "picture without a name" in told
    assert one_line(bare, "x.jpg") == "x.jpg: uncertain"


def test_bars_show_sign_and_size():
    rows = (
        Contribution(head="p_ai", plugin="big", log_odds=4.0),
        Contribution(head="p_ai", plugin="half", log_odds=2.0),
        Contribution(head="p_ai", plugin="less", log_odds=-4.0),
    )
    told = printed(VerdictPanel(verdict(contributions=rows)), encoding="ascii").splitlines()
    bar = {name: next(line for line in told if line.startswith(f"| {name} ")) for name in ("big", "half", "less")}
    right = {name: line.strip("|").split("|")[1].count("#") for name, line in bar.items()}
    left = {name: line.strip("|").split("|")[0].count("#") for name, line in bar.items()}
    assert right["big"] == 2 * right["half"] == left["less"] > 0
    assert right["less"] == left["big"] == left["half"] == 0


def test_the_asked_prior_shows_when_it_moves_something():
    assert "asked prior" not in printed(VerdictPanel(verdict()))
    moved = (Contribution(head="p_ai", plugin="prior", log_odds=-2.0),)
    assert "asked prior" in printed(VerdictPanel(verdict(contributions=moved)))


# The page


class Parsed(HTMLParser):
    """Tags, attributes and text; notices what does not nest."""

    VOID = ("meta", "img", "input", "br", "line", "rect")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text, self.open, self.ids = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def said(self):
        return " ".join(self.text)

    def values(self, tag, name):
        return [v for t, k, v in self.attributes if (t, k) == (tag, name)]


def page(*pairs, **options):
    made = Page(expected=max(1, len(pairs)), **options)
    for one, shown in pairs:
        made.add(one, shown)
    return made


def test_the_page_shows_verdict_picture_heat_map_chart_evidence_and_versions():
    html = Parsed(page((verdict(), picture())).html())
    told = html.said()
    for part in (
        "Looks AI-generated", "97.3 %", "very likely", "AI, if 1 in 100 is", "27 %", "no detector looked for it",
        "Not assessed", "What spoke against and for AI pixels", "together", "+3.58", "six fingers", "ran out of memory",
        "it did not answer", "1.2.3", "JPEG", "about 90", "box 1: low-level-texture",
    ):  # fmt: skip
        assert part in told, part
    assert [v.partition(",")[0] for v in html.values("img", "src")] == [
        "data:image/jpeg;base64",
        "data:image/png;base64",
    ]
    assert all(html.values("img", "alt"))
    assert html.tags.count("svg") == 1
    assert html.values("input", "type") == ["range"]


def test_the_heat_map_lies_where_its_box_is_and_darkens_with_the_value():
    html = Parsed(page((verdict(), picture())).html())
    (style,) = html.values("img", "style")
    assert style == "left:25.000%;top:25.000%;width:50.000%;height:50.000%"
    data = html.values("img", "src")[1].partition(",")[2]
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert drawn.shape == (6, 9, 4)
    assert drawn[0, 8, 3] > 150
    assert drawn[..., 3].sum() == drawn[0, 8, 3]  # nothing elsewhere


def test_a_fine_map_is_averaged_down():
    fine = MapEvidence(
        plugin="p", task=Task.PIXEL, model="m", name="n", map=np.ones((1000, 700), np.float32), box=Box(0, 0, 400, 200)
    )
    data = Parsed(page((verdict(evidence=(fine,)), picture())).html()).values("img", "src")[1].partition(",")[2]
    assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) <= 256


def test_nothing_hostile_gets_out_of_its_place():
    origin = {"plugin": HOSTILE, "task": Task.PIXEL, "model": HOSTILE}
    hostile = verdict(
        source=HOSTILE,
        warnings=(Notice(code=HOSTILE, message=HOSTILE, plugin=HOSTILE),),
        versions={HOSTILE: HOSTILE},
        timings={HOSTILE: 1.0},
        contributions=(Contribution(head="p_ai", plugin=HOSTILE, log_odds=1.0),),
        evidence=(
            ScoreEvidence(**origin, name=HOSTILE, score=0.5),
            MapEvidence(**origin, name=HOSTILE, map=hot(0, 0), box=Box(0, 0, 400, 200)),
            FindingEvidence(**origin, category=Category.COLOR, strength=1.0, region=Box(0, 0, 9, 9), note=HOSTILE),
            StatementEvidence(**origin, statement=HOSTILE, support=1.0, origin="retrieved"),
            ProvenanceEvidence(**origin, claim=HOSTILE, claimant=HOSTILE, verification="broken", detail=HOSTILE),
            Failed(**origin, reason=HOSTILE, error=HOSTILE),
        ),
    )
    shown = picture(
        container=HOSTILE,
        camera={HOSTILE: HOSTILE},
        software=(HOSTILE,),
        texts={HOSTILE: HOSTILE},
        conversions=(HOSTILE,),
    )
    made = page((hostile, shown), title=HOSTILE)
    made.add_error(HOSTILE, HOSTILE, HOSTILE)
    text = made.html()
    html = Parsed(text)
    calm = Parsed(page((verdict(), picture())).html())
    assert html.tags.count("script") == calm.tags.count("script") == 1
    assert html.tags.count("img") == 2
    assert not [a for _, a, _ in html.attributes if a.startswith("on")]
    assert "alert(1)" in html.said()  # it is there, as text
    for raw in ("\x1b", "\x07", "\u202e"):
        assert raw not in text


def test_the_page_asks_nobody_for_anything():
    text = page((verdict(), picture()), (verdict(), None)).html()
    html = Parsed(text)
    for tag, name, value in html.attributes:
        if name in ("src", "href", "action", "srcset", "poster", "data"):
            assert value.startswith(("data:image/", "#")), (tag, name, value[:80])
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[A-Za-z0-9+/=]*", "", text))
    assert not {"link", "iframe", "object", "base", "form"} & set(html.tags)


def test_the_policy_allows_the_one_script_by_its_hash():
    import hashlib

    text = page((verdict(), picture())).html()
    script = re.search(r"<script>(.*?)</script>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [v for v in Parsed(text).values("meta", "content") if v.startswith("default-src")]
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_page_is_accessible_and_dark_and_prints():
    text = page((verdict(), picture()), (verdict(), picture())).html()
    html = Parsed(text)
    assert html.values("html", "lang") == ["en"]
    assert len(html.ids) == len(set(html.ids))
    assert set(html.values("label", "for")) <= set(html.ids)
    for ids in html.values("svg", "aria-labelledby"):
        assert set(ids.split()) <= set(html.ids)
    targets = {v.removeprefix("#") for v in html.values("a", "href")}
    assert targets <= set(html.ids)
    assert "prefers-color-scheme:dark" in text
    assert "@media print" in text


def test_a_picture_is_scaled_down_and_a_hundred_stay_small():
    big = picture(3000, 1500)
    one = Parsed(page((verdict(width=3000, height=1500), big)).html())
    data = one.values("img", "src")[0].partition(",")[2]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (900, 450)
    many = Page(expected=100)
    for _ in range(100):
        many.add(verdict(), picture(600, 400))  # noise: the worst case for JPEG
    text = many.html()
    assert len(text) < 30_000_000
    assert text.count("<article") == 100
    assert "<main class=many>" in text
    assert text.count('<a href="#p') == 100


def test_unread_pictures_and_missing_pictures_have_their_place():
    made = page((verdict(), None))
    made.add_error("broken.jpg", "truncated", "the file ends early")
    told = Parsed(made.html()).said()
    assert "no picture to show" in told
    assert "Not read" in told
    assert "the file ends early" in told
    assert "2 pictures" in told


def test_the_overview_counts_and_filters_by_label():
    made = page((verdict(), None), (verdict(), None), (uncertain(UncertainReason.UNSTABLE), None))
    html = Parsed(made.html())
    assert html.values("button", "data-filter") == ["ai_generated", "uncertain"]
    assert html.values("article", "data-label") == ["ai_generated", "ai_generated", "uncertain"]
    assert "button" not in Parsed(page((verdict(), None)).html()).tags


def test_the_rows_of_the_chart_are_told_to_screen_readers():
    text = page((verdict(), None)).html()
    assert re.search(r"<desc[^>]*>pixel \+4.10; starting point -0.52; together \+3.58</desc>", text)


def test_saving_writes_the_whole_page_or_leaves_what_was_there(tmp_path, monkeypatch):
    target = tmp_path / "r.html"
    made = page((verdict(), None))
    made.save(target)
    assert target.read_text(encoding="utf-8").endswith("</html>\n")
    before = target.read_bytes()
    monkeypatch.setattr(made, "html", lambda: "half" + 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made.save(target)
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_a_wrong_number_of_pictures_is_refused():
    with pytest.raises(SettingError, match="expected takes an integer of at least 0, got -1"):
        Page(expected=-1)
