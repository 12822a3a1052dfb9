"""Candidate source into an expression tree, where it stays within straight-line arithmetic."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import lru_cache

from discovery.expressions.trees import Node, TreeError, canonical, const, leaf, make
from sandbox.arguments import with_defaults
from sandbox.candidate import Candidate
from sandbox.contract import Contract
from sandbox.gate import check_source
from sandbox.syntax import parse

_OPERATORS = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow"}
_PLAIN = "exp expm1 log log1p sqrt square abs tanh atan sigmoid relu softplus logsigmoid mean detach neg"
_UNARY = {name: name for name in _PLAIN.split()} | {"negative": "neg", "arctan": "atan", "absolute": "abs"}
_BINARY = {"add": "add", "sub": "sub", "subtract": "sub", "mul": "mul", "multiply": "mul", "div": "div", "divide": "div",
           "true_divide": "div", "pow": "pow"}  # fmt: skip
_CLAMPS = {"clamp": (None, None), "clip": (None, None), "clamp_min": ("min", None), "clamp_max": ("max", None)}


@lru_cache(maxsize=512)
def read_tree(source: str, contract: Contract) -> Node:
    """The tree of a candidate's source.

    Read are module constants, and in the contract's function assignments to names and one final return, made of
    arithmetic and the functions of `trees.OPS`.

    Raises:
        TreeError: the gate refuses the source, or it uses anything else.
    """
    candidate = Candidate(contract.name, source)
    if not check_source(candidate, contract).accepted:  # also keeps the parser from overflowing on hostile nesting
        raise TreeError("the gate refuses the source")
    module = parse(candidate.source)
    reader = _Reader({})
    for statement in module.body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            reader.statement(statement)
    function = next(n for n in module.body if isinstance(n, ast.FunctionDef) and n.name == contract.function)
    known = {i.name for i in contract.inputs}
    readable = {s.name for s in contract.scalars} | {t.name for t in contract.tensors if not t.optional}
    for argument, default in with_defaults(function.args):
        if argument.arg in readable:  # trees have no other tensors: one that uses them cannot be read
            reader.names[argument.arg] = leaf(argument.arg)
        elif default is not None and argument.arg not in known:
            reader.names[argument.arg] = reader.expression(default)
    for statement in function.body:
        result = reader.statement(statement)
        if result is not None:
            if not result.batched:
                raise TreeError("the result has no value per example")
            return result
    raise TreeError("no return")


class _Reader:
    def __init__(self, names: dict[str, Node]) -> None:
        self.names = names

    def statement(self, node: ast.stmt) -> Node | None:
        """Bind a name, or give the returned tree. Raises TreeError for any other statement."""
        if isinstance(node, ast.Return) and node.value is not None:
            return self.expression(node.value)
        target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        if isinstance(node, (ast.AnnAssign, ast.AugAssign)):
            target = node.target
        if isinstance(target, ast.Name):
            if isinstance(node, ast.AugAssign):
                self.names[target.id] = self._infix(node.op, self._name(target.id), self.expression(node.value))
                return None
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                self.names[target.id] = self.expression(node.value)
                return None
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return None  # a docstring
        raise TreeError(f"a {type(node).__name__} statement")

    def expression(self, node: ast.expr) -> Node:
        reading: dict[type, Callable[..., Node]] = {
            ast.Constant: self._constant,
            ast.Name: lambda n: self._name(n.id),
            ast.BinOp: lambda n: self._infix(n.op, self.expression(n.left), self.expression(n.right)),
            ast.UnaryOp: self._unary,
            ast.Call: self._call,
        }
        read = reading.get(type(node))
        if read is None:
            raise TreeError(f"a {type(node).__name__} expression")
        return canonical(read(node))

    def _constant(self, node: ast.Constant) -> Node:
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)) or abs(node.value) > 1e12:
            raise TreeError("a constant that is not a number of ordinary size")
        return const(float(node.value))

    def _name(self, name: str) -> Node:
        if name not in self.names:
            raise TreeError(f"the name {name}")
        return self.names[name]

    def _infix(self, operator: ast.operator, left: Node, right: Node) -> Node:
        if type(operator) not in _OPERATORS:
            raise TreeError(f"the operator {type(operator).__name__}")
        return make(_OPERATORS[type(operator)], left, right)

    def _unary(self, node: ast.UnaryOp) -> Node:
        if not isinstance(node.op, (ast.USub, ast.UAdd)):
            raise TreeError(f"the operator {type(node.op).__name__}")
        operand = self.expression(node.operand)
        return make("neg", operand) if isinstance(node.op, ast.USub) else operand

    def _call(self, node: ast.Call) -> Node:
        """`torch.f(x)`, `F.f(x)` or `x.f()`."""
        if not isinstance(node.func, ast.Attribute):
            raise TreeError("a call of something else than a torch function")
        name, owner = node.func.attr, node.func.value
        from_module = isinstance(owner, ast.Attribute) or (isinstance(owner, ast.Name) and owner.id not in self.names)
        args = [self.expression(a) for a in ([] if from_module else [owner]) + node.args]
        if name in _CLAMPS:
            return self._clamp(name, args, node.keywords)
        if not node.keywords and name in _UNARY and len(args) == 1:
            return make(_UNARY[name], args[0])
        if not node.keywords and name in _BINARY and len(args) == 2:
            return make(_BINARY[name], *args)
        raise TreeError(f"the function {name} with {len(args)} arguments and {len(node.keywords)} keywords")

    def _clamp(self, name: str, args: list[Node], keywords: list[ast.keyword]) -> Node:
        single = _CLAMPS[name][0]
        order = (single,) if single else ("min", "max")
        bounds = dict(zip(order, args[1:], strict=False))
        bounds |= {str(k.arg): self.expression(k.value) for k in keywords}
        if not args or not bounds or not set(bounds) <= {"min", "max"} or len(args) > 1 + len(order):
            raise TreeError("a clamp without constant bounds")
        result = args[0]
        for bound in ("min", "max"):
            if bound in bounds:
                result = make(f"clamp_{bound}", result, bounds[bound])
        return result
