"""Static gate: an allow-list over the syntax tree, before any candidate code runs.

The gate is the first fence, not the cage: it keeps honest mistakes cheap, tells a language model in words what to
change, and refuses every name that leads out of tensor arithmetic. What is legal but slow or greedy is stopped by the
oracle child's limits. For a loss that somebody exports and imports it is the only fence.

Its parts: `gate_text` (limits that must hold before parsing), `gate_names` (scopes and bindings), `gate_values` (module
level, annotations, defaults), `gate_keywords` and `gate_places` (arguments), `gate_purity` (changes in place),
`gate_processes` (what differs between processes), `gate_hints` (advice), `allowlist` (the names).
"""

from __future__ import annotations

import ast
import itertools
import re
import warnings
from collections.abc import Callable
from typing import Any

from sandbox.allowlist import (
    ATTRIBUTES,
    BUILTINS,
    DECORATORS,
    DOTTED,
    EXCEPTIONS,
    FUTURE,
    GRADIENT_MODES,
    IMPORTS,
    IN_PLACE,
    KEEPERS,
    MODULES,
    POSITIONAL,
    RANDOM,
    TYPING_MODULES,
)
from sandbox.arguments import with_defaults
from sandbox.candidate import Candidate
from sandbox.contract import Contract
from sandbox.gate_hints import about_attribute, about_dotted, about_name, about_place, about_syntax, about_with
from sandbox.gate_keywords import Keywords
from sandbox.gate_names import COMPREHENSIONS, FOREIGN_BUILTINS, Comprehension, Names, Scope, chain, is_known
from sandbox.gate_places import Places
from sandbox.gate_processes import Processes
from sandbox.gate_purity import Purity
from sandbox.gate_text import text_violations
from sandbox.gate_values import Types, entry_violations, is_constant, module_violations
from sandbox.reports import GateReport, Violation
from sandbox.syntax import parse
from sandbox.text import one_line

MAX_VIOLATIONS = 12  # more would only fill the prompt

_FILENAME = "<candidate>"
# the parser warns about texts such as "\s" in a docstring: no mistake here, and the warning would show the text
_SILENT = ("ignore", None, Warning, re.compile(re.escape(_FILENAME)), 0)

_PLAIN_NODES = (
    ast.Assert, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.BinOp, ast.BoolOp, ast.Break, ast.Compare, ast.Continue,
    ast.Dict, ast.Expr, ast.For, ast.If, ast.IfExp, ast.JoinedStr, ast.List, ast.NamedExpr, ast.Pass, ast.Return, ast.Set,
    ast.Slice, ast.Starred, ast.Subscript, ast.Tuple, ast.UnaryOp, ast.keyword, ast.withitem,
    # parts of statements that are refused as a whole
    ast.ExceptHandler, ast.match_case, ast.MatchAs, ast.MatchClass, ast.MatchMapping, ast.MatchOr, ast.MatchSequence,
    ast.MatchSingleton, ast.MatchStar, ast.MatchValue,
)  # fmt: skip
_UNSUITED = (bytes, complex)  # constants of these types
_DIRECT = IN_PLACE | {
    "to",
    "type",
    "sort",
}  # methods that are looked at where they are called, so they cannot be passed around
_FUTURE = frozenset(f"__future__.{feature}" for feature in FUTURE)
_SHADOWS = frozenset({"torch", "math", "F"})


