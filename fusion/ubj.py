"""Looks through a booster's UBJ before XGBoost does.

XGBoost's own reader trusts its input: junk, deep nesting and node numbers outside a tree abort the process or read
foreign memory, which no Python handler can catch. Only a file that passes here is handed to it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NUMBERS = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
_DEEPEST = 12
_MOST_ITEMS = 1_000_000
_PER_NODE = (
    "base_weights",
    "default_left",
    "left_children",
    "loss_changes",
    "parents",
    "right_children",
    "split_conditions",
    "split_indices",
    "split_type",
    "sum_hessian",
)
_CATEGORICAL = ("categories", "categories_nodes", "categories_segments", "categories_sizes")


def read_ubj(data: bytes) -> Any:
    """Parse the part of Universal Binary JSON that XGBoost writes.

    Returns
    -------
    object
        Of dict, list, str, int, float, bool, None, and numpy arrays (native byte order) for typed arrays.

    Raises
    ------
    ValueError
        Anything else, more than 12 levels, or bytes left over.
    """
    reader = _Reader(data)
    value = reader.value(0)
    if reader.at != len(data):
        raise ValueError(f"{len(data) - reader.at} bytes after the end")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.items = data, 0, 0

    def take(self, count: int) -> bytes:
        if count < 0 or count > len(self.data) - self.at:
            raise ValueError(f"byte {self.at}: {count} bytes asked for, {len(self.data) - self.at} left")
        self.at += count
        return self.data[self.at - count : self.at]

    def length(self) -> int:
        if self.take(1) != b"L":
            raise ValueError(f"byte {self.at - 1}: a length is a 64-bit integer")
        return int(struct.unpack(">q", self.take(8))[0])

    def text(self) -> str:
        return self.take(self.length()).decode("utf-8")

    def value(self, depth: int) -> Any:
        self.items += 1
        if depth > _DEEPEST or self.items > _MOST_ITEMS:
            raise ValueError(f"byte {self.at}: more than {_DEEPEST} levels or {_MOST_ITEMS} values")
        mark = self.take(1)
        if mark in _NUMBERS:
            kind = np.dtype(_NUMBERS[mark])
            return np.frombuffer(self.take(kind.itemsize), kind)[0].item()
        if mark == b"S":
            return self.text()
        if mark in (b"T", b"F", b"Z"):
            return {b"T": True, b"F": False, b"Z": None}[mark]
        if mark == b"[":
            return self.array(depth)
        if mark == b"{":
            return self.object(depth)
        raise ValueError(f"byte {self.at - 1}: unknown mark {mark!r}")

    def array(self, depth: int) -> Any:
        mark = self.take(1)
        kind = b""
        if mark == b"$":
            kind, mark = self.take(1), self.take(1)
            if kind not in _NUMBERS:
                raise ValueError(f"byte {self.at}: array of {kind!r}")
        if mark != b"#":
            raise ValueError(f"byte {self.at - 1}: an array without its length")
        count = self.length()
        if kind:
            dtype = np.dtype(_NUMBERS[kind])
            return np.frombuffer(self.take(count * dtype.itemsize), dtype).astype(dtype.newbyteorder("="))
        if not 0 <= count <= len(self.data) - self.at:
            raise ValueError(f"byte {self.at}: an array of {count} values")
        return [self.value(depth + 1) for _ in range(count)]

    def object(self, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        while self.data[self.at : self.at + 1] != b"}":
            name = self.text()
            if name in out:
                raise ValueError(f"byte {self.at}: {name!r} twice")
            out[name] = self.value(depth + 1)
        self.at += 1
        return out


def check_booster(data: bytes, names: Sequence[str]) -> None:
    """Refuse anything but a binary:logistic gbtree over the columns `names` whose trees are trees.

    Raises
    ------
    ValueError, KeyError, TypeError, IndexError
        In words where the file is readable.
    """
    model = read_ubj(data)
    learner = model["learner"]
    # The reader of the model's own words: anything that would send XGBoost down another path is refused.
    expected = {
        "objective": (learner["objective"]["name"], "binary:logistic"),
        "booster": (learner["gradient_booster"]["name"], "gbtree"),
        "columns": (learner["feature_names"], list(names)),
        "feature_types": (list(learner["feature_types"]), []),
        "num_class": (learner["learner_model_param"]["num_class"], "0"),
        "num_target": (learner["learner_model_param"]["num_target"], "1"),
        "num_feature": (learner["learner_model_param"]["num_feature"], str(len(names))),
        "base_score": (learner["learner_model_param"]["base_score"] in ("[5E-1]", "5E-1"), True),
    }
    for name, (have, want) in expected.items():
        if have != want:
            raise ValueError(f"{name} is {have!r}, not {want!r}")
    if not all(isinstance(v, str) for v in learner["attributes"].values()):
        raise ValueError("attributes that are not text")
    version = model["version"]
    if len(version) != 3 or not all(isinstance(int(v), int) and 0 <= int(v) < 1000 for v in version):
        raise ValueError("a version that is none")
    forest = learner["gradient_booster"]["model"]
    trees = forest["trees"]
    count = len(trees)
    if forest["gbtree_model_param"] != {"num_parallel_tree": "1", "num_trees": str(count)}:
        raise ValueError("gbtree_model_param that does not count the trees")
    if _ints(forest["iteration_indptr"]).tolist() != list(range(count + 1)):
        raise ValueError("iteration_indptr that does not count the trees")
    if _ints(forest["tree_info"]).tolist() != [0] * count:
        raise ValueError("trees of other classes")
    for part in forest.get("cats", {}).values():
        if len(part):
            raise ValueError("categories")
    for number, tree in enumerate(trees):
        if tree["id"] != number:
            raise ValueError(f"tree {number} with id {tree['id']}")
        _check_tree(tree, len(names))


def _check_tree(tree: dict[str, Any], features: int) -> None:
    params = tree["tree_param"]
    left, right = _ints(tree["left_children"]), _ints(tree["right_children"])
    n = len(left)
    wanted = {"num_deleted": "0", "num_feature": str(features), "num_nodes": str(n), "size_leaf_vector": "1"}
    if n == 0 or params != wanted:
        raise ValueError(f"tree_param {params}, not {wanted}")
    for name in _PER_NODE:
        if len(tree[name]) != n:
            raise ValueError(f"{name} of {len(tree[name])} nodes, not {n}")
    for name in _CATEGORICAL:
        if len(tree[name]):
            raise ValueError("categories")
    for name in ("base_weights", "split_conditions", "loss_changes", "sum_hessian"):
        with np.errstate(invalid="ignore"):
            numbers = np.asarray(tree[name], np.float64)
        if not np.isfinite(numbers).all():
            raise ValueError(f"{name} with numbers that are not finite")
    if _ints(tree["split_type"]).any():
        raise ValueError("categorical splits")
    inner = left != -1
    if not np.isin(_ints(tree["default_left"]), (0, 1)).all() or ((right != -1) != inner).any():
        raise ValueError("a node with one child")
    splits = _ints(tree["split_indices"])[inner]
    if ((splits < 0) | (splits >= features)).any():
        raise ValueError("a split on a column that is not there")
    # Every node but the root is the child of one node with a lower number: no cycle, no node outside.
    children = np.concatenate([left[inner], right[inner]])
    above = np.tile(np.flatnonzero(inner), 2)
    if not np.array_equal(np.sort(children), np.arange(1, n)) or (children <= above).any():
        raise ValueError("nodes that do not form a tree")
    parents = _ints(tree["parents"])
    if (parents[children] != above).any():
        raise ValueError("parents that are not their children's")


def _ints(values: Any) -> NDArray[np.int64]:
    found = np.asarray(values)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise ValueError("numbers that are not integers")
    return found.astype(np.int64)


__all__ = ["check_booster", "read_ubj"]
