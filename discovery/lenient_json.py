"""JSON objects out of a language model's text: raw newlines in strings, trailing commas, other quotes, text around them.

Every regular expression here is linear (possessive or bounded), and the number of attempts is capped: the text is hostile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

MAX_ATTEMPTS = 48  # opening braces that are tried
MAX_DEPTH = 8
_MAX_ITEMS = 5000

_START = re.compile(r"\{(?=\s*+[\"'}\w])")
_SPACE = re.compile(r"\s*+")
_NUMBER = re.compile(r"-?\d{1,30}(?:\.\d{1,30})?(?:[eE][-+]?\d{1,4})?")
_WORD = re.compile(r"[A-Za-z_]\w*+")
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_STRINGS = (
    re.compile(r'"""((?:[^"\\]|\\.|"(?!""))*+)"""', re.DOTALL),
    re.compile(r"'''((?:[^'\\]|\\.|'(?!''))*+)'''", re.DOTALL),
    re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL),
    re.compile(r"'((?:[^'\\]|\\.)*+)'", re.DOTALL),
    re.compile(r"`([^`]*+)`"),
)
# a quote that can only end a value: the object closes, or the next key follows
_VALUE_END = re.compile(r'"(?=\s*+(?:\}\s*+(?:```|\}|\]|,|\Z)|,\s*+"\w{1,40}"\s*+:))')
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}
_LITERAL_ESCAPES = "\"'\\/`"


class _MalformedError(Exception):
    pass


def find_objects(text: str) -> Iterator[dict[str, Any]]:
    """The outermost JSON objects in `text`, in order. Tolerant; what cannot be read as an object is skipped."""
    position = 0
    for _ in range(MAX_ATTEMPTS):
        start = _START.search(text, position)
        if start is None:
            return
        found = _object_at(text, start.start())
        if found is None:
            position = start.end()
            continue
        value, position = found
        yield value


def _object_at(text: str, start: int) -> tuple[dict[str, Any], int] | None:
    """Strict JSON first (but raw newlines are fine), then tolerant, then tolerant with unescaped inner quotes."""
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError):
        pass
    else:
        return (value, end) if isinstance(value, dict) else None
    for inner_quotes in (False, True):
        try:
            value, end = _Reader(text, inner_quotes).value(start, 0)
        except _MalformedError:
            continue
        if isinstance(value, dict):
            return value, end
    return None


class _Reader:
    """One tolerant pass; every method returns a value and the position after it, or raises _MalformedError."""

    def __init__(self, text: str, inner_quotes: bool) -> None:
        self.text, self.inner_quotes = text, inner_quotes
        self.items = 0

    def skip(self, position: int) -> int:
        match = _SPACE.match(self.text, position)
        return match.end() if match else position

    def value(self, position: int, depth: int) -> tuple[Any, int]:
        self.items += 1
        if depth > MAX_DEPTH or self.items > _MAX_ITEMS:
            raise _MalformedError
        position = self.skip(position)
        first = self.text[position : position + 1]
        if first == "{":
            return self.dictionary(position + 1, depth)
        if first == "[":
            return self.array(position + 1, depth)
        if first and first in "\"'`":
            return self.string(position, is_key=False)
        if number := _NUMBER.match(self.text, position):
            return float(number.group()), number.end()
        word = _WORD.match(self.text, position)
        if word and word.group() in _WORDS:
            return _WORDS[word.group()], word.end()
        raise _MalformedError

    def dictionary(self, position: int, depth: int) -> tuple[dict[str, Any], int]:
        result: dict[str, Any] = {}
        while True:
            position = self.skip(position)
            if self.text.startswith("}", position):
                return result, position + 1
            key, position = self.key(position)
            position = self.skip(position)
            if not self.text.startswith(":", position):
                raise _MalformedError
            result[key], position = self.value(position + 1, depth + 1)
            position = self.separator(position, "}")

    def array(self, position: int, depth: int) -> tuple[list[Any], int]:
        result: list[Any] = []
        while True:
            position = self.skip(position)
            if self.text.startswith("]", position):
                return result, position + 1
            item, position = self.value(position, depth + 1)
            result.append(item)
            position = self.separator(position, "]")

    def separator(self, position: int, close: str) -> int:
        position = self.skip(position)
        if self.text.startswith(",", position):
            return position + 1
        if not self.text.startswith(close, position):
            raise _MalformedError
        return position

    def key(self, position: int) -> tuple[str, int]:
        if word := _WORD.match(self.text, position):
            return word.group(), word.end()
        return self.string(position, is_key=True)

    def string(self, position: int, is_key: bool) -> tuple[str, int]:
        if self.inner_quotes and not is_key and self.text.startswith('"', position):
            end = _VALUE_END.search(self.text, position + 1)
            if end is None:
                raise _MalformedError
            return unescape(self.text[position + 1 : end.start()]), end.end()
        for pattern in _STRINGS:
            match = pattern.match(self.text, position)
            if match:
                return unescape(match.group(1)), match.end()
        raise _MalformedError


def unescape(text: str) -> str:
    """JSON's backslash escapes; an unknown one (a regular expression, LaTeX) is kept as it stands."""
    plain = _ESCAPE.sub(_unescape_one, text)
    # a surrogate pair written as two \\u escapes is one character
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _unescape_one(match: re.Match[str]) -> str:
    body = match.group(1)
    if len(body) == 5:
        return chr(int(body[1:], 16))
    if body in _ESCAPES:
        return _ESCAPES[body]
    return body if body in _LITERAL_ESCAPES else match.group()
