"""Evaluates the LaTeX that formulas are written in, from its text alone: a second opinion on what a reader would read.

Ordinary precedence: a sign or a sum binds least, then products written by a thin space or a dot, then powers. Written
without looking at the writer's trees; it knows the notation only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

_RATIO = r"\log\frac{{\pi_\theta({0} \mid x)}}{{\pi_{{\mathrm{{ref}}}}({0} \mid x)}}"
_POLICY, _REFERENCE = r"\log\pi_\theta({0} \mid x)", r"\log\pi_{{\mathrm{{ref}}}}({0} \mid x)"
_SIDES = {"y_w": "chosen_", "y_l": "rejected_", "y": ""}
_TOKEN = re.compile(
    r"\\begin\{cases\}|\\end\{cases\}|\\text\{if \}|\\text\{otherwise\}|\\operatorname\{\w+\}(?:_0)?|\\mathrm\{[^}]*\}"
    r"|\\mathbb\{1\}"
    r"|\\left[(|\[]|\\right[)|\]]|\\\\|\\,|\\[a-zA-Z]+(?:_(?:\d|\{\w+\}))?|@\w+@|\d+\.?\d*(?:e-?\d+)?|[A-Za-z](?:_\{\w+\})?|\S"
)
Function = Callable[..., Any]
_FUNCTIONS: dict[str, Function] = {
    r"\log": torch.log, r"\exp": torch.exp, r"\sigma": torch.sigmoid, r"\log\sigma": torch.nn.functional.logsigmoid,
    r"\tanh": torch.tanh, r"\sinh": torch.sinh, r"\cosh": torch.cosh, r"\sin": torch.sin, r"\cos": torch.cos,
    r"\arctan": torch.atan, r"\log_2": torch.log2, r"\log_{10}": torch.log10, r"\max": torch.maximum, r"\min": torch.minimum,
    r"\operatorname{relu}": torch.relu, r"\operatorname{softplus}": torch.nn.functional.softplus,
    r"\operatorname{erf}": torch.erf, r"\operatorname{sign}": torch.sign, r"\operatorname{sg}": lambda x: x,
    r"\operatorname{mean}": lambda x: x.mean(-1, keepdim=True), r"\operatorname{sum}": lambda x: x.sum(-1, keepdim=True),
    r"\operatorname{std}_0": lambda x: x.std(-1, keepdim=True, correction=0),
    r"\operatorname{var}_0": lambda x: x.var(-1, keepdim=True, correction=0),
    r"\operatorname{std}": lambda x: x.std(-1, keepdim=True), r"\operatorname{var}": lambda x: x.var(-1, keepdim=True),
}  # fmt: skip


def evaluate_latex(block: str, inputs: Mapping[str, Any], symbols: Mapping[str, Any] | None = None) -> torch.Tensor:
    r"""The value of the last line of an `aligned` block.

    Args:
        inputs: values by contract name; beta and progress stand as `\beta` and `t`.
        symbols: values of further symbols, by their LaTeX.
    """
    body = block.removeprefix("\\begin{aligned}\n").removesuffix("\n\\end{aligned}")
    known: dict[str, Any] = {r"\beta": inputs.get("beta"), "t": inputs.get("progress"), **(symbols or {})}
    known["B"] = torch.tensor(max(v.shape[-1] for v in inputs.values() if v.ndim), dtype=torch.float64)
    for mark, side in _SIDES.items():
        policy, reference = f"policy_{side}logps", f"reference_{side}logps"
        for pattern, name in (
            (_RATIO, f"@ratio_{side}logps@"),
            (_POLICY, f"@{policy}@"),
            (_REFERENCE, f"@{reference}@"),
        ):
            body = body.replace(pattern.format(mark), name)
        if policy in inputs:
            known |= {f"@{policy}@": inputs[policy], f"@{reference}@": inputs[reference]}
            known[f"@ratio_{side}logps@"] = inputs[policy] - inputs[reference]
    for line in body.split(" \\\\\n"):
        name, _, expression = line.partition(" &= ")
        known[name] = _Parser(expression, known).all()
    return known[r"\mathcal{L}"]


class _Parser:
    def __init__(self, text: str, known: Mapping[str, Any]) -> None:
        self.tokens, self.known, self.at = _TOKEN.findall(text), known, 0

    def all(self) -> Any:
        value = self.expression()
        assert self.at == len(self.tokens), self.tokens[self.at :]
        return value

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *expected: str) -> str:
        token = self.next
        assert not expected or token in expected, (token, expected, self.tokens)
        self.at += 1
        return token

    def expression(self) -> Any:
        if self.next == r"\begin{cases}":
            return self.cases()
        negative = self.next == "-" and bool(self.take())
        value = -self.product() if negative else self.product()
        while self.next in ("+", "-"):
            operator = self.take()
            value = value + self.product() if operator == "+" else value - self.product()
        return value

    def product(self) -> Any:
        value = self.power()
        while self.next in (r"\,", r"\cdot", r"\times"):
            self.take()
            value = value * self.power()
        return value

    def power(self) -> Any:
        base = self.atom()
        return base ** self.braced() if self.next == "^" and self.take() else base

    def braced(self) -> Any:
        self.take("{")
        value = self.expression()
        self.take("}")
        return value

    def inside(self, right: str) -> list[Any]:
        values = [self.expression()]
        while self.next == ",":
            self.take()
            values.append(self.expression())
        self.take(right)
        return values

    def atom(self) -> Any:
        token = self.take()
        if re.match(r"\d", token):
            return torch.tensor(float(token), dtype=torch.float64)
        if token == r"\frac":
            return self.braced() / self.braced()
        if token == r"\sqrt":
            return torch.sqrt(self.braced())
        if token == r"\left|":
            return self.inside(r"\right|")[0].abs()
        if token == r"\left(":
            return self.inside(r"\right)")[0]
        if token == r"\mathbb{1}":
            self.take(r"\left[")
            value = self.condition()
            self.take(r"\right]")
            return value.double()
        if token in self.known and not self.next.startswith(r"\left"):
            return self.known[token]
        if token == r"\log" and self.next == r"\sigma":
            token += self.take()
        opening = self.take(r"\left(", r"\left[")
        return _FUNCTIONS[token](*self.inside(r"\right)" if opening == r"\left(" else r"\right]"))

    def cases(self) -> Any:
        self.take(r"\begin{cases}")
        first = self.expression()
        self.take("&")
        self.take(r"\text{if }")
        condition = self.condition()
        self.take(r"\\")
        second = self.expression()
        for expected in ("&", r"\text{otherwise}", r"\end{cases}"):
            self.take(expected)
        return torch.where(condition, first, second)

    def condition(self) -> Any:
        if self.next == r"\neg":
            self.take()
            return ~self.closed()
        if self.next == r"\left(" and self._joins():
            left = self.closed()
            operator = self.take(r"\wedge", r"\vee")
            right = self.closed()
            return left & right if operator == r"\wedge" else left | right
        left = self.expression()
        if self.next not in (">", "<", r"\ge", r"\le"):  # an input that is true or false
            return left.bool()
        operator = self.take(">", "<", r"\ge", r"\le")
        right = self.expression()
        compare = {">": torch.gt, "<": torch.lt, r"\ge": torch.ge, r"\le": torch.le}
        return compare[operator](left, right)

    def closed(self) -> Any:
        self.take(r"\left(")
        value = self.condition()
        self.take(r"\right)")
        return value

    def _joins(self) -> bool:
        """Whether the parenthesis that opens here is followed by a logical operator."""
        depth = 0
        for position in range(self.at, len(self.tokens)):
            depth += self.tokens[position].startswith(r"\left") - self.tokens[position].startswith(r"\right")
            if depth == 0:
                return position + 1 < len(self.tokens) and self.tokens[position + 1] in (r"\wedge", r"\vee")
        return False
