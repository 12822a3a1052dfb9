"""Numeric constants of a candidate made arguments of its functions, each with a name that a person can use.

Lifted are module constants and default arguments (under their names), a name that is bound to one number, and numbers in
arithmetic, comparisons and bounds, named after the value they go into. Left alone are numbers that are part of the formula's
shape: 0, 1, 2 and -1 without a name, whole exponents, dimensions, sizes, indices.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from discovery.exporters.tensors import Analysis, literal
from sandbox.allowlist import names
from sandbox.arguments import with_defaults
from sandbox.contract import Contract
from sandbox.syntax import parse

_SHAPE = (0, 1, 2, -1)
_ROLES = {ast.Mult: "factor", ast.Div: "divisor", ast.Add: "offset", ast.Sub: "offset", ast.Pow: "power"}
_BOUNDS = {"clamp": ("min", "max"), "clip": ("min", "max"), "clamp_min": ("min",), "clamp_max": ("max",)}
_KEYWORDS = names("min max beta alpha negative_slope margin delta value weight eps threshold q other exponent")
_NUMBER_TAKERS = names("""
    clamp clip clamp_min clamp_max softplus leaky_relu elu celu where maximum minimum fmax fmin pow lerp add sub mul div
    huber_loss smooth_l1_loss masked_fill quantile threshold hardtanh softshrink hardshrink max min float
