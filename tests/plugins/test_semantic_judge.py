"""The judge as a whole, on the real model class and processor: scores, reasons, batches, truncation, the plugin."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tellsign.errors import SettingError, WeightsError
from tellsign.fusion.features import feature_row
from tellsign.plugin import UnavailableError
from tellsign.runtime import DeviceRuntime
from tellsign.schemas import ScoreEvidence, SemanticView, StatementEvidence

pytest.importorskip("transformers", reason="the judge runs through transformers")

from tellsign.plugins.semantic.judge import judge as judging
from tellsign.plugins.semantic.judge.inputs import encode_batch, render, too_narrow
from tellsign.plugins.semantic.judge.judge import Judgement, judge
from tellsign.plugins.semantic.judge.prompt import QUESTION, STEM, messages, verdict_sentence
from tellsign.plugins.semantic.judge.rationale import LONGEST, continue_text, quotable
from tellsign.plugins.semantic.judge.strength import VlmJudge
from tellsign.plugins.semantic.judge.ungrounded import ungrounded
from tellsign.towers.vlm import load_vlm

SIZES = ((84, 56), (56, 84), (200, 60), (90, 90), (28, 31))


@pytest.fixture(scope="module")
def vlm(taught_vlm):
    return load_vlm(taught_vlm, tokens=(4, 16))


@pytest.fixture(scope="module")
def pictures(tiny_vlm):
    return [tiny_vlm.picture(bool(i % 2), 20 + i, size) for i, size in enumerate(SIZES)]


def view(pixels, key="a"):
    return SemanticView(key=key, image=pixels, width=800, height=600)


# -- what it says ---------------------------------------------------------------------------------------------------


def test_it_says_what_it_was_taught_and_why(vlm, tiny_vlm):
    for dark, reason in ((True, "six fingers"), (False, "shadows fall")):
        (said,) = judge(vlm, [tiny_vlm.picture(dark, 50)])
        assert (said.logit > 0) == dark
        assert reason in said.rationale
        assert said.mass > 0.5
        assert said.confidence == pytest.approx(1 / (1 + math.exp(-abs(said.logit))))


def test_the_score_is_the_softmax_of_the_verdicts_at_the_answers_place(vlm, tiny_vlm):
    """Against a forward pass by hand, with the chat template and the beginning of the answer in place."""
    pixels = tiny_vlm.picture(True, 51)
    (said,) = judge(vlm, [pixels], rationale=False)
    text = vlm.processor.apply_chat_template(messages(), tokenize=False, add_generation_prompt=True) + STEM
    inputs = vlm.processor(text=[text], images=[Image.fromarray(pixels)], return_tensors="pt")
    with torch.inference_mode():
        log_p = vlm.model(**inputs).logits[0, -1].log_softmax(0)
    ids = {w: vlm.processor.tokenizer.convert_tokens_to_ids(f"Ġ{w}") for w in ("real", "fake")}
    # The tiny model gives other spellings next to nothing, so the two tokens alone come close.
    assert said.logit == pytest.approx((log_p[ids["fake"]] - log_p[ids["real"]]).item(), abs=0.05)
    assert said.mass == pytest.approx((log_p[ids["fake"]].exp() + log_p[ids["real"]].exp()).item(), abs=0.02)


def test_a_batch_gives_what_each_picture_gives_alone(vlm, pictures):
    alone = [judge(vlm, [p])[0] for p in pictures]
    together = judge(vlm, pictures, batch_size=len(pictures))
    for one, other in zip(alone, together, strict=True):
        assert other.logit == pytest.approx(one.logit, abs=1e-5)
        assert other.mass == pytest.approx(one.mass, abs=1e-5)
        assert other.rationale == one.rationale


def test_two_calls_and_two_models_agree_bit_for_bit(vlm, taught_vlm, pictures):
    first = judge(vlm, pictures, batch_size=2)
    torch.manual_seed(123)  # the model's own configuration would sample
    assert judge(vlm, pictures, batch_size=2) == first
    assert judge(load_vlm(taught_vlm, tokens=(4, 16)), pictures, batch_size=2) == first


def test_generating_leaves_the_random_state_alone(vlm, pictures):
    torch.manual_seed(7)
    want = torch.rand(1)
    torch.manual_seed(7)
    judge(vlm, pictures[:1])
    assert torch.equal(torch.rand(1), want)


def test_half_precision_sees_one_picture_at_a_time(taught_vlm, pictures, monkeypatch):
    vlm = load_vlm(taught_vlm, tokens=(4, 16))
    vlm.model.bfloat16()
    sizes = []
    score = judging._score
    monkeypatch.setattr(judging, "_score", lambda *a: sizes.append(len(a[1])) or score(*a))
    together = judge(vlm, pictures, batch_size=4, rationale=False)
    assert sizes == [1] * len(pictures)
    assert together == [judge(vlm, [p], rationale=False)[0] for p in pictures]


# -- when it says nothing -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def untaught(tiny_vlm, tmp_path_factory):
    tok = tiny_vlm.tokenizer(tiny_vlm.corpus())
    return tiny_vlm.save(tmp_path_factory.mktemp("vlm") / "untaught", tiny_vlm.model(tok), tiny_vlm.processor(tok))


def test_a_model_that_says_something_else_gives_no_verdict(untaught, pictures):
    vlm = load_vlm(untaught, tokens=(4, 16))
    said = judge(vlm, pictures)
    assert {j.logit for j in said} == {None}
    assert all(0 < j.mass < judging.LEAST_MASS for j in said)
    assert {j.rationale for j in said} == {""}
    assert {j.confidence for j in said} == {0.0}
    # Not for want of a number: with no threshold there is one.
    assert all(j.logit is not None for j in judge(vlm, pictures, least_mass=0, rationale=False))


def test_logits_that_are_no_numbers_are_an_error(taught_vlm, pictures):
    vlm = load_vlm(taught_vlm, tokens=(4, 16))
    vlm.model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(ArithmeticError, match="no numbers"):
        judge(vlm, pictures)


# -- inputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "grid"), [((84, 56), (3, 2)), ((336, 336), (4, 4)), ((28, 28), (2, 2))])
def test_a_picture_takes_as_many_tokens_as_its_patches_merge_to(vlm, size, grid):
    image = Image.fromarray(np.zeros((*size, 3), np.uint8))
    inputs = encode_batch(vlm, [image], [render(vlm.processor)])
    merged = inputs["image_grid_thw"][0] // torch.tensor([1, 2, 2])
    assert tuple(merged.tolist()) == (1, *grid)
    assert (inputs["input_ids"] == vlm.processor.image_token_id).sum() == grid[0] * grid[1]


@pytest.mark.parametrize("size", [(336, 336), (336, 1344), (448, 336), (60, 1344)])
def test_the_default_budget_holds_for_every_view(taught_vlm, size):
    vlm = load_vlm(taught_vlm)
    inputs = encode_batch(vlm, [Image.fromarray(np.zeros((*size, 3), np.uint8))], [render(vlm.processor)])
    assert 256 <= (inputs["input_ids"] == vlm.processor.image_token_id).sum() <= 1024


def test_the_prompt_is_whole_and_ends_where_the_verdict_begins(vlm):
    text = render(vlm.processor)
    assert QUESTION in text
    assert text.endswith(f"assistant\n{STEM}")
    assert text.count("<|image_pad|>") == 1


def test_forced_tokens_follow_every_text(vlm, pictures):
    images = [Image.fromarray(p) for p in pictures[:2]]
    plain = encode_batch(vlm, images, [render(vlm.processor)] * 2)
    more = encode_batch(vlm, images, [render(vlm.processor)] * 2, forced=(5, 6))
    assert more["input_ids"][:, -2:].tolist() == [[5, 6], [5, 6]]
    assert torch.equal(more["input_ids"][:, :-2], plain["input_ids"])
    assert more["attention_mask"][:, -2:].all()
    assert more["mm_token_type_ids"][:, -2:].sum() == 0


def test_a_verdict_of_several_tokens_is_scored(tiny_vlm, tmp_path):
    """A tokenizer without merges, so that "real" and "fake" part only at their second token."""
    tok = tiny_vlm.tokenizer(["a b"], size=300)
    proc, net = tiny_vlm.processor(tok), tiny_vlm.model(tok)
    vlm = load_vlm(tiny_vlm.save(tmp_path, net, proc), tokens=(4, 4))
    pixels = tiny_vlm.picture(True, 3)
    (said,) = judge(vlm, [pixels], rationale=False, least_mass=0)
    inputs = encode_batch(vlm, [Image.fromarray(pixels)], [render(vlm.processor) + " "])
    with torch.inference_mode():
        log_p = vlm.model(**inputs).logits[0, -1].log_softmax(0)
    p = {c: log_p[tok.convert_tokens_to_ids(c)].exp().item() for c in "rRfF"}
    assert said.logit == pytest.approx(math.log((p["f"] + p["F"]) / (p["r"] + p["R"])), abs=1e-5)


def test_a_tokenizer_that_would_cut_does_not(taught_vlm, tmp_path, pictures):
    folder = shutil.copytree(taught_vlm, tmp_path / "cutting")
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["truncation"] = {"direction": "Right", "max_length": 12, "strategy": "LongestFirst", "stride": 0}
    file.write_text(json.dumps(content))
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": 12, "padding_side": "right"}))
    cutting = judge(load_vlm(folder, tokens=(4, 16)), pictures, batch_size=3)
    whole = judge(load_vlm(taught_vlm, tokens=(4, 16)), pictures, batch_size=3)
    assert cutting == whole


def test_a_context_that_is_too_short_is_an_error(taught_vlm, pictures):
    vlm = load_vlm(taught_vlm, tokens=(4, 16))
    vlm.model.config.get_text_config().max_position_embeddings = 20
    with pytest.raises(WeightsError, match="context of 20 tokens is too short"):
        judge(vlm, pictures)


@pytest.mark.parametrize("template", ["{{ messages[0].role }}", "<|image_pad|><|image_pad|>"])
def test_a_template_without_one_place_for_the_picture_is_an_error(vlm, template):
    processor = load_vlm_processor(vlm, template)
    with pytest.raises(WeightsError, match=r"once per picture, got [02]"):
        render(processor)


def load_vlm_processor(vlm, template):
    from copy import copy

    processor = copy(vlm.processor)
    processor.chat_template = template
    return processor


@pytest.mark.parametrize(("size", "narrow"), [((1, 200), False), ((1, 201), True), ((402, 2), True), ((1, 1), False)])
def test_strips_are_told_before_the_processor_refuses_them(vlm, size, narrow):
    assert too_narrow(*size) == narrow
    image = Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8))
    if narrow:
        with pytest.raises(ValueError, match="aspect ratio"):
            encode_batch(vlm, [image], [render(vlm.processor)])
    else:
        encode_batch(vlm, [image], [render(vlm.processor)])


# -- reasons --------------------------------------------------------------------------------------------------------


def test_a_rationale_that_is_cut_off_loses_its_unfinished_sentence(vlm, tiny_vlm):
    image, text = Image.fromarray(tiny_vlm.picture(True, 5)), render(vlm.processor, answer=verdict_sentence(True))
    whole = continue_text(vlm, [image], [text])[0]
    assert whole.strip() == "The hand has six fingers."
    short = continue_text(vlm, [image], [text], new_tokens=3)[0]
    assert whole.startswith(short)
    assert len(short) < len(whole)
    assert quotable(short, fake=True) == f"{short.strip()}..."
    assert quotable(f"The cup floats. {short}", fake=True) == "The cup floats."


def test_a_warm_model_is_repeatable_by_seed(vlm, tiny_vlm):
    image, text = Image.fromarray(tiny_vlm.picture(True, 5)), render(vlm.processor, answer="")
    drawn = [continue_text(vlm, [image], [text], temperature=3.0, seed=s, new_tokens=20)[0] for s in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


@pytest.mark.parametrize(
    ("text", "fake", "kept"),
    [
        (" The hand has six fingers.\n\n Two suns shine! ", True, "The hand has six fingers. Two suns shine!"),
        ("", True, ""),
        (" . ", True, ""),
        ("The JPEG noise is odd. The clock has two faces.", True, "The clock has two faces."),
        ("It looks like Midjourney.", True, ""),
        ("Five fingers. But this image is real.", True, ""),
        ("Five fingers. So this image is fake.", True, "Five fingers. So this image is fake."),
        ("This image is fake after all.", False, ""),
    ],
)
def test_only_what_may_be_quoted_is(text, fake, kept):
    assert quotable(text, fake=fake) == kept


def test_a_long_rationale_is_cut_between_sentences():
    text = "The left hand of the woman has six fingers. " * 30
    kept = quotable(text, fake=True)
    assert len(kept) <= LONGEST
    assert kept.endswith("fingers.")


@pytest.mark.parametrize(
    "text",
    [
        "The noise is uniform.", "JPEG artifacts", "blurry edges", "low resolution", "checkerboard pattern",
        "Upscaled textures", "a moire pattern", "its EXIF data", "looks like Stable Diffusion", "a DALL-E picture",
        "made with GPT-4o", "typical of StyleGAN2", "from the COCO dataset", "an ImageNet photo", "a FLUX render",
        "SDXL", "chromatic aberration", "the sensor pattern", "Midjourney v6", "a diffusion model",
    ],
)  # fmt: skip
def test_claims_without_grounds_are_found(text):
    assert ungrounded(text)


@pytest.mark.parametrize(
    "text",
    [
        "The hand has six fingers.", "The sign reads gibberish.", "Grain grows on the field.", "A sharp knife floats.",
        "Two shadows point towards the sun.", "A playground without children.", "The reflection shows another face.",
        "Birds glide over the lake.", "The coconut has no shell.", "A gem in the crown", "Wood grain runs both ways.",
    ],
)  # fmt: skip
def test_what_a_picture_shows_is_not_found(text):
    assert ungrounded(text) == ()


# -- as a model behind the plugin -----------------------------------------------------------------------------------


def test_the_plugin_gives_a_score_and_a_generated_statement(taught_vlm, tiny_vlm):
    runtime = DeviceRuntime("cpu", batch_size=2)
    strength = VlmJudge(taught_vlm)
    views = [view(tiny_vlm.picture(d, 60 + d, (336, 336)), str(d)) for d in (False, True)]
    strip = view(np.zeros((1, 1344, 3), np.uint8), "strip")
    answers = strength.answer([views[0], strip, views[1]], runtime)
    assert strength.version == "vlm taught"
    assert answers[1].logit is None
    assert "200 times" in answers[1].why_not
    assert all(a.logit is not None for a in (answers[0], answers[2]))
    assert answers[0].logit < answers[2].logit
    assert runtime.counters.builds[f"vlm:{taught_vlm}"] == 1
    strength.answer(views, runtime)
    assert runtime.counters.builds[f"vlm:{taught_vlm}"] == 1


def detector(folder, **settings):
    from importlib.util import find_spec
    from pathlib import Path

    from tellsign.plugins.semantic.detector import SemanticDetector
    from tellsign.schemas import Declaration
    from tellsign.schemas.codec import loads

    manifest = Path(find_spec("tellsign.plugins.semantic").origin).with_name("tellsign.json")
    declaration = loads(manifest.read_text(encoding="utf-8"), Declaration)
    return SemanticDetector(declaration, {"strength": "vlm", "vlm": str(folder)} | settings)


@pytest.mark.parametrize("dark", [True, False])
def test_a_detector_with_the_judge_gives_a_score_and_a_generated_statement(taught_vlm, tiny_vlm, monkeypatch, dark):
    from tellsign.plugins.semantic.judge import strength

    monkeypatch.setattr(strength, "load_vlm", lambda *a, **k: load_vlm(*a, **k, tokens=(4, 16)))
    plugin = detector(taught_vlm)
    ((score, statement),) = plugin.detect([view(tiny_vlm.picture(dark, 3))], DeviceRuntime("cpu"))
    assert isinstance(score, ScoreEvidence)
    assert (score.name, score.model, score.score > 0.5) == ("vlm", "vlm taught", dark)
    assert score.score == pytest.approx(1 / (1 + math.exp(-score.logit)))
    assert isinstance(statement, StatementEvidence)
    assert (statement.origin, statement.model) == ("generated", "vlm taught")
    assert ("fingers" in statement.statement) == dark
    assert statement.support == pytest.approx(max(score.score, 1 - score.score))
    assert feature_row([score, statement], {"semantic": plugin.declaration}, "p_ai")["semantic.vlm"] == score.logit
    (alone,) = detector(taught_vlm, rationale=False).detect([view(tiny_vlm.picture(dark, 3))], DeviceRuntime("cpu"))
    assert [e.kind for e in alone] == ["score"]


def test_a_detector_whose_judge_gives_no_verdict_leaves_its_column_empty(untaught, tiny_vlm):
    plugin = detector(untaught)
    ((answer,),) = plugin.detect([view(tiny_vlm.picture(True, 3))], DeviceRuntime("cpu"))
    assert not isinstance(answer, ScoreEvidence)
    assert "no verdict" in answer.reason
    assert math.isnan(feature_row([answer], {"semantic": plugin.declaration}, "p_ai")["semantic.vlm"])


def test_no_verdict_is_missing_evidence_and_not_real(untaught, pictures):
    answers = VlmJudge(untaught).answer([view(p) for p in pictures[:1]], DeviceRuntime("cpu"))
    assert answers[0].logit is None
    assert "gave no verdict" in answers[0].why_not


def test_a_model_that_is_not_here_is_unavailable(monkeypatch, tmp_path, pictures):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    strength = VlmJudge("Some/Model")
    assert strength.version == "vlm Some/Model"
    with pytest.raises(UnavailableError, match=r"hf download Some/Model"):
        strength.answer([view(pictures[0])], DeviceRuntime("cpu"))


@pytest.mark.parametrize("vlm", [None, 3, "", "nowhere", "./not/there"])
def test_a_judge_needs_a_model(vlm):
    with pytest.raises(SettingError, match=r"^vlm takes"):
        VlmJudge(vlm)


def test_a_judgement_without_a_verdict_has_no_confidence():
    assert Judgement(logit=None, mass=0.0).confidence == 0.0
    assert Judgement(logit=-1000.0, mass=1.0).confidence == pytest.approx(1.0)
