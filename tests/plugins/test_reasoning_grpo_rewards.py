"""AIGI-R1's rewards: what counts as an answer, and as which."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellsign.plugins.reasoning.training.grpo.answer import judgment, well_formed
from tellsign.plugins.reasoning.training.grpo.rewards import detection_reward, format_reward

FAKE, REAL = True, False

# (text, whether its form is right, what it says)
TABLE = {
    "as asked, fake": ("<think>Six fingers.</think><answer>AI-generated</answer>", True, FAKE),
    "as asked, real": ("<think>Fine.</think><answer>camera-captured</answer>", True, REAL),
    "white space around and between": (" \n<think>a\nb</think>\n\n<answer>\nfake\n</answer>\n", True, FAKE),
    "other words for fake": ("<think>x</think><answer>It is synthetic.</answer>", True, FAKE),
    "generated": ("<think>x</think><answer>Generated image</answer>", True, FAKE),
    "ai alone": ("<think>x</think><answer>AI</answer>", True, FAKE),
    "other words for real": ("<think>x</think><answer>An authentic photo</answer>", True, REAL),
    "two words for camera-captured": ("<think>x</think><answer>Camera captured</answer>", True, REAL),
    "a sentence": ("<think>x</think><answer>This image is fake</answer>", True, FAKE),
    "negated fake alone": ("<think>x</think><answer>not AI-generated</answer>", True, None),
    "negated fake, then real": ("<think>x</think><answer>Not AI-generated, but camera-captured.</answer>", True, REAL),
    "negated real, then fake": ("<think>x</think><answer>not a real photo but AI-generated</answer>", True, FAKE),
    "a contraction": ("<think>x</think><answer>It isn\u2019t real, it is fake</answer>", True, FAKE),
    "non-AI": ("<think>x</think><answer>non-AI</answer>", True, None),
    "a negation out of reach": ("<think>x</think><answer>no doubt that this is fake</answer>", True, FAKE),
    "both": ("<think>x</think><answer>fake or real</answer>", True, None),
    "neither": ("<think>x</think><answer>unclear</answer>", True, None),
    "part of a word is no word": ("<think>x</think><answer>realistic, unreal, said</answer>", True, None),
    "words in the thought do not count": ("<think>fake fake</think><answer>real</answer>", True, REAL),
    "no thought": ("<answer>fake</answer>", False, FAKE),
    "an empty thought": ("<think></think><answer>fake</answer>", False, FAKE),
    "an empty answer": ("<think>x</think><answer></answer>", False, None),
    "no answer": ("<think>It is fake.</think>", False, None),
    "no tags": ("It is fake.", False, None),
    "nothing": ("", False, None),
    "an answer that is cut off": ("<think>x</think><answer>fake", False, None),
    "a thought that is cut off": ("<think>x <answer>fake</answer>", False, FAKE),
    "swapped": ("<answer>fake</answer><think>x</think>", False, FAKE),
    "closing before opening": ("</think>x<think></answer>fake<answer>", False, None),
    "nested thoughts": ("<think>a<think>b</think></think><answer>fake</answer>", False, FAKE),
    "a second answer": ("<think>x</think><answer>fake</answer><answer>real</answer>", False, None),
    "an answer in the thought": ("<think>x<answer>real</answer></think><answer>fake</answer>", False, None),
    "a word in front": ("Sure! <think>x</think><answer>fake</answer>", False, FAKE),
    "a word behind": ("<think>x</think><answer>fake</answer> I hope this helps.", False, FAKE),
    "a word between": ("<think>x</think> so <answer>fake</answer>", False, FAKE),
    "other tags": ("<thinking>x</thinking><answer>fake</answer>", False, FAKE),
    "capital tags": ("<THINK>x</THINK><ANSWER>fake</ANSWER>", False, None),
}


@pytest.mark.parametrize("what", TABLE)
def test_the_table(what):
    text, form, said = TABLE[what]
    assert well_formed(text) is form
    assert judgment(text) is said
    assert format_reward([text]) == [float(form)]
    for label in (FAKE, REAL):
        assert detection_reward([text], [label]) == [float(said is label)]


def test_rewards_read_trls_conversations_and_ignore_its_other_columns():
    text = "<think>x</think><answer>fake</answer>"
    forms = [text, [{"role": "assistant", "content": text}]]
    forms.append([{"role": "assistant", "content": [{"type": "text", "text": text}]}])
    assert detection_reward(forms, [True] * 3, prompts=["p"] * 3, image=[None] * 3) == [1, 1, 1]
    assert format_reward(forms, fake=[True] * 3, trainer_state=None) == [1, 1, 1]


def test_numbers_of_labels_must_fit():
    with pytest.raises(ValueError, match="zip"):
        detection_reward(["a", "b"], [True])


@given(st.text(alphabet="<>/thinkaswer fakel.\n", max_size=80))
def test_no_text_earns_both_labels_and_form_needs_one_answer(text):
    assert sum(detection_reward([text, text], [True, False])) <= 1
    if well_formed(text):
        assert text.count("<answer>") == text.count("<think>") == 1


@given(st.text(alphabet=st.characters(exclude_characters="<>"), min_size=1, max_size=40))
def test_any_thought_and_answer_without_tags_in_them_is_well_formed(text):
    assert well_formed(f"<think>{text}</think>\n<answer>{text}</answer>")
