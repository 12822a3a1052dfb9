"""Candidate source as text and tree: docstring out, typed signature in, and a proof that nothing else has changed."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable

from discovery.exporters.base import ExportError
from sandbox.arguments import with_defaults
from sandbox.contract import Contract, TensorInput
from sandbox.syntax import parse
from sandbox.text import one_line

_OUR_IMPORTS = {
    "torch": ("import torch",),
    "nn": ("from torch import nn", "import torch.nn as nn"),
    "Tensor": ("from torch import Tensor",),
    "Any": ("from typing import Any",),
    "Sequence": ("from collections.abc import Sequence", "from typing import Sequence"),
}
STANDARD = frozenset(["math", "typing", "collections", "__future__"])


def parse_accepted(source: str, short_id: str) -> ast.Module:
    """The tree of a source that needs nothing but torch.

    Raises:
        ExportError: it does not parse, or imports something else.
    """
    try:
        tree = parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExportError(f"{short_id} is not valid Python ({one_line(str(error), 80)})") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            roots = [(node.module or "").split(".")[0]] if node.level == 0 else ["."]
        else:
            continue
        for root in roots:
            if root != "torch" and root not in STANDARD:
                raise ExportError(
                    f"{short_id} imports {one_line(root, 40)!r}; only accepted candidates can be exported"
                )
    return tree


def entry_of(tree: ast.Module, contract: Contract, short_id: str) -> ast.FunctionDef:
    """The contract's function. Raises ExportError if there is none."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == contract.function:
            return node
    raise ExportError(f"{short_id} has no function {contract.function!r}; only accepted candidates can be exported")


def split_docstring(source: str, tree: ast.Module) -> tuple[str | None, str]:
    """The module docstring, and the source without it."""
    doc = ast.get_docstring(tree)
    if doc is None:
        return None, source
    node = tree.body[0]
    lines = source.split("\n")
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    before = "\n".join([*lines[: node.lineno - 1], _columns(lines[node.lineno - 1], 0, node.col_offset)])
    after = "\n".join([_columns(lines[node.end_lineno - 1], node.end_col_offset, None), *lines[node.end_lineno :]])
    return doc, before + after.lstrip(" \t;")


def split_future(code: str) -> tuple[str, str]:
    """The leading `from __future__` imports of a source without a module docstring, and the rest."""
    tree = parse(code)
    futures = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    if not futures:
        return "", code
    lines = code.split("\n")
    for node in reversed(futures):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        line = lines[node.end_lineno - 1]
        rest = _columns(line, node.end_col_offset, None).lstrip(" \t;")
        kept = [_columns(lines[node.lineno - 1], 0, node.col_offset) + rest]
        lines[node.lineno - 1 : node.end_lineno] = kept
    return "\n".join(ast.unparse(n) for n in futures), "\n".join(lines)


def typed(code: str, contract: Contract) -> str:
    """The code with type annotations on the contract's function, where it has none; its body stays as it is."""
    tree = parse(code)
    entry = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == contract.function)
    arguments = [*entry.args.args, *entry.args.kwonlyargs]
    if entry.returns is not None and all(a.annotation is not None for a in arguments):
        return code
    binding = _torch_binding(tree)
    if binding == "other":
        return code  # the name torch stands for something else in it
    header = _header(entry, contract)
    start, end = _header_span(code, entry)
    code = code[:start] + header + code[end:]
    return code if binding == "torch" else _with_import(code, entry.name)


def _torch_binding(tree: ast.Module) -> str:
    """What the name `torch` is at module level: ``torch``, ``other`` or ``nothing``."""
    found = "nothing"
    for node in tree.body:
        for alias in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else []:
            bound = alias.asname or alias.name.split(".")[0]
            if bound == "torch":
                plain = isinstance(node, ast.Import) and (alias.asname is None or alias.name == "torch")
                found = "torch" if plain and found != "other" else "other"
    return found


def _with_import(code: str, function: str) -> str:
    """`import torch` with the imports above a function, after any `from __future__` one."""
    tree, lines = parse(code), code.split("\n")
    entry = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function)
    imports = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom)) and n.lineno < entry.lineno]
    future = max((n.end_lineno or 0 for n in imports if ast.unparse(n).startswith("from __future__")), default=0)
    others = [n.lineno - 1 for n in imports if n.lineno > future]
    if others:
        return "\n".join([*lines[: min(others)], "import torch", *lines[min(others) :]])
    above, below = lines[:future], "\n".join(lines[future:]).lstrip("\n")
    return "\n".join([*above, *([""] if above else []), "import torch", "", "", below])


