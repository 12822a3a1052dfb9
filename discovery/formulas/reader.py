"""Candidate source into a formula, where it is straight-line arithmetic over whole tensors and batch statistics.

Read from the text: nothing is run. Helper functions are written out in place. What is not understood is refused, never
guessed; what is understood is compared with the candidate by numbers before anybody sees it.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable

from discovery.formulas.tree import FUNCTIONS, MAX_SIZE, Expr, Formula, FormulaError, call, number, symbol
from sandbox.arguments import with_defaults
from sandbox.contract import Contract
from sandbox.syntax import parse

_MAX_DEPTH = 8  # of helpers in helpers
_OPERATORS = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow"}
_COMPARISONS = {ast.Gt: "gt", ast.GtE: "ge", ast.Lt: "lt", ast.LtE: "le"}
_SPELLINGS = {
    "absolute": "abs", "negative": "neg", "neg": "neg", "arctan": "atan", "subtract": "sub", "multiply": "mul",
    "divide": "div", "true_divide": "div", "maximum": "max", "minimum": "min", "fmax": "max", "fmin": "min",
    "expit": "sigmoid", "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le",
    "logical_and": "and", "logical_or": "or", "logical_not": "not",
    "add": "add", "sub": "sub", "mul": "mul", "div": "div", "pow": "pow", "gt": "gt", "ge": "ge", "lt": "lt", "le": "le",
    **{name: name for name in FUNCTIONS},
}  # fmt: skip
_ARITY = {"neg": 1, "not": 1, **dict.fromkeys(FUNCTIONS, 1)}
_SAME = frozenset(["clone", "contiguous", "double", "float", "to", "type_as", "real", "positive"])
_CONSTANTS = {"pi": "pi", "e": "e"}
_LIKE = {"zeros_like": 0.0, "ones_like": 1.0}
_BATCH = frozenset(["mean", "sum", "std", "var", "std_0", "var_0"])


def read_formula(source: str, contract: Contract) -> Formula:
    """The formula of a candidate that the gate has accepted.

    Raises:
        FormulaError: the source branches, loops, indexes, sorts, or uses a function that is not known here.
    """
    try:
        return _read(parse(source), contract)
    except RecursionError:
        raise FormulaError("it is nested too deeply") from None


def _read(module: ast.Module, contract: Contract) -> Formula:
    functions = {n.name: n for n in module.body if isinstance(n, ast.FunctionDef)}
    entry = functions.get(contract.function)
    if entry is None:
        raise FormulaError(f"there is no function {contract.function}")
    reader = _Reader(functions, _used_names(module))
    for statement in module.body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
            reader.assign(_targets(statement), statement.value, constant=True)
    reader.shared = dict(reader.names)
    known = {i.name for i in contract.inputs}
    arguments = {argument.arg: default for argument, default in with_defaults(entry.args)}
    inputs = tuple(i.name for i in contract.inputs if i.name in arguments)
    for argument, default in arguments.items():
        if default is not None and argument not in known:
            reader.assign([ast.Name(argument)], default, constant=True)
    truths = {t.name for t in contract.tensors if t.dtype == "bool"}
    for name in inputs:
        reader.names[name] = Expr("holds", (symbol(name),)) if name in truths else symbol(name)
    result = reader.body(entry.body)
    return _pruned(reader.definitions, result, inputs, reader.constants)


def _used_names(module: ast.Module) -> set[str]:
    return {n.id for n in ast.walk(module) if isinstance(n, ast.Name)} | {
        n.arg for n in ast.walk(module) if isinstance(n, ast.arg)
    }


def _targets(node: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def _pruned(
    definitions: list[tuple[str, Expr]], result: Expr, inputs: tuple[str, ...], constants: list[str]
) -> Formula:
    """Only what the loss depends on."""
    needed, kept = _symbols(result), []
    for name, expression in reversed(definitions):
        if name in needed:
            kept.append((name, expression))
            needed |= _symbols(expression)
    total = result.size + sum(e.size for _, e in kept)
    if total > 2 * MAX_SIZE:
        raise FormulaError(f"it has {total} operations")
    named = {name for name, _ in kept}
    return Formula(tuple(reversed(kept)), result, inputs, tuple(c for c in constants if c in named))


def _symbols(expression: Expr) -> set[str]:
    if expression.op == "symbol":
        return {expression.name}
    return {name for a in expression.args for name in _symbols(a)}


def _is_population(keywords: dict[str, ast.expr]) -> bool:
    """Whether a variance is asked for that divides by the batch size."""
    given = {(k, ast.unparse(v)) for k, v in keywords.items()}
    return bool(given & {("unbiased", "False"), ("correction", "0")})


class _Reader:
    """One scope: names bound so far. Helpers get a scope of their own, whose values are written out."""

    def __init__(self, functions: dict[str, ast.FunctionDef], taken: set[str], depth: int = 0) -> None:
        self.functions, self.taken, self.depth = functions, taken, depth
        self.names: dict[str, Expr] = {}
        self.shared: dict[str, Expr] = {}  # what stands at module level, for helpers
        self.definitions: list[tuple[str, Expr]] = []
        self.constants: list[str] = []
        self.detached = False

    def body(self, statements: list[ast.stmt]) -> Expr:
        for statement in statements:
            result = self.statement(statement)
            if result is not None:
                return result
        raise FormulaError("there is no return")

    def statement(self, node: ast.stmt) -> Expr | None:
        """Bind names, or give what is returned."""
        if isinstance(node, ast.Return) and node.value is not None:
            return self.read(node.value)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            self.assign(_targets(node), node.value)
            return None
        if isinstance(node, ast.AugAssign):
            operator = _OPERATORS.get(type(node.op))
            if operator is None or not isinstance(node.target, ast.Name):
                raise FormulaError(f"line {node.lineno} changes a value in place")
            self.bind(node.target.id, call(operator, self.name(node.target), self.read(node.value)))
            return None
        if isinstance(node, ast.With):  # the gate lets only no_grad and enable_grad pass
            return self._without_gradient(node)
        if isinstance(node, (ast.Pass, ast.Assert)) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            return None
        what = {ast.If: "branches", ast.For: "loops"}.get(type(node), f"has a {type(node).__name__} statement")
        raise FormulaError(f"line {node.lineno} {what}")

    def _without_gradient(self, node: ast.With) -> Expr | None:
        if "no_grad" not in ast.unparse(node.items[0].context_expr):
            raise FormulaError(f"line {node.lineno} switches gradients on")
        before, self.detached = self.detached, True
        for statement in node.body:
            if (result := self.statement(statement)) is not None:
                return call("detach", result)
        self.detached = before
        return None

    def assign(self, targets: list[ast.expr], value: ast.expr, constant: bool = False) -> None:
        if len(targets) != 1:
            raise FormulaError(f"line {value.lineno} assigns to several names at once")
        target = targets[0]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            read = [self.read(v) for v in value.elts]
            for name, expression in zip(target.elts, read, strict=True):
                if not isinstance(name, ast.Name):
                    raise FormulaError(f"line {value.lineno} assigns to a part of a value")
                self.bind(name.id, expression)
            return
        if not isinstance(target, ast.Name):
            raise FormulaError(f"line {value.lineno} assigns to a part of a value")
        try:
            self.bind(target.id, self.read(value), constant)
        except FormulaError:
            if not constant:
                raise  # a constant that is no number matters only where it is used

    def bind(self, name: str, expression: Expr, constant: bool = False) -> None:
        """Give a value a name of its own, unless it is just another name of something."""
        if self.detached and expression.op != "number":
            expression = call("detach", expression)
        if self.depth or expression.op == "symbol" or expression.is_condition:
            self.names[name] = expression
            return
        unique = name
        count = 1
        while any(unique == n for n, _ in self.definitions) or (count > 1 and unique in self.taken):
            count += 1
            unique = f"{name}_{count}"
        if constant or expression.op == "number":
            self.constants.append(unique)
        self.definitions.append((unique, expression))
        self.names[name] = symbol(unique)

    def read(self, node: ast.expr) -> Expr:
        reading: dict[type, Callable[..., Expr]] = {
            ast.Constant: self._constant,
            ast.Name: self.name,
            ast.BinOp: self._infix,
            ast.UnaryOp: self._unary,
            ast.Compare: self._compare,
            ast.Call: self._call,
            ast.Attribute: self._attribute,
        }
        read = reading.get(type(node))
        if read is None:
            raise FormulaError(f"line {node.lineno} has a {type(node).__name__} expression")
        return read(node)

    def _constant(self, node: ast.Constant) -> Expr:
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            raise FormulaError(f"line {node.lineno} uses {type(node.value).__name__} as a value")
        return number(node.value)

    def name(self, node: ast.Name) -> Expr:
        if node.id not in self.names:
            raise FormulaError(f"the value {node.id} is not a number or tensor")
        return self.names[node.id]

    def _infix(self, node: ast.BinOp) -> Expr:
        left, right = self.read(node.left), self.read(node.right)
        if isinstance(node.op, (ast.BitAnd, ast.BitOr)) and left.is_condition and right.is_condition:
            return call("and" if isinstance(node.op, ast.BitAnd) else "or", left, right)
        if type(node.op) not in _OPERATORS:
            raise FormulaError(f"line {node.lineno} uses the operator {type(node.op).__name__}")
        return call(_OPERATORS[type(node.op)], left, right)

    def _unary(self, node: ast.UnaryOp) -> Expr:
        operand = self.read(node.operand)
        if isinstance(node.op, ast.UAdd):
            return operand
        if isinstance(node.op, ast.Invert) and operand.is_condition:
            return call("not", operand)
        if not isinstance(node.op, ast.USub):
            raise FormulaError(f"line {node.lineno} uses the operator {type(node.op).__name__}")
        return call("neg", operand)

    def _compare(self, node: ast.Compare) -> Expr:
        if len(node.ops) != 1 or type(node.ops[0]) not in _COMPARISONS:
            raise FormulaError(f"line {node.lineno} makes a comparison other than <, <=, >, >=")
        return call(_COMPARISONS[type(node.ops[0])], self.read(node.left), self.read(node.comparators[0]))

    def _attribute(self, node: ast.Attribute) -> Expr:
        if self._is_module(node.value) and node.attr in _CONSTANTS:
            return number(getattr(math, _CONSTANTS[node.attr]))
        raise FormulaError(f"line {node.lineno} reads .{node.attr}")

    def _is_module(self, node: ast.expr) -> bool:
        """Whether this is `torch`, `F`, `torch.nn.functional`, ...: a dotted name that is no value of ours."""
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id not in self.names and node.id not in self.functions

    def _call(self, node: ast.Call) -> Expr:
        if isinstance(node.func, ast.Name):
            return self._by_name(node)
        if not isinstance(node.func, ast.Attribute):
            raise FormulaError(f"line {node.lineno} calls a value")
        owner = [] if self._is_module(node.func.value) else [node.func.value]
        return self._function(node.func.attr, [*owner, *node.args], node)

    def _by_name(self, node: ast.Call) -> Expr:
        assert isinstance(node.func, ast.Name)
        name = node.func.id
        if name in self.functions:
            return self._helper(self.functions[name], node)
        if name == "float" and len(node.args) == 1:
            return self.read(node.args[0])
        if name == "len" and len(node.args) == 1:
            return call("count", self.read(node.args[0]))
        if name in ("max", "min") and len(node.args) == 2 and not node.keywords:
            return call(name, *(self.read(a) for a in node.args))
        return self._function(name, list(node.args), node)  # `from torch.nn.functional import softplus`

    def _helper(self, function: ast.FunctionDef, node: ast.Call) -> Expr:
        if self.depth >= _MAX_DEPTH:
            raise FormulaError(f"the function {function.name} calls itself")
        inner = _Reader(self.functions, self.taken, self.depth + 1)
        arguments = {argument.arg: default for argument, default in with_defaults(function.args)}
        inner.names = dict(self.shared)
        inner.shared = self.shared
        inner.names |= {name: self.read(default) for name, default in arguments.items() if default is not None}
        given = dict(zip(arguments, node.args, strict=False)) | {str(k.arg): k.value for k in node.keywords}
        inner.names |= {name: self.read(value) for name, value in given.items()}
        return inner.body(function.body)

    def _function(self, name: str, args: list[ast.expr], node: ast.Call) -> Expr:
        keywords = {str(k.arg): k.value for k in node.keywords}
        op = _SPELLINGS.get(name)
        special = {
            "clamp": self._clamp, "clip": self._clamp, "clamp_min": self._clamp, "clamp_max": self._clamp,
            "softplus": self._softplus, "leaky_relu": self._leaky, "where": self._where,
        }.get(name)  # fmt: skip
        if special is not None:
            return special(name, args, keywords)
        if name in _SAME and args:
            found = self.read(args[0])
            return call("indicator", found) if found.is_condition else found
        if name == "numel" and len(args) == 1:
            return call("count", self.read(args[0]))
        if name in _LIKE and args:
            return number(_LIKE[name])
        if name in ("tensor", "as_tensor", "full_like") and args:
            return self.read(args[1] if name == "full_like" and len(args) > 1 else args[0])
        if name in ("std", "var") and _is_population(keywords):
            name, op = f"{name}_0", f"{name}_0"
            keywords = {k: v for k, v in keywords.items() if k not in ("unbiased", "correction")}
        if keywords and not (name in _BATCH and set(keywords) <= {"dim", "keepdim"} and self._is_last(keywords, node)):
            raise FormulaError(f"line {node.lineno} calls {name} with {', '.join(keywords)}")
        if name in _BATCH and len(args) == 2 and ast.unparse(args[1]) in ("0", "-1"):
            args = args[:1]
        read = [self.read(a) for a in args]
        if op is not None and len(read) == _ARITY.get(op, 2):
            return call(op, *read)
        return self._derived(name, read, node)

    def _is_last(self, keywords: dict[str, ast.expr], node: ast.Call) -> bool:
        return all(ast.unparse(v) in ("0", "-1", "True", "False") for v in keywords.values())

    def _derived(self, name: str, args: list[Expr], node: ast.Call) -> Expr:
        one, two = number(1), number(2)
        if len(args) == 1:
            x = args[0]
            derived = {
                "expm1": lambda: call("sub", call("exp", x), one),
                "log1p": lambda: call("log", call("add", one, x)),
                "square": lambda: call("pow", x, two),
                "rsqrt": lambda: call("div", one, call("sqrt", x)),
                "reciprocal": lambda: call("div", one, x),
                "softsign": lambda: call("div", x, call("add", one, call("abs", x))),
                "silu": lambda: call("mul", x, call("sigmoid", x)),
                "elu": lambda: call("where", call("gt", x, number(0)), x, call("sub", call("exp", x), one)),
            }
            if name in derived:
                return derived[name]()
        if name == "logaddexp" and len(args) == 2:
            return call("log", call("add", *(call("exp", a) for a in args)))
        if name == "lerp" and len(args) == 3:
            return call("add", args[0], call("mul", args[2], call("sub", args[1], args[0])))
        raise FormulaError(f"line {node.lineno} calls {name}, which has no form here")

    def _clamp(self, name: str, args: list[ast.expr], keywords: dict[str, ast.expr]) -> Expr:
        order = {"clamp_min": ["min"], "clamp_max": ["max"]}.get(name, ["min", "max"])
        bounds = dict(zip(order, args[1:], strict=False)) | keywords
        if not args or not bounds or not set(bounds) <= {"min", "max"}:
            raise FormulaError("a clamp without bounds")
        result = self.read(args[0])
        for bound, op in (("min", "max"), ("max", "min")):  # in torch's order: the upper bound wins
            value = bounds.get(bound)
            if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
                result = call(op, result, self.read(value))
        return result

    def _softplus(self, name: str, args: list[ast.expr], keywords: dict[str, ast.expr]) -> Expr:
        given = dict(zip(("input", "beta", "threshold"), args, strict=False)) | keywords
        x = self.read(given["input"])
        if "beta" not in given:
            return call("softplus", x)
        beta = self.read(given["beta"])
        return call("div", call("softplus", call("mul", beta, x)), beta)

    def _leaky(self, name: str, args: list[ast.expr], keywords: dict[str, ast.expr]) -> Expr:
        given = dict(zip(("input", "negative_slope"), args, strict=False)) | keywords
        x = self.read(given["input"])
        slope = self.read(given["negative_slope"]) if "negative_slope" in given else number(0.01)
        return call("where", call("gt", x, number(0)), x, call("mul", slope, x))

    def _where(self, name: str, args: list[ast.expr], keywords: dict[str, ast.expr]) -> Expr:
        if len(args) != 3 or keywords:
            raise FormulaError("a torch.where with other than three arguments")
        condition = self.read(args[0])
        if not condition.is_condition:
            raise FormulaError("a torch.where whose condition is not a comparison")
        return call("where", condition, self.read(args[1]), self.read(args[2]))
