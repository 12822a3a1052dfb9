"""Rules for the contract's function: its name, its parameters, and values that it uses but that are made beside it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sandbox.allowlist import ATTRIBUTES, DOTTED, IN_PLACE, MODULES, names
from sandbox.arguments import with_defaults
from sandbox.contract import Contract
from sandbox.gate_names import Names
from sandbox.gate_text import matching_bracket
from sandbox.gate_values import Types, module_violations
from sandbox.mend_source import Change, Edit, Source
from sandbox.text import one_line

_PURE = names("abs bool dict divmod float int len list max min pow range round sorted sum tuple")


def _functions(source: Source) -> list[ast.FunctionDef]:
    return [n for n in source.tree.body if isinstance(n, ast.FunctionDef)]


def _entry(source: Source) -> ast.FunctionDef | None:
    """The contract's function, if it is there once."""
    found = source.names.module.bound.get(source.contract.function, [])
    value = found[0].value if len(found) == 1 else None
    return value if isinstance(value, ast.FunctionDef) else None


def lambdas(source: Source) -> Iterator[Change]:
    """`loss = lambda a, b: ...` is a function of that name."""
    name = source.contract.function
    for node in source.tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.value, ast.Lambda):
            target, value = node.targets[0], node.value
            if isinstance(target, ast.Name) and target.id == name and len(source.names.module.bound[name]) == 1:
                text = f"def {name}({ast.unparse(value.args)}):\n    return ({source.of(value.body)})"
                yield Change(
                    (Edit(source.start(node), source.end(node), text),), f"made a function of the lambda `{name}`"
                )


def aliases(source: Source) -> Iterator[Change]:
    """`loss = my_loss`, and `f = f`, after which the function has two names or one twice."""
    for node in source.tree.body:
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.value, ast.Name)):
            continue
        target, name = node.targets[0], source.contract.function
        if not isinstance(target, ast.Name):
            continue
        if target.id == node.value.id:
            yield Change(source.without([node]), f"left out `{one_line(source.of(node), 60)}`, which does nothing")
        elif target.id == name and len(source.names.module.bound[name]) == 1:
            function = next((f for f in _functions(source) if f.name == node.value.id), None)
            edits = _renamed(source, function, name, node) if function is not None else ()
            if edits:
                note = f"named the function `{one_line(node.value.id, 60)}` what it is assigned to, `{name}`"
                yield Change((*edits, *source.without([node])), note)


def other_names(source: Source) -> Iterator[Change]:
    """The contract's parameters under another name, if one function alone has them."""
    name = source.contract.function
    if name in source.names.module.bound:
        return
    functions = _functions(source)
    gradients = {t.name for t in source.contract.tensors if t.carries_gradient and not t.optional}
    for wanted in ({*source.contract.required}, gradients):
        fitting = [f for f in functions if wanted <= {a.arg for a, _ in with_defaults(f.args)}]
        if len(fitting) == 1:
            edits = _renamed(source, fitting[0], name)
            if edits:
                yield Change(edits, f"named the function `{one_line(fitting[0].name, 60)}` `{name}`")
        if fitting:
            return


def _renamed(source: Source, function: ast.FunctionDef, name: str, but: ast.stmt | None = None) -> tuple[Edit, ...]:
    """A module-level function under another name; nothing if a use of it would then mean something else."""
    if len(source.names.module.bound[function.name]) != 1:
        return ()
    start = _after_def(source, function)
    edits = [Edit(start, start + len(function.name), name)] if start is not None else []
    for node, scope in source.loads(function.name):
        home = source.names.find(name, scope)
        if home is not None and not home.is_module:
            return ()
        if not (isinstance(but, ast.Assign) and node is but.value):
            edits.append(Edit(source.start(node), source.end(node), name))
            if source.of(node) != function.name:  # inside an f-string, where older Pythons do not say where a name is
                return ()
    return tuple(edits) if start is not None else ()


def _after_def(source: Source, function: ast.FunctionDef) -> int | None:
    """Where a function's name is written."""
    found = re.compile(rf"def\s+(?={re.escape(function.name)}\b)").match(source.text, source.start(function))
    return found.end() if found else None


