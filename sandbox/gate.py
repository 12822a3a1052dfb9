"""Static gate: an allow-list over the syntax tree, before any candidate code runs.

The gate is the first fence, not the cage: it keeps honest mistakes cheap, tells a language model in words what to
change, and refuses every name that leads out of tensor arithmetic. What is legal but slow or greedy is stopped by the
oracle child's limits.
"""

from __future__ import annotations

import ast
import difflib
import re

from sandbox.allowlist import ATTRIBUTES, BUILTINS, DOTTED, IMPORTS, KEYWORDS, MODULES, RANDOM, TYPING
from sandbox.candidate import MAX_SOURCE_BYTES, Candidate
from sandbox.contract import Contract
from sandbox.reports import GateReport, Violation
from sandbox.text import one_line

MAX_LINES = 600
MAX_NESTING = 30  # brackets within brackets, and indentation levels
MAX_OPERATORS = 400  # in one statement: a longer chain overflows the parser's C stack
MAX_UNARY = 12  # in a row
MAX_F_STRING = 60  # brackets and operators in one f-string
MAX_VIOLATIONS = 12  # more would only fill the prompt

_LEXEME = re.compile(
    r"""(?P<string>[rbfuRBFU]{0,2}(?:'''(?:\\.|[^\\])*?'''|\"\"\"(?:\\.|[^\\])*?\"\"\"|'(?:\\.|[^\\\n'])*'|"(?:\\.|[^\\\n"])*"))
    |(?P<comment>\#[^\n]*)|(?P<continued>\\\n)|(?P<open>[\[({])|(?P<close>[\])}])|(?P<newline>\n[ \t]*)
    |(?P<unary>(?:(?:[-+~]|\bnot\b)\s*)+)|(?P<operator>[*/%@<>=!&|^.,:]|\b(?:and|or|if|else|in|is|lambda|for)\b)
    |(?P<other>[^\s'"\#\[\](){}\n*/%@<>=!&|^.,:~+\\-]+)""",
    re.VERBOSE | re.DOTALL,
)
_COOKIE = re.compile(r"^[ \t\f]*#.*?coding[:=]")

