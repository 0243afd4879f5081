"""The table from probabilities to labels, every cell written out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellsign.schemas import DEFINITE_LABELS, InvalidValueError, Label, label_probabilities, most_likely
from tellsign.schemas.labels import TABLE, WHOLE

A, G, E, T = Label.AUTHENTIC, Label.AI_GENERATED, Label.AI_EDITED, Label.TAMPERED

CELLS = [  # p_ai, p_tampered, ai_share, label
    (0.2, None, None, A),
    (0.2, None, 0.3, A),
    (0.2, None, 1.0, A),
    (0.2, 0.2, None, A),
    (0.2, 0.2, 0.3, A),
    (0.2, 0.2, 1.0, A),
    (0.2, 0.8, None, T),
    (0.2, 0.8, 0.3, T),
    (0.2, 0.8, 1.0, T),
    (0.8, None, None, G),
    (0.8, None, 0.3, E),
    (0.8, None, 1.0, G),
    (0.8, 0.2, None, G),
    (0.8, 0.2, 0.3, E),
    (0.8, 0.2, 1.0, G),
    (0.8, 0.8, None, G),
    (0.8, 0.8, 0.3, E),
    (0.8, 0.8, 1.0, G),
]

unit = st.floats(0, 1)
maybe_unit = st.none() | unit


def test_the_cells_are_the_whole_table():
    assert len(CELLS) == len(TABLE) == 2 * 3 * 3
    assert {(ai > 0.5, None if t is None else t > 0.5, None if s is None else s == 1) for ai, t, s, _ in CELLS} == set(
        TABLE
    )


@pytest.mark.parametrize(("p_ai", "p_tampered", "ai_share", "label"), CELLS)
def test_every_cell(p_ai, p_tampered, ai_share, label):
    assert most_likely(p_ai, p_tampered, ai_share) is label


def test_edges_count_as_yes():
    assert most_likely(0.5) is G
    assert most_likely(0.4999, 0.5) is T
    assert most_likely(0.9, None, WHOLE) is G
    assert most_likely(0.9, None, math.nextafter(WHOLE, 0)) is E


@given(unit, maybe_unit, maybe_unit)
def test_probabilities_are_a_distribution(p_ai, p_tampered, ai_share):
    p_of = label_probabilities(p_ai, p_tampered, ai_share)
    assert tuple(p_of) == DEFINITE_LABELS
    assert min(p_of.values()) >= 0
    assert math.isclose(sum(p_of.values()), 1, abs_tol=1e-12)
    assert p_of[G] + p_of[E] == p_ai


@given(unit, maybe_unit, maybe_unit)
def test_the_table_names_the_likeliest_label_where_it_says_so(p_ai, p_tampered, ai_share):
    p_of = label_probabilities(p_ai, p_tampered, ai_share)
    chosen = p_of[most_likely(p_ai, p_tampered, ai_share)]
    if p_ai >= 0.5 or p_tampered is None:
        assert chosen == max(p_of.values())
    else:  # the likelier of the two that "not AI" leaves
        assert chosen == max(p_of[A], p_of[T])


def test_two_questions_asked_one_after_the_other_may_name_the_less_likely():
    assert most_likely(0.4, 0.5) is T
    p_of = label_probabilities(0.4, 0.5)
    assert p_of[G] > p_of[T]


@pytest.mark.parametrize("function", [most_likely, label_probabilities])
@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.1, "1", True])
@pytest.mark.parametrize("field", ["p_ai", "p_tampered", "ai_share"])
def test_what_is_no_probability_is_refused(function, field, bad):
    with pytest.raises(InvalidValueError, match=rf"{function.__name__}.{field} takes a number in \[0, 1\]"):
        function(**{"p_ai": 0.1, field: bad})


def test_no_p_ai_is_refused():
    with pytest.raises(InvalidValueError, match="p_ai"):
        most_likely(None)
