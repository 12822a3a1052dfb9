"""Rules for what a source does without effect: blocks that never run, decorators, messages, annotations."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sandbox.allowlist import IDLE_KEYWORDS, IN_PLACE, names
from sandbox.gate_names import Scope
from sandbox.gate_values import Types
from sandbox.mend_source import Change, Edit, Source
from sandbox.text import one_line

# they make a function quicker, or tell a tool about it
_DECORATORS = names("""
torch.compile torch.jit.script torch.jit.script_if_tracing torch.jit.ignore torch.jit.unused torch.jit.export
torch.compiler.disable torch.compiler.allow_in_graph typing.no_type_check typing.final typing.override
typing_extensions.override typing_extensions.final
""")
_COMPILERS = names("torch.compile torch.jit.script")
_INFERENCE = names("torch.inference_mode torch.autograd.inference_mode")
_AUTOCAST = names("torch.autocast torch.amp.autocast torch.cuda.amp.autocast torch.cpu.amp.autocast")
_LOG_METHODS = names("debug info warning error critical exception log")
_SAYS_NOTHING = "which changes nothing that a loss computes"


def never_run(source: Source) -> Iterator[Change]:
    """`if __name__ == "__main__":` and `if TYPE_CHECKING:`, since a loss is imported."""
    for node in source.tree.body:
        if isinstance(node, ast.If) and not node.orelse and _is_false(node.test, source):
            header = one_line(source.of(node.test), 60)
            yield Change(source.without([node]), f"left out the block `if {header}:`, which never runs")


def _is_false(test: ast.expr, source: Source) -> bool:
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        sides = [test.left, test.comparators[0]]
        name = any(isinstance(s, ast.Name) and s.id == "__name__" for s in sides)
        return name and any(isinstance(s, ast.Constant) and s.value == "__main__" for s in sides)
    dotted = source.names.dotted(test, source.names.module)
    return dotted == "typing.TYPE_CHECKING" or (isinstance(test, ast.Constant) and test.value in (False, None))


def decorators(source: Source) -> Iterator[Change]:
    """`@torch.jit.script`, `@torch.compile`, `@staticmethod`: the function does the same without."""
    for node, scope in source.names.nodes:
        for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
            called = decorator if isinstance(decorator, ast.Call) else None
            named = called.func if called is not None else decorator
            dotted = source.names.dotted(named, scope)
            idle = dotted in _DECORATORS and (called is None or _only_constants(called))
            idle |= called is None and source.names.is_builtin(named, scope, "staticmethod")
            idle |= dotted in _AUTOCAST and called is not None and _is_off(called)
            if idle:
                edit = source.lines(decorator.lineno, decorator.end_lineno or decorator.lineno)
                shown = one_line(source.of(named), 60)
                yield Change((edit,), f"left out the decorator `@{shown}`, {_SAYS_NOTHING}")


def compilers(source: Source) -> Iterator[Change]:
    """`torch.compile(f)` is `f`."""
    for node, scope in source.names.nodes:
        if isinstance(node, ast.Call) and len(node.args) == 1 and not isinstance(node.args[0], ast.Starred):
            dotted = source.names.dotted(node.func, scope)
            if dotted in _COMPILERS and all(isinstance(k.value, ast.Constant) for k in node.keywords):
                inner = node.args[0]
                around = (
                    Edit(source.start(node), source.start(inner)),
                    Edit(source.end(inner), source.end(node)),
                )
                yield Change(around, f"left out `{dotted}(...)`, {_SAYS_NOTHING}")


def _only_constants(call: ast.Call) -> bool:
    return all(isinstance(v, ast.Constant) for v in (*call.args, *(k.value for k in call.keywords)))


def inference_mode(source: Source) -> Iterator[Change]:
    """`torch.inference_mode()` is `torch.no_grad()`, except that its tensors may not be used in a gradient."""
    for node, scope in source.names.nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            dotted = source.names.dotted(node.func, scope)
            given = [*node.args, *(k.value for k in node.keywords)]
            on = not given or (len(given) == 1 and isinstance(given[0], ast.Constant) and given[0].value is True)
            if dotted in _INFERENCE and on and source.names.dotted(node.func.value, scope) == "torch":
                edit = Edit(source.end(node.func.value), source.end(node), ".no_grad()")
                why = "what is made in inference mode has no place in a gradient"
                yield Change((edit,), f"wrote `torch.no_grad()` for `torch.inference_mode()`: {why}")


def autocast(source: Source) -> Iterator[Change]:
    """`with torch.autocast(..., enabled=False):` around what is computed without autocast anyway."""
    for node, scope in source.names.nodes:
        if not isinstance(node, ast.With) or len(node.items) != 1 or node.items[0].optional_vars is not None:
            continue
        call = node.items[0].context_expr
        if isinstance(call, ast.Call) and source.names.dotted(call.func, scope) in _AUTOCAST and _is_off(call):
            edits = _unindented(source, node)
            if edits:
                yield Change(edits, "left out `torch.autocast(enabled=False)`: a loss is computed without autocast")


def _is_off(call: ast.Call) -> bool:
    return any(
        k.arg == "enabled" and isinstance(k.value, ast.Constant) and k.value.value is False for k in call.keywords
    )


def _unindented(source: Source, node: ast.With) -> tuple[Edit, ...]:
    """The statements of a block in the place of the block; nothing if they stand on its first line."""
    first, last = node.body[0], node.body[-1]
    start = min([first.lineno, *(d.lineno for d in getattr(first, "decorator_list", ()))])
    step = first.col_offset - node.col_offset
    if start == node.lineno or step <= 0:
        return ()
    texts = [n for n in ast.walk(node) if isinstance(n, (ast.Constant, ast.JoinedStr)) and n.end_lineno]
    inside = {line for n in texts for line in range(n.lineno + 1, (n.end_lineno or 0) + 1)}
    edits = [Edit(source.offset(node.lineno, 0), source.offset(start, 0))]
    for line in range(start, (last.end_lineno or start) + 1):
        begin = source.offset(line, 0)
        if line not in inside and not source.text[begin : begin + step].strip(" \t"):
            edits.append(Edit(begin, begin + step))
    return tuple(edits)


def idle_keywords(source: Source) -> Iterator[Change]:
    """`inplace=False`, `out=None`: what holds without them."""
    for node, scope in source.names.nodes:
        if not isinstance(node, ast.Call) or source.names.functions(node.func, scope):
            continue
        for keyword in node.keywords:
            if _is_idle(keyword):
                edit = _without_argument(source, node, keyword)
                yield Change((edit,), f"left out `{keyword.arg}={_value(keyword)}`, which holds without it")


def _is_idle(keyword: ast.keyword) -> bool:
    """Whether an argument says in so many words what holds without it."""
    value = keyword.value
    return (
        keyword.arg in IDLE_KEYWORDS and isinstance(value, ast.Constant) and value.value is IDLE_KEYWORDS[keyword.arg]
    )


def _value(keyword: ast.keyword) -> bool | None:
    return IDLE_KEYWORDS[keyword.arg or ""]


def _without_argument(source: Source, call: ast.Call, keyword: ast.keyword) -> Edit:
    """Take an argument out, with the comma before it, or after it if it is the first."""
    start, end = source.offset(keyword.lineno, keyword.col_offset), source.end(keyword.value)
    comma = source.text.rfind(",", source.end(call.func), start)
    if call.args or keyword is not call.keywords[0]:
        return Edit(comma if comma >= 0 else start, end)
    following = re.compile(r"\s*,\s*").match(source.text, end)
    return Edit(start, following.end() if following else end)


def messages(source: Source) -> Iterator[Change]:
    """`print(...)`, `logger.info(...)`, `warnings.warn(...)`, `del x`: nobody sees them, and names end by themselves."""
    found: dict[str, list[ast.stmt]] = {}
    for node, scope in source.names.nodes:
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(node, ast.Delete) and all(isinstance(t, ast.Name) for t in node.targets):
            found.setdefault("`del`: names end with the function", []).append(node)
        elif isinstance(node, ast.Expr) and isinstance(value, ast.Call):
            shown = _message(value.func, scope, source)
            if shown and not _acts(value):
                found.setdefault(f"`{one_line(shown, 60)}(...)`: nobody sees what a loss says", []).append(node)
    every = [node for nodes in found.values() for node in nodes]
    for what, nodes in found.items():
        yield Change(source.without(nodes, every), f"left out {what}")


def _message(function: ast.expr, scope: Scope, source: Source) -> str:
    """How a function is written that says something and does nothing else; empty for any other."""
    names = source.names
    if names.is_builtin(function, scope, "print"):
        return "print"
    dotted = names.dotted(function, scope) or ""
    if dotted == "warnings.warn" or (dotted.startswith("logging.") and dotted.count(".") == 1):
        return dotted
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.attr in _LOG_METHODS:
        calls = [b.value.func for b in names.bindings(function.value.id, scope) if isinstance(b.value, ast.Call)]
        if calls and all(names.dotted(c, names.module) == "logging.getLogger" for c in calls):
            return source.of(function)
    return ""


def _acts(call: ast.Call) -> bool:
    """Whether an argument does more than to be said: binds a name, or changes something in place."""
    for node in ast.walk(call):
        if isinstance(node, (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)):
            return True
        if isinstance(node, ast.Attribute) and (
            node.attr in IN_PLACE or node.attr.endswith("_") or node.attr == "sort"
        ):
            return True
    return False


def foreign_types(source: Source) -> Iterator[Change]:
    """Annotations that name no type of torch or of Python itself, as `np.ndarray`: they change nothing."""
    types = Types(source.names)
    types.aliases()
    foreign = {id(a.node) for a in source.names.annotations if not types.parts(a.node, a.scope)}
    note = "left out annotations that are no types here"
    for node in ast.walk(source.tree) if foreign else ():
        if isinstance(node, ast.arg) and id(node.annotation) in foreign and node.annotation is not None:
            yield Change((Edit(source.start(node) + len(node.arg), source.end(node.annotation)),), note)
        elif isinstance(node, ast.AnnAssign) and id(node.annotation) in foreign:
            if node.value is None:
                yield Change(source.without([node]), note)
            else:
                yield Change((Edit(source.end(node.target), source.end(node.annotation)),), note)
        elif isinstance(node, ast.FunctionDef) and id(node.returns) in foreign and node.returns is not None:
            start = source.text.rfind("->", 0, source.start(node.returns))
            yield Change((Edit(start, source.end(node.returns)),), note)
