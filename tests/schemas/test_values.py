"""What value types refuse, and that they cannot be changed afterwards."""

import math

import attrs
import numpy as np
import pytest

import tellsign.schemas as schemas
from tellsign.schemas import Box, Category, InvalidValueError, Label, Task, UncertainReason

ORIGIN = {"plugin": "pixel", "task": Task.PIXEL, "model": "pixel-bundled 1.0.0"}
IMAGE = np.zeros((4, 6, 3), np.uint8)
MAP = np.full((2, 3), 0.5, np.float32)
BOX = Box(0, 0, 6, 4)
FACTS = schemas.Facts(container="JPEG", mode="RGB", width=6, height=4)
SET = schemas.PredictionSet(labels=(Label.AUTHENTIC,), error_rate=0.05)
COLUMN = schemas.Column(name="trace", evidence="trace")
GOOD = [
    schemas.ScoreEvidence(**ORIGIN, name="trace", score=0.5, logit=0.0),
    schemas.MapEvidence(**ORIGIN, name="where", map=MAP, box=BOX),
    schemas.FindingEvidence(**ORIGIN, category=Category.TEXTURE, strength=0.5),
    schemas.StatementEvidence(**ORIGIN, statement="six fingers", support=0.5, origin="retrieved"),
    schemas.ProvenanceEvidence(**ORIGIN, claim="made by", claimant="a camera", verification="verified"),
    schemas.NotApplicable(**ORIGIN, reason="no face"),
    schemas.Failed(**ORIGIN, reason="it fell", error="ValueError"),
    schemas.Unavailable(**ORIGIN, reason="no weights"),
    BOX,
    FACTS,
    schemas.Picture(pixels=IMAGE),
    schemas.SemanticView(key="k", image=IMAGE, width=6, height=4),
    schemas.PixelView(key="k", crops=(IMAGE,), boxes=(BOX,), kinds=("texture",), width=6, height=4, centre=IMAGE),
    schemas.SegmentationView(key="k", image=IMAGE),
    schemas.ProvenanceView(key="k", original=b"x", facts=FACTS),
    COLUMN,
    schemas.WeightsFile(file="w.safetensors", sha256="0" * 64, size=1),
    schemas.Declaration(
        name="pixel",
        version="1",
        api_version=1,
        task=Task.PIXEL,
        detector="a.b:C",
        summary="s",
        columns=(COLUMN,),
        code_licence="Apache-2.0",
        weights_licence="none",
        commercial_use=True,
    ),
    schemas.Notice(code="c", message="m"),
    schemas.Contribution(head="p_ai", plugin="bias", log_odds=0.0),
    SET,
    schemas.Verdict(label=Label.AUTHENTIC, p_ai=0.1, prediction_set=SET, width=6, height=4),
]
GOOD_OF = {type(value): value for value in GOOD}

NOT_TEXT = ["", 7, None]
NOT_TEXT_OR_EMPTY = [7, None]
NOT_OPTIONAL_TEXT = ["", 7]
NOT_UNIT = [-0.1, 1.1, math.nan, math.inf, "1", True, None, 10**400, np.float32(0.5)]
NOT_COUNT = [0, -1, 1.0, True, "1", None]
NOT_TASK = ["pixel", None]
NOT_IMAGE = [None, [[0]], IMAGE[..., 0], IMAGE.astype(np.float32), IMAGE[:0], np.zeros((4, 6, 4), np.uint8)]
NOT_OPTIONAL_IMAGE = [v for v in NOT_IMAGE if v is not None]
NOT_STRINGS = [None, "ab", ["a"], (1,)]
NOT_STRING_DICT = [None, [("a", "b")], {"a": 1}, {1: "a"}]
BAD_ORIGIN = {"plugin": NOT_TEXT, "task": NOT_TASK, "model": NOT_TEXT}

