"""Does a candidate treat every example by itself, provably from its text?

Such a candidate gives the same losses whether runs with equal scalars are called one by one or back to back in one long
batch, so the oracle may do the latter: one call instead of many. Anything not on the list counts as coupling; that costs
time only.
"""

from __future__ import annotations

import ast

from sandbox.allowlist import names
from sandbox.contract import Contract
from sandbox.syntax import parse

_FUNCTIONS = names("""
    abs absolute add sub subtract mul multiply div divide true_divide neg negative exp exp2 expm1 log log1p log2 log10
    sqrt rsqrt square pow sigmoid tanh sinh cosh asinh atan sin cos relu softplus logsigmoid silu gelu elu celu selu mish
    leaky_relu relu6 hardtanh hardsigmoid hardswish softsign tanhshrink clamp clamp_min clamp_max clip where maximum minimum
    fmax fmin sign reciprocal erf erfc lgamma logaddexp hypot atan2 heaviside lerp nan_to_num detach clone zeros_like
    ones_like full_like float isfinite isnan logical_and logical_or logical_not
""")
_MODULE_PARTS = frozenset({"torch", "nn", "functional", "special", "math", "pi", "e", "inf"})
_MATH = names("exp log log1p log2 sqrt pow tanh")
_BUILTINS = frozenset({"abs", "float", "int", "pow", "range"})
_TYPES = frozenset({"__future__", "typing", "collections.abc"})
_NODES = (
    ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.For,
    ast.If, ast.IfExp, ast.Compare, ast.BoolOp, ast.Expr, ast.Import, ast.ImportFrom,
    ast.alias, ast.BinOp, ast.UnaryOp, ast.Call, ast.keyword,
    ast.Constant, ast.Attribute, ast.Name, ast.expr_context, ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.Pass,
)  # fmt: skip
_NOT = (ast.MatMult, ast.In, ast.NotIn, ast.Is, ast.IsNot)


def is_elementwise(source: str, contract: Contract) -> bool:
    """Whether the source is straight-line elementwise arithmetic. False for anything that does not parse."""
    try:
        tree = parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    return contract.function in functions and all(_allowed(node, functions) for node in ast.walk(tree))


def _allowed(node: ast.AST, functions: set[str]) -> bool:
    if not isinstance(node, _NODES) or isinstance(node, _NOT):
        return False
    if (functions | _BUILTINS) & set(_bound(node)):  # `pow = sum`, `from torch import mean as abs`
        return False
    if isinstance(node, ast.ImportFrom):  # functions are read by the module that they are called on
        return node.module in _TYPES or all(a.name in _MODULE_PARTS | {"Tensor"} for a in node.names)
    if isinstance(node, ast.Attribute):
        return node.attr in _FUNCTIONS or node.attr in _MODULE_PARTS or node.attr == "Tensor"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):  # of a text it is formatting
        return False
    if isinstance(node, ast.Call):
        return _callable(node.func, functions)
    if isinstance(node, ast.For):  # iterating over a tensor walks along the batch
        return isinstance(node.iter, ast.Call) and isinstance(node.iter.func, ast.Name) and node.iter.func.id == "range"
    if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return all(isinstance(t, ast.Name) for t in targets)  # unpacking a tensor splits the batch
    return True


def _bound(node: ast.AST) -> list[str]:
    """Names that a node gives a meaning, but for functions."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [a.asname or a.name.partition(".")[0] for a in node.names]
    if isinstance(node, ast.arg):
        return [node.arg]
    return [node.id] if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) else []


def _callable(function: ast.expr, functions: set[str]) -> bool:
    if isinstance(function, ast.Name):
        return function.id in functions or function.id in _BUILTINS
    if isinstance(function, ast.Attribute):
        is_math = isinstance(function.value, ast.Name) and function.value.id == "math"
        return function.attr in (_MATH if is_math else _FUNCTIONS)
    return False
