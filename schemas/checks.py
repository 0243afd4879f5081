"""Validators shared by every value type, and the one error that they raise."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np


class InvalidValueError(ValueError):
    """A field of a value type was given something that it does not allow.

    Attributes
    ----------
    owner : str
        Name of the class that was being built.
    field : str
        Name of the offending field.
    allowed : str
        What the field takes, in words.
    got : object
        What came.
    """

    def __init__(self, owner: str, field: str, allowed: str, got: object) -> None:
        self.owner, self.field, self.allowed, self.got = owner, field, allowed, got
        super().__init__(owner, field, allowed, got)

    def __str__(self) -> str:
        return f"{self.owner}.{self.field} takes {self.allowed}, got {short(self.got)}"


def short(value: object) -> str:
    """`value` for an error's text: at most 120 characters, an array as its shape and dtype."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def refuse(instance: object, field: str, allowed: str, got: object) -> InvalidValueError:
    """The error for `field` of `instance`; the caller raises it."""
    return InvalidValueError(type(instance).__name__, field, allowed, got)


@attrs.frozen
class Check:
    """A validator whose rule is data: the error's words and the JSON Schema come from the same place as the test."""

    words: str
    """What is allowed."""
    fits: Callable[[Any], bool]
    """Whether a value is allowed."""
    schema: Mapping[str, object] = attrs.field(factory=dict)
    """JSON Schema keywords that say the same about the value that is not None."""
    optional: bool = False
    """Whether None is allowed too."""
    describe: Callable[[Any], object] | None = None
    """What to say that came, where the value itself says too little."""

    def __call__(self, instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        """What attrs calls; raises `InvalidValueError`."""
        if (self.optional and value is None) or self.fits(value):
            return
        words = f"{self.words} or None" if self.optional else self.words
        raise refuse(instance, attribute.name, words, self.describe(value) if self.describe else value)


def is_number(value: object) -> bool:
    """Whether `value` is an int or a float, finite, and not a bool."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        return False


def number(low: float = -math.inf, high: float = math.inf, *, optional: bool = False) -> Check:
    """A finite real number in [low, high]."""
    words = "a finite number" if math.isinf(low) and math.isinf(high) else f"a number in [{low:g}, {high:g}]"
    bounds = {"minimum": low, "maximum": high}
    schema = {key: bound for key, bound in bounds.items() if math.isfinite(bound)}
    return Check(words, lambda v: is_number(v) and low <= v <= high, schema, optional)


def integer(low: int | None = None, high: int | None = None, *, optional: bool = False) -> Check:
    """An int (not a bool) of at least `low` and at most `high`."""
    words = "an integer"
    words += "" if low is None else f" of at least {low}"
    words += "" if high is None else f" and at most {high}" if low is not None else f" of at most {high}"
    schema = {key: bound for key, bound in (("minimum", low), ("maximum", high)) if bound is not None}

    def fits(value: Any) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and (low is None or value >= low) and (high is None or value <= high)

    return Check(words, fits, schema, optional)


def text(*, optional: bool = False, empty: bool = False) -> Check:
    """A string; not an empty one unless `empty`."""
    words = "a string" if empty else "a string that is not empty"
    return Check(words, lambda v: isinstance(v, str) and bool(empty or v), {} if empty else {"minLength": 1}, optional)


def pattern(regex: str, words: str, *, besides: tuple[str, ...] = ()) -> Check:
    """A string that `regex` matches as a whole, and none of `besides`."""
    schema: dict[str, object] = {"pattern": f"^(?:{regex})$"}
    if besides:
        schema["not"] = {"enum": list(besides)}
    return Check(words, lambda v: isinstance(v, str) and bool(re.fullmatch(regex, v)) and v not in besides, schema)


def member(kind: type, *, optional: bool = False) -> Check:
    """An instance of `kind`."""
    return Check(kind.__name__, lambda v: isinstance(v, kind), optional=optional)


def one_of(*values: object) -> Check:
    """One of `values`."""
    words = "one of " + ", ".join(repr(v) for v in values)
    return Check(words, lambda v: any(type(v) is type(x) and v == x for x in values), {"enum": list(values)})


def several(kinds: type | tuple[type, ...], *, at_least: int = 0, unique: bool = False) -> Check:
    """A tuple whose items are all of `kinds`."""
    names = " or ".join(k.__name__ for k in (kinds if isinstance(kinds, tuple) else (kinds,)))
    words = f"a tuple of {names}" + (f" with at least {at_least} items" if at_least else "")
    words += ", none twice" if unique else ""
    schema = ({"minItems": at_least} if at_least else {}) | ({"uniqueItems": True} if unique else {})

    def fits(value: Any) -> bool:
        good = isinstance(value, tuple) and len(value) >= at_least and all(isinstance(v, kinds) for v in value)
        return good and not (unique and len(set(value)) != len(value))

    return Check(words, fits, schema)


def mapping(value_kind: type) -> Check:
    """A dict from strings to `value_kind`; for float any finite number."""
    name = "finite numbers" if value_kind is float else value_kind.__name__

    def good(item: object) -> bool:
        return is_number(item) if value_kind is float else isinstance(item, value_kind)

    def fits(value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(k, str) and good(v) for k, v in value.items())

    return Check(f"a dict from str to {name}", fits)


def array(shape: tuple[int | None, ...], dtype: type, *, unit: bool = False, optional: bool = False) -> Check:
    """A numpy array of `dtype` whose shape fits `shape` (None is any length above zero).

    With `unit` every value must lie in [0, 1].
    """
    axes = " x ".join("n" if n is None else str(n) for n in shape)
    words = f"a {np.dtype(dtype).name} array of {axes}" + (" with values in [0, 1]" if unit else "")

    def formed(value: Any) -> bool:
        return (
            isinstance(value, np.ndarray)
            and value.dtype == dtype
            and value.ndim == len(shape)
            and all(have > 0 and want in (None, have) for have, want in zip(value.shape, shape, strict=True))
        )

    def fits(value: Any) -> bool:
        return formed(value) and not (unit and not bool(((value >= 0) & (value <= 1)).all()))

    def describe(value: Any) -> object:
        if not formed(value):
            return value
        known = value[~np.isnan(value)]
        ends = f"values from {known.min():g} to {known.max():g}, " if known.size else ""
        return f"{ends}{value.size - known.size} NaN"

    axis = [{"type": "integer", "minimum": 1} if n is None else {"const": n} for n in shape]
    return Check(words, fits, {"prefixItems": axis}, optional, describe=describe)


def crops() -> Check:
    """A tuple of uint8 arrays (h, w, 3), all of one size; may be empty."""
    one = array((None, None, 3), np.uint8)

    def fits(value: Any) -> bool:
        return isinstance(value, tuple) and all(map(one.fits, value)) and len({v.shape for v in value}) <= 1

    def describe(value: Any) -> object:
        return ", ".join(short(v) for v in value) if isinstance(value, tuple) else value

    return Check("a tuple of uint8 arrays of n x n x 3, all of one size", fits, describe=describe)


def read_only(value: Any) -> Any:
    """A converter: the array, contiguous and locked against writing for good; anything else as it came.

    A frozen class whose array can be written is not frozen, so whoever still could write to the memory keeps theirs
    and the value gets a copy. Nothing is copied where nobody can: an array that is read-only down to its base, as
    `numpy.asarray` of a Pillow image is, or an owned array that its maker has locked before.
    """
    if not isinstance(value, np.ndarray):
        return value
    mine = np.ascontiguousarray(value)
    if not _nobody_writes(mine):
        mine = mine.copy() if np.may_share_memory(mine, value) else mine
        mine.flags.writeable = False
    return mine.view()  # a view of a locked array cannot be unlocked


def _nobody_writes(value: np.ndarray[Any, Any]) -> bool:
    base: object = value
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return False
        base = base.base
    return base is None or isinstance(base, bytes)


def read_only_each(value: Any) -> Any:
    """A converter: `read_only` on every item of a list or tuple, as a tuple; anything else as it came."""
    return tuple(map(read_only, value)) if isinstance(value, list | tuple) else value


def own_dict(value: Any) -> Any:
    """A converter: a copy of a dict, so that its maker cannot change the value later; anything else as it came."""
    return dict(value) if isinstance(value, dict) else value


def _same(a: np.ndarray[Any, Any] | None, b: np.ndarray[Any, Any] | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and a.shape == b.shape and bool(np.array_equal(a, b))


same_array = attrs.cmp_using(eq=_same, class_name="SameArray")
same_arrays = attrs.cmp_using(
    eq=lambda a, b: len(a) == len(b) and all(map(_same, a, b)),
    class_name="SameArrays",
)
