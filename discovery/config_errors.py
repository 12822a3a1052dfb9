"""What is wrong with a configuration, said in one line."""

from __future__ import annotations

import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from evaluators.options import OptionsError, nearest
from sandbox.text import one_line

MAX_SHOWN = 3

_EXPECTED = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "dict": "a section of `key: value` lines",
    "tuple": "a list",
    "NoneType": "null",
}


class ConfigError(OptionsError):
    """A configuration that cannot be used: one line that says what and what to do. Exit code 2, no traceback."""


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """The first few errors of a validation, joined by semicolons.

    Values of lists and sections are not repeated: they may hold a URL with a password.
    """
    found = [_one(dict(e), model) for e in error.errors(include_url=False)]
    shown = "; ".join(found[:MAX_SHOWN])
    more = len(found) - MAX_SHOWN
    return shown if more <= 0 else f"{shown}; and {more} more"


def expected(annotation: Any) -> str:
    """A type as people say it: ``int | None`` is "a whole number or null"."""
    if get_origin(annotation) is Annotated:
        return expected(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(expected(a) for a in get_args(annotation)))
    kind = get_origin(annotation) or annotation
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _EXPECTED["dict"]
    inner = [a for a in get_args(annotation) if a is not Ellipsis]
    if kind is tuple and inner and model_of(inner[0]):
        return "a list of sections"
    if kind is tuple and inner:
        return f"a list of {expected(inner[0]).removeprefix('a ')}" + ("s" if inner[0] is int else "")
    return _EXPECTED.get(getattr(kind, "__name__", ""), "a value")


def shown(value: Any) -> str:
    """A value as it is repeated in a message."""
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, dict):
        return "a section"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else one_line(repr(value), 60)


def _one(error: dict[str, Any], model: type[BaseModel]) -> str:
    location = [str(part) for part in error["loc"]]
    path = ".".join(location)
    kind, message = error["type"], error["msg"]
    if kind == "extra_forbidden":
        known = _keys(model, location[:-1])
        parent = ".".join(location[:-1])
        return f"unknown key {one_line(path, 80)!r}{f' in {parent}' if parent else ''}; {nearest(location[-1], known)}"
    if kind == "missing":
        return f"{path} is missing ({_meaning(model, location)})"
    if kind == "value_error":
        said = message.removeprefix("Value error, ")
        return f"{path}: {said}, not {shown(error['input'])}" if said.startswith(("takes", "must")) else (
            f"{path}: {said}" if path else said
        )  # fmt: skip
    if kind.endswith(("_type", "_parsing", "_from_float")) or kind in ("model_type", "dict_type"):
        due, given = _expected_at(model, location), error["input"]
        hint = "; quote it" if "text" in due and isinstance(given, (int, float)) else ""
        return f"{path} takes {due}, not {shown(given)}{hint}"
    return f"{path} {message.replace('Input should', 'must').replace('should', 'must', 1)}, not {shown(error['input'])}"


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, itself or in a list; None for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for a in get_args(annotation) if (found := model_of(a))), None)


def _walk(model: type[BaseModel], location: list[str]) -> type[BaseModel] | None:
    here: type[BaseModel] | None = model
    for part in location:
        if part.isdigit():  # an item of a list of sections
            continue
        if here is None or part not in here.model_fields:
            return None
        here = model_of(here.model_fields[part].annotation)
    return here


def _keys(model: type[BaseModel], location: list[str]) -> list[str]:
    here = _walk(model, location)
    return list(here.model_fields) if here else []


def _meaning(model: type[BaseModel], location: list[str]) -> str:
    here = _walk(model, location[:-1])
    text = (here.model_fields[location[-1]].description if here and location[-1] in here.model_fields else None) or ""
    return text.rstrip(".") or "required"


def _expected_at(model: type[BaseModel], location: list[str]) -> str:
    if location[-1].isdigit() and _walk(model, location[:-1]):
        return _EXPECTED["dict"]
    for depth in range(len(location), 0, -1):  # an item of a list has its index as the last part
        here = _walk(model, location[: depth - 1])
        if here and location[depth - 1] in here.model_fields:
            return expected(here.model_fields[location[depth - 1]].annotation)
    return _EXPECTED["dict"]
