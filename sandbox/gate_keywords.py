"""Which keyword arguments a call may have: those that torch documents for what is called."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

from sandbox.allowlist import DOTTED, KEYWORDS, KEYWORDS_OF
from sandbox.gate_hints import about_keyword, nearest
from sandbox.gate_names import Names, Scope
from sandbox.gate_places import Places
from sandbox.text import one_line


class Keywords:
    """Finds the keyword arguments of calls that their function lacks, or that lead out of tensor arithmetic."""

    def __init__(self, names: Names, places: Places) -> None:
        self.names, self.places = names, places

    def problems(self, node: ast.Call, scope: Scope, dotted: str | None) -> Iterator[tuple[str, str]]:
        """What is wrong with a call's keywords, and what to do instead; `dotted` is what is called, if it is imported."""
        if dotted is not None and dotted not in DOTTED:  # which is refused as a whole
            return
        if any(k.arg is None for k in node.keywords):
            yield "`**` in a call", "Write the keyword arguments out"
        called = self.names.functions(node.func, scope)
        if called:
            yield from _of_local_function(node, called)
            return
        any_name = self.names.is_builtin(node.func, scope, "dict")
        name, known = self._known(node.func, scope, dotted)
        for keyword in node.keywords:
            if keyword.arg is None or any_name:
                continue
            if keyword.arg == "device":
                if not self.places.is_place(keyword.value, scope):
                    yield "the argument `device=`", "Leave it out, or write `device=x.device`"
            elif keyword.arg not in known:
                problem = f"the argument `{one_line(keyword.arg, 60)}=` is not available"
                yield problem, about_keyword(keyword.arg, name, known)

    def _known(self, function: ast.expr, scope: Scope, dotted: str | None) -> tuple[str, Collection[str]]:
        """What is called, and its keywords; of a value, all that anything has."""
        if dotted is not None:
            return dotted, KEYWORDS_OF.get(dotted, ())
        if isinstance(function, ast.Attribute):
            return f".{function.attr}", KEYWORDS_OF.get(f".{function.attr}", ())
        if isinstance(function, ast.Name) and self.names.is_builtin(function, scope, function.id):
            return function.id, KEYWORDS_OF.get(f"builtins.{function.id}", ())
        return "", KEYWORDS


def _of_local_function(node: ast.Call, called: list[Scope]) -> Iterator[tuple[str, str]]:
    """A function of the source takes the names of its own parameters and no others."""
    taken = {n for inner in called for n, found in inner.bound.items() if found[0].kind == "parameter"}
    for keyword in node.keywords:
        if keyword.arg is not None and keyword.arg not in taken:
            name = node.func.id if isinstance(node.func, ast.Name) else "lambda"
            problem = f"`{one_line(name, 40)}` has no parameter `{one_line(keyword.arg, 60)}`"
            near = nearest(keyword.arg, taken)
            yield problem, f"Did you mean `{near}`?" if near else "Leave it out"
