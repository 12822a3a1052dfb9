"""Formulas as trees: definitions of intermediate values, then the loss. Evaluated by us, never by running a candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


MAX_SIZE = 200  # operations in one expression: a longer one helps nobody, and helpers written out in place can explode


class FormulaError(ValueError):
    """There is no formula to be had; the message says what stands in the way."""


@dataclass(frozen=True)
class Expr:
    """One node. `op` is ``number`` or ``symbol`` (then `name` holds the digits or the name) or an operation below."""

    op: str
    args: tuple[Expr, ...] = ()
    name: str = ""
    size: int = field(init=False)

    def __post_init__(self) -> None:
        size = 1 + sum(a.size for a in self.args)
        if size > MAX_SIZE:
            raise FormulaError(f"it has more than {MAX_SIZE} operations in one expression")
        object.__setattr__(self, "size", size)

    @property
    def is_condition(self) -> bool:
        return self.op in COMPARISONS or self.op in LOGICAL


@dataclass(frozen=True)
class Formula:
    """`definitions` in order, each over what stands before it, then the loss per example.

    `constants` are the defined names that the author gave a number to.
    """

    definitions: tuple[tuple[str, Expr], ...]
    result: Expr
    inputs: tuple[str, ...]
    constants: tuple[str, ...] = ()


LOGICAL = ("and", "or", "not", "holds")  # "holds" is an input that is true or false
COMPARISONS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
INFIX = ("add", "sub", "mul", "div", "pow")
# one argument each; spelled here as people read them
FUNCTIONS = (
    "exp", "log", "log2", "log10", "sqrt", "abs", "sign", "tanh", "sinh", "cosh", "atan", "sin", "cos", "sigmoid",
    "logsigmoid", "softplus", "relu", "erf", "mean", "sum", "std", "var", "std_0", "var_0", "detach",
)  # fmt: skip


def number(value: float) -> Expr:
    """A constant with the digits that Python writes."""
    return Expr("number", (), repr(value))


def symbol(name: str) -> Expr:
    return Expr("symbol", (), name)


def call(op: str, *args: Expr) -> Expr:
    """An operation; a comparison among its arguments stands for 0 or 1 where a number is due."""
    takes_conditions = op in (*LOGICAL, "indicator")
    if not takes_conditions:
        first = 1 if op == "where" else 0
        args = args[:first] + tuple(Expr("indicator", (a,)) if a.is_condition else a for a in args[first:])
    return Expr(op, args)


def evaluate(formula: Formula, inputs: Mapping[str, Tensor | float]) -> Tensor:
    """The losses, in the dtype of the inputs. Batch statistics are over the last axis, unbiased as torch's are."""
    values: dict[str, Any] = dict(inputs)
    table = _torch_operations()
    for name, expression in formula.definitions:
        values[name] = _value(expression, values, table)
    return _value(formula.result, values, table)  # type: ignore[no-any-return]


def _value(expression: Expr, values: Mapping[str, Any], table: Mapping[str, Callable[..., Any]]) -> Any:
    if expression.op == "number":
        return float(expression.name)
    if expression.op == "symbol":
        return values[expression.name]
    return table[expression.op](*(_value(a, values, table) for a in expression.args))


def _torch_operations() -> Mapping[str, Callable[..., Any]]:
    import operator

    import torch

    def lifted(name: str) -> Callable[[Any], Any]:
        function = getattr(torch, name, None) or getattr(torch.nn.functional, name)
        return lambda x: function(_tensor(x))

    table: dict[str, Callable[..., Any]] = {
        "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "pow": operator.pow,
        "neg": operator.neg, "gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le,
        "and": lambda a, b: _tensor(a).bool() & _tensor(b).bool(),
        "or": lambda a, b: _tensor(a).bool() | _tensor(b).bool(),
        "not": lambda a: ~_tensor(a).bool(),
        "holds": lambda a: _tensor(a).bool(),
        "indicator": lambda c: _tensor(c).double(),
        "where": lambda c, a, b: torch.where(_tensor(c).bool(), _tensor(a), _tensor(b)),
        "max": lambda a, b: torch.maximum(_tensor(a), _tensor(b)),
        "min": lambda a, b: torch.minimum(_tensor(a), _tensor(b)),
        "mean": lambda x: _tensor(x).mean(-1, keepdim=True),
        "sum": lambda x: _tensor(x).sum(-1, keepdim=True),
        "std": lambda x: _tensor(x).std(-1, keepdim=True),
        "var": lambda x: _tensor(x).var(-1, keepdim=True),
        "std_0": lambda x: _tensor(x).std(-1, keepdim=True, correction=0),
        "var_0": lambda x: _tensor(x).var(-1, keepdim=True, correction=0),
        "count": lambda x: float(_tensor(x).shape[-1]),
        "detach": lambda x: x,
    }  # fmt: skip
    return {**{name: lifted(name) for name in FUNCTIONS if name not in table}, **table}


def _tensor(value: Any) -> Tensor:
    import torch

    return value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)
