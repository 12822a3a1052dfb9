"""Derives which keyword arguments each allow-listed function has, from torch's own signatures.

python -m tests.sandbox.make_keywords    writes sandbox/keywords.json, which the gate reads

The gate imports no torch and must say the same on every machine, so what torch documents is written down once. Sources, in
this order: Python signatures, the stubs that torch generates from its argument parser, and operator schemas.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sandbox import allowlist

PATH = Path(allowlist.__file__).with_name("keywords.json")

# where results go, what is random, where memory lies, and what is no argument of the function
DENIED = allowlist.names("""
destination device generator inplace layout memory_format names orig_func out out0 out1 out2 path pin_memory self training
""")
_LEGACY = frozenset({"size_average", "reduce"})  # of torch.nn's losses, replaced by `reduction`
# torch's argument parser understands numpy's spelling of these everywhere
_NUMPY = {"dim": "axis", "keepdim": "keepdims"}
_NUMPY_OPERANDS = {"input": ("x", "a", "x1"), "other": ("x2",)}
# no signature says so
_HAND = {
    "torch.unique": "input sorted return_inverse return_counts dim",
    "torch.finfo": "type",
    "torch.iinfo": "type",
    "math.isclose": "rel_tol abs_tol",
    "torch.nn.functional.binary_cross_entropy": "input target reduction",  # its weights import a symbolic algebra system
    ".sort": "dim descending stable key reverse",  # of tensors and of lists
    ".to": "dtype tensor non_blocking copy",
    "builtins.dict": "",
    "builtins.sorted": "key reverse",
    "builtins.max": "key default",
    "builtins.min": "key default",
    "builtins.round": "ndigits",
    "builtins.zip": "strict",
    "builtins.int": "base",
    "builtins.enumerate": "start",
}


def derive() -> dict[str, list[str]]:
    """Names of functions, of methods (with a dot before) and of built-ins, each with its keywords in order; not those
    that have none.
    """
    found: dict[str, list[str]] = {}
    for dotted in sorted(allowlist.DOTTED - allowlist.MODULES - allowlist.GRADIENT_MODES):
        if callable(resolve(dotted)) and dotted != "torch.Tensor":
            found[dotted] = _allowed(dotted, _of_function(dotted))
    for name in sorted(allowlist.ATTRIBUTES):
        if callable(getattr(torch.Tensor, name, None)):
            found[f".{name}"] = [n for n in _allowed(f".{name}", _of_method(name)) if n not in ("input", "self")]
    for name in sorted(allowlist.BUILTINS - allowlist.EXCEPTIONS):
        found[f"builtins.{name}"] = _allowed(f"builtins.{name}", _signature(getattr(builtins, name)))
    return {name: keywords for name, keywords in found.items() if keywords}


def resolve(dotted: str) -> Any:
    """The object of a dotted name."""
    root, *path = dotted.split(".")
    target: Any = {"torch": torch, "math": math}[root]
    for part in path:
        target = getattr(target, part)
    return target


def _allowed(name: str, keywords: list[str]) -> list[str]:
    if name in _HAND:
        return _HAND[name].split()
    numpy = [_NUMPY[k] for k in keywords if k in _NUMPY]
    if name.startswith("torch.") and not name.startswith("torch.nn."):  # of torch's own parser
        numpy += [n for k in keywords for n in _NUMPY_OPERANDS.get(k, ())]
    denied = DENIED | _LEGACY if name.startswith("torch.nn.") else DENIED
    return [k for k in dict.fromkeys([*keywords, *numpy]) if k not in denied and not k.startswith("_")]


def _of_function(dotted: str) -> list[str]:
    target, leaf = resolve(dotted), dotted.rpartition(".")[2]
    if isinstance(target, type):
        return [n for n in _signature(target.__init__) if n != "self"]
    if dotted.startswith("math."):
        return _signature(target)
    if dotted.startswith(("torch.special.", "torch.linalg.")):
        return _schema(f"aten::{dotted.split('.')[1]}_{leaf}")
    written = _signature(target)
    if dotted.startswith("torch.nn."):
        return written or _stub("_nn.pyi").get(target.__name__, []) or _functions(target.__name__)
    return list(dict.fromkeys([*written, *_functions(leaf)]))


def _functions(name: str) -> list[str]:
    return _stub("_VariableFunctions.pyi").get(name, []) or _schema(f"aten::{name}")


def _of_method(name: str) -> list[str]:
    written = _signature(getattr(torch.Tensor, name))
    return list(dict.fromkeys([*written, *_stub("__init__.pyi", "TensorBase").get(name, [])]))


def _signature(target: Any) -> list[str]:
    """Keywords of a Python function, or of one in C that says; none of one that passes everything on."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return []
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.kind in by_name]


@cache
def _stub(file: str, class_name: str | None = None) -> dict[str, list[str]]:
    """Every function of a stub with the keywords of all its overloads."""
    tree = ast.parse((Path(torch.__file__).parent / "_C" / file).read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for node in _functions_of(tree, class_name):
        known = found.setdefault(node.name, [])
        known += [a.arg for a in (*node.args.args, *node.args.kwonlyargs) if a.arg not in known]
    return found


def _functions_of(tree: ast.Module, class_name: str | None) -> Iterator[ast.FunctionDef]:
    body: list[ast.stmt] = tree.body
    if class_name is not None:
        body = next(n.body for n in body if isinstance(n, ast.ClassDef) and n.name == class_name)
    yield from (n for n in body if isinstance(n, ast.FunctionDef))


def _schema(operator: str) -> list[str]:
    """Keywords of all overloads of an operator, which calls `self` what Python calls `input`."""
    arguments = [a.name for s in torch._C._jit_get_schemas_for_operator(operator) for a in s.arguments]
    return list(dict.fromkeys("input" if name == "self" else name for name in arguments))


def main() -> None:
    table = derive()
    rows = [f"  {json.dumps(name)}: {json.dumps(' '.join(keywords))}" for name, keywords in table.items()]
    PATH.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
