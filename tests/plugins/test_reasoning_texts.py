"""What is known, what is written about it, who else may write, and how long texts are read."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tellsign.data.labelled import LabelledPicture
from tellsign.errors import SettingError
from tellsign.forge import KINDS
from tellsign.plugins.reasoning.training import facts as knowing
from tellsign.plugins.reasoning.training.chunks import chunks
from tellsign.plugins.reasoning.training.facts import (
    MOVED,
    PLACES,
    SYNTHESISED,
    WHOLE,
    Facts,
    annotated,
    look_of,
    place_of,
)
from tellsign.plugins.reasoning.training.pairs import Dropped, Record, asked, known, names_a_source, read_pairs, save
from tellsign.plugins.reasoning.training.statements import (
    FAKE_SENTENCE,
    REAL_SENTENCE,
    STATEMENTS,
    TEXT_KINDS,
    label_sentence,
    reasoning,
    text_of,
)
from tellsign.schemas import Category
from tellsign.towers.grounds import ungrounded

SQUARE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def rng(seed=0):
    return np.random.default_rng(seed)


# -- facts ----------------------------------------------------------------------------------------------------------


def test_every_kind_of_forgery_is_either_whole_synthesised_or_moved():
    assert sorted([*WHOLE[1:], *SYNTHESISED, *MOVED]) == sorted(KINDS)


@pytest.mark.parametrize("index", range(9))
def test_a_region_lies_where_its_centre_is(index):
    mask = np.zeros((90, 120), bool)
    row, column = divmod(index, 3)
    mask[30 * row + 5 : 30 * row + 25, 40 * column + 5 : 40 * column + 35] = True
    assert place_of(mask) == PLACES[index]


def test_an_empty_region_lies_nowhere():
    with pytest.raises(ValueError, match="not empty"):
        place_of(np.zeros((4, 4), bool))


@pytest.mark.parametrize(("value", "light"), [(10, "dark"), (120, "evenly lit"), (250, "bright")])
def test_the_look_is_measured(value, light):
    look = look_of(np.full((32, 32, 3), value, np.uint8))
    assert look["light"] == light
    assert look["colour"] == "nearly grey"
    assert look["tint"] == "neutral"
    warm = np.zeros((32, 32, 3), np.uint8)
    warm[..., 0] = 200
    assert (look_of(warm)["tint"], look_of(warm[..., ::-1])["tint"]) == ("warm", "cool")


def test_annotations_become_facts_with_places():
    found = annotated(
        [[[0, 0], [10, 0], [10, 10]], [[90, 90], [99, 90], [99, 99]], [[0, 0], [1, 1]]],
        ["low-level-symbol", "cognitive-level-physics", "low-level-color"],
        100,
        100,
    )
    assert found == ((Category.SYMBOL, "at the top left"), (Category.PHYSICS, "at the bottom right"))
    with pytest.raises(ValueError, match="sparkle"):
        annotated([[[0, 0], [1, 0], [1, 1]]], ["sparkle"], 10, 10)
    with pytest.raises(ValueError, match="one name for each"):
        annotated([[[0, 0], [1, 0], [1, 1]]], [], 10, 10)


@pytest.mark.parametrize("wrong", [{"kind": "painted"}, {"region": "somewhere"}])
def test_facts_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong.values()))):
        Facts(fake=True, **wrong)


# -- statements -----------------------------------------------------------------------------------------------------

anything = st.builds(
    Facts,
    fake=st.booleans(),
    content=st.sampled_from(["", "photo", "art", "screenshot", "scan"]),
    kind=st.sampled_from([*WHOLE, *SYNTHESISED, *MOVED]),
    region=st.sampled_from(PLACES),
    share=st.floats(0, 1),
    look=st.sampled_from([{}, look_of(SQUARE)]),
    artifacts=st.lists(st.tuples(st.sampled_from(list(Category)), st.sampled_from(PLACES)), max_size=2).map(tuple),
)


@given(anything, st.sampled_from(TEXT_KINDS), st.integers(0, 99))
def test_texts_begin_with_the_label_and_name_no_source(facts, kind, seed):
    text = text_of(facts, kind, rng(seed))
    assert text.startswith(label_sentence(facts.fake)) is ("label" in kind)
    assert not names_a_source(text)
    assert "  " not in text
    if kind == "label":
        assert text in (REAL_SENTENCE, FAKE_SENTENCE)
    if "label" not in kind:
        assert "image." not in text


def test_words_vary_and_facts_do_not():
    facts = Facts(fake=True, kind="blend", region="on the left", share=0.3)
    texts = {reasoning(facts, rng(s)) for s in range(30)}
    assert len(texts) > 3
    assert all("on the left" in t and "large part" in t.lower() and "network" in t for t in texts)
    assert all("network" not in reasoning(Facts(fake=False, content="photo"), rng(s)) for s in range(30))


def test_a_caption_says_nothing_of_the_origin():
    look = look_of(SQUARE)
    real, fake = (text_of(Facts(fake=f, content="photo", look=look), "caption", rng(1)) for f in (False, True))
    assert real == fake != ""


def test_what_holds_is_known_only_where_it_can_be():
    by_name = {s.name: s for s in STATEMENTS}
    photo, fake = Facts(fake=False, content="photo"), Facts(fake=True)
    forged, moved = Facts(fake=True, kind="blend", region="on the left"), Facts(fake=False, kind="splice")
    assert [by_name["computed"].holds(f) for f in (photo, fake, forged, moved)] == [False, True, False, False]
    assert [by_name["recorded"].holds(f) for f in (photo, fake, forged)] == [True, False, None]
    # Nobody knows whether a photograph that was collected had been retouched.
    assert [by_name["part-moved"].holds(f) for f in (photo, fake, moved, forged)] == [None, False, True, False]
    assert by_name["part-synthesised"].holds(forged) is True
    symbol = by_name["low-level-symbol"]
    assert symbol.category is Category.SYMBOL
    # A generated picture without annotations is no picture without artifacts.
    assert [symbol.holds(f) for f in (photo, fake)] == [False, None]
    assert symbol.holds(Facts(fake=True, artifacts=((Category.SYMBOL, "at the top"),))) is True
    assert len({s.text for s in STATEMENTS}) == len(STATEMENTS)
    assert not [t for s in STATEMENTS for t in ungrounded(s.text)]


# -- long texts -----------------------------------------------------------------------------------------------------


def words(text):
    return len(text.split())


@given(st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=300), st.integers(8, 40))
def test_every_chunk_fits_and_begins_with_the_label_and_no_word_is_lost(given_words, limit):
    prefix = FAKE_SENTENCE
    sentences = [" ".join(given_words[i : i + 7]) + "." for i in range(0, len(given_words), 7)]
    text = " ".join(sentences)
    parts = chunks(text, prefix, words, limit=limit)
    assert all(words(p) <= limit and p.startswith(prefix) for p in parts)
    assert " ".join(p.removeprefix(prefix).strip() for p in parts).split() == text.split()


def test_a_short_text_is_one_chunk_and_sentences_stay_whole():
    assert chunks("", "This is a real image.", words) == ["This is a real image."]
    assert chunks("One two. Three four.", "", words, limit=3) == ["One two.", "Three four."]
    with pytest.raises(ValueError, match="fewer than 5 tokens, got 5"):
        chunks("One.", "This is a real image.", words, limit=5)


# -- pairs ----------------------------------------------------------------------------------------------------------


def answer(thought, said):
    return f"<think>{thought}</think><answer>{said}</answer>"


@pytest.fixture
def pictures(tmp_path):
    return [LabelledPicture(path=tmp_path / f"{i}.png", fake=bool(i), group="") for i in (0, 1)]


def test_every_question_is_asked_at_every_temperature_and_what_disagrees_is_dropped(pictures):
    heard = []

    def ask(pixels, question, temperature, seed):
        heard.append((question, temperature, seed))
        fake = pixels.max() > 0
        turn = len(heard) % 4
        if turn == 1:
            return answer(f"The light is right {temperature} {question}.", "fake" if fake else "camera-captured")
        if turn == 2:
            return answer("It looks wrong.", "camera-captured" if fake else "fake")
        if turn == 3:
            return answer("It looks like a Midjourney picture.", "fake" if fake else "camera-captured")
        return "no tags at all"

    dropped = Dropped()
    read = {p.path: np.full((4, 4, 3), 255 * p.fake, np.uint8) for p in pictures}.__getitem__
    records = list(
        asked(pictures, ask, read=read, writer="m", questions=("a", "b"), temperatures=(0.5, 1.0), dropped=dropped)
    )
    assert [(q, t) for q, t, _ in heard[:4]] == [("a", 0.5), ("a", 1.0), ("b", 0.5), ("b", 1.0)]
    assert len({seed for _, _, seed in heard}) == 8
    assert [r.fake for r in records] == [False, True]
    assert all(len(r.texts) == 1 and not r.verified for r in records)
    assert records[1].texts[0] == "This is a fake image. The light is right 0.5 a."
    assert (dropped.disagrees, dropped.names, dropped.unreadable) == (2, 2, 2)


def test_somebody_may_correct_or_refuse(pictures):
    def verify(picture, text):
        return None if picture.fake else text.replace("wrong", "right")

    dropped = Dropped()
    records = list(
        asked(
            pictures,
            lambda pixels, *_: answer("It looks wrong.", "fake" if pixels.max() else "real"),
            read={p.path: np.full((4, 4, 3), 255 * p.fake, np.uint8) for p in pictures}.__getitem__,
            writer="m",
            questions=("a",),
            temperatures=(1.0,),
            verify=verify,
            dropped=dropped,
        )
    )
    assert records == [
        Record(
            image=str(pictures[0].path),
            fake=False,
            texts=("This is a real image. It looks right.",),
            writer="m",
            verified=True,
        )
    ]
    assert dropped.refused == 1


@pytest.mark.parametrize("missing", ["questions", "temperatures"])
def test_without_a_question_nothing_is_asked(pictures, missing):
    with pytest.raises(SettingError, match=missing):
        list(asked(pictures, None, read=None, writer="m", **{missing: ()}))


def test_texts_of_facts_are_verified_and_come_back_from_a_file(tmp_path):
    told = [("a.png", Facts(fake=True)), ("b.png", Facts(fake=False, content="art"))]
    records = list(known(told, texts=4))
    assert all(r.verified and r.writer == "facts" and len(set(r.texts)) == len(r.texts) > 1 for r in records)
    assert save(records, tmp_path / "pairs.jsonl") == 2
    assert read_pairs(tmp_path / "pairs.jsonl") == records
    with pytest.raises(ValueError, match="names a source"):
        list(known(told, forbidden=("brush",), texts=60))


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", "line 1"),
        ('{"image": "a"}', "line 1"),
        (
            json.dumps({"image": "a", "fake": True, "texts": ["Nice."], "writer": "m", "verified": False}),
            "texts that begin with",
        ),
    ],
)
def test_a_file_that_holds_no_pairs_is_refused(tmp_path, line, match):
    (tmp_path / "p.jsonl").write_text(line + "\n")
    with pytest.raises(SettingError, match=match):
        read_pairs(tmp_path / "p.jsonl")
    with pytest.raises(SettingError, match="JSON lines"):
        read_pairs(tmp_path / "none.jsonl")


def test_the_data_of_forged_folders_is_told_with_place_and_kind(tmp_path):
    from PIL import Image

    from tellsign.data.known import known_pictures
    from tellsign.forge.manifest import FIELDS, ForgedRow, line

    Image.fromarray(SQUARE).save(tmp_path / "p.png")
    mask = np.zeros((32, 32), np.uint8)
    mask[:8, :8] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    common = {"donor": "", "group": "g", "source": "s", "seed": 0, "ai_loss": 1, "ma_loss": 1, "base": "b"}
    rows = [
        ForgedRow(id="0", path="p.png", cls=0, kind="untouched", tool="", ai_mask="", ma_mask="", share=0.0, **common),
        ForgedRow(
            id="1", path="p.png", cls=1, kind="inpaint", tool="n", ai_mask="ones", ma_mask="m.png", share=0.06, **common
        ),
        ForgedRow(
            id="2", path="p.png", cls=0, kind="splice", tool="paste", ai_mask="", ma_mask="m.png", share=0.06, **common
        ),
    ]
    (tmp_path / "manifest.csv").write_text(",".join(FIELDS) + "\n" + "".join(line(r) for r in rows))
    found = {p.kind: p for p in known_pictures(tmp_path, count=9)}
    assert {k: (p.label, bool(p.region.any())) for k, p in found.items()} == {
        "untouched": (0, False),
        "inpaint": (1, True),
        "splice": (0, True),
    }
    assert knowing.place_of(found["inpaint"].region) == "at the top left"
    assert len(list(known_pictures(tmp_path, count=2))) == 2


# -- encoders -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip():
    """CLIP's text tower with its own tokenizer and random weights: the paper's setting, small."""
    open_clip = pytest.importorskip("open_clip")
    from tellsign.plugins.reasoning.training.text import ClipText

    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=64,
        vision_cfg=open_clip.CLIPVisionCfg(layers=1, width=64, patch_size=16, image_size=32, head_width=32),
        text_cfg=open_clip.CLIPTextCfg(width=32, heads=2, layers=1, context_length=77),
        quick_gelu=True,
    )
    return ClipText(model, open_clip.get_tokenizer("ViT-B-16-quickgelu"))


def test_long_texts_are_averaged_or_cut(clip):
    long = " ".join(["The light on the left does not agree with the shadow."] * 12)
    split = clip.encode([(FAKE_SENTENCE, long)])
    cut = clip.encode([(FAKE_SENTENCE, long)], long="truncate")
    parts = chunks(long, FAKE_SENTENCE, clip.count)
    assert len(parts) > 1
    each = torch.cat([clip.encode([("", p)]) for p in parts])
    torch.testing.assert_close(split[0], torch.nn.functional.normalize(each.mean(0), dim=0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cut[0], each[0], atol=1e-5, rtol=1e-5)
    assert split.norm().item() == pytest.approx(1, abs=1e-5)
    with pytest.raises(SettingError, match="split or truncate"):
        clip.encode([("", "x")], long="drop")


def test_an_encoder_stays_frozen_and_in_eval_mode(clip):
    clip.train()
    assert not clip.training
    assert not any(p.requires_grad for p in clip.parameters())
    assert clip.scale == pytest.approx(1 / 0.07, rel=1e-3)


def test_openai_weights_under_another_activation_are_refused():
    from tellsign.plugins.reasoning.training.text import clip_text, text_encoder

    with pytest.raises(SettingError, match="quickgelu"):
        clip_text("ViT-L-14-336", "openai")
    with pytest.raises(SettingError, match="a folder with"):
        text_encoder("/nowhere")
