"""Expression trees over the inputs of a pair loss, with each operation's value and partial derivatives in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MAX_SIZE = 160  # nodes; counted with repetition, so that sharing cannot hide an exponential


class TreeError(ValueError):
    """A tree that cannot be built or read; the message says why."""


@dataclass(frozen=True)
class Op:
    """One operation: how many arguments, its value, and its partial derivatives given arguments and value."""

    arity: int
    value: Callable[..., Any]
    partials: Callable[..., tuple[Any, ...]]
    source: str  # an infix operator, or a call with {0}, {1} for the arguments


def _sigmoid(x: Any) -> Any:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _softplus(x: Any) -> Any:
    return np.logaddexp(0.0, x)


INFIX = {
    "add": Op(2, np.add, lambda a, b, y: (1.0, 1.0), "+"),
    "sub": Op(2, np.subtract, lambda a, b, y: (1.0, -1.0), "-"),
    "mul": Op(2, np.multiply, lambda a, b, y: (b, a), "*"),
    "div": Op(2, np.divide, lambda a, b, y: (1.0 / b, -y / b), "/"),
    "pow": Op(2, np.power, lambda a, b, y: (b * np.power(a, b - 1.0), 0.0), "**"),
}
CALLS = {
    "exp": Op(1, np.exp, lambda x, y: (y,), "torch.exp({0})"),
    "expm1": Op(1, np.expm1, lambda x, y: (y + 1.0,), "torch.expm1({0})"),
    "log": Op(1, np.log, lambda x, y: (1.0 / x,), "torch.log({0})"),
    "log1p": Op(1, np.log1p, lambda x, y: (1.0 / (1.0 + x),), "torch.log1p({0})"),
    "sqrt": Op(1, np.sqrt, lambda x, y: (0.5 / y,), "torch.sqrt({0})"),
    "square": Op(1, np.square, lambda x, y: (2.0 * x,), "torch.square({0})"),
    "abs": Op(1, np.abs, lambda x, y: (np.sign(x),), "torch.abs({0})"),
    "tanh": Op(1, np.tanh, lambda x, y: (1.0 - y * y,), "torch.tanh({0})"),
    "atan": Op(1, np.arctan, lambda x, y: (1.0 / (1.0 + x * x),), "torch.atan({0})"),
    "sigmoid": Op(1, _sigmoid, lambda x, y: (y * (1.0 - y),), "torch.sigmoid({0})"),
    "relu": Op(1, lambda x: np.maximum(x, 0.0), lambda x, y: ((x > 0) * 1.0,), "torch.relu({0})"),
    "softplus": Op(1, _softplus, lambda x, y: (_sigmoid(x),), "F.softplus({0})"),
    "logsigmoid": Op(1, lambda x: -_softplus(-x), lambda x, y: (_sigmoid(-x),), "F.logsigmoid({0})"),
    "clamp_min": Op(2, np.maximum, lambda x, c, y: ((x >= c) * 1.0, 0.0), "torch.clamp({0}, min={1})"),
    "clamp_max": Op(2, np.minimum, lambda x, c, y: ((x <= c) * 1.0, 0.0), "torch.clamp({0}, max={1})"),
}
# evaluated specially: over the batch axis, and without a derivative
BATCH = {
    "neg": Op(1, np.negative, lambda x, y: (-1.0,), "-{0}"),
    "mean": Op(1, lambda x: x, lambda x, y: (1.0,), "{0}.mean()"),
    "detach": Op(1, lambda x: x, lambda x, y: (0.0,), "{0}.detach()"),
}
OPS: dict[str, Op] = {**INFIX, **CALLS, **BATCH}
_CONSTANT_SECOND = {"pow", "clamp_min", "clamp_max"}
_NEEDS_TENSOR = {*CALLS, "mean", "detach"}


@dataclass(frozen=True)
class Node:
    """A constant (`op` "const"), an input by name ("input"), or an operation on other nodes.

    Attributes:
        size: nodes in the tree, shared ones counted each time.
        tensor: whether it depends on a tensor input (False: a Python float).
        batched: whether it has one value per example (a mean has not).

    Raises:
        TreeError: unknown operation, wrong number of arguments, too large, a non-finite constant, or a tensor function
            of a plain number.
    """

    op: str
    args: tuple[Node, ...] = ()
    value: float = 0.0
    name: str = ""
    size: int = field(init=False, compare=False, repr=False)
    tensor: bool = field(init=False, compare=False, repr=False)
    batched: bool = field(init=False, compare=False, repr=False)
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        leaf = self.op in ("const", "input")
        if not leaf and (self.op not in OPS or OPS[self.op].arity != len(self.args)):
            raise TreeError(f"no operation {self.op} of {len(self.args)} arguments")
        if self.op in _CONSTANT_SECOND and self.args[1].op != "const":
            raise TreeError(f"{self.op} takes a constant")
        if self.op in _NEEDS_TENSOR and not self.args[0].tensor:
            raise TreeError(f"{self.op} of a plain number")
        if not math.isfinite(self.value):
            raise TreeError("a constant that is not finite")
        size = 1 + sum(a.size for a in self.args)
        if size > MAX_SIZE:
            raise TreeError(f"more than {MAX_SIZE} nodes")
        is_tensor = (self.op == "input" and self.name.endswith("logps")) or any(a.tensor for a in self.args)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "tensor", is_tensor)
        own = self.op == "input" and is_tensor
        object.__setattr__(self, "batched", own or (self.op != "mean" and any(a.batched for a in self.args)))
        object.__setattr__(self, "_hash", hash((self.op, self.value, self.name, tuple(a._hash for a in self.args))))

    def __hash__(self) -> int:
        return self._hash

    def walk(self) -> Iterator[Node]:
        """Every node, shared ones each time, arguments before what uses them."""
        for arg in self.args:
            yield from arg.walk()
        yield self


def const(value: float) -> Node:
    """A constant, rounded to four significant digits: what is evaluated is what is written."""
    return Node("const", value=float(f"{value:.4g}"))


def leaf(name: str) -> Node:
    """An input by its contract name."""
    return Node("input", name=name)


def make(op: str, *args: Node | float) -> Node:
    """An operation with plain simplifications: constants folded, neutral elements and double signs dropped."""
    nodes = tuple(a if isinstance(a, Node) else const(a) for a in args)
    values = [a.value if a.op == "const" else None for a in nodes]
    if op == "neg":
        if nodes[0].op == "neg":
            return nodes[0].args[0]
        if values[0] is not None:
            return const(-values[0])
    if op in INFIX:
        if all(v is not None for v in values):
            with np.errstate(all="ignore"):
                return const(float(INFIX[op].value(*values)))
        if (op in ("mul", "div", "pow") and values[1] == 1.0) or (op in ("add", "sub") and values[1] == 0.0):
            return nodes[0]
        if (op == "mul" and values[0] == 1.0) or (op == "add" and values[0] == 0.0):
            return nodes[1]
    return Node(op, nodes)


CHOSEN = make("sub", leaf("policy_chosen_logps"), leaf("reference_chosen_logps"))
REJECTED = make("sub", leaf("policy_rejected_logps"), leaf("reference_rejected_logps"))
MARGIN = make("sub", CHOSEN, REJECTED)
POLICY_MARGIN = make("sub", leaf("policy_chosen_logps"), leaf("policy_rejected_logps"))
REFERENCE_MARGIN = make("sub", leaf("reference_chosen_logps"), leaf("reference_rejected_logps"))
BETA = leaf("beta")
FEATURES = {
    MARGIN: "margin",
    CHOSEN: "chosen_ratio",
    REJECTED: "rejected_ratio",
    POLICY_MARGIN: "policy_margin",
    REFERENCE_MARGIN: "reference_margin",
}
_ORDER = ("policy_chosen_logps", "policy_rejected_logps", "reference_chosen_logps", "reference_rejected_logps")
_BY_COEFFICIENTS = {
    (1, -1, -1, 1): MARGIN,
    (1, 0, -1, 0): CHOSEN,
    (0, 1, 0, -1): REJECTED,
    (1, -1, 0, 0): POLICY_MARGIN,
    (0, 0, 1, -1): REFERENCE_MARGIN,
}


def canonical(node: Node) -> Node:
    """The feature that a sum of log-probs spells, however it is bracketed; the negated one; or the node itself."""
    found = _coefficients(node)
    if found is None:
        return node
    if found in _BY_COEFFICIENTS:
        return _BY_COEFFICIENTS[found]
    negated = tuple(-c for c in found)
    return make("neg", _BY_COEFFICIENTS[negated]) if negated in _BY_COEFFICIENTS else node


def _coefficients(node: Node) -> tuple[int, ...] | None:
    if node.op == "input":
        return tuple(int(node.name == n) for n in _ORDER) if node.name in _ORDER else None
    if node.op not in ("add", "sub", "neg") or node.size > 16:
        return None
    parts = [_coefficients(a) for a in node.args]
    signs = {"add": (1, 1), "sub": (1, -1), "neg": (-1,)}[node.op]
    if any(p is None for p in parts):
        return None
    return tuple(sum(s * p[i] for s, p in zip(signs, parts, strict=True) if p) for i in range(len(_ORDER)))


def subtrees(tree: Node, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Node]]:
    """Every subtree with its path from the root; features count as leaves."""
    yield path, tree
    if tree not in FEATURES:
        for i, arg in enumerate(tree.args):
            yield from subtrees(arg, (*path, i))


def replace(tree: Node, path: tuple[int, ...], new: Node) -> Node:
    """The tree with another subtree at `path`. Raises TreeError if the result cannot be built."""
    if not path:
        return new
    args = list(tree.args)
    args[path[0]] = replace(args[path[0]], path[1:], new)
    return canonical(make(tree.op, *args))
