"""Rules for what the contract's function does not use, where the gate refuses it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sandbox.allowlist import (
    ATTRIBUTES,
    DOTTED,
    FUTURE,
    GRADIENT_MODES,
    IN_PLACE,
    MODULES,
    RANDOM,
    TYPING_MODULES,
    names,
)
from sandbox.candidate import Candidate
from sandbox.gate import check_source
from sandbox.gate_names import is_known
from sandbox.mend_source import Change, Edit, Source
from sandbox.text import one_line

# packages that losses are written beside; importing them does nothing by itself. None that reaches the system is among them
_HARMLESS = names("""
abc accelerate beartype collections contextlib copy dataclasses datasets einops enum functools itertools jax jaxtyping
logging math matplotlib numbers numpy operator pandas peft pprint random scipy sklearn statistics string textwrap time
torch torchtyping tqdm transformers trl typeguard types typing typing_extensions unittest warnings pytest
""")
_PLAIN_CALLS = names("""
abs bool dict enumerate float frozenset int len list max min print range repr round set sorted str sum tuple zip
""")
_MAKERS = ("dataclasses.", "functools.", "logging.", "warnings.", "typing.", "collections.")
_PLAIN_METHODS = (ATTRIBUTES | {"backward", "format", "join"}) - IN_PLACE - {"sort"}
_PLAIN_FUNCTIONS = (DOTTED | {"torch.device"}) - GRADIENT_MODES
_PLAIN_DECORATORS = names("staticmethod classmethod property")


def imports(source: Source) -> Iterator[Change]:
    """Imports that are refused and that nothing uses."""
    read = {n.id for n in ast.walk(source.tree) if isinstance(n, ast.Name)}
    gone: dict[str, list[ast.Import | ast.ImportFrom]] = {}
    for node, _ in source.names.nodes:
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        unused = [a for a in node.names if _is_refused(node, a) and _is_unused(node, a, read)]
        shown = ", ".join(one_line(_full_name(node, a), 60) for a in unused)
        if unused and len(unused) == len(node.names):
            gone.setdefault(shown, []).append(node)
        elif unused:
            kept = [a for a in node.names if a not in unused]
            text = ast.unparse(_with_names(node, kept))
            yield Change((Edit(source.start(node), source.end(node), text),), _unused(shown))
    every = [n for nodes in gone.values() for n in nodes]
    for shown, nodes in gone.items():
        yield Change(source.without(nodes, every), _unused(shown))
    yield from _submodules(source)


def _unused(shown: str) -> str:
    return f"left out the import of {shown}, which is not used"


def _submodules(source: Source) -> Iterator[Change]:
    """`import torch.optim` binds `torch`, which is what the rest may use."""
    for node, _ in source.names.nodes:
        if isinstance(node, ast.Import) and len(node.names) == 1:
            alias = node.names[0]
            if alias.asname is None and alias.name.startswith("torch.") and alias.name not in MODULES:
                edit = Edit(source.start(node), source.end(node), "import torch")
                yield Change((edit,), f"wrote `import torch` for `import {one_line(alias.name, 60)}`")


def _with_names(node: ast.Import | ast.ImportFrom, kept: list[ast.alias]) -> ast.stmt:
    return ast.Import(kept) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, kept, node.level)


def _full_name(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    return alias.name if isinstance(node, ast.Import) else f"{'.' * node.level}{node.module or ''}.{alias.name}"


def _is_refused(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> bool:
    if isinstance(node, ast.Import):
        return alias.name not in MODULES | TYPING_MODULES
    full = _full_name(node, alias)
    return not is_known(full) and not (node.module == "__future__" and alias.name in FUTURE)


def _is_unused(node: ast.Import | ast.ImportFrom, alias: ast.alias, read: set[str]) -> bool:
    """Whether an import of a harmless package binds a name that stands nowhere else."""
    full = _full_name(node, alias)
    bound = alias.asname or (alias.name.partition(".")[0] if isinstance(node, ast.Import) else alias.name)
    return full.partition(".")[0] in _HARMLESS and bound not in read and bound != "*"


def statements(source: Source) -> Iterator[Change]:
    """Functions, classes, values and trials beside the contract's function that it does not use and the gate refuses."""
    contract = source.contract
    if contract.function not in source.names.module.bound:  # all would be unused
        return
    refused = {v.line for v in check_source(Candidate(contract.name, source.text), contract).violations}
    used = _used(source)
    gone: dict[str, list[ast.stmt]] = {}
    for node in source.tree.body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        is_refused = any(first <= n <= (node.end_lineno or 0) for n in refused)
        if is_refused and used.isdisjoint(_binds(node) or {""}) and _may_go(node, source):
            gone.setdefault(_shown(node, source), []).append(node)
    every = [n for nodes in gone.values() for n in nodes]
    for shown, nodes in gone.items():
        yield Change(source.without(nodes, every), f"left out {shown}, which `{contract.function}` does not use")


