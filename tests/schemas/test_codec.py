"""Every value of every type survives JSON bit for bit, and what is no such value is refused with its path."""

import json
from pathlib import Path

import attrs
import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tellsign.schemas as schemas
from tellsign.schemas import codec
from tellsign.schemas.checks import Check
from tellsign.schemas.codec import CodecError, dumps, from_json, json_schema, loads, to_json
from tellsign.schemas.evidence import CARRIERS, MEANINGS

words = st.text(min_size=1, max_size=12)
maybe_empty = st.text(max_size=12)
unit = st.floats(0, 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(1, 2**40)
tasks = st.sampled_from(schemas.Task)
categories = st.sampled_from(schemas.Category)
definite = st.sampled_from(schemas.DEFINITE_LABELS)
string_dicts = st.dictionaries(maybe_empty, maybe_empty, max_size=3)
pictures = hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3)))
maps = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.floats(0, 1, width=32))
maybe = st.none()


@st.composite
def boxes(draw):
    left, top = draw(st.integers(0, 2**20)), draw(st.integers(0, 2**20))
    return schemas.Box(left, top, left + draw(whole), top + draw(whole))


@st.composite
def pixel_views(draw):
    n, shape = draw(st.integers(0, 3)), draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.just(3)))
    return schemas.PixelView(
        key=draw(words),
        crops=tuple(draw(hnp.arrays(np.uint8, shape)) for _ in range(n)),
        boxes=tuple(draw(boxes()) for _ in range(n)),
        kinds=tuple(draw(words) for _ in range(n)),
        width=draw(whole),
        height=draw(whole),
        centre=draw(maybe | pictures),
    )


columns = st.builds(
    schemas.Column,
    name=words,
    evidence=words,
    statistic=st.sampled_from([s for s in schemas.STATISTICS if s != "strength"]),
    head=st.sampled_from(schemas.HEADS),
    direction=st.sampled_from([-1, 0, 1]),
    block=maybe_empty,
) | st.builds(schemas.Column, name=words, evidence=categories.map(str), statistic=st.just("strength"))
weights = st.builds(
    schemas.WeightsFile,
    file=st.from_regex(r"[a-z0-9_]{1,8}(/[a-z0-9_-]{1,8}){0,2}\.safetensors", fullmatch=True),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    size=whole,
)
facts = st.builds(
    schemas.Facts,
    container=words,
    mode=words,
    width=whole,
    height=whole,
    frames=whole,
    quantization=st.lists(st.lists(st.integers(0, 65535), min_size=64, max_size=64).map(tuple), max_size=2).map(tuple),
    quality=maybe | st.integers(1, 100),
    camera=string_dicts,
    software=st.lists(maybe_empty, max_size=3).map(tuple),
    texts=string_dicts,
    conversions=st.lists(maybe_empty, max_size=3).map(tuple),
)
origin = {"plugin": words, "task": tasks, "model": words}
evidence_of = {
    schemas.ScoreEvidence: st.builds(schemas.ScoreEvidence, **origin, name=words, score=unit, logit=maybe | finite),
    schemas.MapEvidence: st.builds(schemas.MapEvidence, **origin, name=words, map=maps, box=boxes()),
    schemas.FindingEvidence: st.builds(
        schemas.FindingEvidence,
        **origin,
        category=categories,
        strength=unit,
        region=maybe | boxes(),
        note=maybe_empty,
    ),
    schemas.StatementEvidence: st.builds(
        schemas.StatementEvidence,
        **origin,
        statement=words,
        support=unit,
        origin=st.sampled_from(["retrieved", "generated"]),
        category=maybe | categories,
    ),
    schemas.ProvenanceEvidence: st.builds(
        schemas.ProvenanceEvidence,
        **origin,
        claim=words,
        claimant=words,
        verification=st.sampled_from(["verified", "unverified", "broken", "unknown"]),
        detail=maybe_empty,
        meaning=st.sampled_from(MEANINGS),
        carrier=st.sampled_from(CARRIERS),
        integrity=st.sampled_from(["", "intact", "broken", "unknown"]),
        trust=st.sampled_from(["", "trusted", "untrusted", "unknown"]),
        **dict.fromkeys(("signer", "generator", "generator_model", "prompt", "seed"), maybe_empty),
    ),
    schemas.NotApplicable: st.builds(schemas.NotApplicable, **origin, reason=words),
    schemas.Failed: st.builds(schemas.Failed, **origin, reason=words, error=words),
    schemas.Unavailable: st.builds(schemas.Unavailable, **origin, reason=words),
}
notices = st.builds(schemas.Notice, code=words, message=words, plugin=maybe | words)
contributions = st.builds(
    schemas.Contribution, head=st.sampled_from(schemas.HEADS), plugin=words, task=maybe | tasks, log_odds=finite
)