""")


@dataclass(frozen=True)
class Constant:
    """A lifted number. `value` is its source; `learnable` says that gradient reaches it if it is a tensor."""

    name: str
    value: str
    learnable: bool


@dataclass
class _Place:
    """One number in the source that may be lifted, and how."""

    node: ast.expr
    function: str  # that it is in; empty for a module constant
    name: str
    uses: list[ast.expr] = field(default_factory=list)  # nodes that are replaced by the name
    statement: ast.stmt | None = None  # that only binds it, and goes


def lift(tree: ast.Module, contract: Contract, reserved: Iterable[str]) -> tuple[ast.Module, tuple[Constant, ...]]:
    """A copy of the module whose functions take its constants as keyword arguments with the numbers as defaults.

    Args:
        tree: of an accepted candidate without module docstring.
        contract: names the entry function.
        reserved: names that no constant may get.

    Returns:
        The new module, and the constants in the order of the entry function's new arguments.
    """
    tree = parse(ast.unparse(tree))
    lifter = _Lifter(tree, contract, set(reserved))
    return tree, lifter.run()


class _Lifter:
    def __init__(self, tree: ast.Module, contract: Contract, reserved: set[str]) -> None:
        self.tree, self.contract = tree, contract
        self.analysis = Analysis(tree, contract)
        self.functions, self.parent = self.analysis.functions, self.analysis.parent
        every = [n for n in ast.walk(tree) if isinstance(n, (ast.Name, ast.arg))]
        self.reserved = reserved
        self.taken = reserved | {n.id if isinstance(n, ast.Name) else n.arg for n in every}
        self.open = [name for name in self._reached() if not self.analysis.is_value(name)]
        self.inputs = {i.name for i in contract.inputs}

    def run(self) -> tuple[Constant, ...]:
        places = [*self._module_constants(), *self._defaults(), *self._numbers()]
        constants = []
        for place in places:
            nodes = place.uses or [place.node]
            can_learn = self.analysis.learns([(n, self._function_of(n)) for n in nodes])
            constants.append(Constant(place.name, ast.unparse(place.node), can_learn))
        needed = self._needed(places)
        for place in places:
            self._replace(place)
        for function, wanted in needed.items():
            self._add_arguments(function, [c for c in constants if c.name in wanted])
        self._pass_on(needed)
        self._drop_unused_constants()
        ast.fix_missing_locations(self.tree)
        return tuple(constants)

    # what there is

    def _reached(self) -> list[str]:
        """The entry, then helpers in the order they stand in."""
        found, waiting = {self.contract.function}, [self.contract.function]
        while waiting:
            for node in ast.walk(self.functions[waiting.pop()]):
                if isinstance(node, ast.Name) and node.id in self.functions and node.id not in found:
                    found.add(node.id)
                    waiting.append(node.id)
        return [n for n in self.functions if n in found]

    def _function_of(self, node: ast.AST) -> str:
        above: ast.AST | None = node
        while above is not None:
            if isinstance(above, ast.FunctionDef) and self.functions.get(above.name) is above:
                return above.name
            above = self.parent.get(above)
        return ""

    def _module_constants(self) -> Iterator[_Place]:
        for statement in self.tree.body:
            target = _single_target(statement)
            if target is None or not _is_numeric(_value_of(statement)):
                continue
            uses = [n for f in self.functions for n in self.analysis.loads(f, target)]
            usable = uses and all(self._function_of(n) in self.open and self._is_arithmetic(n) for n in uses)
            bound = any(self.analysis.stores(f, target) for f in self.functions)
            if usable and not bound and not target.startswith("_") and target not in self.inputs:
                yield _Place(_value_of(statement), "", self._unique(target, own=True), uses, None)

    def _defaults(self) -> Iterator[_Place]:
        """Arguments of the entry that nobody passes: they have a number as default and a name already."""
        entry = self.functions[self.contract.function]
        if any(isinstance(n, ast.Name) and n.id == entry.name for n in self.parent):
            return  # the source itself may pass them
        for argument, default in with_defaults(entry.args):
            name = argument.arg
            if default is None or literal(default) is None:
                continue
            if name in self.inputs or self.analysis.stores(entry.name, name) != 1:
                continue
            uses = self.analysis.loads(entry.name, name)
            if uses and all(self._is_arithmetic(n) for n in uses):
                _remove_argument(entry.args, argument)
                yield _Place(default, entry.name, self._unique(name, own=True), uses)

    def _numbers(self) -> Iterator[_Place]:
        for function in self.open:
            for node in self._in_order(function):
                value = literal(node)
                if value is None or literal(self.parent[node]) is not None:  # the sign is part of the number
                    continue
                named = self._named(node, function)
                if named is not None:
                    yield named
                elif value not in _SHAPE and self._is_arithmetic(node):
                    yield _Place(node, function, self._unique(self._contextual(node, function)))

    def _in_order(self, function: str) -> Iterator[ast.expr]:
        for statement in self.functions[function].body:
            found = [n for n in ast.walk(statement) if isinstance(n, ast.expr) and hasattr(n, "lineno")]
            yield from sorted(found, key=lambda n: (n.lineno, n.col_offset))

    def _named(self, node: ast.expr, function: str) -> _Place | None:
        """`name = number` at the top of the function, where that is the name's only value."""
        statement = self.parent[node]
        target = _single_target(statement) if isinstance(statement, ast.stmt) else None
        body = self.functions[function].body
        if target is None or statement not in body or self.analysis.stores(function, target) != 1:
            return None
        uses = self.analysis.loads(function, target)
        if len(body) < 2 or not uses or not all(self._is_arithmetic(n) for n in uses):
            return None
        assert isinstance(statement, ast.stmt)
        return _Place(node, function, self._unique(target, own=True), uses, statement)

    def _is_arithmetic(self, node: ast.expr) -> bool:
        """Whether a number here is a quantity, and not a dimension, a size, an index or a whole exponent."""
        above = self.parent[node]
        if isinstance(above, ast.UnaryOp) and isinstance(above.op, (ast.USub, ast.UAdd)):
            return self._is_arithmetic(above)
        if isinstance(above, ast.BinOp):
            whole = isinstance(above.op, ast.Pow) and above.right is node and not isinstance(literal(node), float)
            return type(above.op) in _ROLES and not whole
        if isinstance(above, ast.Compare):
            return True
        if isinstance(above, ast.keyword):
            return above.arg in _KEYWORDS
        if isinstance(above, ast.Call) and node in above.args:
            if self.analysis.called(above) is not None:
                return not isinstance(literal(node), int)
            name = above.func.attr if isinstance(above.func, ast.Attribute) else getattr(above.func, "id", "")
            return name in _NUMBER_TAKERS
        return False

    # names

    def _contextual(self, node: ast.expr, function: str) -> str:
        """After the value that the number goes into and its part there; c0, c1, ... where it goes into the result."""
        statement: ast.AST = node
        while not isinstance(statement, ast.stmt):
            statement = self.parent[statement]
        target = _single_target(statement)
        if target is None and function != self.contract.function:
            target = function
        if target is None:
            count = 0
            while f"c{count}" in self.taken:
                count += 1
            return f"c{count}"
        return f"{target}_{self._role(node)}"

    def _role(self, node: ast.expr) -> str:
        above = self.parent[node]
        if isinstance(above, ast.UnaryOp):
            return self._role(above)
        if isinstance(above, ast.BinOp):
            return _ROLES[type(above.op)]
        if isinstance(above, ast.Compare):
            return "threshold"
        if isinstance(above, ast.keyword):
            return str(above.arg)
        if isinstance(above, ast.Call):
            name = above.func.attr if isinstance(above.func, ast.Attribute) else getattr(above.func, "id", "")
            helper = self.analysis.called(above)
            if helper is not None:
                return self.analysis.parameters(helper)[above.args.index(node)]
            method = isinstance(above.func, ast.Attribute) and not isinstance(above.func.value, ast.Name)
            bounds = _BOUNDS.get(name, ())
            position = above.args.index(node) - (0 if method else 1)
            return bounds[position] if 0 <= position < len(bounds) else "value"
        return "value"

    def _unique(self, name: str, own: bool = False) -> str:
        """`own`: the source has this name for it already."""
        found, count = name, 1
        while (found in self.taken and not (own and count == 1)) or found in self.inputs | self.reserved:
            count += 1
            found = f"{name}_{count}"
        self.taken.add(found)
        return found

    # the rewriting

    def _needed(self, places: list[_Place]) -> dict[str, set[str]]:
        """Constants by function: those it uses, and those that helpers it calls use."""
        needed: dict[str, set[str]] = {f: set() for f in self.open}
        for place in places:
            for use in place.uses or [place.node]:
                needed[self._function_of(use)].add(place.name)
        for _ in self.open:
            for function in self.open:
                for node in ast.walk(self.functions[function]):
                    helper = self.analysis.called(node)
                    if helper in needed:
                        needed[function] |= needed[helper]
        return needed

    def _replace(self, place: _Place) -> None:
        for node in place.uses or [place.node]:
            above, name = self.parent[node], ast.Name(place.name, ast.Load())
            for key, value in ast.iter_fields(above):
                if value is node:
                    setattr(above, key, name)
                elif isinstance(value, list) and node in value:
                    value[value.index(node)] = name
            self.parent[name] = above
        if place.statement is not None:
            self.functions[place.function].body.remove(place.statement)

    def _add_arguments(self, function: str, constants: list[Constant]) -> None:
        arguments = self.functions[function].args
        for constant in constants:
            arguments.kwonlyargs.append(ast.arg(constant.name, ast.Name("float", ast.Load())))
            default = parse(constant.value).body[0]
            assert isinstance(default, ast.Expr), "the text of a number is one expression"
            arguments.kw_defaults.append(default.value)

    def _pass_on(self, needed: dict[str, set[str]]) -> None:
        for function in self.open:
            for node in ast.walk(self.functions[function]):
                helper = self.analysis.called(node)
                if helper in needed:
                    assert isinstance(node, ast.Call)
                    node.keywords += [ast.keyword(n, ast.Name(n, ast.Load())) for n in sorted(needed[helper])]

    def _drop_unused_constants(self) -> None:
        """Module constants that nothing reads any more."""
        while True:
            read = {n.id for n in ast.walk(self.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
            shadowed = {a.arg for f in self.functions.values() for a in f.args.kwonlyargs}
            body = list(self.tree.body)
            for statement in body:
                target = _single_target(statement)
                if target is not None and (target not in read or self._only_as_argument(target, shadowed)):
                    self.tree.body.remove(statement)
            if len(self.tree.body) == len(body):
                return

    def _only_as_argument(self, name: str, arguments: set[str]) -> bool:
        """Whether every read of the name is of an argument that took its place."""
        if name not in arguments:
            return False
        reads = [
            n for n in ast.walk(self.tree) if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load)
        ]
        holders = [f for f in self.functions.values() if name in {a.arg for a in f.args.kwonlyargs}]
        inside = {id(n) for f in holders for statement in f.body for n in ast.walk(statement)}
        return all(id(n) in inside for n in reads)


def _single_target(statement: ast.AST) -> str | None:
    """The one name that an assignment binds."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target: ast.expr | None = statement.targets[0]
    else:
        target = statement.target if isinstance(statement, ast.AnnAssign) and statement.value is not None else None
    return target.id if isinstance(target, ast.Name) else None


def _value_of(statement: ast.stmt) -> ast.expr:
    assert isinstance(statement, (ast.Assign, ast.AnnAssign))
    assert statement.value is not None
    return statement.value


def _is_numeric(value: ast.expr) -> bool:
    """Numbers, arithmetic on them and on other constants, math functions and constants."""
    allowed = (ast.BinOp, ast.UnaryOp, ast.Call, ast.Attribute, ast.Name, ast.operator, ast.unaryop, ast.expr_context)
    return all(isinstance(n, allowed) or literal(n) is not None for n in ast.walk(value))


def _remove_argument(arguments: ast.arguments, argument: ast.arg) -> None:
    if argument in arguments.kwonlyargs:
        position = arguments.kwonlyargs.index(argument)
        del arguments.kwonlyargs[position], arguments.kw_defaults[position]
        return
    position = arguments.args.index(argument)
    del arguments.defaults[position - (len(arguments.args) - len(arguments.defaults))], arguments.args[position]