BAD = {
    schemas.ScoreEvidence: BAD_ORIGIN
    | {"name": NOT_TEXT, "score": NOT_UNIT, "logit": [math.nan, math.inf, "0", True, 10**400]},
    schemas.MapEvidence: BAD_ORIGIN
    | {
        "name": NOT_TEXT,
        "map": [None, [[0.5]], MAP.astype(np.float64), MAP[0], MAP[:0], MAP + 1, MAP - 1, MAP * np.nan],
        "box": [None, (0, 0, 1, 1)],
    },
    schemas.FindingEvidence: BAD_ORIGIN
    | {
        "category": ["low-level-texture", None],
        "strength": NOT_UNIT,
        "region": [(0, 0, 1, 1)],
        "note": NOT_TEXT_OR_EMPTY,
    },
    schemas.StatementEvidence: BAD_ORIGIN
    | {
        "statement": NOT_TEXT,
        "support": NOT_UNIT,
        "origin": ["guessed", None, MAP],
        "category": ["low-level-texture"],
    },
    schemas.ProvenanceEvidence: BAD_ORIGIN
    | {
        "claim": NOT_TEXT,
        "claimant": NOT_TEXT,
        "verification": ["maybe", True, None],
        "detail": NOT_TEXT_OR_EMPTY,
        "meaning": ["fake", "", None],
        "carrier": ["letter", "", None],
        "integrity": ["maybe", None],
        "trust": ["maybe", None],
        **dict.fromkeys(("signer", "generator", "generator_model", "prompt", "seed"), NOT_TEXT_OR_EMPTY),
    },
    schemas.NotApplicable: BAD_ORIGIN | {"reason": NOT_TEXT},
    schemas.Failed: BAD_ORIGIN | {"reason": NOT_TEXT, "error": NOT_TEXT},
    schemas.Unavailable: BAD_ORIGIN | {"reason": NOT_TEXT},
    Box: {
        "left": [-1, 0.0, None, True, 6],
        "top": [-1, 0.0, None, True, 4],
        "right": [0, 1.0, None],
        "bottom": [0, 1.0, None],
    },
    schemas.Facts: {
        "container": NOT_TEXT,
        "mode": NOT_TEXT,
        "width": NOT_COUNT,
        "height": NOT_COUNT,
        "frames": NOT_COUNT,
        "quantization": [None, [[1] * 64], ((1,) * 63,), ((1.0,) * 64,), ((-1,) * 64,), ((True,) * 64,)],
        "quality": [0, 101, 90.0, "90"],
        "camera": NOT_STRING_DICT,
        "software": NOT_STRINGS,
        "texts": NOT_STRING_DICT,
        "conversions": NOT_STRINGS,
    },
    schemas.Picture: {
        "pixels": NOT_IMAGE,
        "source": NOT_OPTIONAL_TEXT,
        "facts": [{}, "JPEG"],
        "original": ["x", bytearray(b"x")],
        "overview": ["x", IMAGE],  # one with an overview of its own: tests/sdk/test_overview.py
    },
    schemas.SemanticView: {"key": NOT_TEXT, "image": NOT_IMAGE, "width": NOT_COUNT, "height": NOT_COUNT},
    schemas.PixelView: {
        "key": NOT_TEXT,
        "crops": [None, 7, IMAGE, ("a",), (IMAGE[..., 0],), (IMAGE, IMAGE[1:])],
        "boxes": [None, (), (BOX, BOX), ((0, 0, 1, 1),)],
        "kinds": [None, (), ("texture", "smooth"), (1,)],
        "width": NOT_COUNT,
        "height": NOT_COUNT,
        "centre": NOT_OPTIONAL_IMAGE,
    },
    schemas.SegmentationView: {"key": NOT_TEXT, "image": NOT_IMAGE},
    schemas.ProvenanceView: {"key": NOT_TEXT, "original": ["x", 7], "facts": [{}, "JPEG"]},
    schemas.Column: {
        "name": NOT_TEXT,
        "evidence": NOT_TEXT,
        "statistic": ["mean", None],
        "head": ["p_fake", None],
        "direction": [2, 1.0, True, "1", None],
        "block": NOT_TEXT_OR_EMPTY,
    },
    schemas.WeightsFile: {
        "file": [*NOT_TEXT, "/etc/passwd", "../w", "a/../../w", "C:\\w", "a\nb"],
        "sha256": [*NOT_TEXT, "0" * 63, "A" * 64, "0" * 64 + "\n"],
        "size": NOT_COUNT,
    },
    schemas.Declaration: {
        "name": [*NOT_TEXT, "Pixel", "1pixel", "a" * 41, "a b", "bias", "prior"],
        "version": NOT_TEXT,
        "api_version": NOT_COUNT,
        "older_api_versions": [None, [1], (1, 1), ("1",), 1],
        "task": NOT_TASK,
        "detector": [*NOT_TEXT, "a.b.C", "a:b.c", "a:1", ":C"],
        "summary": NOT_TEXT,
        "columns": [None, [COLUMN], ("trace",), (COLUMN, COLUMN), (COLUMN, attrs.evolve(COLUMN, direction=0))],
        "code_licence": NOT_TEXT,
        "weights_licence": NOT_TEXT,
        "commercial_use": [1, "yes", None],
        "weights": [None, [], ("w",)],
        "shared_weights": [None, ["clip"], (1,), ("clip", "clip")],
        "time_limit": [0, -1, 3601, math.nan, "1", None],
    },
    schemas.Notice: {"code": NOT_TEXT, "message": NOT_TEXT, "plugin": NOT_OPTIONAL_TEXT},
    schemas.Contribution: {
        "head": ["p_fake", None],
        "plugin": NOT_TEXT,
        "task": ["pixel"],
        "log_odds": [math.nan, math.inf, "0", None, True],
    },
    schemas.PredictionSet: {
        "labels": [None, ["authentic"], ("authentic",), (Label.AUTHENTIC,) * 2, (Label.UNCERTAIN,)],
        "not_assessed": [None, ("tampered",), (Label.TAMPERED,)],
        "error_rate": NOT_UNIT,
        "error_rates": [None, [], {"authentic": "0"}, {"authentic": -0.1}, {"authentic": 0.5}, {"uncertain": 0.01}],
    },
    schemas.Verdict: {
        "label": ["authentic", None, Label.TAMPERED],
        "reason": ["unstable", UncertainReason.UNSTABLE],
        "p_ai": [-0.1, 1.1, math.nan, "1", True, None],
        "p_tampered": [-0.1, 1.1, math.nan, "1", True],
        "prior": NOT_UNIT,
        "p_ai_at_1_percent": [-0.1, 1.1, math.nan, "1", True],
        "prediction_set": [None, (Label.AUTHENTIC,)],
        "contributions": [None, [], ("bias",)],
        "evidence": [None, [], (BOX,)],
        "warnings": [None, [], ("careful",)],
        "source": NOT_OPTIONAL_TEXT,
        "width": NOT_COUNT,
        "height": NOT_COUNT,
        "timings": [None, {"a": "b"}, {1: 1.0}, {"a": math.nan}, {"a": True}],
        "versions": NOT_STRING_DICT,
        "schema_version": [None, "", "1", "one", 1.0],
    },
}
"""For every field of every class, values that it must refuse."""

