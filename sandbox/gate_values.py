"""What is evaluated when a candidate is loaded, before it is ever called: module level, defaults, annotations."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sandbox.allowlist import BUILTINS, CONTAINER_METHODS, TENSOR_TYPES, TYPING, TYPING_MODULES
from sandbox.allowlist import names as words
from sandbox.arguments import with_defaults
from sandbox.contract import Contract
from sandbox.gate_hints import nearest
from sandbox.gate_names import Names, Scope, chain
from sandbox.reports import Violation
from sandbox.text import one_line

_PURE = words("""
abs bool dict divmod enumerate float frozenset int len list max min pow range reversed round sorted sum tuple zip
""")
_ITERATORS = words("enumerate reversed zip")
_CONSUMERS = words("all any dict frozenset list sorted sum tuple")  # by their first argument
_NUMBERS = (
    ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.BinOp, ast.UnaryOp, ast.Name, ast.operator, ast.unaryop,
    ast.expr_context, ast.keyword,
)  # fmt: skip
_EXPRESSIONS = (
    *_NUMBERS, ast.BoolOp, ast.boolop, ast.Compare, ast.cmpop, ast.IfExp, ast.Starred, ast.Subscript, ast.Slice,
    ast.ListComp, ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.JoinedStr, ast.FormattedValue, ast.Call,
    ast.Attribute, ast.Lambda,
)  # fmt: skip
_LIMITS_OF_TYPES = frozenset({"torch.finfo", "torch.iinfo"})


def is_constant(value: ast.expr, names: Names, scope: Scope) -> bool:
    """Numbers, strings, names, tuples, lists and dicts of them, arithmetic on them, and math functions of them."""
    for node in ast.walk(value):
        if isinstance(node, ast.Attribute):
            if not _is_fixed(names.dotted(node, scope)):
                return False
        elif isinstance(node, ast.Call):
            known = (names.dotted(node.func, scope) or "").startswith("math.")
            if not known and not names.is_builtin(node.func, scope, "float"):
                return False
        elif not isinstance(node, _NUMBERS):
            return False
    return True


def _is_fixed(dotted: str | None) -> bool:
    """A number or dtype, or the step to one: what cannot be changed or called for an effect."""
    return dotted is not None and dotted.startswith(("math", "torch"))


def module_violations(tree: ast.Module, names: Names, types: Types) -> Iterator[Violation]:
    """Whatever else than imports, constants and functions stands at module level."""
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.Pass)):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            continue
        if isinstance(node, ast.AnnAssign) and node.value is None:
            continue
        value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
        if value is None:
            what = f"`{type(node).__name__}` at module level"
            yield Violation(node.lineno, what, "Only imports, constants and functions stand at module level")
        elif id(value) not in types.alias_roots and id(value) not in names.module_aliases:
            yield from _value_violations(value, names)


def _value_violations(value: ast.expr, names: Names) -> Iterator[Violation]:
    """A module-level value is evaluated on import, and lives on: only plain values, none that remembers its place."""
    pending: list[tuple[ast.AST, bool]] = [(value, False)]  # with whether an iterator is used up where it stands
    while pending:
        node, used_up = pending.pop()
        problem = _problem(node, used_up, names)
        if problem is not None:
            yield Violation(getattr(node, "lineno", value.lineno), *problem)
            return
        if not isinstance(node, ast.Lambda):  # which is not evaluated now
            pending += _parts(node, used_up)


def _problem(node: ast.AST, used_up: bool, names: Names) -> tuple[str, str] | None:
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        pure = name in _PURE and not names.bindings(name, names.module)
        if not (
            pure or method in CONTAINER_METHODS or _is_number_function(names.dotted(node.func, names.module) or "")
        ):
            return "a call at module level", "Make the value inside the function"
        if name in _ITERATORS and not used_up:
            return f"`{name}` at module level remembers its place", "Wrap it in tuple(...)"
    elif isinstance(node, ast.GeneratorExp):
        if not used_up:
            return "a generator at module level remembers its place", "Wrap it in tuple(...)"
    elif isinstance(node, (ast.Set, ast.SetComp)):
        return "a set at module level can be changed", "Use a tuple"
    elif isinstance(node, ast.comprehension):
        if any(isinstance(n, ast.Name) and n.id in _PURE for n in ast.walk(node.target)):
            return "a loop over the name of a built-in", "Pick another name"
    elif not isinstance(node, _EXPRESSIONS):
        return f"`{type(node).__name__}` in a module-level value", "Use constants"
    return None


def _parts(node: ast.AST, used_up: bool) -> list[tuple[ast.AST, bool]]:
    """What a node is made of, and whether an iterator in that place is run to its end at once."""
    if isinstance(node, ast.comprehension):
        return [(node.iter, True), *((i, False) for i in node.ifs)]
    if isinstance(node, ast.Starred):
        return [(node.value, True)]
    uses_up: list[ast.expr] = []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        name, several = node.func.id, len(node.args) > 1
        if name in _CONSUMERS or (name in ("max", "min") and not several):  # of several they give one back
            uses_up = node.args[:1]
        elif name in _ITERATORS and used_up:
            uses_up = node.args
    return [(child, child in uses_up) for child in ast.iter_child_nodes(node)]


def _is_number_function(dotted: str) -> bool:
    return dotted.startswith("math.") or dotted in _LIMITS_OF_TYPES


def entry_violations(tree: ast.Module, names: Names, contract: Contract) -> tuple[list[Violation], tuple[str, ...]]:
    """What is wrong with the contract's function, and the inputs that it takes, in contract order."""
    name = contract.function
    functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    function = functions.get(name)
    found: list[Violation] = []
    if function is None:
        near = nearest(name, functions)
        hint = f" (there is `{one_line(near, 60)}`)" if near else ""
        return [Violation(0, f"no function `{name}`{hint}", f"Define `{contract.signature()}`")], ()
    arguments = function.args
    named = with_defaults(arguments)
    given = [a.arg for a, _ in named]
    mandatory = {a.arg for a, default in named if default is None}

    def refuse(problem: str, instead: str) -> None:
        found.append(Violation(function.lineno, problem, instead))

    missing = [f"`{n}`" for n in contract.required if n not in given]
    if missing:
        word = "parameter" if len(missing) == 1 else "parameters"
        refuse(f"`{name}` lacks the {word} {', '.join(missing)}", f"Use `{contract.signature()}`")
    known = {i.name for i in contract.inputs}
    optional = ", ".join(contract.optional) or "none"
    for extra in [n for n in given if n not in known and n in mandatory][:3]:
        refuse(
            f"`{name}` has a parameter `{one_line(extra, 60)}` that nobody passes",
            f"Give it a constant default, or remove it (optional inputs: {optional})",
        )
    if arguments.posonlyargs:
        refuse("positional-only parameters", "Arguments are passed by name; drop the `/`")
    if len(names.module.bound[name]) > 1:
        refuse(f"`{name}` is defined more than once", "Keep one")
    return found, tuple(i.name for i in contract.inputs if i.name in given)


