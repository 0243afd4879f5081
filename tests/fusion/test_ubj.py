"""XGBoost's reader aborts the process on some of these; ours must refuse them first."""

import numpy as np
import pytest

from tellsign.fusion.booster import BoosterConfig, BoosterHead, fit_booster
from tellsign.fusion.errors import BundleError
from tellsign.fusion.features import FeatureColumn
from tellsign.fusion.ubj import check_booster, read_ubj

COLUMNS = tuple(FeatureColumn(f"p.c{i}", 1, "p", "pixel", "p") for i in range(3))
NAMES = [c.name for c in COLUMNS]


def write(value):
    """The subset of UBJ that XGBoost writes."""

    def length(n):
        return b"L" + n.to_bytes(8, "big", signed=True)

    if isinstance(value, dict):
        body = b"".join(length(len(k)) + k.encode() + write(v) for k, v in value.items())
        return b"{" + body + b"}"
    if isinstance(value, list):
        return b"[#" + length(len(value)) + b"".join(write(v) for v in value)
    if isinstance(value, np.ndarray):
        mark = {"f4": b"d", "i4": b"l", "u1": b"U", "i1": b"i", "i8": b"L", "i2": b"I", "f8": b"D"}
        kind = value.dtype.str[1:]
        return b"[$" + mark[kind] + b"#" + length(len(value)) + value.astype(">" + kind).tobytes()
    if isinstance(value, str):
        return b"S" + length(len(value.encode())) + value.encode()
    return b"l" + int(value).to_bytes(4, "big", signed=True)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    return fit_booster(x, (x.sum(1) > 0).astype(int), COLUMNS, BoosterConfig(rounds=3))[0].to_bytes()


def test_a_true_booster_passes_and_reads_back(data):
    check_booster(data, NAMES)
    model = read_ubj(data)
    assert model["learner"]["feature_names"] == NAMES
    assert len(model["learner"]["gradient_booster"]["model"]["trees"]) == 3
    assert BoosterHead.from_bytes(write(model), COLUMNS, "p_ai.ubj").to_bytes() == data


def tree(model):
    return model["learner"]["gradient_booster"]["model"]["trees"][0]


def put(name, index, value):
    def change(model):
        values = tree(model)[name].copy()
        values[index] = value
        tree(model)[name] = values

    return change


CHANGES = {
    "child outside": put("left_children", 0, 10**6),
    "child below": put("left_children", 0, -5),
    "cycle": put("left_children", 1, 0),
    "one child": put("right_children", 0, -1),
    "column outside": put("split_indices", 0, 10**6),
    "parent": put("parents", 1, 2),
    "not finite": put("split_conditions", 0, np.nan),
    "categorical": put("split_type", 0, 1),
    "short": lambda m: tree(m).update(base_weights=tree(m)["base_weights"][:1]),
    "nodes": lambda m: tree(m)["tree_param"].update(num_nodes="1000000"),
    "leaf vector": lambda m: tree(m)["tree_param"].update(size_leaf_vector="1000000"),
    "trees": lambda m: m["learner"]["gradient_booster"]["model"]["gbtree_model_param"].update(num_trees="99"),
    "tree info": lambda m: m["learner"]["gradient_booster"]["model"].update(tree_info=np.full(3, 7, np.int32)),
    "iterations": lambda m: m["learner"]["gradient_booster"]["model"].update(
        iteration_indptr=np.array([0, 1, 2, 99], np.int32)
    ),
    "linear": lambda m: m["learner"]["gradient_booster"].update(name="gblinear"),
    "dart": lambda m: m["learner"]["gradient_booster"].update(name="dart"),
    "objective": lambda m: m["learner"]["objective"].update(name="reg:squarederror"),
    "classes": lambda m: m["learner"]["learner_model_param"].update(num_class="9"),
    "start": lambda m: m["learner"]["learner_model_param"].update(base_score="[nan]"),
    "names": lambda m: m["learner"].update(feature_names=["a", "b", "c"]),
    "no learner": lambda m: m.pop("learner"),
    "learner as text": lambda m: m.update(learner="x"),
    "id": lambda m: tree(m).update(id=10**6),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_booster_is_refused(data, change):
    model = read_ubj(data)
    change(model)
    with pytest.raises(BundleError, match=r"p_ai\.ubj"):
        BoosterHead.from_bytes(write(model), COLUMNS, "p_ai.ubj")


HUGE = (2**62).to_bytes(8, "big")
JUNK = {
    "empty": b"",
    "deep array": b"[#L" + (1).to_bytes(8, "big") * 1 + b"[#L\0\0\0\0\0\0\0\1" * 100000,
    "deep object": b"{L\0\0\0\0\0\0\0\1a" * 100000,
    "plain nesting": b"[" * 100000,
    "huge text": b"SL" + HUGE,
    "huge array": b"[$d#L" + HUGE,
    "huge list": b"[#L" + HUGE,
    "negative": b"SL" + (-5).to_bytes(8, "big", signed=True),
    "no utf-8": b"SL\0\0\0\0\0\0\0\1\xff",
    "twice": b"{L\0\0\0\0\0\0\0\1aZL\0\0\0\0\0\0\0\1aZ}",
    "left over": b"ZZ",
    "unknown": b"?",
    "json": b'{"learner": {}}',
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_junk_is_refused(junk):
    with pytest.raises(ValueError, match="byte"):
        read_ubj(junk)
    with pytest.raises(BundleError):
        BoosterHead.from_bytes(junk, COLUMNS, "p_ai.ubj")


def test_flipped_bytes_are_refused_or_harmless(data):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 3))
    for _ in range(400):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            broken[at] = rng.integers(0, 256)
        try:
            head = BoosterHead.from_bytes(bytes(broken), COLUMNS, "p_ai.ubj")
        except BundleError:
            continue
        assert head.margin(x).shape == (20,)