# A field is refused under the name of the one that does not fit it any more.
BLAMED = {("Box", "left", "6"): "right", ("Box", "top", "4"): "bottom"}

CASES = [(cls, field, bad) for cls, fields in BAD.items() for field, values in fields.items() for bad in values]


def test_the_table_knows_every_field_of_every_class():
    public = [getattr(schemas, name) for name in schemas.__all__]
    fields = {c: {f.name for f in attrs.fields(c)} for c in public if isinstance(c, type) and attrs.has(c)}
    assert {cls: set(bad) for cls, bad in BAD.items()} == fields
    assert set(GOOD_OF) == set(fields)


@pytest.mark.parametrize(
    ("cls", "field", "bad"), CASES, ids=[f"{c.__name__}.{f}-{type(b).__name__}" for c, f, b in CASES]
)
def test_a_wrong_value_is_refused_by_name(cls, field, bad):
    good = GOOD_OF[cls]
    arguments = {f.name: getattr(good, f.name) for f in attrs.fields(cls)} | {field: bad}
    with pytest.raises(InvalidValueError) as caught:
        cls(**arguments)
    error = caught.value
    assert error.owner == cls.__name__
    assert error.field == BLAMED.get((cls.__name__, field, repr(bad)), field)
    assert str(error).startswith(f"{error.owner}.{error.field} takes {error.allowed}, got ")
    assert len(str(error)) < 600


