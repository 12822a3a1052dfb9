"""What a module names according to Python's compiler: a second opinion on the gate, which reads syntax trees.

The compiler decides scopes itself, so a name that falls through to a built-in shows here as what it is.
"""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterator
from types import CodeType

# typed out, not imported from the gate: torch itself exposes os, sys and ctypes as attributes
MODULES = {
    "torch",
    "torch.nn",
    "torch.nn.functional",
    "torch.special",
    "torch.linalg",
    "math",
    "typing",
    "collections.abc",
}
BUILTINS = {
    "abs", "all", "any", "bool", "dict", "divmod", "enumerate", "filter", "float", "frozenset", "int", "isinstance", "len",
    "list", "map", "max", "min", "pow", "range", "reversed", "round", "set", "sorted", "str", "sum", "tuple", "zip",
    "ArithmeticError", "AssertionError", "Exception", "FloatingPointError", "IndexError", "KeyError",
    "NotImplementedError", "OverflowError", "RuntimeError", "TypeError", "ValueError", "ZeroDivisionError",
}  # fmt: skip
_FORBIDDEN_OPERATIONS = (
    "STORE_ATTR", "DELETE_", "STORE_GLOBAL", "IMPORT_STAR", "YIELD", "SEND", "GET_AWAITABLE", "LOAD_BUILD_CLASS", "MATCH_",
    "BEFORE_ASYNC_WITH", "GET_AITER",
)  # fmt: skip
_OWN = {"__doc__", "__annotations__"}  # the compiler stores these itself


def _codes(code: CodeType) -> Iterator[CodeType]:
    pending = [code]
    while pending:
        code = pending.pop()
        yield code
        pending += [c for c in code.co_consts if isinstance(c, CodeType)]


def leaks(source: str, attributes: frozenset[str]) -> list[str]:
    """Everything that an accepted module may not do.

    Args:
        attributes: names that may follow a dot.
    """
    module = compile(source, "<candidate>", "exec", dont_inherit=True)
    bound = {i.argval for i in dis.get_instructions(module) if i.opname in ("STORE_NAME", "STORE_GLOBAL")}
    found: list[str] = []
    for code in _codes(module):
        imported = ""
        for instruction in dis.get_instructions(code):
            name, value = instruction.opname, instruction.argval
            if name.startswith(_FORBIDDEN_OPERATIONS) and not _is_generator_step(name, code):
                found.append(f"{name} {value}")
            elif name == "IMPORT_NAME":
                imported = value
                if value not in MODULES | {"__future__"}:
                    found.append(f"imports {value}")
            elif name == "IMPORT_FROM":
                if value not in attributes and imported != "__future__":
                    found.append(f"imports {value} from {imported}")
            elif name in ("LOAD_ATTR", "LOAD_METHOD"):
                if value not in attributes:
                    found.append(f"attribute {value}")
            elif name in ("LOAD_GLOBAL", "LOAD_NAME"):
                if value not in bound | BUILTINS | _OWN:
                    found.append(f"built-in {value}")
                elif (
                    value not in BUILTINS | _OWN
                    and code is module
                    and _may_be_unbound(module, instruction.offset, value)
                ):
                    found.append(f"{value} before it is bound")
        found += [f"the name {n}" for n in (*code.co_varnames, *bound) if n.startswith("__") and n not in _OWN]
        found += [f"constant {type(c).__name__}" for c in code.co_consts if isinstance(c, (bytes, complex))]
    return found + list(_keywords(source))


def _is_generator_step(name: str, code: CodeType) -> bool:
    return code.co_name == "<genexpr>" and name == "YIELD_VALUE"


def _may_be_unbound(module: CodeType, offset: int, name: str) -> bool:
    """Whether a module-level name that hides no allowed built-in is read before it is stored: Python would look further."""
    import builtins

    stored = [i.offset for i in dis.get_instructions(module) if i.opname == "STORE_NAME" and i.argval == name]
    return hasattr(builtins, name) and min(stored) > offset


def _keywords(source: str) -> Iterator[str]:
    """Keyword arguments that torch could act on, whatever is called."""
    for node in ast.walk(ast.parse(source, "<candidate>")):
        if isinstance(node, ast.Call):
            local = isinstance(node.func, ast.Name)
            for keyword in node.keywords:
                if keyword.arg is None or (keyword.arg in ("out", "generator", "inplace", "pin_memory") and not local):
                    yield f"keyword {keyword.arg}"
                if keyword.arg == "device" and not local and "cuda" in ast.unparse(keyword.value):
                    yield "device=cuda"
