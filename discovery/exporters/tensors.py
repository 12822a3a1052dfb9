"""Which expressions of a candidate are tensors, and where a number could be one: read off the text, erring towards no."""

from __future__ import annotations

import ast

from sandbox.allowlist import names
from sandbox.arguments import with_defaults
from sandbox.contract import Contract

_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div)
_NOT_TENSORS = names("item tolist size dim numel nelement shape dtype ndim")


def learnable(tree: ast.Module, contract: Contract, name: str) -> bool:
    """Whether the entry's argument of that name can be a tensor wherever it is used."""
    analysis = Analysis(tree, contract)
    uses = analysis.loads(contract.function, name)
    if analysis.stores(contract.function, name) != 1:  # `beta *= 2` would write into the parameter
        return False
    return analysis.learns([(use, contract.function) for use in uses])


def literal(node: ast.AST) -> int | float | None:
    """The number that a constant or a signed constant is."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = literal(node.operand) if isinstance(node.operand, ast.Constant) else None
        return value if value is None or isinstance(node.op, ast.UAdd) else -value
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    return None


class Analysis:
    """Parents, functions, and which expressions are tensors."""

    def __init__(self, tree: ast.Module, contract: Contract) -> None:
        self.tree, self.contract = tree, contract
        self.functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
        self.parent: dict[ast.AST, ast.AST] = {c: n for n in ast.walk(tree) for c in ast.iter_child_nodes(n)}
        self._tensors: dict[str, set[str]] = {}
        self._busy: set[tuple[str, str]] = set()
        self._seen: set[ast.AST] = set()
        self._infer()

    def parameters(self, function: str) -> list[str]:
        arguments = self.functions[function].args
        return [a.arg for a in (*arguments.args, *arguments.kwonlyargs)]

    def loads(self, function: str, name: str) -> list[ast.expr]:
        """Where a function reads a name."""
        body = self.functions[function].body
        every = (n for statement in body for n in ast.walk(statement))
        return [n for n in every if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load)]

    def stores(self, function: str, name: str) -> int:
        nodes = ast.walk(self.functions[function])
        bound = [n for n in nodes if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)]
        return len(bound) + self.parameters(function).count(name)

    def called(self, node: ast.AST) -> str | None:
        """The helper that a call calls."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self.functions:
            return node.func.id
        return None

    def is_value(self, function: str) -> bool:
        """Whether a function is used other than by a plain call of its name, so that anything may call it with anything."""
        uses = [n for n in self.parent if isinstance(n, ast.Name) and n.id == function]
        return any(
            self.called(self.parent[n]) != function or getattr(self.parent[n], "func", None) is not n for n in uses
        )

    def _infer(self) -> None:
        """Names that hold tensors in each function: of its arguments, those that do in every call of it."""
        entry, calls = self.contract.function, [n for n in self.parent if self.called(n) is not None]
        called = {self.called(n) for n in calls} | {entry}
        given = {f: set(self.parameters(f)) if f in called and not self.is_value(f) else set() for f in self.functions}
        given[entry] &= {t.name for t in self.contract.tensors}
        shrunk = True
        while shrunk:
            shrunk = False
            self._tensors = {}
            for function, arguments in given.items():
                self._infer_locals(function, arguments)
            for call in calls:
                helper, passed = self.called(call), self._passed(call)
                if helper is not None and not given[helper] <= passed:
                    given[helper] &= passed
                    shrunk = True

    def _infer_locals(self, function: str, arguments: set[str]) -> None:
        tensors = self._tensors[function] = set(arguments)
        inner = [n for n in ast.walk(self.functions[function]) if n is not self.functions[function]]
        for node in inner:
            if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if self.is_tensor(node.value, function):
                    tensors |= {t.id for t in targets if isinstance(t, ast.Name)}
        nested = [n for n in inner if isinstance(n, (ast.FunctionDef, ast.Lambda))]
        tensors -= {a.arg for n in nested for a, _ in with_defaults(n.args)}  # they mean something else inside

    def _passed(self, call: ast.AST) -> set[str]:
        """Arguments that are tensors in one call of a helper."""
        assert isinstance(call, ast.Call)
        helper, above = self.called(call), self.parent.get(call)
        while above is not None and self.functions.get(getattr(above, "name", "")) is not above:
            above = self.parent.get(above)
        starred = any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords)
        if helper is None or above is None or starred:
            return set()
        function = getattr(above, "name", "")
        return {n for n, value in self._arguments(helper, call).items() if self.is_tensor(value, function)}

    def _arguments(self, helper: str, call: ast.Call) -> dict[str, ast.expr]:
        given = dict(zip(self.parameters(helper), call.args, strict=False))
        return given | {str(k.arg): k.value for k in call.keywords}

    def is_tensor(self, node: ast.expr, function: str) -> bool:
        """Whether this is surely a tensor with a value per example, or made of one."""
        if isinstance(node, ast.Name):
            return node.id in self._tensors.get(function, set())
        if isinstance(node, ast.BinOp):
            return self.is_tensor(node.left, function) or self.is_tensor(node.right, function)
        if isinstance(node, ast.UnaryOp):
            return self.is_tensor(node.operand, function)
        if isinstance(node, ast.Compare):
            return any(self.is_tensor(n, function) for n in (node.left, *node.comparators))
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in _NOT_TENSORS:
                return False
            if isinstance(node.func, ast.Name) and node.func.id not in self.functions:
                return False
            inside = [*node.args, *(k.value for k in node.keywords)]
            if isinstance(node.func, ast.Attribute):
                inside.append(node.func.value)
            return any(self.is_tensor(n, function) for n in inside)
        return False

    def learns(self, uses: list[tuple[ast.expr, str]]) -> bool:
        """Whether a number used at these places, each with its function, can be a tensor that gets a gradient."""
        self._seen = set()
        return (
            bool(uses)
            and all(self.takes_tensor(node, function) for node, function in uses)
            and any(self.reaches(node, function) for node, function in uses)
        )

    def reaches(self, node: ast.AST, function: str) -> bool:
        """Whether a gradient can come back from the function's result to this expression: nothing on the way stops it."""
        if node in self._seen:
            return False
        self._seen.add(node)
        above = self.parent[node]
        if isinstance(above, (ast.Compare, ast.If, ast.IfExp, ast.Assert, ast.Subscript)):
            return (
                isinstance(above, (ast.IfExp, ast.Subscript))
                and node is not getattr(above, "test", None)
                and (node is not getattr(above, "slice", None) and self.reaches(above, function))
            )
        if isinstance(above, ast.Attribute):
            return above.attr not in (*_NOT_TENSORS, "detach") and self.reaches(above, function)
        if isinstance(above, ast.Call):
            return self._call_reaches(node, above, function)
        if isinstance(above, ast.keyword):
            return self._call_reaches(above, self.parent[above], function)
        if isinstance(above, ast.Return):
            return not self._without_gradient(above)
        if isinstance(above, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = above.targets if isinstance(above, ast.Assign) else [above.target]
            names = [t.id for target in targets for t in ast.walk(target) if isinstance(t, ast.Name)]
            loads = (use for name in names for use in self.loads(function, name))
            return not self._without_gradient(above) and any(self.reaches(use, function) for use in loads)
        return isinstance(above, ast.expr) and self.reaches(above, function)

    def _call_reaches(self, node: ast.AST, call: ast.AST, function: str) -> bool:
        assert isinstance(call, ast.Call)
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name in (*_NOT_TENSORS, "detach", "float", "int", "bool", "range", "where") and (
            name != "where" or (call.args and node is call.args[0])
        ):
            return False
        helper = self.called(call)
        if helper is not None:
            value = node.value if isinstance(node, ast.keyword) else node
            given = [n for n, passed in self._arguments(helper, call).items() if passed is value]
            inside = [use for n in given for use in self.loads(helper, n)]
            if not any(self.reaches(use, helper) for use in inside):
                return False
        return self.reaches(call, function)

    def _without_gradient(self, node: ast.AST) -> bool:
        """Whether a statement stands under `with torch.no_grad()`."""
        above: ast.AST | None = node
        while above is not None:
            if isinstance(above, ast.With) and "no_grad" in ast.unparse(above.items[0].context_expr):
                return True
            above = self.parent.get(above)
        return False

    def takes_tensor(self, node: ast.expr, function: str) -> bool:
        """Whether a number here could be a tensor without dimensions, with gradient reaching it."""
        above = self.parent[node]
        if isinstance(above, ast.BinOp) and isinstance(above.op, _ARITHMETIC):
            other = above.right if above.left is node else above.left
            return self.is_tensor(other, function) or self.takes_tensor(above, function)
        if isinstance(above, ast.UnaryOp) and isinstance(above.op, (ast.USub, ast.UAdd)):
            return self.takes_tensor(above, function)
        if isinstance(above, ast.Assign) and len(above.targets) == 1 and isinstance(above.targets[0], ast.Name):
            name = above.targets[0].id
            return self.stores(function, name) == 1 and self._all_take_tensor(function, name)
        helper = self.called(above)
        if helper is not None:
            assert isinstance(above, ast.Call)
            given = [n for n, value in self._arguments(helper, above).items() if value is node]
            return bool(given) and self.stores(helper, given[0]) == 1 and self._all_take_tensor(helper, given[0])
        if isinstance(above, ast.keyword):
            call = self.parent[above]
            helper = self.called(call)
            return helper is not None and above.arg is not None and self._all_take_tensor(helper, above.arg)
        return False

    def _all_take_tensor(self, function: str, name: str) -> bool:
        key = (function, name)
        if key in self._busy:  # a helper that calls itself
            return False
        self._busy.add(key)
        try:
            uses = self.loads(function, name)
            return bool(uses) and all(self.takes_tensor(use, function) for use in uses)
        finally:
            self._busy.discard(key)
