"""JSON both ways for every value type, and the JSON Schema of each, generated from the classes.

The one module of the vocabulary that needs cattrs. Reading is strict: a value of another kind is refused and never
converted, a key that is not known is refused, and the error names the path. What is written comes back equal, bit for
bit: arrays travel as {"shape", "dtype", "data"}, the data being base64 of the little-endian bytes in C order.

    text = dumps(verdict)
    verdict == loads(text, Verdict)

The two committed schemas are written by `python -m tellsign.schemas.codec FOLDER`.
"""

from __future__ import annotations

import ast
import base64
import binascii
import inspect
import itertools
import json
import math
import sys
import textwrap
import types
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, overload

import attrs
import cattrs
import numpy as np
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn

from .checks import Check, InvalidValueError, short
from .declaration import Declaration
from .evidence import EVIDENCE_KINDS, Evidence
from .verdict import SCHEMA_VERSION, Verdict

T = TypeVar("T")

PUBLISHED: dict[str, type] = {"verdict.schema.json": Verdict, "declaration.schema.json": Declaration}
"""The committed schemas by file name."""


class CodecError(ValueError):
    """JSON that does not describe a value of the asked class.

    Attributes
    ----------
    problems : tuple of str
        One sentence per problem, each starting with its path ("$.evidence[0].score: ...").
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__(*problems)

    def __str__(self) -> str:
        return "; ".join(self.problems)


class _WrongKindError(TypeError):
    """A JSON value of another kind than asked for."""

    def __init__(self, allowed: str, got: object) -> None:
        super().__init__(f"takes {allowed}, got {short(got)}")


def to_json(value: object) -> Any:
    """The value as dicts, lists, strings and numbers, ready for `json.dumps`.

    Parameters
    ----------
    value : object
        Any value of the vocabulary. Evidence carries its `kind`.
    """
    return _CONVERTER.unstructure(value)


@overload
def from_json(obj: object, cls: type[T]) -> T: ...
@overload
def from_json(obj: object, cls: Any) -> Any: ...
def from_json(obj: object, cls: Any) -> Any:
    """The value of class `cls` that `obj` describes; the reverse of `to_json`.

    Parameters
    ----------
    obj : object
        Parsed JSON.
    cls : type
        A class of the vocabulary, or the union `Evidence`.

    Raises
    ------
    CodecError
        Naming the path of every problem found.
    """
    try:
        return _CONVERTER.structure(obj, cls)
    except RecursionError:
        raise CodecError("$: nested too deeply") from None
    except (
        Exception
    ) as error:  # cattrs raises groups, leaves raise whatever they raise: all of it means "not this JSON"
        raise CodecError(*_problems(error, "$")) from None


_outside: ContextVar[list[Any] | None] = ContextVar("tellsign_codec_outside", default=None)
"""Where arrays and bytes go, or come from, that travel beside the JSON; None where they are inside it as base64."""


def to_parts(value: object) -> tuple[Any, list[memoryview]]:
    """`to_json` with the data of arrays, and bytes, raw and beside it: for pipes, which carry bytes as they are.

    Returns
    -------
    obj
        As `to_json`, but in place of each base64 text stands the data's index.
    blobs : list of memoryview
        The data, little-endian and in C order; nothing is copied that need not be.
    """
    blobs: list[Any] = []
    token = _outside.set(blobs)
    try:
        return to_json(value), blobs
    finally:
        _outside.reset(token)


def from_parts(obj: object, blobs: Sequence[bytes | bytearray | memoryview], cls: Any) -> Any:
    """The reverse of `to_parts`, as strict as `from_json`.

    Raises
    ------
    CodecError
        Naming the path of every problem found.
    """
    token = _outside.set(list(blobs))
    try:
        return from_json(obj, cls)
    finally:
        _outside.reset(token)


def dumps(value: object, *, indent: int | None = None) -> str:
    """The value as a JSON text (ASCII; one line unless `indent`)."""
    return json.dumps(to_json(value), allow_nan=False, indent=indent)


@overload
def loads(text: str | bytes, cls: type[T]) -> T: ...
@overload
def loads(text: str | bytes, cls: Any) -> Any: ...
def loads(text: str | bytes, cls: Any) -> Any:
    """The value of class `cls` that a JSON text describes; the reverse of `dumps`.

    Raises
    ------
    CodecError
        When the text is no JSON or describes something else; NaN and Infinity are no JSON.
    """
    try:
        obj = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise CodecError("$: nested too deeply") from None
    except ValueError as error:
        raise CodecError(f"$: no JSON: {error}") from error
    return from_json(obj, cls)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")


def _problems(error: BaseException, path: str) -> list[str]:
    """The leaves of cattrs' error groups, each with the path that the notes give."""
    if isinstance(error, ClassValidationError):
        grouped, rest = error.group_exceptions()
        found = [p for e, note in grouped for p in _problems(e, f"{path}.{note.name}")]
        return found + [p for e in rest for p in _problems(e, path)]
    if isinstance(error, IterableValidationError):
        items, rest = error.group_exceptions()
        found = [p for e, note in items for p in _problems(e, f"{path}[{note.index!r}]")]
        return found + [p for e in rest for p in _problems(e, path)]
    if isinstance(error, InvalidValueError):
        return [f"{path}.{error.field}: {error}"]
    if isinstance(error, ForbiddenExtraKeysError):
        return [f"{path}.{key}: is not a field of {error.cl.__name__}" for key in sorted(error.extra_fields)]
    if isinstance(error, KeyError):
        return [f"{path}: is missing"]
    return [f"{path}: {error}"]


