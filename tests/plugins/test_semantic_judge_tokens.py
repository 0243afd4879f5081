"""Which tokens are a verdict, for tokenizers of the BPE type, and what their logits say."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tellsign.errors import SettingError

pytest.importorskip("transformers", reason="the judge runs through transformers")

from tellsign.plugins.semantic.judge.verdict_tokens import VerdictTokens, verdict_logit, verdict_tokens

PROMPT = "<|im_start|>assistant\nThis image is"


@pytest.fixture(scope="module")
def tok(tiny_vlm):
    return tiny_vlm.tokenizer(tiny_vlm.corpus())


@pytest.fixture(scope="module")
def bytewise(tiny_vlm):
    """A tokenizer without merges: every byte is a token."""
    return tiny_vlm.tokenizer(["a b"], size=300)


def test_a_verdict_within_a_sentence_has_a_leading_space(tok):
    tokens = verdict_tokens(tok.encode, PROMPT)
    assert tokens.forced == ()
    assert tok.convert_tokens_to_ids("Ġreal") == tokens.real[0]
    assert tok.convert_tokens_to_ids("Ġfake") == tokens.fake[0]
    assert not set(tokens.real) & set(tokens.fake)


def test_a_verdict_at_the_beginning_of_the_answer_has_none(tok):
    tokens = verdict_tokens(tok.encode, "<|im_start|>assistant\n")
    for verdict, found in (("real", tokens.real), ("fake", tokens.fake)):
        spellings = [f"Ġ{verdict}", verdict, verdict.capitalize()]
        assert {tok.convert_tokens_to_ids(s) for s in spellings} <= set(found)


def test_a_verdict_of_several_tokens_is_read_at_the_first_that_differs(bytewise):
    tokens = verdict_tokens(bytewise.encode, PROMPT)
    assert bytewise.convert_ids_to_tokens(tokens.forced) == ["Ġ"]
    assert bytewise.convert_ids_to_tokens(tokens.real) == ["r", "R"]
    assert bytewise.convert_ids_to_tokens(tokens.fake) == ["f", "F"]


def test_verdicts_of_several_words_with_a_common_beginning(bytewise):
    tokens = verdict_tokens(bytewise.encode, PROMPT, real="camera-captured", fake="computer generated")
    assert "".join(bytewise.convert_ids_to_tokens(tokens.forced)) == "Ġc"
    assert bytewise.convert_ids_to_tokens(tokens.real) == ["a"]
    assert bytewise.convert_ids_to_tokens(tokens.fake) == ["o"]


def test_a_token_that_the_other_verdict_begins_with_is_left_out(bytewise):
    tokens = verdict_tokens(bytewise.encode, PROMPT, real="ab", fake="Ac")
    # " Ab" would begin as " Ac" does.
    assert bytewise.convert_ids_to_tokens(tokens.forced) == ["Ġ"]
    assert bytewise.convert_ids_to_tokens(tokens.real) == ["a"]
    assert bytewise.convert_ids_to_tokens(tokens.fake) == ["A"]


def test_a_prompt_that_ends_with_a_space_is_refused(tok):
    with pytest.raises(SettingError, match=r"prompt takes text that does not end with a space"):
        verdict_tokens(tok.encode, PROMPT + " ")


def test_a_prompt_that_ends_in_the_middle_of_a_token_is_refused():
    def encode(text):  # a tokenizer that always makes one token of "is" and what comes after it
        head, found, tail = text.partition("is")
        return [*head.encode(), *([1000 + len(tail)] if found else [])]

    with pytest.raises(SettingError, match=r"tokens of their own"):
        verdict_tokens(encode, "x is")


@pytest.mark.parametrize(("real", "fake"), [("real", "real"), ("real", "really not")])
def test_a_verdict_that_begins_with_the_other_is_refused(bytewise, real, fake):
    with pytest.raises(SettingError, match=r"neither begins with the other"):
        verdict_tokens(bytewise.encode, PROMPT, real=real, fake=fake)


words = st.text("abcAB", min_size=1, max_size=5)


@given(words, words, st.sampled_from([PROMPT, "<|im_start|>assistant\n", "Answer:"]))
def test_every_token_begins_its_own_verdict(bytewise, real, fake, prompt):
    try:
        tokens = verdict_tokens(bytewise.encode, prompt, real=real, fake=fake)
    except SettingError:
        assert real.startswith(fake) or fake.startswith(real)
        return
    assert tokens.real
    assert tokens.fake
    assert not set(tokens.real) & set(tokens.fake)
    for word, found in ((real, tokens.real), (fake, tokens.fake)):
        for token in found:
            text = bytewise.decode([*tokens.forced, token]).strip().lower()
            assert word.lower().startswith(text)


def test_the_logit_is_the_log_of_the_odds():
    # Vocabulary of five; P = (.1, .2, .3, .15, .25).
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.15, 0.25]]).log() + 7
    logit, mass = verdict_logit(logits, VerdictTokens(forced=(), real=(0, 3), fake=(2,)))
    assert logit.item() == pytest.approx(math.log(0.3 / 0.25), abs=1e-6)
    assert mass.item() == pytest.approx(0.55, abs=1e-6)
    # With one token each it is the difference of the two logits: the softmax over {real, fake} of science.md 1.4.
    logit, _ = verdict_logit(logits, VerdictTokens(forced=(), real=(0,), fake=(1,)))
    assert torch.sigmoid(logit).item() == pytest.approx(torch.softmax(logits[0, :2], 0)[1].item(), abs=1e-6)


def test_half_precision_logits_are_read_in_full_precision():
    logits = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0)).bfloat16()
    tokens = VerdictTokens(forced=(), real=(1,), fake=(2,))
    for got, want in zip(verdict_logit(logits, tokens), verdict_logit(logits.float(), tokens), strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, want)