def check_source(candidate: Candidate, contract: Contract) -> GateReport:
    """Read a candidate without running it.

    Never raises for any text: whatever is wrong comes back as violations, at most `MAX_VIOLATIONS` of them.
    """
    source, notes = candidate.source, candidate.notes
    violations = text_violations(source)
    if violations:
        return GateReport(tuple(violations), notes=notes)
    if _SILENT not in warnings.filters:  # not once on import: that may happen where filters are restored afterwards
        warnings.filterwarnings("ignore", module=re.escape(_FILENAME))
    try:
        tree = parse(source, _FILENAME)
        checker = _Checker(tree, contract)
        checker.run()
        if not checker.violations:  # finds `break` outside a loop, two parameters of one name, and the like
            compile(source, _FILENAME, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        return GateReport((_not_python(error, source),), notes=notes)
    privileged = contract.privileged_of(checker.parameters)
    return GateReport(tuple(checker.violations[:MAX_VIOLATIONS]), checker.parameters, notes, privileged)


def _not_python(error: Exception, source: str) -> Violation:
    line = getattr(error, "lineno", None) or 0
    what = one_line(getattr(error, "msg", None) or str(error) or type(error).__name__)
    instead = "Return one complete Python module"
    if "unicode error" in what:
        instead = 'Put an r before the string, as in r"\\xi"'
    return Violation(min(max(line, 0), source.count("\n") + 1), f"not valid Python: {what}", instead)


class _Checker:
    """Looks at every node once, iteratively; collects violations."""

    def __init__(self, tree: ast.Module, contract: Contract) -> None:
        self.tree, self.contract = tree, contract
        self.names = Names(tree)
        self.types = Types(self.names)
        self.places = Places(self.names, contract)
        self.keywords = Keywords(self.names, self.places)
        self.violations: list[Violation] = []
        self.parameters: tuple[str, ...] = ()
        self.settled = set(self.names.module_aliases)  # ids of nodes that were looked at together with their parent

    def refuse(self, node: ast.AST | Violation, problem: str = "", instead: str = "") -> None:
        if len(self.violations) < MAX_VIOLATIONS:
            found = node if isinstance(node, Violation) else Violation(getattr(node, "lineno", 0), problem, instead)
            if found not in self.violations:
                self.violations.append(found)

    def run(self) -> None:
        found, self.parameters = entry_violations(self.tree, self.names, self.contract)
        for violation in found:
            self.refuse(violation)
        self._check_bindings()
        self.settled |= self.types.aliases()
        for violation in (*module_violations(self.tree, self.names, self.types), *self.types.violations()):
            self.refuse(violation)
        for node, scope in self.names.nodes:
            check = _CHECKS.get(type(node), _Checker._on_forbidden)
            if check is not None:
                check(self, node, scope)
            if len(self.violations) >= MAX_VIOLATIONS:
                break
        purity = Purity(self.names, self.contract)
        for violation in itertools.chain(purity.violations(), Processes(self.names, purity).violations()):
            self.refuse(violation)
            if len(self.violations) >= MAX_VIOLATIONS:
                break
        self.violations.sort(key=lambda v: v.line)

    def _on_forbidden(self, node: ast.AST, scope: Scope) -> None:
        self.refuse(node, *about_syntax(node))

    def _check_bindings(self) -> None:
        for scope in self.names.scopes:
            for name, found in scope.bound.items():
                target = next((b.target for b in found if b.target), None)
                if name.startswith("__") or not name.isascii():
                    problem = f"the name `{one_line(name, 60)}`"
                    self.refuse(found[0].node, problem, "Use a plain name without double underscores")
                elif scope.is_module and name in FOREIGN_BUILTINS:
                    self.refuse(found[0].node, f"`{name}` is the name of a Python built-in", "Pick another name")
                elif name in _SHADOWS and target is None:
                    self.refuse(found[0].node, f"assigns to `{name}`", "Pick another variable name")
                elif target is not None and any(b.target != target for b in found):
                    other = next((b.node for b in found if b.target is None), found[-1].node)
                    problem = f"assigns to `{one_line(name, 60)}`, which is imported"
                    self.refuse(other, problem, "Pick another variable name")

    # one method per node type

    def _on_import(self, node: ast.Import, scope: Scope) -> None:
        for alias in node.names:
            if alias.name not in MODULES and alias.name not in TYPING_MODULES:
                self._refuse_import(node, alias.name)

    def _on_importfrom(self, node: ast.ImportFrom, scope: Scope) -> None:
        for alias in node.names:
            full = f"{'.' * node.level}{node.module or ''}.{alias.name}"
            if not is_known(full) and full not in _FUTURE:
                self._refuse_import(node, full)

    def _refuse_import(self, node: ast.AST, name: str) -> None:
        allowed = f"Import only {', '.join(IMPORTS[:-1])} and {IMPORTS[-1]}"
        self.refuse(node, f"imports {one_line(name, 80)}", allowed)

    def _on_functiondef(self, node: ast.FunctionDef, scope: Scope) -> None:
        for decorator in node.decorator_list:
            self._check_decorator(decorator, node, scope)
        self._on_lambda(node, scope)

    def _check_decorator(self, decorator: ast.expr, node: ast.FunctionDef, scope: Scope) -> None:
        """`@torch.no_grad()` on a helper is the same as `with` around its body."""
        bare = isinstance(decorator, ast.Call) and not decorator.args and not decorator.keywords
        named = decorator.func if isinstance(decorator, ast.Call) else decorator
        dotted = self.names.dotted(named, scope)
        if dotted not in DECORATORS or not (bare or named is decorator):
            self.refuse(decorator, "a decorator", "Leave it out")
        elif scope.is_module and node.name == self.contract.function:
            shown = f"`@{dotted}` on `{node.name}`, which must have a gradient"
            self.refuse(decorator, shown, "Leave it out; use .detach() on what needs none")
        self.settled |= chain(named)

    def _on_lambda(self, node: ast.FunctionDef | ast.Lambda, scope: Scope) -> None:
        arguments = node.args
        if arguments.vararg or arguments.kwarg:
            self.refuse(arguments.vararg or arguments.kwarg or node, "*args or **kwargs", "Name each parameter")
        for _, default in with_defaults(arguments):
            if default is not None and not is_constant(default, self.names, scope):
                self.refuse(default, "a default that is not a constant", "Use a number, a string or a tuple of them")

    def _on_comprehension(self, node: Comprehension, scope: Scope) -> None:
        if any(g.is_async for g in node.generators):  # Python allows it within a generator expression of a plain `def`
            self.refuse(node, "`async for`", "Use a plain `for`")

    def _on_constant(self, node: ast.Constant, scope: Scope) -> None:
        if isinstance(node.value, _UNSUITED):
            self.refuse(node, f"a {type(node.value).__name__} constant", "Use real numbers and plain strings")

    def _on_formattedvalue(self, node: ast.FormattedValue, scope: Scope) -> None:
        if isinstance(node.format_spec, ast.JoinedStr) and any(
            not isinstance(part, ast.Constant) for part in node.format_spec.values
        ):
            self.refuse(node, "a computed format", "Write the width and precision out, as in {x:.3f}")

    def _on_name(self, node: ast.Name, scope: Scope) -> None:
        if id(node) in self.settled or not isinstance(node.ctx, ast.Load):
            return
        found = self.names.bindings(node.id, scope)
        if found:
            if found[0].target is not None:
                self._check_value(node, found[0].target)
            elif id(found[0].value) in self.types.alias_roots:  # Union[Tensor] is Tensor itself
                self.refuse(node, f"the type `{one_line(node.id, 60)}` as a value", "Use it in annotations only")
        elif node.id not in BUILTINS:
            shown = one_line(node.id, 60)
            advice = about_name(node.id, self._visible(scope))
            imported = node.id in _SHADOWS
            problem = f"`{shown}` is used but not imported" if imported else f"unknown or forbidden name `{shown}`"
            self.refuse(node, problem, advice)
        elif node.id == "str":
            self.refuse(node, "`str` as a value", "Use an f-string")

    def _visible(self, scope: Scope | None) -> list[str]:
        found: list[str] = []
        while scope is not None:
            found += scope.bound
            scope = scope.parent
        return found

    def _on_attribute(self, node: ast.Attribute, scope: Scope) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.refuse(node, f"assigns to an attribute `.{one_line(node.attr, 60)}`", "Use a local variable")
        elif id(node) not in self.settled:
            dotted = self.names.dotted(node, scope)
            if dotted is not None:
                self.settled |= chain(node)
                if self._is_available(node, dotted):
                    self._check_value(node, dotted)
            elif self._is_tensor_attribute(node) and node.attr in _DIRECT:
                self.refuse(node, f"the method `.{node.attr}` as a value", "Call it directly")

    def _is_tensor_attribute(self, node: ast.Attribute) -> bool:
        shown = one_line(node.attr, 60)
        if node.attr in RANDOM:
            self.refuse(node, f"randomness (`{shown}`)", "A loss is a deterministic function of its inputs")
        elif node.attr not in ATTRIBUTES:
            self.refuse(node, f"the attribute `.{shown}` is not available", about_attribute(node.attr))
        else:
            return True
        return False

    def _is_available(self, node: ast.AST, dotted: str) -> bool:
        if dotted.rpartition(".")[2] in RANDOM:
            shown = one_line(dotted, 80)
            self.refuse(node, f"randomness (`{shown}`)", "A loss is a deterministic function of its inputs")
        elif not is_known(dotted):
            self.refuse(node, f"`{one_line(dotted, 80)}` is not available", about_dotted(dotted))
        else:
            return True
        return False

    def _check_value(self, node: ast.AST, dotted: str) -> None:
        """A module or function that is neither called nor a step to something else."""
        if dotted in MODULES:
            self.refuse(node, f"the module `{dotted}` as a value", "Call its functions by their full names")
        elif dotted not in DOTTED or dotted == "torch.Tensor":
            if is_known(dotted):  # otherwise the import is refused
                self.refuse(node, f"`{dotted}` outside annotations and isinstance", "Use torch.tensor or zeros_like")
        elif dotted in POSITIONAL or dotted in GRADIENT_MODES or dotted in KEEPERS:
            self.refuse(node, f"`{dotted}` as a value", "Call it directly, or wrap it: lambda x: ...")

    def _on_call(self, node: ast.Call, scope: Scope) -> None:
        function = node.func
        dotted = self.names.dotted(function, scope)
        if dotted is not None:
            if id(function) not in self.settled:  # by `with`
                self.settled |= chain(function)
                if self._is_available(function, dotted):
                    self._check_dotted_call(node, dotted)
        elif isinstance(function, ast.Attribute):
            self.settled.add(id(function))
            if self._is_tensor_attribute(function) and function.attr in ("to", "type"):
                for argument in (*node.args, *(k.value for k in node.keywords if k.arg in ("dtype", "tensor"))):
                    self._check_place(argument, scope)
        elif self.names.is_builtin(function, scope, "str"):
            self.settled.add(id(function))
            if len(node.args) != 1 or node.keywords or isinstance(node.args[0], ast.Starred):
                self.refuse(node, "`str` with more than one argument", "Use an f-string")
        elif self.names.is_builtin(function, scope, "isinstance") and len(node.args) == 2:
            self.settled |= self.types.parts(node.args[1], scope)
        if node.keywords:
            for problem, instead in self.keywords.problems(node, scope, dotted):
                self.refuse(node, problem, instead)

    def _check_dotted_call(self, node: ast.Call, dotted: str) -> None:
        limit = POSITIONAL.get(dotted)
        if dotted in GRADIENT_MODES:
            self.refuse(node, f"`{dotted}` outside `with`", f"Write `with {dotted}(...):`, or use .detach()")
        elif dotted not in DOTTED or dotted in MODULES or dotted == "torch.Tensor":
            self.refuse(node, f"a call of `{dotted}`", "Use torch.tensor, torch.zeros_like or torch.full_like")
        elif limit is not None and (len(node.args) > limit or any(isinstance(a, ast.Starred) for a in node.args)):
            what = f"takes at most {limit} arguments by position here"
            self.refuse(node, f"`{dotted}` {what}", "Name the others")

    def _check_place(self, node: ast.expr, scope: Scope) -> None:
        if not self.places.is_place(node, scope):
            self.refuse(node, "a cast to something else than a dtype or a tensor", about_place(node))

    def _on_with(self, node: ast.With, scope: Scope) -> None:
        for item in node.items:
            call = item.context_expr
            named = call.func if isinstance(call, ast.Call) else call
            dotted = self.names.dotted(named, scope)
            if dotted not in GRADIENT_MODES or named is call:
                self.refuse(node, "`with` on something else than torch.no_grad()", about_with(dotted))
            if dotted is not None:
                self.settled |= chain(named)
            if item.optional_vars is not None:
                self.refuse(node, "`with ... as`", "Leave `as` out")

    def _on_raise(self, node: ast.Raise, scope: Scope) -> None:
        error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if node.cause is not None:
            self.refuse(node, "`raise ... from`", "Use a plain raise")
        elif not isinstance(error, ast.Name) or error.id not in EXCEPTIONS or self.names.find(error.id, scope):
            self.refuse(node, "`raise` of something else than a built-in error", "Write `raise ValueError('...')`")


_CHECKS: dict[type[ast.AST], Callable[[_Checker, Any, Scope], None] | None] = {
    **dict.fromkeys(_PLAIN_NODES),
    ast.Attribute: _Checker._on_attribute,
    ast.Call: _Checker._on_call,
    ast.Constant: _Checker._on_constant,
    **dict.fromkeys(COMPREHENSIONS, _Checker._on_comprehension),
    ast.FormattedValue: _Checker._on_formattedvalue,
    ast.FunctionDef: _Checker._on_functiondef,
    ast.Import: _Checker._on_import,
    ast.ImportFrom: _Checker._on_importfrom,
    ast.Lambda: _Checker._on_lambda,
    ast.Name: _Checker._on_name,
    ast.Raise: _Checker._on_raise,
    ast.With: _Checker._on_with,
}