def _header_span(code: str, entry: ast.FunctionDef) -> tuple[int, int]:
    """Where `def ...:` begins and ends, as positions in the text."""
    starts = [0]
    for line in code.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    depth, begun = 0, None
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        position = starts[token.start[0] - 1] + token.start[1]
        if begun is None:
            if token.string == "def" and token.start[0] == entry.lineno:
                begun = position
            continue
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(token.string, 0)
        if token.string == ":" and depth == 0:
            return begun, position + 1
    raise ExportError(f"the signature of {entry.name} was not found")


def _header(entry: ast.FunctionDef, contract: Contract) -> str:
    kinds = {i.name: "torch.Tensor" if isinstance(i, TensorInput) else "float" for i in contract.inputs}
    lines = []
    for position, (argument, default) in enumerate(with_defaults(entry.args)):
        if position == len(entry.args.args):
            lines.append("*")
        kind = ast.unparse(argument.annotation) if argument.annotation else kinds.get(argument.arg)
        kind = kind or ("float" if default is not None and _is_number(default) else None)
        text = argument.arg if kind is None else f"{argument.arg}: {kind}"
        if default is not None:
            text += f" = {ast.unparse(default)}" if kind else f"={ast.unparse(default)}"
        lines.append(text)
    returns = ast.unparse(entry.returns) if entry.returns else "torch.Tensor"
    inside = "".join(f"    {line},\n" for line in lines)
    return f"def {entry.name}(\n{inside}) -> {returns}:"


def _is_number(node: ast.expr) -> bool:
    operand = node.operand if isinstance(node, ast.UnaryOp) else node
    return isinstance(operand, ast.Constant) and type(operand.value) in (int, float)


def require_same(text: str, archived: ast.Module, contract: Contract, short_id: str) -> None:
    """A module must be the archived one but for its docstring, an `import torch`, and annotations of the entry.

    Raises:
        ExportError: it does not parse, or differs.
    """
    try:
        exported = parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExportError(f"the module made from {short_id} does not parse ({one_line(str(error), 80)})") from None
    if ast.get_docstring(exported) is None or _comparable(exported, contract) != _comparable(archived, contract):
        raise ExportError(f"the module made from {short_id} differs from the archived code; nothing was exported")


def _comparable(tree: ast.Module, contract: Contract) -> list[str]:
    body: Iterable[ast.stmt] = tree.body[1 if ast.get_docstring(tree) is not None else 0 :]
    dumps = []
    for node in body:
        if ast.unparse(node) == "import torch":
            continue
        if isinstance(node, ast.FunctionDef) and node.name == contract.function:
            node = _unannotated(node)
        dumps.append(ast.dump(node))
    return dumps


def _unannotated(function: ast.FunctionDef) -> ast.FunctionDef:
    copy = parse(ast.unparse(function)).body[0]
    assert isinstance(copy, ast.FunctionDef)
    copy.returns = None
    for argument in (*copy.args.posonlyargs, *copy.args.args, *copy.args.kwonlyargs):
        argument.annotation = None
    return copy


def require_free(tree: ast.Module, ours: frozenset[str], short_id: str) -> None:
    """Raises ExportError if the candidate gives another meaning to a name that the exported file needs for itself."""
    taken = sorted(n for n in top_level_names(tree) & ours if not _binds_as_ours(tree, n))
    if taken:
        raise ExportError(
            f"{short_id} defines {', '.join(taken)}, a name that the file needs for itself; nothing was exported"
        )


def top_level_names(tree: ast.Module) -> set[str]:
    """Names that a module's own statements bind."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {a.asname or a.name.split(".")[0] for a in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        else:
            found |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return found


def _binds_as_ours(tree: ast.Module, name: str) -> bool:
    """Whether every statement that binds the name imports what our own import of it means."""
    usual = _OUR_IMPORTS.get(name, ())
    for node in tree.body:
        if name not in top_level_names(ast.Module([node], [])):
            continue
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            return False
        for alias in node.names:
            single = ast.Import([alias]) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, [alias], 0)
            if name in top_level_names(ast.Module([single], [])):
                text = ast.unparse(single)
                if text not in usual and not (name == "torch" and text.startswith("import torch.")):
                    return False
    return True


def _columns(line: str, start: int, end: int | None) -> str:
    """Part of a line by the UTF-8 byte offsets that `ast` counts in."""
    return line.encode()[start:end].decode()
