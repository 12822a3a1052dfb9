"""What a setting means, given the type that is due: text that people write, read as they mean it.

YAML readers disagree about plain words and numbers (`off`, `none`, `010`, `1:30`), so a reader that guesses before it knows
the type guesses wrong. Here the reader keeps what was written, and the type decides. Values from Python take the same way.
"""

from __future__ import annotations

import math
import types
from typing import Annotated, Any, Union, get_args, get_origin

NULL_WORDS = frozenset(["none", "null"])
TRUE_WORDS = frozenset(["true", "yes", "on"])
FALSE_WORDS = frozenset(["false", "no", "off"])
_EXACT = 2.0**53  # whole numbers up to here are exact as floats


class WrittenInt(int):
    """A whole number that remembers its text, because `1234567890` may be the beginning of an id."""

    text: str

    def __new__(cls, value: int, text: str) -> WrittenInt:
        made = super().__new__(cls, value)
        made.text = text
        return made

    def __getnewargs__(self) -> tuple[int, str]:  # type: ignore[override]
        return int(self), self.text


class WrittenFloat(float):
    """A number that remembers its text, because `12e4567890` may be the beginning of an id."""

    text: str

    def __new__(cls, value: float, text: str) -> WrittenFloat:
        made = super().__new__(cls, value)
        made.text = text
        return made

    def __getnewargs__(self) -> tuple[float, str]:  # type: ignore[override]
        return float(self), self.text


class Ambiguous(str):
    """Text that some YAML readers take for one number and others for another, or for text; fine where text is due.

    Attributes:
        why: where it stands and what it may mean, for the message that refuses it where a number is due.
    """

    why: str

    def __new__(cls, text: str, why: str) -> Ambiguous:
        made = super().__new__(cls, text)
        made.why = why
        return made

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str(self), self.why


def settle(hint: Any, value: Any, words: tuple[str, ...] = ()) -> Any:
    """The value as the type that is due, where what was written can mean that; unchanged where it cannot.

    Args:
        hint: the type that is due: a plain type, a tuple of one, `dict`, a union of those, also inside `Annotated`.
        words: words that have a meaning of their own here, such as ``("auto", "on", "off")``, so that `none` or `off` is no
            null and no false.

    Raises:
        ValueError: an ambiguous number where a number is due, with the reason; a number that is not finite.
    """
    kinds = _kinds(hint)
    if isinstance(value, (list, tuple)):
        inner = next((get_args(k)[0] for k in kinds if get_origin(k) is tuple), Any)
        return type(value)(settle(inner, v) for v in value)
    plain = {k if isinstance(k, type) else get_origin(k) for k in kinds}
    if isinstance(value, str):
        return _text(value, plain, words)
    if isinstance(value, bool):
        word = "on" if value else "off"
        return word if bool not in plain and word in words else value
    if isinstance(value, (int, float)):
        return _number(value, plain)
    return plain_values(value) if isinstance(value, dict) and dict in plain else value


def plain_values(value: Any) -> Any:
    """Values whose types nobody knows, with plain numbers. Raises ValueError: an ambiguous or infinite number, or NaN."""
    if isinstance(value, dict):
        return {k: plain_values(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(v) for v in value]
    if isinstance(value, Ambiguous):
        raise ValueError(value.why)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number(value, {Any})
    return value


def _kinds(hint: Any) -> list[Any]:
    if get_origin(hint) is Annotated:
        return _kinds(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return [k for a in get_args(hint) for k in _kinds(a)]
    return [hint]


def _text(value: str, kinds: set[Any], words: tuple[str, ...]) -> Any:
    lower = value.strip().lower()
    if lower in words:
        return lower
    if type(None) in kinds and lower in NULL_WORDS:
        return None
    if bool in kinds and lower in TRUE_WORDS | FALSE_WORDS:
        return lower in TRUE_WORDS
    if isinstance(value, Ambiguous):
        if kinds & {int, float}:
            raise ValueError(value.why)
        return str(value)
    return value


def _number(value: float, kinds: set[Any]) -> Any:
    if not kinds & {int, float, Any} and str in kinds and isinstance(value, (WrittenInt, WrittenFloat)):
        return value.text
    if isinstance(value, int):
        return int(value)
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    whole = int in kinds and float not in kinds and value.is_integer() and abs(value) <= _EXACT
    return int(value) if whole else float(value)