def test_the_error_says_what_was_allowed_and_what_came():
    with pytest.raises(InvalidValueError) as caught:
        schemas.ScoreEvidence(**ORIGIN, name="trace", score=1.5)
    assert str(caught.value) == "ScoreEvidence.score takes a number in [0, 1], got 1.5"
    assert (caught.value.allowed, caught.value.got) == ("a number in [0, 1]", 1.5)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (MAP.astype(np.float64), "an array of shape (2, 3) and dtype float64"),
        (np.array([[0.5, 2, np.nan]], np.float32), "'values from 0.5 to 2, 1 NaN'"),
        (MAP * np.nan, "'6 NaN'"),
    ],
)
def test_the_error_describes_arrays_instead_of_printing_them(bad, said):
    with pytest.raises(InvalidValueError) as caught:
        schemas.MapEvidence(**ORIGIN, name="where", map=bad, box=BOX)
    assert str(caught.value) == f"MapEvidence.map takes a float32 array of n x n with values in [0, 1], got {said}"


def test_strength_columns_name_a_category():
    with pytest.raises(InvalidValueError, match=r"Column\.evidence"):
        schemas.Column(name="t", evidence="trace", statistic="strength")
    assert schemas.Column(name="t", evidence="low-level-texture", statistic="strength")


@pytest.mark.parametrize(
    "changes",
    [
        {"label": Label.UNCERTAIN},
        {"label": Label.AI_GENERATED},
        {"reason": UncertainReason.UNSTABLE},
        {"p_ai": None},
    ],
)
def test_a_verdict_agrees_with_itself(changes):
    with pytest.raises(InvalidValueError):
        attrs.evolve(GOOD_OF[schemas.Verdict], **changes)


def test_an_uncertain_verdict_needs_no_probability():
    verdict = attrs.evolve(
        GOOD_OF[schemas.Verdict], label=Label.UNCERTAIN, reason=UncertainReason.TOO_FEW_PLUGINS, p_ai=None
    )
    assert not verdict.is_definite


@pytest.mark.parametrize("value", GOOD, ids=lambda v: type(v).__name__)
def test_values_are_frozen(value):
    for field in attrs.fields(type(value)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, field.name, getattr(value, field.name))
    with pytest.raises((AttributeError, attrs.exceptions.FrozenInstanceError)):
        value.surprise = 1


ARRAYS = [
    (schemas.MapEvidence, lambda v: v.map),
    (schemas.Picture, lambda v: v.pixels),
    (schemas.SemanticView, lambda v: v.image),
    (schemas.SegmentationView, lambda v: v.image),
    (schemas.PixelView, lambda v: v.crops[0]),
    (schemas.PixelView, lambda v: v.centre),
]


@pytest.mark.parametrize(("cls", "get"), ARRAYS)
def test_arrays_are_locked_for_good(cls, get):
    array = get(GOOD_OF[cls])
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


def test_the_maker_keeps_an_array_that_can_be_written():
    mine = IMAGE.copy()
    picture = schemas.Picture(pixels=mine)
    mine[:] = 255
    assert picture.pixels.max() == 0


def test_an_array_that_nobody_can_write_is_not_copied():
    locked = IMAGE.copy()
    locked.flags.writeable = False
    assert np.shares_memory(schemas.Picture(pixels=locked).pixels, locked)
    view = schemas.SegmentationView(key="k", image=schemas.Picture(pixels=locked).pixels)
    assert np.shares_memory(view.image, locked)