@st.composite
def prediction_sets(draw):
    labels = tuple(draw(st.lists(definite, unique=True)))
    unsure = tuple(draw(st.lists(st.sampled_from(labels), unique=True))) if labels else ()
    rate = draw(unit)
    rates = draw(st.dictionaries(definite, st.floats(0, rate)))
    return schemas.PredictionSet(
        labels=labels, not_assessed=unsure, error_rate=rate, error_rates={str(x): r for x, r in rates.items()}
    )


@st.composite
def verdicts(draw):
    kept = draw(prediction_sets())
    label = draw(st.sampled_from((*kept.labels, schemas.Label.UNCERTAIN)))
    unsure = label is schemas.Label.UNCERTAIN
    return schemas.Verdict(
        label=label,
        reason=draw(st.sampled_from(schemas.UncertainReason)) if unsure else None,
        p_ai=draw(maybe | unit) if unsure else draw(unit),
        p_tampered=draw(maybe | unit),
        prior=draw(unit),
        p_ai_at_1_percent=draw(maybe | unit),
        prediction_set=kept,
        contributions=tuple(draw(st.lists(contributions, max_size=2))),
        evidence=tuple(draw(st.lists(st.one_of(*evidence_of.values()), max_size=3))),
        warnings=tuple(draw(st.lists(notices, max_size=2))),
        source=draw(maybe | words),
        width=draw(whole),
        height=draw(whole),
        timings=draw(st.dictionaries(words, finite, max_size=2)),
        versions=draw(string_dicts),
    )


VALUES = {
    **evidence_of,
    schemas.Box: boxes(),
    schemas.Facts: facts,
    schemas.Picture: st.builds(
        schemas.Picture,
        pixels=pictures,
        source=maybe | words,
        facts=maybe | facts,
        original=maybe | st.binary(max_size=20),
    ),
    schemas.SemanticView: st.builds(schemas.SemanticView, key=words, image=pictures, width=whole, height=whole),
    schemas.PixelView: pixel_views(),
    schemas.SegmentationView: st.builds(schemas.SegmentationView, key=words, image=pictures),
    schemas.ProvenanceView: st.builds(
        schemas.ProvenanceView, key=words, original=maybe | st.binary(max_size=20), facts=maybe | facts
    ),
    schemas.Column: columns,
    schemas.WeightsFile: weights,
    schemas.Declaration: st.builds(
        schemas.Declaration,
        name=st.from_regex("[a-z][a-z0-9_-]{0,39}", fullmatch=True).filter(lambda n: n not in ("bias", "prior")),
        version=words,
        api_version=whole,
        task=tasks,
        detector=st.from_regex("[a-z_]{1,8}([.][a-z_]{1,8})?:[A-Z][A-Za-z0-9_]{0,8}", fullmatch=True),
        summary=words,
        columns=st.lists(columns, max_size=3, unique_by=lambda c: c.name).map(tuple),
        code_licence=words,
        weights_licence=words,
        commercial_use=st.booleans(),
        weights=st.lists(weights, max_size=2).map(tuple),
        time_limit=st.floats(0.01, 3600),
    ),
    schemas.Notice: notices,
    schemas.Contribution: contributions,
    schemas.PredictionSet: prediction_sets(),
    schemas.Verdict: verdicts(),
}
"""Values of every class of the vocabulary."""

CLASSES = sorted(VALUES, key=lambda c: c.__name__)
SCHEMAS = {cls: jsonschema.Draft202012Validator(json_schema(cls)) for cls in CLASSES}


def named(cls):
    return cls.__name__


def arrays_in(value):
    """Every array inside a value, in a fixed order."""
    if isinstance(value, np.ndarray):
        return [value]
    if attrs.has(type(value)):
        return [a for f in attrs.fields(type(value)) for a in arrays_in(getattr(value, f.name))]
    return [a for item in value for a in arrays_in(item)] if isinstance(value, tuple) else []


