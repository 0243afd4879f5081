import numpy as np
import pytest

from tellsign.fusion import ScoreTable
from tellsign.fusion.features import FeatureColumn
from tellsign.schemas import InvalidValueError, Label

COLUMNS = tuple(FeatureColumn(f"p.{c}", 1, "p", "pixel", "p") for c in "ab")


def table(**change):
    fields = {
        "rows": np.array([[0.1, np.nan], [1 / 3, -2e-17], [np.nan, 5.0]]),
        "columns": COLUMNS,
        "label": [0, 1, 1],
        "group": ["x", "y,z", 'q"'],
        "source": ["r", "g", "ü"],
    }
    return ScoreTable(**{**fields, **change})


def test_csv_round_trip_is_bit_exact(tmp_path):
    made = table(tampered=[0, -1, 1], edited=[0, 1, 0], split=["fuse"] * 3, family=["r", "f", "f"])
    made.save(tmp_path / "t.csv")
    again = ScoreTable.load(tmp_path / "t.csv", COLUMNS)
    assert again.sha256 == made.sha256
    assert again.rows.tobytes() == made.rows.tobytes()
    assert again.group.tolist() == ["x", "y,z", 'q"']


def test_a_csv_of_required_fields_is_enough(tmp_path):
    (tmp_path / "t.csv").write_text("p.b,label,p.a,group,source\n1,0,2,g,s\n,1,3,h,t\n")
    made = ScoreTable.load(tmp_path / "t.csv", COLUMNS)
    assert made.rows[0].tolist() == [2, 1]
    assert np.isnan(made.rows[1, 1])
    assert made.family.tolist() == ["s", "t"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("p.a,label,group,source\n1,0,g,s\n", "missing.*p.b"),
        ("p.a,p.b,label,group\n1,1,0,g\n", "missing.*source"),
        ("p.a,p.b,label,group,source,width\n1,1,0,g,s,9\n", "foreign.*width"),
        ("p.a,p.b,label,group,source\n1,x,0,g,s\n", "numbers"),
        ("p.a,p.b,label,group,source\n1,1,0,g\n", "source|cells"),
        ("", "missing"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused(tmp_path, text, word):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=word):
        ScoreTable.load(tmp_path / "t.csv", COLUMNS)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"label": [0, 1, 2]}, "label"),
        ({"label": [0, 1]}, "rows"),
        ({"group": ["a"]}, "group"),
        ({"tampered": [0, 1, 7]}, "tampered"),
        ({"rows": np.full((3, 2), np.inf)}, "rows"),
        ({"columns": (COLUMNS[0], COLUMNS[0])}, "columns"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(change, field):
    with pytest.raises(InvalidValueError, match=rf"ScoreTable\.{field}"):
        table(**change)


def test_columns_are_put_in_order():
    swapped = table(columns=COLUMNS[::-1])
    assert [c.name for c in swapped.columns] == ["p.a", "p.b"]
    assert swapped.rows[2].tolist()[0] == 5.0


def test_kinds_of_rows():
    made = table(label=[0, 1, 0], edited=[0, 1, 0], tampered=[0, 1, 1])
    assert made.kinds == (Label.AUTHENTIC, Label.AI_EDITED, Label.TAMPERED)


def test_hash_sees_every_field():
    base = table()
    for change in ({"label": [1, 1, 1]}, {"source": ["r", "g", "u"]}, {"edited": [0, 1, 0]}, {"split": ["a"] * 3}):
        assert table(**change).sha256 != base.sha256
    assert base.take([0, 1, 2]).sha256 == base.sha256