class Types:
    """Annotations, types in isinstance, and names for types at module level."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.alias_roots: set[int] = set()

    def aliases(self) -> set[int]:
        """Ids of all nodes that name a type, as in `Pair = Tuple[Tensor, Tensor]`."""
        settled: set[int] = set()
        for found in self.names.module.bound.values():
            value = found[0].value if len(found) == 1 and found[0].kind == "value" else None
            if isinstance(value, (ast.Subscript, ast.BinOp)):
                parts = self.parts(value, self.names.module)
                if parts:
                    self.alias_roots.add(id(value))
                    settled |= parts
        return settled

    def violations(self) -> Iterator[Violation]:
        """Annotations that are anything else than the names of types: they would be evaluated on import."""
        for annotation in self.names.annotations:
            if not self.parts(annotation.node, annotation.scope):
                yield Violation(annotation.node.lineno, "an annotation that is not a type", "Use torch.Tensor or float")

    def parts(self, node: ast.expr, scope: Scope) -> set[int]:
        """Ids of the nodes of a type expression; empty if it is none."""
        pending: list[ast.expr | None] = [node]
        settled: set[int] = set()
        while pending:
            part = pending.pop()
            if part is None:
                continue
            settled |= chain(part)
            if isinstance(part, (ast.Name, ast.Attribute)):
                if not self._is_type(part, scope):
                    return set()
            elif isinstance(part, ast.Subscript):
                pending += [part.value, part.slice]
            elif isinstance(part, (ast.Tuple, ast.List)):
                pending += part.elts
            elif isinstance(part, ast.BinOp) and isinstance(part.op, ast.BitOr):
                pending += [part.left, part.right]
            elif not isinstance(part, ast.Constant) or isinstance(part.value, (bytes, complex)):
                return set()
        return settled

    def _is_type(self, node: ast.Name | ast.Attribute, scope: Scope) -> bool:
        dotted = self.names.dotted(node, scope)
        if dotted is not None:
            module, _, name = dotted.rpartition(".")
            return dotted in TENSOR_TYPES or (module in TYPING_MODULES and name in TYPING)
        if not isinstance(node, ast.Name):
            return False
        found = self.names.bindings(node.id, scope)
        if not found:
            return node.id in BUILTINS
        return id(found[0].value) in self.alias_roots