def parameters(source: Source) -> Iterator[Change]:
    """Inputs that a loss does not need but must take, and parameters that nobody can pass and nothing reads."""
    function = _entry(source)
    if function is None or any(True for _ in source.loads(function.name)):
        return
    start = _after_def(source, function)
    opening = source.text.find("(", start) if start is not None else -1
    closing = matching_bracket(source.text, opening) if opening >= 0 else None
    if closing is None or source.text[opening - len(function.name) : opening].strip() != function.name:
        return
    arguments, read = function.args, {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
    notes = [*_drop_unread(arguments, read, source.contract), *_add_missing(arguments, source, function)]
    if notes:
        edit = Edit(opening + 1, closing, ast.unparse(arguments))
        yield Change((edit,), f"`{function.name}` {' and '.join(notes)}")


def _drop_unread(arguments: ast.arguments, read: set[str], contract: Contract) -> Iterator[str]:
    """Take `*args`, `**kwargs`, `self` and the `/` out, where nothing reads them."""
    if arguments.kwarg is not None and arguments.kwarg.arg not in read:
        yield f"lost `**{one_line(arguments.kwarg.arg, 40)}`, which nobody passes"
        arguments.kwarg = None
    if arguments.vararg is not None and arguments.vararg.arg not in read:
        yield f"lost `*{one_line(arguments.vararg.arg, 40)}`, which nobody passes"
        arguments.vararg = None
    if arguments.posonlyargs:
        yield "lost the `/`: inputs are passed by name"
        arguments.args = [*arguments.posonlyargs, *arguments.args]
        arguments.posonlyargs = []
    if arguments.args and arguments.args[0].arg in ("self", "cls") and arguments.args[0].arg not in read:
        yield f"lost `{arguments.args[0].arg}`, since it is no method"
        del arguments.args[0]
        arguments.defaults = arguments.defaults[-len(arguments.args) :] if arguments.args else []


def _add_missing(arguments: ast.arguments, source: Source, function: ast.FunctionDef) -> Iterator[str]:
    """Required inputs that the signature lacks, before the first default.

    Only where the other parameters are the contract's, so that none is one of those under another name; and where no such
    name stands for something else.
    """
    contract = source.contract
    named = with_defaults(arguments)
    given = [a.arg for a, _ in named]
    missing = [n for n in contract.required if n not in given]
    known = {i.name for i in contract.inputs}
    gradients = {t.name for t in contract.tensors if t.carries_gradient and not t.optional}
    strange = [a.arg for a, default in named if default is None and a.arg not in known]
    outside = [n for n in missing if n in source.names.module.bound]
    if not missing or strange or outside or not gradients & set(given):
        return
    without_default = len(arguments.args) - len(arguments.defaults)
    arguments.args[without_default:without_default] = [ast.arg(n) for n in missing]
    shown = ", ".join(f"`{n}`" for n in missing)
    yield f"takes {shown} too, which every loss is given"


def module_values(source: Source) -> Iterator[Change]:
    """`ACT = nn.LogSigmoid()`, `W = torch.tensor([...])`: made anew in each call, so that nothing outlives one."""
    types = Types(source.names)
    types.aliases()
    refused = {v.line for v in module_violations(source.tree, source.names, types)}
    values = [n.value for n in source.tree.body if isinstance(n, (ast.Assign, ast.AnnAssign)) and n.value is not None]
    inside = {id(n) for value in values for n in ast.walk(value)}
    for node in source.tree.body:
        target, value = _plain_assignment(node)
        if target is None or value is None or not any(node.lineno <= n <= (node.end_lineno or 0) for n in refused):
            continue
        if len(source.names.module.bound[target.id]) != 1 or target.id == source.contract.function:
            continue
        uses = list(source.loads(target.id))
        spelled = all(source.of(use) == target.id for use, _ in uses)
        placed = all(not scope.is_module or id(use) in inside for use, scope in uses)
        if uses and spelled and placed and _is_made_of_tensors(value, source.names):
            edits = [Edit(source.start(value), source.start(value), "lambda: ")]
            edits += [Edit(source.end(use), source.end(use), "()") for use, _ in uses]
            shown = one_line(target.id, 60)
            yield Change(tuple(edits), f"`{shown}` is made anew in each call, as `{shown}()`")
            return  # the next one may use this one


def _plain_assignment(node: ast.stmt) -> tuple[ast.Name | None, ast.expr | None]:
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0], node.value
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target, node.value
    return None, None


def _is_made_of_tensors(value: ast.expr, names: Names) -> bool:
    """Whether every call is one of torch, of a tensor's method, of a plain built-in, or of a value made like this one."""
    calls = [n for n in ast.walk(value) if isinstance(n, ast.Call)]
    return bool(calls) and all(_is_plain_call(call, names) for call in calls)


def _is_plain_call(call: ast.Call, names: Names) -> bool:
    dotted = names.dotted(call.func, names.module)
    if dotted is not None:
        return dotted in DOTTED - MODULES
    if isinstance(call.func, ast.Attribute):
        return call.func.attr in ATTRIBUTES - IN_PLACE
    if not isinstance(call.func, ast.Name):
        return isinstance(call.func, ast.Call)  # nn.Softplus()(x), whose own call is looked at too
    if call.func.id in _PURE:
        return names.find(call.func.id, names.module) is None
    found = names.bindings(call.func.id, names.module)
    return len(found) == 1 and isinstance(found[0].value, ast.Lambda) and not call.args and not call.keywords
