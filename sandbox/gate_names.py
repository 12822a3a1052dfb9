"""Who binds which name in a syntax tree, by Python's own rules of scope.

By scope and not by spelling: `def h(open): ...` binds `open` in `h` only, and the built-in would still answer to that name
everywhere else.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

from sandbox.allowlist import BUILTINS, CONTAINER_METHODS, DOTTED, MODULES, TENSOR_TYPES, TYPING, TYPING_MODULES
from sandbox.arguments import with_defaults

_SITE = {"copyright", "credits", "exit", "help", "license", "quit", "reveal_type", "reveal_locals"}
# a module-level name falls back to these until it is bound, so a candidate may not bind them there
FOREIGN_BUILTINS = (frozenset(dir(builtins)) | _SITE) - BUILTINS
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_NO_CHILDREN = frozenset({"ctx", "op", "ops", "id", "attr", "arg", "conversion", "kind", "simple", "type_comment"})
_FIELDS: dict[type[ast.AST], tuple[str, ...]] = {}  # that can hold other nodes; all operators are allowed

Comprehension: TypeAlias = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Kind = Literal["import", "function", "parameter", "value", "unpacked", "item", "changed", "other"]


@dataclass(frozen=True)
class Binding:
    """One place that gives a name its meaning.

    Attributes:
        kind: `value` is an assignment, `unpacked` one to a part of a value, `item` a loop over a value, `changed` an
            augmented assignment, `other` anything else.
        node: where; carries the line.
        value: what is assigned or looped over; the parameter's default; the function.
        scope: where `value` is evaluated.
        target: the dotted name that an import stands for.
    """

    kind: Kind
    node: ast.AST
    scope: Scope
    value: ast.AST | None = None
    target: str | None = None


@dataclass(eq=False)
class Scope:
    """A module, function or comprehension: what it binds, and what encloses it."""

    parent: Scope | None
    function: Function | None = None
    comprehension: bool = False
    bound: dict[str, list[Binding]] = field(default_factory=dict)
    returns: list[ast.expr | None] = field(default_factory=list)

    @property
    def is_module(self) -> bool:
        return self.parent is None


@dataclass(frozen=True)
class Annotation:
    node: ast.expr
    scope: Scope


class Names:
    """All nodes of a module with the scope they are evaluated in, and every binding. Annotations are kept apart."""

    def __init__(self, tree: ast.Module) -> None:
        self.module = Scope(None)
        self.nodes: list[tuple[ast.AST, Scope]] = [(node, self.module) for node in tree.body]
        self.annotations: list[Annotation] = []
        self.scopes = [self.module]
        self.scope_of: dict[Function, Scope] = {}
        self.module_aliases: set[int] = set()  # ids of the nodes of values like torch.nn.functional
        visitors: dict[type[ast.AST], Callable[[Any, Scope], None]] = {
            ast.FunctionDef: self._function, ast.AsyncFunctionDef: self._function, ast.Lambda: self._function,
            ast.Assign: self._assign, ast.AnnAssign: self._annotated, ast.AugAssign: self._augmented,
            ast.NamedExpr: self._walrus, ast.For: self._for, ast.Import: self._import,
            ast.ImportFrom: self._import_from, ast.Return: self._return, ast.Name: self._name,
            ast.ClassDef: self._other, ast.ExceptHandler: self._other,
            **dict.fromkeys(COMPREHENSIONS, self._comprehension),
        }  # fmt: skip
        for node, scope in self.nodes:  # grows while it is read: breadth first, without recursion
            visit = visitors.get(type(node))
            if visit is not None:
                visit(node, scope)
            else:
                self._children(node, scope)
        self._alias_modules()

    def find(self, name: str, scope: Scope) -> Scope | None:
        """The scope whose binding a use of `name` in `scope` means; None if nothing of the source's does."""
        here: Scope | None = scope
        while here is not None:
            if name in here.bound:
                return here
            here = here.parent
        return None

    def bindings(self, name: str, scope: Scope) -> list[Binding]:
        """Every binding that a use of `name` in `scope` may mean; empty if it is a built-in or unknown."""
        found = self.find(name, scope)
        return found.bound[name] if found is not None else []

    @cached_property
    def used_of_module(self) -> frozenset[str]:
        """Names of the module's own that something reads: for a call, a second name, a list, a default."""
        read = ((n, scope) for n, scope in self.nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
        return frozenset(n.id for n, scope in read if self.find(n.id, scope) is self.module)

    def is_builtin(self, node: ast.AST, scope: Scope, name: str) -> bool:
        """Whether `node` is the built-in of that name."""
        return isinstance(node, ast.Name) and node.id == name and self.find(name, scope) is None

    def dotted(self, node: ast.AST, scope: Scope) -> str | None:
        """`F.softplus` -> torch.nn.functional.softplus; None if it does not start at an import."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        found = self.bindings(node.id, scope)
        if not found or found[0].target is None:
            return None
        parts.append(found[0].target)
        return ".".join(reversed(parts))

    def functions(self, node: ast.AST, scope: Scope) -> list[Scope]:
        """The functions of the source that a callee means; empty unless it can mean nothing else."""
        if isinstance(node, ast.Lambda):
            return [self.scope_of[node]]
        found = self.bindings(node.id, scope) if isinstance(node, ast.Name) else []
        made = [b.value for b in found if isinstance(b.value, (ast.FunctionDef, ast.Lambda))]
        certain = all(b.kind in ("function", "value") for b in found) and len(made) == len(found)
        return [self.scope_of[m] for m in made] if certain else []

    # collecting

    def _children(self, node: ast.AST, scope: Scope) -> None:
        append = self.nodes.append
        kind = type(node)
        if kind not in _FIELDS:
            _FIELDS[kind] = tuple(f for f in kind._fields if f not in _NO_CHILDREN)
        for name in _FIELDS[kind]:
            value = getattr(node, name, None)
            if isinstance(value, list):
                for item in value:
                    if isinstance(item, ast.AST):
                        append((item, scope))
            elif isinstance(value, ast.AST):
                append((value, scope))

    def _other(self, node: ast.ClassDef | ast.ExceptHandler, scope: Scope) -> None:
        if node.name is not None:
            self._bind(node.name, scope, Binding("other", node, scope))
        self._children(node, scope)

    def _bind(self, name: str, scope: Scope, binding: Binding) -> None:
        scope.bound.setdefault(name, []).append(binding)

    def _push(self, nodes: Iterable[ast.AST | None], scope: Scope) -> None:
        self.nodes.extend([(node, scope) for node in nodes if node is not None])

    def _function(self, node: Function, scope: Scope) -> None:
        inner = Scope(scope, node)
        self.scope_of[node] = inner
        self.scopes.append(inner)
        rest = [(a, None) for a in (node.args.vararg, node.args.kwarg) if a is not None]
        for argument, default in [*with_defaults(node.args), *rest]:
            self._bind(argument.arg, inner, Binding("parameter", argument, scope, default))
            self._annotate(argument.annotation, scope)
            self._push([default], scope)
        if not isinstance(node, ast.Lambda):
            self._bind(node.name, scope, Binding("function", node, scope, node))
            self._annotate(node.returns, scope)
            self._push([*node.decorator_list, *getattr(node, "type_params", [])], scope)
            self._push(node.body, inner)
        else:
            inner.returns.append(node.body)
            self._push([node.body], inner)

    def _annotate(self, annotation: ast.expr | None, scope: Scope) -> None:
        if annotation is not None:
            self.annotations.append(Annotation(annotation, scope))

    def _comprehension(self, node: Comprehension, scope: Scope) -> None:
        inner = Scope(scope, comprehension=True)
        self.scopes.append(inner)
        for position, generator in enumerate(node.generators):
            # the first is evaluated outside
            outside = scope if position == 0 else inner
            self._push([generator.iter], outside)
            self._target(generator.target, inner, Binding("item", generator.target, outside, generator.iter))
            self._push(generator.ifs, inner)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._push(parts, inner)

    def _target(self, target: ast.expr, scope: Scope, binding: Binding) -> None:
        """Bind a plain name; whatever else is assigned to is looked at as a node, its names with it."""
        if isinstance(target, ast.Name):
            self._bind(target.id, scope, binding)
        elif isinstance(target, (ast.Tuple, ast.List)):
            kind: Kind = "item" if binding.kind == "item" else "unpacked"
            values: list[ast.expr] = []
            if kind == "unpacked" and isinstance(binding.value, (ast.Tuple, ast.List)):
                values = binding.value.elts
            for position, element in enumerate(target.elts):
                if len(values) == len(target.elts) and not any(isinstance(v, ast.Starred) for v in values):
                    one = Binding("value", element, binding.scope, values[position])
                else:
                    one = Binding(kind, element, binding.scope, binding.value)
                self._target(element, scope, one)
        elif isinstance(target, ast.Starred):
            self._target(target.value, scope, Binding("other", target, binding.scope))
        else:
            self._push([target], scope)

    def _assign(self, node: ast.Assign, scope: Scope) -> None:
        self._push([node.value], scope)
        for target in node.targets:
            self._target(target, scope, Binding("value", target, scope, node.value))

    def _annotated(self, node: ast.AnnAssign, scope: Scope) -> None:
        self._annotate(node.annotation, scope)
        self._push([node.value], scope)
        self._target(node.target, scope, Binding("value", node.target, scope, node.value))

    def _augmented(self, node: ast.AugAssign, scope: Scope) -> None:
        self._push([node.value], scope)
        self._target(node.target, scope, Binding("changed", node.target, scope))

    def _walrus(self, node: ast.NamedExpr, scope: Scope) -> None:
        self._push([node.value], scope)
        outside = scope
        while outside.comprehension and outside.parent is not None:
            outside = outside.parent
        self._target(node.target, outside, Binding("value", node.target, scope, node.value))

    def _for(self, node: ast.For, scope: Scope) -> None:
        self._push([node.iter, *node.body, *node.orelse], scope)
        self._target(node.target, scope, Binding("item", node.target, scope, node.iter))

    def _return(self, node: ast.Return, scope: Scope) -> None:
        scope.returns.append(node.value)
        self._push([node.value], scope)

    def _name(self, node: ast.Name, scope: Scope) -> None:
        if not isinstance(node.ctx, ast.Load):  # as in `with ... as name`
            self._bind(node.id, scope, Binding("other", node, scope))

    def _import(self, node: ast.Import, scope: Scope) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            self._bind(name, scope, Binding("import", node, scope, target=alias.name if alias.asname else name))

    def _import_from(self, node: ast.ImportFrom, scope: Scope) -> None:
        if node.module != "__future__":
            for alias in node.names:
                target = f"{'.' * node.level}{node.module or ''}.{alias.name}"
                self._bind(alias.asname or alias.name, scope, Binding("import", node, scope, target=target))

    def _alias_modules(self) -> None:
        """`F = torch.nn.functional` is an import by another name."""
        for scope in self.scopes:
            for name, found in scope.bound.items():
                if len(found) != 1 or found[0].kind != "value" or found[0].value is None:
                    continue
                target = self.dotted(found[0].value, scope)
                if target in MODULES or target in TENSOR_TYPES:
                    self.module_aliases |= chain(found[0].value)
                    scope.bound[name] = [Binding("import", found[0].node, scope, target=target)]


def is_tensor(value: ast.AST | None) -> bool:
    """Whether this gives a tensor if it gives anything with elements: containers and texts know no such operation."""
    if isinstance(value, ast.UnaryOp):
        return not isinstance(value.op, ast.Not)
    if isinstance(value, ast.BinOp):
        return isinstance(value.op, (ast.Sub, ast.Div, ast.Pow, ast.MatMult))
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Attribute)
        and value.func.attr not in CONTAINER_METHODS | {"split", "type"}
    )


def chain(node: ast.AST) -> set[int]:
    """Ids of a dotted name's nodes: the attributes, and the name that they start from."""
    found = {id(node)}
    while isinstance(node, ast.Attribute):
        node = node.value
        found.add(id(node))
    return found


def is_known(dotted: str) -> bool:
    """Whether a dotted name is on the allow-list, for any use."""
    module, _, name = dotted.rpartition(".")
    return dotted in DOTTED or dotted in TENSOR_TYPES or (module in TYPING_MODULES and name in TYPING)