_ALLOWED_NODES = (
    ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.If,
    ast.For, ast.Expr, ast.Pass, ast.Assert, ast.Raise, ast.Import, ast.ImportFrom, ast.alias, ast.Break, ast.Continue,
    ast.With, ast.withitem, ast.BoolOp, ast.NamedExpr, ast.BinOp, ast.UnaryOp, ast.Lambda, ast.IfExp, ast.Dict,
    ast.List, ast.Tuple, ast.Set, ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.SetComp, ast.comprehension,
    ast.Compare, ast.Call, ast.keyword, ast.JoinedStr, ast.FormattedValue, ast.Constant, ast.Attribute, ast.Subscript,
    ast.Starred, ast.Name, ast.Slice, ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip

_INSTEAD_OF = {
    ast.While: "Use `for i in range(N)` with a constant N",
    ast.Try: "Let errors surface; guard values with torch.where or clamp",
    ast.ClassDef: "Use plain functions",
    ast.AsyncFunctionDef: "Use a plain `def`",
    ast.Match: "Use if / elif",
    ast.Global: "Pass values as arguments; a loss keeps no state",
    ast.Nonlocal: "Pass values as arguments; a loss keeps no state",
    ast.Delete: "Leave it out",
    ast.Yield: "Return a tensor",
    ast.YieldFrom: "Return a tensor",
    ast.Await: "Return a tensor",
}


def check_source(candidate: Candidate, contract: Contract) -> GateReport:
    """Read a candidate without running it.

    Never raises for any text: whatever is wrong comes back as violations, at most `MAX_VIOLATIONS` of them.
    """
    violations = _text_violations(candidate.source)
    if violations:
        return GateReport(tuple(violations))
    try:
        tree = ast.parse(candidate.source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 0
        what = one_line(getattr(error, "msg", None) or str(error) or type(error).__name__)
        return GateReport((Violation(line, f"not valid Python: {what}", "Return one complete Python module"),))
    walker = _Walker(tree, contract)
    walker.walk()
    return GateReport(tuple(walker.violations[:MAX_VIOLATIONS]), walker.parameters)


def _text_violations(source: str) -> list[Violation]:
    """Limits that must hold before the parser sees the text: its C stack overflows on deep nesting."""
    if len(source.encode("utf-8", "replace")) > MAX_SOURCE_BYTES or source.count("\n") > MAX_LINES:
        limits = f"{MAX_SOURCE_BYTES} bytes or {MAX_LINES} lines"
        return [Violation(0, f"the source is longer than {limits}", "Write a shorter loss")]
    for number, line in enumerate(source.split("\n", 2)[:2], 1):
        if _COOKIE.match(line):
            return [Violation(number, "an encoding declaration", "Leave it out; sources are UTF-8")]
    for number, line in enumerate(source.split("\n"), 1):
        if any((ord(c) < 32 and c != "\t") or 0xD800 <= ord(c) < 0xE000 or ord(c) == 127 for c in line):
            return [Violation(number, "a control or surrogate character", "Use plain text")]
    return _nesting_violations(source)


def _nesting_violations(source: str) -> list[Violation]:
    depth = operators = position = 0
    line = 1
    while position < len(source):
        match = _LEXEME.match(source, position)
        if match is None:  # a blank, or a stray quote or backslash that the parser will complain about
            position += 1
            continue
        position, kind, text = match.end(), match.lastgroup, match.group()
        if kind == "open":
            depth, operators = depth + 1, operators + 1
        elif kind == "close":
            depth -= 1
        elif kind == "newline":
            indent = len(text[1:].expandtabs(4)) // 2
            if depth <= 0:
                operators = 0
                if indent > 2 * MAX_NESTING:
                    return [Violation(line + 1, "indented too deeply", "Flatten the code")]
        elif kind == "unary":
            operators += 1
            if len(text.split()) > MAX_UNARY or sum(c in "-+~" for c in text) > MAX_UNARY:
                return [Violation(line, "too many unary operators in a row", "Write one sign")]
        elif kind == "operator":
            operators += 1
        elif kind == "string" and _is_deep_f_string(text):
            return [Violation(line, "a complicated f-string", "Use a plain string")]
        elif kind == "other" and not text.isascii():
            return [Violation(line, "a non-ASCII character outside strings and comments", "Use ASCII names")]
        line += text.count("\n")
        if depth > MAX_NESTING:
            return [Violation(line, f"brackets nested more than {MAX_NESTING} deep", "Use intermediate variables")]
        if operators > MAX_OPERATORS:
            return [Violation(line, "one statement is too long", "Split it with intermediate variables")]
    return []


def _is_deep_f_string(literal: str) -> bool:
    """Whether an f-string holds more brackets and operators than a message needs: it is parsed as code."""
    prefix = literal[: min(literal.find("'") % len(literal), literal.find('"') % len(literal))]
    if "f" not in prefix.lower():
        return False
    return (
        sum(c in "([{-+~*/.<" for c in literal) > MAX_F_STRING
        or len(re.findall(r"\b(?:not|lambda|if)\b", literal)) > MAX_UNARY
    )


class _Walker:
    """One pass over the tree, iteratively; collects violations."""

    def __init__(self, tree: ast.Module, contract: Contract) -> None:
        self.tree, self.contract = tree, contract
        self.violations: list[Violation] = []
        self.parameters: tuple[str, ...] = ()
        self.roots: dict[str, str] = {}  # local name -> dotted module or function it stands for
        self.typing: set[str] = set()
        self.functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
        self.helper_keywords: set[str] = set()
        self.bound: set[str] = set()

    @property
    def full(self) -> bool:
        """Whether enough is known: looking for near names is slow."""
        return len(self.violations) >= MAX_VIOLATIONS

    def refuse(self, node: ast.AST, problem: str, instead: str) -> None:
        if not self.full:
            self.violations.append(Violation(getattr(node, "lineno", 0), problem, instead))

    def walk(self) -> None:
        nodes = list(ast.walk(self.tree))  # ast.walk is iterative
        self._collect(nodes)
        self._check_module()
        self._check_entry()
        for node in nodes:
            if self.full:
                break
            if not isinstance(node, _ALLOWED_NODES):
                instead = next((text for kind, text in _INSTEAD_OF.items() if isinstance(node, kind)), "Leave it out")
                located = next((n for n in ast.walk(node) if hasattr(n, "lineno")), node)  # a match_case has no line
                self.refuse(located, f"`{type(node).__name__}` is not allowed", instead)
            else:
                check = getattr(self, f"_on_{type(node).__name__.lower()}", None)
                if check:
                    check(node)
        self.violations.sort(key=lambda v: v.line)

    def _collect(self, nodes: list[ast.AST]) -> None:
        """Names the source binds, so that a later use of anything else is an unknown name."""
        for node in nodes:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self._import(node)
            elif isinstance(node, ast.arg):
                self.bound.add(node.arg)
                self.helper_keywords.add(node.arg)
            elif isinstance(node, ast.FunctionDef):
                self.bound.add(node.name)
            elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                self.bound.add(node.id)
                if node.id in ("torch", "math", "F"):
                    self.refuse(node, f"assigns to `{node.id}`", "Pick another variable name")

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        allowed = f"Import only {', '.join(IMPORTS[:-1])} and {IMPORTS[-1]}"
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name not in MODULES:
                    self.refuse(node, f"imports {one_line(alias.name, 60)}", allowed)
                elif alias.asname:
                    self.roots[alias.asname] = alias.name
                else:
                    top = alias.name.split(".")[0]
                    self.roots[top] = top
            return
        for alias in node.names:
            full, name = f"{node.module}.{alias.name}", alias.asname or alias.name
            if node.module == "__future__" and alias.name == "annotations":
                continue
            if node.module in ("typing", "collections.abc") and alias.name in TYPING:
                self.typing.add(name)
            elif node.level == 0 and full in DOTTED:
                self.roots[name] = full
            else:
                self.refuse(node, f"imports {one_line(full, 80)}", allowed)

    def _check_module(self) -> None:
        for position, node in enumerate(self.tree.body):
            doc = position == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef)) or doc:
                continue
            value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
            if not self.full and (value is None or not self._constant(value)):
                what = f"`{type(node).__name__}` at module level"
                self.refuse(node, what, "Only imports, constants and functions stand at module level")

    def _constant(self, value: ast.expr) -> bool:
        """Numbers, strings, tuples, lists and dicts of them, arithmetic on them, and math functions of them."""
        for node in ast.walk(value):
            if isinstance(node, (ast.Call, ast.Attribute)):
                function = node.func if isinstance(node, ast.Call) else node
                if not (self._dotted(function) or "").startswith("math."):
                    return False
            elif not isinstance(
                node,
                (ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.Set, ast.BinOp, ast.UnaryOp, ast.Name, ast.operator,
                 ast.unaryop, ast.expr_context),
            ):  # fmt: skip
                return False
        return True

    def _check_entry(self) -> None:
        name = self.contract.function
        function = self.functions.get(name)
        if function is None:
            near = difflib.get_close_matches(name, self.functions, n=1)
            hint = f" (there is `{near[0]}`)" if near else ""
            self.refuse(self.tree, f"no function `{name}`{hint}", f"Define `{self.contract.signature()}`")
            return
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        given = [a.arg for a in arguments]
        without_default = len(function.args.posonlyargs) + len(function.args.args) - len(function.args.defaults)
        mandatory = set(given[:without_default]) | {
            a.arg for a, d in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True) if d is None
        }
        for missing in [n for n in self.contract.required if n not in given]:
            self.refuse(function, f"`{name}` lacks the parameter `{missing}`", f"Use `{self.contract.signature()}`")
        known = {i.name for i in self.contract.inputs}
        for extra in [n for n in given if n not in known and n in mandatory]:
            optional = ", ".join(self.contract.optional) or "none"
            self.refuse(
                function,
                f"`{name}` has a parameter `{one_line(extra, 60)}` that nobody passes",
                f"Give it a constant default, or remove it (optional inputs: {optional})",
            )
        if function.args.posonlyargs:
            self.refuse(function, "positional-only parameters", "Arguments are passed by name; drop the `/`")
        self.parameters = tuple(i.name for i in self.contract.inputs if i.name in given)

    # one method per node type, found by name

    def _on_functiondef(self, node: ast.FunctionDef) -> None:
        if node.decorator_list:
            self.refuse(node.decorator_list[0], "a decorator", "Leave it out")
        self._name(node, node.name)

    def _on_arguments(self, node: ast.arguments) -> None:
        if node.vararg or node.kwarg:
            self.refuse(node.vararg or node.kwarg or node, "*args or **kwargs", "Name each parameter")
        for default in [*node.defaults, *(d for d in node.kw_defaults if d is not None)]:
            if not self._constant(default):
                self.refuse(default, "a default that is not a constant", "Use a number")

    def _on_arg(self, node: ast.arg) -> None:
        self._name(node, node.arg)

    def _name(self, node: ast.AST, name: str) -> None:
        if name.startswith("__") or not name.isascii():
            self.refuse(node, f"the name `{one_line(name, 60)}`", "Use a plain ASCII name without double underscores")

    def _on_name(self, node: ast.Name) -> None:
        self._name(node, node.id)
        known = self.bound | self.roots.keys() | self.typing | BUILTINS
        if isinstance(node.ctx, ast.Load) and node.id not in known:
            if node.id in ("torch", "math", "F"):
                modules = {"torch": "import torch", "math": "import math", "F": "import torch.nn.functional as F"}
                self.refuse(node, f"`{node.id}` is used but not imported", f"Add `{modules[node.id]}` at the top")
            else:
                near = difflib.get_close_matches(node.id, known, n=1)
                hint = f"Did you mean `{near[0]}`?" if near else "Use tensor functions and your own variables only"
                self.refuse(node, f"unknown or forbidden name `{one_line(node.id, 60)}`", hint)

    def _dotted(self, node: ast.expr) -> str | None:
        """`F.softplus` -> torch.nn.functional.softplus; None if it does not start at an imported root."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.roots:
            return None
        return ".".join([self.roots[node.id], *reversed(parts)])

    def _on_attribute(self, node: ast.Attribute) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.refuse(node, f"assigns to an attribute `.{one_line(node.attr, 60)}`", "Use a local variable")
            return
        dotted = self._dotted(node)
        if node.attr in RANDOM:
            self.refuse(node, f"randomness (`{node.attr}`)", "A loss is a deterministic function of its inputs")
        elif dotted is not None:
            if dotted not in DOTTED:
                shown = one_line(dotted, 80)
                near = difflib.get_close_matches(dotted, DOTTED, n=1, cutoff=0.8)
                self.refuse(node, f"`{shown}` is not available", f"Did you mean `{near[0]}`?" if near else "Do without")
        elif node.attr not in ATTRIBUTES:
            self.refuse(node, f"the attribute `.{one_line(node.attr, 60)}` is not available", "Use tensor arithmetic")

    def _on_call(self, node: ast.Call) -> None:
        for keyword in node.keywords:
            if keyword.arg is None:
                self.refuse(node, "`**` in a call", "Write the keyword arguments out")
            elif keyword.arg == "device":
                self.refuse(node, "the argument `device=`", "Leave it out: all tensors are on the CPU")
            elif keyword.arg not in KEYWORDS and keyword.arg not in self.helper_keywords:
                self.refuse(node, f"the argument `{one_line(keyword.arg, 60)}=` is not available", "Leave it out")

    def _on_with(self, node: ast.With) -> None:
        for item in node.items:
            call = item.context_expr
            dotted = self._dotted(call.func) if isinstance(call, ast.Call) else None
            if dotted not in ("torch.no_grad", "torch.enable_grad"):
                self.refuse(node, "`with` on something else than torch.no_grad()", "Use .detach() instead")

    def _on_raise(self, node: ast.Raise) -> None:
        if node.cause is not None:
            self.refuse(node, "`raise ... from`", "Use a plain raise")


def is_parseable(source: str) -> bool:
    """Whether a text is within the limits that keep the parser from overflowing; it may still be wrong Python."""
    return not _text_violations(source)
