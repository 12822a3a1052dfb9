"""JSON objects out of a language model's text: raw newlines in strings, comments, other quotes, lost commas, text around.

Every regular expression here is linear (possessive or bounded), and the work of all attempts together is capped: the text
is hostile. The libraries that repair JSON take quadratic time (json-repair: ten seconds for 20,000 braces).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 8
_MAX_ITEMS = 5000
_MAX_WORK = 12  # times the text's length, over all opening braces that are tried
_PER_ATTEMPT = 2000  # characters that one attempt counts for besides those that it reads
_FREE_ATTEMPTS = 500

# a brace before a quoted key, a bare key with its colon, or a comment: not those of formulas (``\frac{a}{b}``)
_START = re.compile(r"\{(?=\s*+(?:[\"'`]|\w{1,60}+\s*+:|//|/\*|#))")
# white space and comments
_SPACE = re.compile(r"(?:\s++|//[^\n]*+|#[^\n]*+|/\*(?:[^*]|\*(?!/))*+\*/)*+")
_END = re.compile(r"\s*+(?:(?:`{3}|~{3})[^\n]{0,40}+\s*+)?\Z")  # nothing follows but the end of a fence
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
_VALUE_END = re.compile(r'"(?=\s*+(?:\}\s*+(?:```|\}|\]|,|\Z)|,\s*+"\w{1,40}"\s*+:))|(?<!\\)"(?=\s*+(?:```\s*+)?\Z)')
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}
_LITERAL_ESCAPES = "\"'\\/`"


class _MalformedError(Exception):
    pass


@dataclass(frozen=True)
class Found:
    """An object, and where it stands in the text."""

    value: dict[str, Any]
    start: int
    end: int


def find_objects(text: str) -> Iterator[Found]:
    """The outermost JSON objects in `text`, in order. Tolerant; what cannot be read as an object is skipped."""
    position, work = 0, _MAX_WORK * len(text) + _FREE_ATTEMPTS * _PER_ATTEMPT
    while work > 0:
        start = _START.search(text, position)
        if start is None:
            return
        found, cost = _object_at(text, start.start())
        work -= cost + _PER_ATTEMPT
        position = start.end() if found is None else found.end
        if found is not None:
            yield found


def _object_at(text: str, start: int) -> tuple[Found | None, int]:
    """Strict JSON first (but raw newlines are fine), then tolerant, then tolerant with unescaped inner quotes.

    Returns the object, and how many characters were read to find it or to fail.
    """
    try:
        value, end = json.JSONDecoder(strict=False, parse_int=_number, parse_float=_number).raw_decode(text, start)
    except json.JSONDecodeError as error:
        cost = len(text) - start if error.msg.startswith("Unterminated") else error.pos - start
    except RecursionError:
        cost = _MAX_ITEMS
    else:
        return Found(value, start, end), end - start
    for inner_quotes in (False, True):
        reader = _Reader(text, inner_quotes)
        try:
            value, end = reader.value(start, 0)
        except _MalformedError:
            cost += reader.reached - start
            continue
        return Found(value, start, end), cost + end - start
    return None, cost


def _number(digits: str) -> float:
    """Numbers are not ours to read exactly, and very long ones would take long."""
    return float(digits[:40]) if _NUMBER.fullmatch(digits[:40]) else 0.0


class _Reader:
    """One tolerant pass; every method returns a value and the position after it, or raises _MalformedError."""

    def __init__(self, text: str, inner_quotes: bool) -> None:
        self.text, self.inner_quotes = text, inner_quotes
        self.items = self.reached = 0

    def skip(self, position: int) -> int:
        match = _SPACE.match(self.text, position)
        end = match.end() if match else position
        self.reached = max(self.reached, end)
        return end

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
            if result and self.ends(position):
                return result, position
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
            if result and self.ends(position):
                return result, position
            item, position = self.value(position, depth + 1)
            result.append(item)
            position = self.separator(position, "]")

    def separator(self, position: int, close: str) -> int:
        """After a comma, or before what closes or goes on without one."""
        position = self.skip(position)
        if self.text.startswith(",", position):
            return position + 1
        if not self.text.startswith((close, '"'), position) and not self.ends(position):
            raise _MalformedError
        return position

    def ends(self, position: int) -> bool:
        """Whether the text ends where something is still open: the last brackets were forgotten."""
        return _END.match(self.text, position) is not None

    def key(self, position: int) -> tuple[str, int]:
        if word := _WORD.match(self.text, position):
            return word.group(), word.end()
        return self.string(position, is_key=True)

    def string(self, position: int, is_key: bool) -> tuple[str, int]:
        if self.inner_quotes and not is_key and self.text.startswith('"', position):
            end = _VALUE_END.search(self.text, position + 1)
            if end is None:
                self.reached = len(self.text)
                raise _MalformedError
            return unescape(self.text[position + 1 : end.start()]), end.end()
        for pattern in _STRINGS:
            match = pattern.match(self.text, position)
            if match:
                return unescape(match.group(1)), match.end()
        self.reached = len(self.text)
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