def test_every_public_class_has_values_here():
    public = [getattr(schemas, name) for name in schemas.__all__]
    assert {c for c in public if isinstance(c, type) and attrs.has(c)} == set(VALUES)


@pytest.mark.parametrize("cls", CLASSES, ids=named)
@settings(max_examples=40)
@given(data=st.data())
def test_round_trip_is_exact(cls, data):
    value = data.draw(VALUES[cls])
    text = dumps(value)
    back = loads(text, cls)
    assert back == value
    assert type(back) is cls
    assert dumps(back) == text  # fields that equality leaves out, signs of zero
    for was, now in zip(arrays_in(value), arrays_in(back), strict=True):
        assert (now.dtype, now.shape, now.tobytes()) == (was.dtype, was.shape, was.tobytes())
        assert not now.flags.writeable
    SCHEMAS[cls].validate(json.loads(text))


@settings(max_examples=40)
@given(st.one_of(*evidence_of.values()))
def test_evidence_is_found_by_its_kind(value):
    assert from_json(to_json(value), schemas.Evidence) == value
    assert to_json(value)["kind"] == type(value).kind


@pytest.mark.parametrize("bad", [">f4", "<f4"])
def test_arrays_are_little_endian_on_every_machine(bad):
    box = schemas.Box(0, 0, 1, 1)
    stored = np.array([[0.5, 0.25]], np.float32)
    value = schemas.MapEvidence(plugin="p", task=schemas.Task.PIXEL, model="m", name="n", map=stored, box=box)
    assert to_json(value)["map"] == {"shape": [1, 2], "dtype": "float32", "data": "AAAAPwAAgD4="}
    # A plugin's array of a foreign byte order is refused, not silently taken for the other one.
    if np.dtype(bad) != np.float32:
        with pytest.raises(schemas.InvalidValueError, match="float32"):
            attrs.evolve(value, map=stored.astype(bad))


@pytest.fixture
def verdict():
    """A verdict with one of everything, as JSON."""
    origin = {"plugin": "pixel", "task": schemas.Task.PIXEL, "model": "pixel-bundled 1.0.0"}
    box = schemas.Box(0, 0, 640, 480)
    return to_json(
        schemas.Verdict(
            label=schemas.Label.AUTHENTIC,
            p_ai=0.2,
            prediction_set=schemas.PredictionSet(labels=(schemas.Label.AUTHENTIC,), error_rate=0.05),
            contributions=(schemas.Contribution(head="p_ai", plugin="bias", log_odds=-1.0),),
            evidence=(
                schemas.ScoreEvidence(**origin, name="trace", score=0.3, logit=-0.8),
                schemas.MapEvidence(**origin, name="where", map=np.zeros((2, 2), np.float32), box=box),
            ),
            warnings=(schemas.Notice(code="plugin_failed", message="it fell over", plugin="other"),),
            width=640,
            height=480,
            timings={"decode": 0.01},
            versions={"tellsign": "0.1.0"},
        )
    )


def put(obj, path, value):
    for key in path[:-1]:
        obj = obj[key]
    obj[path[-1]] = value