def test_a_locked_view_of_an_open_array_is_copied():
    mine = IMAGE.copy()
    view = mine.view()
    view.flags.writeable = False
    picture = schemas.Picture(pixels=view)
    mine[:] = 255
    assert picture.pixels.max() == 0


def test_dicts_are_copied_in():
    camera = {"Make": "A"}
    facts = attrs.evolve(FACTS, camera=camera)
    camera["Make"] = "B"
    assert facts.camera == {"Make": "A"}


def test_equality_looks_into_arrays():
    value = GOOD_OF[schemas.MapEvidence]
    assert attrs.evolve(value, map=MAP.copy()) == value
    assert attrs.evolve(value, map=MAP / 2) != value
    crops = GOOD_OF[schemas.PixelView]
    assert attrs.evolve(crops, crops=(IMAGE.copy(),)) == crops
    assert attrs.evolve(crops, crops=(IMAGE + 1,)) != crops
    assert attrs.evolve(crops, centre=IMAGE.copy()) == crops
    assert attrs.evolve(crops, centre=IMAGE + 1) != crops
    assert attrs.evolve(crops, centre=None) != crops
    assert attrs.evolve(crops, centre=None) == attrs.evolve(crops, centre=None)


def test_a_view_may_have_no_centre_and_says_so_when_it_is_wrong():
    view = GOOD_OF[schemas.PixelView]
    without = schemas.PixelView(
        key="k", crops=view.crops, boxes=view.boxes, kinds=view.kinds, width=view.width, height=view.height
    )
    assert without.centre is None
    assert without == attrs.evolve(view, centre=None)
    with pytest.raises(InvalidValueError) as caught:
        attrs.evolve(view, centre=IMAGE[..., 0])
    allowed = "a uint8 array of n x n x 3 or None"
    assert str(caught.value) == f"PixelView.centre takes {allowed}, got an array of shape (4, 6) and dtype uint8"


def test_timings_are_not_part_of_equality():
    verdict = GOOD_OF[schemas.Verdict]
    assert attrs.evolve(verdict, timings={"decode": 1.0}) == verdict


def test_heat_map_and_findings_are_picked_from_the_evidence():
    fine = attrs.evolve(GOOD_OF[schemas.MapEvidence], map=np.zeros((9, 9), np.float32))
    weak, strong = (attrs.evolve(GOOD_OF[schemas.FindingEvidence], strength=s) for s in (0.2, 0.8))
    verdict = attrs.evolve(GOOD_OF[schemas.Verdict], evidence=(GOOD_OF[schemas.MapEvidence], weak, fine, strong))
    assert verdict.heat_map is fine
    assert verdict.findings == (strong, weak)
    assert GOOD_OF[schemas.Verdict].heat_map is None
    sure = attrs.evolve(fine, map=np.full((9, 9), 0.5, np.float32))
    assert attrs.evolve(verdict, evidence=(sure, fine)).heat_map is sure
    assert attrs.evolve(verdict, evidence=(fine, sure)).heat_map is sure


def test_every_task_has_a_view():
    assert set(schemas.VIEW_OF_TASK) == set(Task)


def test_categories_know_their_level():
    levels = [c.level.value for c in Category]
    assert levels == ["low-level"] * 4 + ["high-level"] + ["cognitive-level"] * 2


def test_a_label_has_its_own_error_rate_or_the_common_one():
    plain = schemas.PredictionSet(labels=(Label.AUTHENTIC,), error_rate=0.05)
    assert plain.rate_of(Label.TAMPERED) == 0.05
    assert plain.ruled_out == (Label.AI_GENERATED, Label.AI_EDITED, Label.TAMPERED)
    own = schemas.PredictionSet(labels=(Label.AUTHENTIC,), error_rate=0.5, error_rates={"authentic": 0.02})
    assert (own.rate_of(Label.AUTHENTIC), own.rate_of(Label.TAMPERED)) == (0.02, 0.5)
