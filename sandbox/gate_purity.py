"""A loss may change in place only what it has made itself.

Anything else is either an input, which belongs to the caller (an exported loss would overwrite somebody's reference
log-probs), or something that outlives the call: a list at module level or in a default is a memory between calls.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TypeAlias

from sandbox.allowlist import CONTAINER_METHODS, IN_PLACE, VIEWS, names
from sandbox.contract import Contract
from sandbox.gate_names import Binding, Names, Scope, is_tensor
from sandbox.reports import Violation
from sandbox.text import one_line

_NEW = (
    ast.Constant, ast.JoinedStr, ast.BinOp, ast.Compare, ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp,
    ast.SetComp,
)  # fmt: skip
_COPYING = names("abs bool dict float int len list pow round set sorted str")

_Use: TypeAlias = tuple[ast.AST, Scope]


class Purity:
    """Finds what a module changes in place without having made it."""

    def __init__(self, names: Names, contract: Contract) -> None:
        self.names = names
        self.scalars = {s.name for s in contract.scalars}
        self.entry = next(
            (b.value for b in names.module.bound.get(contract.function, ()) if b.kind == "function"), None
        )
        self.tensors = {t.name for t in contract.tensors}
        # a function that the source itself names can be called by it with anything, under any of its parameters
        self.called_by_contract_alone = contract.function not in names.used_of_module
        self._settled: set[object] = set()  # ids of expressions, and names with their scopes, that are new

    def violations(self) -> Iterator[Violation]:
        keeps_lists = any(
            isinstance(node, (ast.List, ast.ListComp, ast.Call)) for value in self._kept() for node in ast.walk(value)
        )
        for node, scope in self.names.nodes:
            if isinstance(node, ast.AugAssign):
                yield from self._augmented(node, scope)
            elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
                if not self._made(node.value, scope):
                    yield _violation(
                        node.value, "sets elements of", "Make a new one first, with .clone() or torch.where"
                    )
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner, method = node.func.value, node.func.attr
                if method in IN_PLACE and not self._made(owner, scope):
                    if self.names.dotted(node.func, scope) is not None:  # of a module, which has its own message
                        continue
                    instead = "Use the variant without the underscore" if method[-1] == "_" else "Make a new list first"
                    yield _violation(owner, f"calls .{one_line(method, 40)} on", instead)
                elif method == "sort" and keeps_lists and not self._sortable(owner, scope):
                    yield _violation(owner, "calls .sort on", "Use torch.sort(...) or sorted(...)")

    def _kept(self) -> Iterator[ast.AST]:
        """What lives as long as the module: its values, and the defaults of its functions."""
        for scope in self.names.scopes:
            for found in scope.bound.values():
                for binding in found:
                    if binding.value is not None and (
                        binding.kind == "parameter" or (scope.is_module and binding.kind != "function")
                    ):
                        yield binding.value

    def _augmented(self, node: ast.AugAssign, scope: Scope) -> Iterator[Violation]:
        target = node.target
        if isinstance(target, ast.Name) and not self._made(target, scope):
            operator = _OPERATORS.get(type(node.op), "+")
            name = one_line(target.id, 40)
            yield _violation(target, "changes in place", f"Write `{name} = {name} {operator} ...`")
        elif isinstance(target, ast.Subscript) and not self._is_new_tensor(target.value, scope):
            yield _violation(target.value, "changes an element of", "Write `x[i] = x[i] + ...`")

    def _sortable(self, node: ast.expr, scope: Scope) -> bool:
        if isinstance(node, ast.Name):
            home = self.names.find(node.id, scope)
            own = home is not None and home.function is self.entry and self.called_by_contract_alone
            if home is not None and own and node.id in self.tensors:
                return all(b.kind == "parameter" for b in home.bound[node.id])
        return self._made(node, scope)

    def _is_new_tensor(self, node: ast.expr, scope: Scope) -> bool:
        """Whether elements of this can be changed in place without touching something that a container holds."""
        if not isinstance(node, ast.Name):
            return False
        found = [b for b in self.names.bindings(node.id, scope) if b.kind != "changed"]
        return bool(found) and all(b.kind == "value" and is_tensor(b.value) for b in found) and self._made(node, scope)

    def _made(self, node: ast.AST, scope: Scope) -> bool:
        """Whether this expression's value certainly came into being during this call, and is nobody else's.

        It did if nothing that it may stem from is older; a name that depends on itself is no older because of that.
        """
        pending: list[_Use] = [(node, scope)]
        seen: set[object] = set()
        while pending:
            node, scope = pending.pop()
            key: object = id(node)
            if isinstance(node, ast.Name):
                key = (self.names.find(node.id, scope), node.id)
            if key in seen or key in self._settled:
                continue
            seen.add(key)
            sources = self._sources(node, scope)
            if sources is None:
                return False
            pending += sources
        self._settled |= seen
        return True

    def _sources(self, node: ast.AST, scope: Scope) -> list[_Use] | None:
        """What must be new for this expression's value to be new; None if it may be older."""
        if isinstance(node, _NEW):
            return []
        if isinstance(node, ast.Name):
            return self._sources_of_name(node.id, scope)
        if isinstance(node, ast.UnaryOp):  # unary plus gives back its operand
            return [(node.operand, scope)] if isinstance(node.op, ast.UAdd) else []
        if isinstance(node, ast.IfExp):
            return [(node.body, scope), (node.orelse, scope)]
        if isinstance(node, ast.NamedExpr):
            return [(node.value, scope)]
        if isinstance(node, ast.Attribute) and node.attr in VIEWS:
            return [(node.value, scope)]
        if isinstance(node, ast.Call):
            return self._sources_of_call(node, scope)
        return None

    def _sources_of_name(self, name: str, scope: Scope) -> list[_Use] | None:
        home = self.names.find(name, scope)
        if home is None or home.is_module:
            return None
        found: list[_Use] = []
        for binding in home.bound[name]:
            sources = self._sources_of_binding(name, home, binding)
            if sources is None:
                return None
            found += sources
        return found

    def _sources_of_binding(self, name: str, home: Scope, binding: Binding) -> list[_Use] | None:
        value = binding.value
        if binding.kind == "changed" or (binding.kind == "value" and value is None):
            return []
        if binding.kind == "value" and value is not None:
            return [(value, binding.scope)]
        if binding.kind == "unpacked":
            return self._sources_of_parts(value, binding.scope)
        if binding.kind == "item":
            return [] if self.are_numbers(value, binding.scope) else None
        if binding.kind == "parameter":  # numbers cannot be changed in place
            return [] if self.is_number(name, home, value) else None
        return None

    def is_number(self, name: str, home: Scope, default: ast.AST | None) -> bool:
        """Whether a parameter is a number however its function is reached: one of the contract's, or a default."""
        if home.function is not self.entry or not self.called_by_contract_alone or name in self.tensors:
            return False
        if isinstance(default, ast.UnaryOp):
            default = default.operand
        return isinstance(default, ast.Constant) or (default is None and name in self.scalars)

    def are_numbers(self, value: ast.AST | None, scope: Scope) -> bool:
        """Whether a loop over this gives numbers only."""
        if isinstance(value, ast.Call):
            return self.names.is_builtin(value.func, scope, "range")
        plain = (ast.Tuple, ast.List, ast.Constant, ast.UnaryOp, ast.unaryop, ast.expr_context)
        return isinstance(value, (ast.Tuple, ast.List)) and all(
            isinstance(n, plain) and not (isinstance(n, ast.List) and n is not value) for n in ast.walk(value)
        )

    def _sources_of_parts(self, value: ast.AST | None, scope: Scope) -> list[_Use] | None:
        """The same for each of several results of one call."""
        if not isinstance(value, ast.Call):
            return None
        called = self.names.functions(value.func, scope)
        if not called:
            return [(value, scope)] if isinstance(value.func, ast.Attribute) else None
        found: list[_Use] = []
        for inner in called:
            for result in inner.returns:
                if not isinstance(result, ast.Tuple):
                    return None
                found += [(e, inner) for e in result.elts]
        return found

    def _sources_of_call(self, call: ast.Call, scope: Scope) -> list[_Use] | None:
        function = call.func
        dotted = self.names.dotted(function, scope)
        if dotted is not None:
            if dotted.rpartition(".")[2] not in VIEWS:
                return []
            arguments = [*call.args, *(k.value for k in call.keywords)]
            parts = [e for a in arguments for e in (a.elts if isinstance(a, (ast.List, ast.Tuple)) else [a])]
            return [(p, scope) for p in parts]
        if isinstance(function, ast.Attribute):
            if function.attr in VIEWS or function.attr in IN_PLACE:
                return [(function.value, scope)]
            return None if function.attr in CONTAINER_METHODS else []
        if isinstance(function, ast.Name) and self.names.find(function.id, scope) is None:
            copies = function.id in _COPYING or (function.id == "sum" and len(call.args) == 1 and not call.keywords)
            return [] if copies else None
        called = self.names.functions(function, scope)
        if not called or any(result is None for inner in called for result in inner.returns):
            return None
        return [(result, inner) for inner in called for result in inner.returns if result is not None]


_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.FloorDiv: "//", ast.Mod: "%",
    ast.MatMult: "@", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
}  # fmt: skip


def _violation(node: ast.expr, verb: str, instead: str) -> Violation:
    what = f"`{one_line(node.id, 40)}`" if isinstance(node, ast.Name) else "a value"
    return Violation(node.lineno, f"{verb} {what}, which this function did not make", instead)