def _only(kinds: type | types.UnionType, words: str) -> Callable[[Any, Any], Any]:
    """A hook that takes values of `kinds` as they are and refuses the rest (and bools, unless asked for)."""

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise _WrongKindError(words, value)
        return value

    return hook


def _text(value: Any, cls: Any) -> Any:
    """A string, or the member of a `StrEnum`: those are subclasses of str, and cattrs brings them here too."""
    if not issubclass(cls, Enum):
        allowed, good = "a string", isinstance(value, str)
    else:
        allowed = f"one of {[m.value for m in cls]}"
        good = isinstance(value, str) and value in cls._value2member_map_
    if not good:
        raise _WrongKindError(allowed, value)
    return cls(value)


def _bytes(value: Any, _: Any = None) -> bytes:
    outside = _outside.get()
    if outside is not None:
        if type(value) is not int or not 0 <= value < len(outside):
            raise _WrongKindError(f"the index of one of {len(outside)} blobs", value)
        return bytes(outside[value])
    if not isinstance(value, str):
        raise _WrongKindError("base64 text", value)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _WrongKindError(f"base64 text ({error})", value) from None


def _is_array(cls: Any) -> bool:
    return cls is np.ndarray or get_origin(cls) is np.ndarray


def _dtype_of(cls: Any) -> np.dtype[Any]:
    """The dtype of an `NDArray[...]` annotation."""
    scalar: type[np.generic] = get_args(get_args(cls)[1])[0]
    return np.dtype(scalar)


def _array_to_json(value: np.ndarray[Any, Any]) -> dict[str, Any]:
    little = value.astype(value.dtype.newbyteorder("<"), order="C", copy=False)
    return {
        "shape": list(value.shape),
        "dtype": value.dtype.name,
        "data": _bytes_to_json(little.reshape(-1).view(np.uint8).data),
    }


def _bytes_to_json(value: Any) -> Any:
    outside = _outside.get()
    if outside is None:
        return base64.b64encode(value).decode("ascii")
    outside.append(memoryview(value))
    return len(outside) - 1


def _array_from_json(value: Any, cls: Any) -> np.ndarray[Any, Any]:
    dtype = _dtype_of(cls)
    if not isinstance(value, dict) or set(value) != {"shape", "dtype", "data"}:
        raise _WrongKindError('an object of "shape", "dtype" and "data"', value)
    if value["dtype"] != dtype.name:
        raise _WrongKindError(f"an array whose dtype is {dtype.name}", value["dtype"])
    shape = value["shape"]
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise _WrongKindError("an array whose shape is a list of integers of at least 0", shape)
    data = _bytes(value["data"])
    want = math.prod(shape) * dtype.itemsize
    if len(data) != want:
        raise _WrongKindError(f"an array of shape {shape}, that is {want} bytes of data", len(data))
    return np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=False)


def _is_tuple(cls: Any) -> bool:
    return get_origin(cls) is tuple


def _tuple_hook(cls: Any) -> Callable[[Any, Any], Any]:
    items: Any = types.GenericAlias(list, get_args(cls)[:1])

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, list):  # a string is iterable too
            raise _WrongKindError("a list", value)
        return tuple(_CONVERTER.structure(value, items))

    return hook


def _is_dict(cls: Any) -> bool:
    return get_origin(cls) is dict