def _shown(node: ast.stmt, source: Source) -> str:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return f"`{one_line(node.name, 60)}`"
    return f"`{one_line(source.of(node), 60)}`"


def _used(source: Source) -> set[str]:
    """Module-level names that the contract's function needs, itself included, by spelling: rather one too many."""
    bodies: dict[str, set[str]] = {}
    for node in source.tree.body:
        read = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        for name in _binds(node):
            bodies.setdefault(name, set()).update(read)
        if not _binds(node) and not _may_go(node, source):
            bodies.setdefault(source.contract.function, set()).update(read)
    used: set[str] = set()
    pending = [source.contract.function]
    while pending:
        name = pending.pop()
        if name not in used:
            used.add(name)
            pending += bodies.get(name, ())
    return used


def _binds(node: ast.stmt) -> set[str]:
    """Names that a statement gives a meaning to at module level, if that is all that it does."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return (
        {t.id for t in targets if isinstance(t, ast.Name)} if all(isinstance(t, ast.Name) for t in targets) else set()
    )


def _may_go(node: ast.stmt, source: Source) -> bool:
    """Whether a statement does nothing but bind names and show values: whatever it calls has no effect."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        loaded = _loaded(node)
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        if not _binds(node):
            return False
        loaded = list(ast.walk(node))
    elif isinstance(node, (ast.Expr, ast.Assert)):
        loaded = list(ast.walk(node))
    else:
        return False
    return all(_has_no_effect(n, source) for n in loaded)


def _loaded(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[ast.AST]:
    """What runs when a function or a class is defined: decorators, defaults and a class's own statements."""
    found: list[ast.AST] = []
    pending: list[ast.AST] = [node]
    while pending:
        part = pending.pop()
        found.append(part)
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
            pending += [*part.decorator_list, *part.args.defaults, *(d for d in part.args.kw_defaults if d is not None)]
        elif not isinstance(part, ast.Lambda):
            pending += ast.iter_child_nodes(part)
    return found


def _has_no_effect(node: ast.AST, source: Source) -> bool:
    names = source.names
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):  # a decorator is called, too
        return all(_is_plain_decorator(d, source) for d in node.decorator_list)
    if isinstance(node, (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom, ast.Delete, ast.Global, ast.AugAssign)):
        return False
    if not isinstance(node, ast.Call):
        return True
    dotted = names.dotted(node.func, names.module)
    if dotted is not None:
        return dotted in _PLAIN_FUNCTIONS or dotted.rpartition(".")[2] in RANDOM or dotted.startswith(_MAKERS)
    if isinstance(node.func, ast.Attribute):
        return node.func.attr in _PLAIN_METHODS
    if isinstance(node.func, ast.Name):
        found = names.bindings(node.func.id, names.module)
        if not found:
            return node.func.id in _PLAIN_CALLS
        # what stays in the source is looked at by the gate, and may change nothing that it has not made
        return node.func.id == source.contract.function and len(found) == 1
    return isinstance(node.func, ast.Call)


def _is_plain_decorator(node: ast.expr, source: Source) -> bool:
    named = node.func if isinstance(node, ast.Call) else node
    dotted = source.names.dotted(named, source.names.module) or ""
    if any(source.names.is_builtin(named, source.names.module, name) for name in _PLAIN_DECORATORS):
        return True
    return dotted.startswith((*_MAKERS, "torch.", "pytest."))
