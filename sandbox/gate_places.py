"""What may stand in `.to(...)` and `device=`: a dtype, the CPU, or a tensor; nothing that leads to another device.

A text or a whole number names a device, so a value must certainly be neither.
"""

from __future__ import annotations

import ast
from typing import Literal, TypeAlias

from sandbox.allowlist import BUILTINS, CONTAINER_METHODS, DOTTED, names
from sandbox.arguments import with_defaults
from sandbox.contract import Contract
from sandbox.gate_names import Binding, Function, Names, Scope

_NUMBER_METHODS = names("item dim ndimension numel nelement size element_size is_floating_point is_nonzero")
_NO_TENSOR = CONTAINER_METHODS | names("type tolist split")
_PARTS = names("T mT real")  # attributes of a tensor that are tensors
_MAKES_NUMBERS = names("float int len bool")
_STEPS = 4000  # of all questions about one source

# "either" is what stems from itself alone, as in `x = x`
Kind: TypeAlias = Literal["tensor", "number", "either"] | None


class Places:
    """Finds out what certainly is a tensor, a dtype or the CPU."""

    def __init__(self, names: Names, contract: Contract) -> None:
        self.names = names
        # its parameters are what the contract says only if nothing in the source calls it too
        self.called_by_contract_alone = contract.function not in names.used_of_module
        self.entry = [b.value for b in names.module.bound.get(contract.function, ())]
        self.tensors = {t.name for t in contract.tensors}
        self.scalars = {s.name for s in contract.scalars}
        self._calls: dict[ast.AST, list[tuple[ast.Call, Scope]] | None] | None = None
        self._steps = _STEPS
        self._open: set[object] = set()  # names and functions that are being looked at

    def is_place(self, node: ast.expr, scope: Scope) -> bool:
        """Whether this is certainly a dtype, the CPU, or a tensor."""
        if isinstance(node, ast.Constant):
            return node.value is None or node.value == "cpu"
        if isinstance(node, ast.Attribute) and (
            node.attr in ("dtype", "device") or self.names.dotted(node, scope) in DOTTED
        ):
            return True
        if isinstance(node, ast.Name):
            dotted = self.names.dotted(node, scope)
            if dotted is not None:
                return dotted in DOTTED
            found = self.names.bindings(node.id, scope)
            if not found:
                return node.id in BUILTINS
            if all(self._is_kept_place(b) for b in found):
                return True
        return self._kind(node, scope) == "tensor"

    def _is_kept_place(self, binding: Binding) -> bool:
        """Whether a name was given a dtype or device, as in `kind = x.dtype`."""
        value = binding.value
        return binding.kind == "value" and isinstance(value, ast.Attribute) and self.is_place(value, binding.scope)

    def _kind(self, node: ast.AST | None, scope: Scope, depth: int = 0) -> Kind:
        self._steps -= 1
        if self._steps < 0 or depth > 60:
            return None
        deeper = depth + 1
        if isinstance(node, ast.Constant):
            return "number" if isinstance(node.value, (int, float)) else None
        if isinstance(node, ast.Name):
            return self._of_name(node.id, scope, deeper)
        if isinstance(node, ast.UnaryOp):
            return "number" if isinstance(node.op, ast.Not) else self._kind(node.operand, scope, deeper)
        if isinstance(node, ast.BinOp):
            return self._of_operation(node, scope, deeper)
        if isinstance(node, ast.IfExp):
            return _common([self._kind(node.body, scope, deeper), self._kind(node.orelse, scope, deeper)])
        if isinstance(node, ast.NamedExpr):
            return self._kind(node.value, scope, deeper)
        if isinstance(node, ast.Compare):
            sides = [self._kind(side, scope, deeper) for side in (node.left, node.comparators[0])]
            compared = len(node.ops) == 1 and not isinstance(node.ops[0], (ast.In, ast.NotIn, ast.Is, ast.IsNot))
            return "tensor" if compared and "tensor" in sides else None
        if isinstance(node, ast.Subscript) or (isinstance(node, ast.Attribute) and node.attr in _PARTS):
            return "tensor" if self._kind(node.value, scope, deeper) == "tensor" else None
        return self._of_call(node, scope, deeper) if isinstance(node, ast.Call) else None

    def _of_operation(self, node: ast.BinOp, scope: Scope, depth: int) -> Kind:
        sides = [self._kind(side, scope, depth) for side in (node.left, node.right)]
        if None not in sides:
            return "tensor" if "tensor" in sides else _common(sides)
        # texts and lists know none of these, so whatever comes out of them is no text; a number may
        if isinstance(node.op, ast.MatMult) or "tensor" in sides:
            return "tensor" if isinstance(node.op, (ast.Sub, ast.Div, ast.Pow, ast.MatMult, ast.FloorDiv)) else None
        return "tensor" if isinstance(node.op, (ast.Sub, ast.Div, ast.Pow)) and "number" not in sides else None

    def _of_name(self, name: str, scope: Scope, depth: int) -> Kind:
        home = self.names.find(name, scope)
        if home is None:
            return None
        key = (home, name)
        if key in self._open:
            return "either"
        self._open.add(key)
        found = _common([self._of_binding(name, home, b, depth) for b in home.bound[name]])
        self._open.discard(key)
        return found

    def _of_binding(self, name: str, home: Scope, binding: Binding, depth: int) -> Kind:
        if binding.kind == "value":
            return self._kind(binding.value, binding.scope, depth)
        if binding.kind == "changed":  # a tensor stays one; what a number becomes is not looked at
            return "either" if any(b.kind != "changed" for b in home.bound[name]) else None
        if binding.kind != "parameter" or home.function is None:
            return None
        if home.function not in self.entry:
            return self._of_parameter(name, home.function, binding, depth)
        if not self.called_by_contract_alone:
            return None
        if name in self.tensors:
            return "tensor"
        return "number" if name in self.scalars else self._kind(binding.value, binding.scope, depth)

    def _of_parameter(self, name: str, function: Function, binding: Binding, depth: int) -> Kind:
        """What all calls of a function pass, if all are known."""
        calls = self._calls_of(function)
        position = [a.arg for a, _ in with_defaults(function.args)].index(name)
        if not calls or function.args.vararg or function.args.kwarg:
            return None
        kinds: list[Kind] = []
        for call, scope in calls:
            given = next((k.value for k in call.keywords if k.arg == name), None)
            if given is None and position < len(call.args):
                given = call.args[position]
            kinds.append(
                self._kind(given, scope, depth)
                if given is not None
                else self._kind(binding.value, binding.scope, depth)
            )
        return _common(kinds)

    def _calls_of(self, function: Function) -> list[tuple[ast.Call, Scope]] | None:
        """Every call of a function; None if it is used in any other way, or called with stars."""
        if self._calls is None:
            self._calls = {}
            called = {id(n.func): n for n, _ in self.names.nodes if isinstance(n, ast.Call)}
            for node, scope in self.names.nodes:
                found = self.names.bindings(node.id, scope) if isinstance(node, ast.Name) else []
                for made in (b.value for b in found if isinstance(b.value, (ast.FunctionDef, ast.Lambda))):
                    call, known = called.get(id(node)), self._calls.setdefault(made, [])
                    starred = call is not None and (
                        any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords)
                    )
                    if call is None or starred or known is None:
                        self._calls[made] = None
                    else:
                        known.append((call, scope))
        return self._calls.get(function)

    def _of_call(self, node: ast.Call, scope: Scope, depth: int) -> Kind:
        function = node.func
        dotted = self.names.dotted(function, scope)
        if dotted is not None:
            leaf = dotted.rpartition(".")[2]
            return "number" if dotted.startswith("math.") else None if leaf in _NUMBER_METHODS else "tensor"
        if isinstance(function, ast.Attribute):
            if function.attr in _NUMBER_METHODS:
                return "number"
            return None if function.attr in _NO_TENSOR else "tensor"
        if isinstance(function, ast.Name) and self.names.find(function.id, scope) is None:
            if function.id == "abs" and len(node.args) == 1:
                return self._kind(node.args[0], scope, depth)
            return "number" if function.id in _MAKES_NUMBERS else None
        kinds: list[Kind] = []
        for inner in self.names.functions(function, scope):
            if inner in self._open:
                kinds.append("either")
                continue
            self._open.add(inner)
            kinds += [self._kind(result, inner, depth) for result in inner.returns]
            self._open.discard(inner)
        return _common(kinds)


def _common(kinds: list[Kind]) -> Kind:
    """What several possible values have in common."""
    certain = set(kinds) - {"either"}
    if len(certain) > 1 or not kinds:
        return None
    return certain.pop() if certain else "either"
