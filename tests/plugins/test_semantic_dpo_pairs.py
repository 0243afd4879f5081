"""Preference pairs: both sides argued for, meaning alone, and nothing impure gets into training."""

import json

import numpy as np
import pytest
from PIL import Image

from tellsign.data.labelled import LabelledPicture
from tellsign.data.purity import ImpureDataError, tag
from tellsign.errors import SettingError
from tellsign.schemas import Task

pytest.importorskip("transformers", reason="the judge runs through transformers")

from tellsign.plugins.semantic.training.dpo import labeller as labelling
from tellsign.plugins.semantic.training.dpo.labeller import finished, vlm_labeller
from tellsign.plugins.semantic.training.dpo.pairs import make_pairs, read_pairs, refusal, scramble
from tellsign.towers.vlm import load_vlm
from tellsign.towers.vlm_training import read_pixels

FOR = {"This image is fake.": "The hand has six fingers.", "This image is real.": "The shadows fall to one side."}


def pictures(count=4):
    return [LabelledPicture(path=f"p{i}.png", fake=bool(i % 2), group=f"g{i}") for i in range(count)]


class Labeller:
    def __init__(self, answers=FOR):
        self.answers, self.asked = answers, []

    def __call__(self, images, sentences):
        self.asked.append((images, list(sentences)))
        return [self.answers[s] for s in sentences]


def read(path):
    rng = np.random.default_rng(int(str(path)[1]))
    return rng.integers(0, 255, (200, 300, 3)).astype(np.uint8)


def make(folder, labeller=None, count=4, **options):
    return make_pairs(pictures(count), labeller or Labeller(), folder, read=read, **options)


def test_the_right_verdict_is_chosen_and_the_wrong_one_rejected(tmp_path):
    labeller = Labeller()
    assert make(tmp_path, labeller) == {"kept": 4}
    pairs = read_pairs(tmp_path)
    assert [p.fake for p in pairs] == [False, True, False, True]
    for pair, (images, sentences) in zip(pairs, labeller.asked, strict=True):
        right, wrong = ("fake", "real") if pair.fake else ("real", "fake")
        assert sentences == [f"This image is {right}.", f"This image is {wrong}."]
        assert pair.chosen == f"This image is {right}. {FOR[sentences[0]]}"
        assert pair.rejected == f"This image is {wrong}. {FOR[sentences[1]]}"
        # What the labeller saw is what is trained on.
        stored = np.asarray(Image.open(tmp_path / pair.image))
        assert all(np.array_equal(stored, np.asarray(i)) for i in images)


def test_the_pictures_are_scrambled_in_the_same_way_for_both_labels():
    pixels = read("p0")
    rng = np.random.default_rng
    assert np.array_equal(scramble(pixels, rng(3)), scramble(pixels, rng(3)))
    assert not np.array_equal(scramble(pixels, rng(3)), scramble(pixels, rng(4)))
    # Neighbouring pixels of noise are unrelated; behind the scrambler they are not.
    y = scramble(pixels, rng(3))[..., 1].astype(float)
    assert np.corrcoef(y[:, :-1].ravel(), y[:, 1:].ravel())[0, 1] > 0.5


