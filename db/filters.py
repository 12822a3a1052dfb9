"""A small language to filter candidates with: ``frontier > 0.5 and not (kl >= 3 or origin == "known")``.

    expression:  comparison, not expression, expression and expression, expression or expression, (expression)
    comparison:  NAME OPERATOR VALUE or VALUE OPERATOR NAME, with < <= > >= == !=
    VALUE:       a number, or a text in quotes

`not` binds more tightly than `and`, and `and` more tightly than `or`. What the names are is known to `db.selection`, which
makes SQL of the result. Nothing of an expression is ever run.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, cast

from db.errors import ArchiveError
from sandbox.text import one_line

Operator = Literal["<", "<=", ">", ">=", "==", "!="]

MAX_LENGTH = 1_000  # characters of an expression
MAX_COMPARISONS = 20  # each may look up a metric of every candidate
MAX_DEPTH = 20  # parentheses and `not`s within each other
_TURNED: dict[str, Operator] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_WORDS = ("and", "or", "not")
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<name>[^\W\d][\w./-]*)
    | (?P<text>"[^"]*"|'[^']*')
    | (?P<operator><=|>=|==|!=|<|>)
    | (?P<bracket>[()])
    | (?P<end>$)
    )""",
    re.VERBOSE,
)
_MISTAKES = {"=": "write == to compare", "&": "write and", "|": "write or", "!": "write not, or != between two values"}


class FilterError(ArchiveError):
    """An expression or a name that cannot be understood: one line with the place, in characters from 1, and what to do."""

    def __init__(self, problem: str, at: int | None = None) -> None:
        super().__init__(problem if at is None else f"the filter cannot be understood at character {at + 1}: {problem}")


@dataclass(frozen=True)
class Comparison:
    """`name operator value`; `at` is where the name stands in the expression, from 0."""

    name: str
    operator: Operator
    value: float | str
    at: int


@dataclass(frozen=True)
class Both:
    """All of the parts hold."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class Either:
    """One of the parts holds at least."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class Negation:
    """The part does not hold."""

    part: Expression


Expression = Comparison | Both | Either | Negation


def parse(text: str) -> Expression:
    """Understand an expression. Raises FilterError: it is too long, nested too deeply, or malformed."""
    if len(text) > MAX_LENGTH:
        raise FilterError(f"the filter has {len(text)} characters, and may have {MAX_LENGTH}")
    return _Parser(text).whole()


def comparisons(expression: Expression) -> list[Comparison]:
    """All comparisons of an expression, from left to right."""
    if isinstance(expression, Comparison):
        return [expression]
    parts = (expression.part,) if isinstance(expression, Negation) else expression.parts
    return [c for part in parts for c in comparisons(part)]


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int

    def is_word(self, word: str) -> bool:
        return self.kind == "name" and self.text.lower() == word


def _tokens(text: str) -> list[_Token]:
    found, position = [], 0
    while True:
        match = _TOKEN.match(text, position)
        if match is None:
            at = position + len(text[position:]) - len(text[position:].lstrip())
            wrong = text[at]
            if wrong in "\"'":
                raise FilterError("a quotation mark is not closed", at)
            hint = _MISTAKES.get(wrong, "known: names, numbers, texts in quotes, < <= > >= == != ( ) and or not")
            raise FilterError(f"{one_line(wrong, 4) or 'a control character'!r} is no part of it; {hint}", at)
        kind = str(match.lastgroup)
        found.append(_Token(kind, match[kind], match.start(kind)))
        if kind == "end":
            return found
        position = match.end()


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0
        self._compared = 0

    def whole(self) -> Expression:
        expression = self._either()
        rest = self._peek()
        if rest.kind != "end":
            more = "this closes nothing" if rest.text == ")" else "and or or is missing before it"
            raise FilterError(f"{_shown(rest)} is not expected; {more}", rest.at)
        return expression

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._peek()
        self._next += token.kind != "end"
        return token

    def _either(self) -> Expression:
        parts = [self._both()]
        while self._peek().is_word("or"):
            self._take()
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _both(self) -> Expression:
        parts = [self._one()]
        while self._peek().is_word("and"):
            self._take()
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def _one(self) -> Expression:
        token = self._peek()
        negates = token.is_word("not")
        if not negates and token.text != "(":
            return self._comparison()
        self._take()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FilterError(f"it is nested more than {MAX_DEPTH} deep", token.at)
        inner = Negation(self._one()) if negates else self._in_brackets(token)
        self._depth -= 1
        return inner

    def _in_brackets(self, opened: _Token) -> Expression:
        inner = self._either()
        if self._peek().text != ")":
            raise FilterError("this parenthesis is not closed", opened.at)
        self._take()
        return inner

    def _comparison(self) -> Comparison:
        self._compared += 1
        if self._compared > MAX_COMPARISONS:
            raise FilterError(f"it has more than {MAX_COMPARISONS} comparisons", self._peek().at)
        left, operator = self._operand(), self._take()
        if operator.kind != "operator":
            known = "a comparison such as > 0.5 is due"
            raise FilterError(f"{_shown(operator)} is not expected after {_shown(left)}; {known}", operator.at)
        right = self._operand()
        if (left.kind == "name") == (right.kind == "name"):
            hint = "put a text in quotes" if left.kind == "name" else "one of the two is a name"
            raise FilterError(f"{_shown(left)} and {_shown(right)} are compared; {hint}", right.at)
        if left.kind == "name":
            return Comparison(left.text, cast(Operator, operator.text), _value(right), left.at)
        return Comparison(right.text, _TURNED[operator.text], _value(left), right.at)

    def _operand(self) -> _Token:
        token = self._take()
        if token.kind not in ("name", "number", "text") or token.text.lower() in _WORDS:
            raise FilterError(f"{_shown(token)} stands where a name or a value is due", token.at)
        return token


def _value(token: _Token) -> float | str:
    if token.kind == "text":
        return token.text[1:-1]
    number = float(token.text)
    if not math.isfinite(number):
        raise FilterError(f"{_shown(token)} is too large a number", token.at)
    return number


def _shown(token: _Token) -> str:
    return "the end" if token.kind == "end" else repr(one_line(token.text, 40))
