"""Evaluator options: frozen dataclasses built from configuration values, strictly."""

from __future__ import annotations

import difflib
import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, field, fields
from typing import Any, ClassVar, Protocol, TypeVar, get_args, get_origin, get_type_hints

from evaluators.written import settle
from sandbox.text import one_line


class OptionsError(ValueError):
    """A setting that a person got wrong: one line that says what and what to do. Shown as it is, exit code 2."""


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


T = TypeVar("T", bound=_Dataclass)
_COMPARED, _LISTED, _LONGEST = 1_000, 100, 200  # names compared with one, names listed, characters of a name
_COMPARED_WELL, _COMPARED_CHARACTERS = 100, 60

_NAMES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "dict": "a section of `key: value` lines",
}


def option(default: Any, doc: str, words: tuple[str, ...] = ()) -> Any:
    """A documented option of a frozen options dataclass; `doc` goes into the configuration reference.

    `words` are those that mean something of their own here, such as ``("auto", "on", "off")``: there `off` is no false
    and `none` no null.
    """
    return field(default=default, metadata={"doc": doc, "words": words})


def options_dict(options: _Dataclass) -> dict[str, Any]:
    """A frozen options dataclass as plain JSON values (tuples become lists)."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(options).items()}


def nearest(name: str, known: list[str]) -> str:
    """`` Did you mean 'x'?`` for the closest known name, or a list of what there is: the first few of very many.

    The time that it takes is bounded, whatever the names are.
    """
    close = closest(name, [k for k in known[:_COMPARED] if len(k) <= _LONGEST], cutoff=0.5)
    listed = ", ".join(sorted(k[:_LONGEST] for k in known[:_COMPARED])[:_LISTED])
    return f"did you mean {close!r}?" if close else f"known: {listed}{', ...' if len(known) > _LISTED else ''}."


def closest(word: str, names: Iterable[str], cutoff: float) -> str | None:
    """The name that is most like a word; None if none is, by difflib's measure.

    Whoever made up the names can make that measure very slow, so a fast one, which never says less, chooses a few.
    """
    fast = difflib.SequenceMatcher()
    fast.set_seq2(word[:_COMPARED_CHARACTERS])

    def at_most(name: str) -> float:
        fast.set_seq1(name)
        return fast.quick_ratio()

    few = heapq.nlargest(_COMPARED_WELL, (name[:_COMPARED_CHARACTERS] for name in names), key=at_most)
    return next(iter(difflib.get_close_matches(word[:_COMPARED_CHARACTERS], few, n=1, cutoff=cutoff)), None)


def parse_options(cls: type[T], given: Mapping[str, Any] | None, owner: str) -> T:
    """Build a frozen options dataclass from configuration values.

    An int is accepted where a float is due, a list where a tuple is due. `owner` names the evaluator in messages.

    Raises:
        OptionsError: an unknown name (the nearest is suggested), a missing one, a wrong type, or the dataclass's own check.
    """
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    values: dict[str, Any] = {}
    for name, value in (given or {}).items():
        if name not in known:
            raise OptionsError(f"{owner} has no option {name!r}; {nearest(name, list(known))}")
        try:
            meant = settle(hints[name], value, known[name].metadata.get("words", ()))
        except ValueError as error:
            raise OptionsError(f"{owner}.{name}: {error}") from None
        values[name] = _coerce(hints[name], meant, f"{owner}.{name}")
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise OptionsError(f"{owner} needs the option {name!r}")
    try:
        return cls(**values)
    except OptionsError:
        raise
    except ValueError as error:  # a dataclass's own __post_init__ check
        raise OptionsError(f"{owner}: {error}") from error


def _coerce(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise OptionsError(f"{where} takes a list, not {value!r}")
        return tuple(_coerce(args[0], v, where) for v in value)
    allowed = args if args and origin is not tuple else (hint,)
    for kind in allowed:
        if kind is type(None) and value is None:
            return None
        if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
    names = " or ".join("null" if k is type(None) else _NAMES.get(k.__name__, k.__name__) for k in allowed)
    hint = "; quote it" if str in allowed and isinstance(value, (int, float)) else ""
    raise OptionsError(f"{where} takes {names}, not {_shown(value)}{hint}")


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else one_line(repr(value), 80)


def check_grid(name: str, values: Sequence[float]) -> None:
    """Raises ValueError unless a grid has a value, and its values are positive and rise."""
    if not values:
        raise ValueError(f"{name} is empty; at least one value is needed")
    if any(v <= 0 for v in values):
        raise ValueError(f"{name} must be positive, not {min(values):g}")
    if any(b <= a for a, b in itertools.pairwise(values)):
        rising = ", ".join(f"{v:g}" for v in sorted(set(values)))
        raise ValueError(f"{name} must rise, each value once: {rising}")