def test_a_run_that_was_cut_off_goes_on_and_ends_the_same(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    make(whole)
    make(parts, count=2)
    labeller = Labeller()
    assert make(parts, labeller) == {"kept": 4}
    assert len(labeller.asked) == 2
    names = sorted(p.name for p in whole.iterdir())
    assert names == sorted(p.name for p in parts.iterdir())
    assert all((whole / n).read_bytes() == (parts / n).read_bytes() for n in names)


@pytest.mark.parametrize(
    ("fake", "real", "why"),
    [
        ("The JPEG noise gives it away.", "The shadows fall to one side.", "pixel traces"),
        ("The hand has six fingers.", "The sensor noise is natural here.", "pixel traces"),
        ("A typical Midjourney face, I think.", "The shadows fall to one side.", "sources"),
        ("The hand has six fingers.", "It comes from the COCO dataset.", "sources"),
        ("No.", "The shadows fall to one side.", "too short"),
        ("", "The shadows fall to one side.", "too short"),
        ("The two are just the same.", "The two are  just the same.", "the same for both verdicts"),
        ("The hand is odd, though this image is real.", "The shadows fall to one side.", "a second verdict"),
    ],
)
def test_impure_and_empty_pairs_are_refused(tmp_path, fake, real, why):
    assert refusal(fake, real) == refusal(real, fake) == why
    labeller = Labeller({"This image is fake.": fake, "This image is real.": real})
    assert make(tmp_path, labeller) == {why: 4}
    assert (tmp_path / "pairs.jsonl").read_text() == ""
    assert not list(tmp_path.glob("*.png"))


def test_a_picture_that_cannot_be_read_is_counted(tmp_path):
    (tmp_path / "p0.jpg").write_bytes(b"no picture")
    rows = [LabelledPicture(path=tmp_path / name, fake=True, group="g") for name in ("p0.jpg", "gone.jpg")]
    outcome = make_pairs(rows, Labeller(), tmp_path / "out", read=read_pixels)
    assert sum(outcome.values()) == 2
    assert all(what.startswith("unreadable: ") for what in outcome)
    with pytest.raises(SettingError, match="no pairs"):
        read_pairs(tmp_path / "out")


def test_pairs_that_others_wrote_are_checked_too(tmp_path):
    make(tmp_path)
    file = tmp_path / "pairs.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:-1], lines[-1].replace("six fingers", "JPEG blocks")]) + "\n")
    with pytest.raises(
        SettingError, match=r"pairs.jsonl, line 4 takes justifications of a semantic pair.*pixel traces"
    ):
        read_pairs(tmp_path)
    assert len(read_pairs(tmp_path, force=True)) == 4


def test_data_of_another_task_are_refused_unless_forced(tmp_path):
    make(tmp_path)
    (tmp_path / "purity.json").write_text('{"task": "pixel"}')
    with pytest.raises(ImpureDataError, match="pixel task"):
        read_pairs(tmp_path)
    assert len(read_pairs(tmp_path, force=True)) == 4
    (tmp_path / "purity.json").unlink()
    with pytest.raises(SettingError, match=r"purity\.json"):
        read_pairs(tmp_path)


def test_pairs_are_not_written_among_data_of_another_task(tmp_path):
    tag(tmp_path, Task.PIXEL)
    with pytest.raises(ImpureDataError):
        make(tmp_path)


def change(field, value):
    return lambda line: json.dumps(json.loads(line) | {field: value})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda line: "{", "an object with image, fake"),
        (change("more", 1), "an object with image, fake"),
        (change("image", "../p.png"), "the name of a picture in the same folder"),
        (change("image", "gone.png"), "the name of a picture in the same folder"),
        (change("chosen", "It is real. Because of the cat there."), "chosen takes an answer that begins with"),
        (change("rejected", "This image is real. Because of the cat."), "rejected takes an answer that begins with"),
    ],
)
def test_a_line_that_is_no_pair_is_an_error_with_its_number(tmp_path, damage, words):
    make(tmp_path)
    file = tmp_path / "pairs.jsonl"
    first, *others = file.read_text().splitlines()
    file.write_text("\n".join([damage(first), *others]))
    with pytest.raises(SettingError, match="line 1") as caught:
        read_pairs(tmp_path)
    assert words in str(caught.value)


def test_one_label_alone_teaches_nothing(tmp_path):
    make(tmp_path, count=1)
    with pytest.raises(SettingError, match="1 pairs of one label"):
        read_pairs(tmp_path)


# -- the labelling model --------------------------------------------------------------------------------------------


def test_a_model_goes_on_from_the_verdict_that_it_is_given(taught_vlm, tiny_vlm, monkeypatch):
    vlm = load_vlm(taught_vlm, tokens=(4, 16))
    seen = []
    go_on = labelling.continue_text
    monkeypatch.setattr(labelling, "continue_text", lambda *a, **k: seen.append(a[2]) or go_on(*a, **k))
    dark, bright = (Image.fromarray(tiny_vlm.picture(d, 9)) for d in (True, False))
    sentences = ["This image is fake.", "This image is real."]
    assert vlm_labeller(vlm)([dark, bright], sentences) == [FOR[s] for s in sentences]
    assert [t.rsplit("assistant\n", 1)[1] for t in seen[0]] == sentences
    with pytest.raises(ValueError, match="at most 200 times"):
        vlm_labeller(vlm)([Image.new("RGB", (300, 1))], sentences[:1])


@pytest.mark.parametrize(
    ("text", "left"), [(" One. Two", "One."), ("One", "One"), ("One! Two? Th", "One! Two?"), ("", ""), (".x", ".x")]
)
def test_an_unfinished_sentence_is_dropped(text, left):
    assert finished(text) == left