def _dict_hook(cls: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    inner = cattrs.gen.make_mapping_structure_fn(cls, converter)

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise _WrongKindError("an object", value)
        return inner(value, cls)

    return hook


def _class_hook(cls: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    attrs.resolve_types(cls)
    inner = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)
    kind = cls.kind if cls in EVIDENCE_KINDS.values() else None

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise _WrongKindError(f"an object ({cls.__name__})", value)
        if kind is not None:
            if value.get("kind") != kind:
                raise _WrongKindError(f'an object whose "kind" is {kind!r}', value.get("kind"))
            value = {k: v for k, v in value.items() if k != "kind"}
        if cls is Verdict:
            _check_version(value.get("schema_version", SCHEMA_VERSION))
        return inner(value, cls)

    return hook


def _check_version(version: object) -> None:
    """Refuse another major version before its fields are looked at: their meaning may have changed."""
    major = SCHEMA_VERSION.split(".")[0]
    if not isinstance(version, str) or version.split(".")[0] != major:
        raise _WrongKindError(f"a verdict of schema version {major}.x", version)


def _class_to_json(cls: Any, converter: cattrs.Converter) -> Callable[[Any], Any]:
    attrs.resolve_types(cls)
    inner = make_dict_unstructure_fn(cls, converter)
    if cls not in EVIDENCE_KINDS.values():
        return inner
    return lambda value: {"kind": cls.kind, **inner(value)}


def _evidence(value: Any, _: Any) -> Any:
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in EVIDENCE_KINDS:
        got = kind if isinstance(value, dict) else value
        raise _WrongKindError(f'an object whose "kind" is one of {list(EVIDENCE_KINDS)}', got)
    return _CONVERTER.structure(value, EVIDENCE_KINDS[kind])


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook_factory(attrs.has, _class_hook)
    converter.register_unstructure_hook_factory(attrs.has, _class_to_json)
    converter.register_unstructure_hook(Enum, lambda value: value.value)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(int, _only(int, "an integer"))
    converter.register_structure_hook(float, _only(int | float, "a number"))
    converter.register_structure_hook(bool, _only(bool, "true or false"))
    converter.register_structure_hook(bytes, _bytes)
    converter.register_unstructure_hook(bytes, _bytes_to_json)
    converter.register_structure_hook_func(_is_array, _array_from_json)
    converter.register_unstructure_hook_func(_is_array, _array_to_json)
    converter.register_structure_hook_factory(_is_tuple, _tuple_hook)
    converter.register_unstructure_hook_func(_is_tuple, lambda value: [converter.unstructure(v) for v in value])
    converter.register_structure_hook_factory(_is_dict, _dict_hook)
    converter.register_structure_hook_func(lambda cls: cls == Evidence, _evidence)
    return converter


_CONVERTER = _make_converter()


def json_schema(cls: Any) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `to_json` writes for `cls`, generated from the class.

    Types come from the annotations, limits from the validators, descriptions from the docstrings.

    Parameters
    ----------
    cls : type
        A class of the vocabulary, or the union `Evidence`.
    """
    definitions: dict[str, Any] = {}
    root = _schema(cls, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": getattr(cls, "__name__", "Evidence"),
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def _schema(cls: Any, definitions: dict[str, Any], check: Check | None = None) -> dict[str, Any]:
    """The schema of one annotation; `check` adds the limits of the field's validator."""
    extra = dict(check.schema) if check else {}
    if cls == Evidence:
        return {"oneOf": [_schema(c, definitions) for c in EVIDENCE_KINDS.values()]}
    if get_origin(cls) in (Union, types.UnionType):
        real = [a for a in get_args(cls) if a is not type(None)]
        return {"anyOf": [_schema(a, definitions, check) for a in real] + [{"type": "null"}]}
    if isinstance(cls, type) and issubclass(cls, Enum):
        return {"type": "string", "enum": [m.value for m in cls]}
    if attrs.has(cls):
        if cls.__name__ not in definitions:
            definitions[cls.__name__] = {}  # first, so that a class may refer to itself
            definitions[cls.__name__] = _class_schema(cls, definitions)
        return {"$ref": f"#/$defs/{cls.__name__}"}
    if _is_array(cls):
        shape: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": 0}}
        if "prefixItems" in extra:
            shape = {"type": "array", **extra, "items": False, "minItems": len(extra["prefixItems"])}  # type: ignore[arg-type]
        properties = {
            "shape": shape,
            "dtype": {"const": _dtype_of(cls).name},
            "data": {"type": "string", "contentEncoding": "base64"},
        }
        return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    if _is_tuple(cls):
        return {"type": "array", "items": _schema(get_args(cls)[0], definitions)} | extra
    if _is_dict(cls):
        return {"type": "object", "additionalProperties": _schema(get_args(cls)[1], definitions)}
    if cls is bytes:
        return {"type": "string", "contentEncoding": "base64"}
    names = {str: "string", int: "integer", float: "number", bool: "boolean"}
    return {"type": names[cls]} | extra


def _class_schema(cls: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    attrs.resolve_types(cls)
    told = _field_docs(cls)
    properties: dict[str, Any] = {}
    required = []
    if cls in EVIDENCE_KINDS.values():
        properties["kind"] = {"const": cls.kind}
        required.append("kind")
    for field in attrs.fields(cls):
        check = field.validator if isinstance(field.validator, Check) else None
        properties[field.name] = _schema(field.type, definitions, check)
        if field.name in told:
            properties[field.name]["description"] = told[field.name]
        if field.default is attrs.NOTHING:
            required.append(field.name)
        elif not isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]
            properties[field.name]["default"] = to_json(field.default)
    return {
        "description": inspect.cleandoc(cls.__doc__ or ""),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _field_docs(cls: type) -> dict[str, str]:
    """The string that stands below each field in the source of `cls` and its bases."""
    told = {}
    for base in reversed([c for c in cls.__mro__ if attrs.has(c)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        statements = body.body if isinstance(body, ast.ClassDef) else []
        for field, doc in itertools.pairwise(statements):
            named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if named and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
                told[field.target.id] = inspect.cleandoc(str(doc.value.value))  # type: ignore[attr-defined]
    return told


def schema_text(cls: Any) -> str:
    """`json_schema(cls)` as the text that is committed."""
    return json.dumps(json_schema(cls), indent=2) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tellsign.schemas.codec FOLDER")
    for file_name, published in PUBLISHED.items():
        (Path(sys.argv[1]) / file_name).write_text(schema_text(published), encoding="utf-8")