REFUSED_BY_SCHEMA_TOO = [
    (["surprise"], 1, "$.surprise: is not a field of Verdict"),
    (["evidence", 0, "surprise"], 1, "$.evidence[0].surprise: is not a field of ScoreEvidence"),
    (["width"], "640", "$.width: takes an integer, got '640'"),
    (["width"], True, "$.width: takes an integer, got True"),
    (["p_ai"], "0.2", "$.p_ai: takes a number, got '0.2'"),
    (["p_ai"], 1.5, "$.p_ai: Verdict.p_ai takes a number in [0, 1] or None, got 1.5"),
    (["source"], 7, "$.source: takes a string, got 7"),
    (["label"], "fake", "$.label: takes one of ['authentic', 'ai_generated', 'ai_edited', 'tampered', 'uncertain']"),
    (["evidence"], "score", "$.evidence: takes a list, got 'score'"),
    (["evidence", 0], [], "$.evidence[0]: takes an object whose \"kind\" is one of ['score', 'map',"),
    (["evidence", 0, "kind"], "rumour", "got 'rumour'"),
    (["evidence", 0, "kind"], {}, '$.evidence[0]: takes an object whose "kind" is one of'),
    (["evidence", 0, "kind"], "failed", "$.evidence[0].reason: is missing"),
    (["evidence", 1, "map", "dtype"], "float64", "$.evidence[1].map: takes an array whose dtype is float32"),
    (["evidence", 1, "map", "shape"], [-2, -2], "$.evidence[1].map: takes an array whose shape is a list of integers"),
    (["evidence", 1, "map", "shape"], [4], "MapEvidence.map takes a float32 array of n x n"),
    (["evidence", 1, "map"], [[0.0]], "$.evidence[1].map: takes an object of"),
    (["evidence", 1, "box", "right"], 0, "$.evidence[1].box.right: Box.right takes an integer of at least 1, got 0"),
    (["timings"], [["decode", 1]], "$.timings: takes an object, got"),
    (["timings", "decode"], "fast", "$.timings['decode']: takes a number, got 'fast'"),
    (["prediction_set"], None, "$.prediction_set: takes an object (PredictionSet), got None"),
]
# What a JSON Schema cannot say: 640.0 is its integer, sizes of data, versions, fields that depend on each other.
REFUSED = [
    *REFUSED_BY_SCHEMA_TOO,
    (["width"], 640.0, "$.width: takes an integer, got 640.0"),
    (["evidence", 1, "map", "shape"], [2, 3], "$.evidence[1].map: takes an array of shape [2, 3], that is 24 bytes"),
    (["evidence", 1, "map", "data"], "####", "$.evidence[1].map: takes base64 text"),
    (["prediction_set", "labels"], [], "$.label: Verdict.label takes one of its prediction set"),
    (["schema_version"], "2.0", "$: takes a verdict of schema version 1.x, got '2.0'"),
]


@pytest.mark.parametrize(
    ("path", "value", "problem"), REFUSED, ids=lambda v: "" if isinstance(v, list) else str(v)[:40]
)
def test_other_json_is_refused_with_its_path(verdict, path, value, problem):
    assert from_json(verdict, schemas.Verdict)
    put(verdict, path, value)
    with pytest.raises(CodecError) as caught:
        from_json(verdict, schemas.Verdict)
    assert problem in str(caught.value)


def test_every_problem_is_named_at_once(verdict):
    verdict["width"], verdict["evidence"][0]["task"] = None, "smell"
    with pytest.raises(CodecError) as caught:
        from_json(verdict, schemas.Verdict)
    assert [p.split(":")[0] for p in caught.value.problems] == ["$.evidence[0].task", "$.width"]


def test_a_field_that_is_missing_is_named(verdict):
    del verdict["prediction_set"]
    with pytest.raises(CodecError, match=r"\$\.prediction_set: is missing"):
        from_json(verdict, schemas.Verdict)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"x"', '{"p_ai": NaN}', "[" * 100_000, b"\xff\xfe\xff"])
def test_what_is_no_verdict_ends_in_one_error(text):
    with pytest.raises(CodecError, match=r"^\$"):
        loads(text, schemas.Verdict)


@pytest.mark.parametrize("file", codec.PUBLISHED)
def test_the_committed_schema_is_the_generated_one(file):
    root = Path(__file__).parents[2]
    committed = (root / "schemas" / file).read_text(encoding="utf-8")
    assert committed == codec.schema_text(codec.PUBLISHED[file]), "run: python -m tellsign.schemas.codec schemas"
    jsonschema.Draft202012Validator.check_schema(json.loads(committed))


@pytest.mark.parametrize(("path", "value", "_"), REFUSED_BY_SCHEMA_TOO)
def test_the_schema_refuses_what_reading_refuses(verdict, path, value, _):
    assert SCHEMAS[schemas.Verdict].is_valid(verdict)
    put(verdict, path, value)
    assert not SCHEMAS[schemas.Verdict].is_valid(verdict)


def test_limits_in_the_schema_come_from_the_validators():
    properties = json_schema(schemas.ScoreEvidence)["$defs"]["ScoreEvidence"]["properties"]
    assert (properties["score"]["minimum"], properties["score"]["maximum"]) == (0, 1)
    assert properties["score"]["description"].startswith("In [0, 1]")
    assert properties["plugin"]["minLength"] == 1


@pytest.mark.parametrize("cls", CLASSES, ids=named)
def test_every_field_of_every_class_is_checked(cls):
    bare = [f.name for f in attrs.fields(cls) if not isinstance(f.validator, Check)]
    assert bare == []
