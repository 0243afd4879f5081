"""Validators shared by every value type, and the one error that they raise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


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
        return f"{self.owner}.{self.field} takes {self.allowed}, got {_short(self.got)}"


def _short(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def refuse(instance: object, field: str, allowed: str, got: object) -> InvalidValueError:
    """The error for `field` of `instance`; the caller raises it."""
    return InvalidValueError(type(instance).__name__, field, allowed, got)


def number(low: float = -math.inf, high: float = math.inf, *, optional: bool = False) -> Validator:
    """A finite real number in [low, high]."""
    words = "a finite number" if math.isinf(low) and math.isinf(high) else f"a number in [{low:g}, {high:g}]"
    words += " or None" if optional else ""

    def check(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if optional and value is None:
            return
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or not math.isfinite(value) or not low <= value <= high:
            raise refuse(instance, attribute.name, words, value)

    return check


def integer(low: int | None = None, *, optional: bool = False) -> Validator:
    """An int (not a bool), at least `low`."""
    words = "an integer" + ("" if low is None else f" of at least {low}") + (" or None" if optional else "")

    def check(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if optional and value is None:
            return
        if not isinstance(value, int) or isinstance(value, bool) or (low is not None and value < low):
            raise refuse(instance, attribute.name, words, value)

    return check


def text(*, optional: bool = False, empty: bool = False) -> Validator:
    """A string; not an empty one unless `empty`."""
    words = ("a string" if empty else "a string that is not empty") + (" or None" if optional else "")

    def check(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if optional and value is None:
            return
        if not isinstance(value, str) or not (empty or value):
            raise refuse(instance, attribute.name, words, value)

    return check


def member(kind: type, *, optional: bool = False) -> Validator:
    """An instance of `kind`."""
    words = f"{kind.__name__}" + (" or None" if optional else "")

    def check(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if optional and value is None:
            return
        if not isinstance(value, kind):
            raise refuse(instance, attribute.name, words, value)

    return check


def one_of(*values: object) -> Validator:
    """One of `values`."""
    words = "one of " + ", ".join(repr(v) for v in values)

    def check(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not any(value == v and type(value) is type(v) for v in values):
            raise refuse(instance, attribute.name, words, value)

    return check


def several(kinds: type | tuple[type, ...], *, at_least: int = 0, unique: bool = False) -> Validator:
    """A tuple whose items are all of `kinds`."""
    names = " or ".join(k.__name__ for k in (kinds if isinstance(kinds, tuple) else (kinds,)))
    words = f"a tuple of {names}" + (f" with at least {at_least} items" if at_least else "")
    words += ", none twice" if unique else ""

    def check(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        fits = isinstance(value, tuple) and len(value) >= at_least and all(isinstance(v, kinds) for v in value)
        if not fits or (unique and len(set(value)) != len(value)):
            raise refuse(instance, attribute.name, words, value)

    return check


def mapping(value_kind: type | tuple[type, ...]) -> Validator:
    """A dict from strings to `value_kind`."""
    names = " or ".join(k.__name__ for k in (value_kind if isinstance(value_kind, tuple) else (value_kind,)))

    def check(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        fits = isinstance(value, dict) and all(
            isinstance(k, str) and isinstance(v, value_kind) for k, v in value.items()
        )
        if not fits:
            raise refuse(instance, attribute.name, f"a dict from str to {names}", value)

    return check


def array(shape: tuple[int | None, ...], dtype: type, *, unit: bool = False) -> Validator:
    """A numpy array of `dtype` whose shape fits `shape` (None is any length above zero).

    With `unit` every value must lie in [0, 1].
    """
    axes = " x ".join("n" if n is None else str(n) for n in shape)
    words = f"a {np.dtype(dtype).name} array of {axes}" + (" with values in [0, 1]" if unit else "")

    def check(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        fits = (
            isinstance(value, np.ndarray)
            and value.dtype == dtype
            and value.ndim == len(shape)
            and all(have > 0 and want in (None, have) for have, want in zip(value.shape, shape, strict=True))
        )
        if not fits:
            raise refuse(instance, attribute.name, words, value)
        if unit and not bool(((value >= 0) & (value <= 1)).all()):
            inside = f"values from {np.nanmin(value):g} to {np.nanmax(value):g}, {int(np.isnan(value).sum())} NaN"
            raise refuse(instance, attribute.name, words, inside)

    return check


def read_only(value: Any) -> Any:
    """A converter: the array, contiguous and locked against writing; anything else as it came.

    A frozen class whose array can be written is not frozen. The lock is put on a view, so the caller's own array
    stays as it was.
    """
    if not isinstance(value, np.ndarray):
        return value
    view = np.ascontiguousarray(value).view()
    view.flags.writeable = False
    return view


same_array = attrs.cmp_using(
    eq=lambda a, b: a.dtype == b.dtype and a.shape == b.shape and bool(np.array_equal(a, b)), class_name="SameArray"
)
