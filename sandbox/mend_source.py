"""A source that is being mended: its tree, the places of its nodes in the text, and changes to the text.

Changes are made to the text and not to the tree, so that comments and layout stay as they were written.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from sandbox.contract import Contract
from sandbox.gate_names import Names, Scope
from sandbox.syntax import parse


@dataclass(frozen=True)
class Edit:
    """Replace the text from `start` up to `end`."""

    start: int
    end: int
    text: str = ""


@dataclass(frozen=True)
class Change:
    """Edits that belong together, and the note that says what they did."""

    edits: tuple[Edit, ...]
    note: str


class Source:
    """A text that parses, under a contract.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: it does not parse.
    """

    def __init__(self, text: str, contract: Contract) -> None:
        self.text, self.contract = text, contract
        self.tree = parse(text)
        self.names = Names(self.tree)
        self._lines = text.split("\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)

    @cached_property
    def _bodies(self) -> dict[int, list[ast.stmt]]:
        """The block that a statement is in, by the statement's id."""
        return {id(s): body for node in ast.walk(self.tree) for body in _bodies_of(node) for s in body}

    def offset(self, line: int, column: int) -> int:
        """Where a node's position is in the text: nodes count lines from 1, and columns in bytes."""
        written = self._lines[line - 1]
        if not written.isascii():
            column = len(written.encode()[:column].decode("utf-8", "ignore"))
        return self._starts[line - 1] + column

    def start(self, node: ast.expr | ast.stmt | ast.arg) -> int:
        return self.offset(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt | ast.arg) -> int:
        return self.offset(node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)

    def of(self, node: ast.expr | ast.stmt) -> str:
        """A node as it is written."""
        return self.text[self.start(node) : self.end(node)]

    def loads(self, name: str) -> Iterator[tuple[ast.Name, Scope]]:
        """Every use of what `name` means at module level."""
        for node, scope in self.names.nodes:
            if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
                home = self.names.find(name, scope)
                if home is not None and home.is_module:
                    yield node, scope

    def lines(self, first: int, last: int) -> Edit:
        """Take whole lines out, counted from 1."""
        return Edit(self._starts[first - 1], min(self._starts[last], len(self.text)))

    def without(self, nodes: Iterable[ast.stmt], others: Iterable[ast.stmt] = ()) -> tuple[Edit, ...]:
        """Take statements out; `pass` stands where a block would be left empty, now that `others` are gone as well."""
        leaving = list(nodes)
        gone = {id(n) for n in (*leaving, *others)}
        edits = []
        for node in leaving:
            body = self._bodies[id(node)]
            empties = body is not self.tree.body and body[0] is node and all(id(s) in gone for s in body)
            edits.append(self._without(node, empties))
        return tuple(edits)

    def _without(self, node: ast.stmt, needs_pass: bool) -> Edit:
        decorators = getattr(node, "decorator_list", [])
        first, last = min([node.lineno, *(d.lineno for d in decorators)]), node.end_lineno or node.lineno
        before = self._lines[node.lineno - 1][: self.start(node) - self._starts[node.lineno - 1]]
        after = self.text[self.end(node) : self._starts[last] - 1].strip()
        if needs_pass or before.strip() or (after and not after.startswith("#")):
            start = self._starts[first - 1] + len(before) if decorators else self.start(node)
            return Edit(start, self.end(node), "pass")
        return self.lines(first, last)

    def edited(self, changes: Iterable[Change]) -> tuple[str, list[str]]:
        """The text with those changes that do not overlap an earlier one, and their notes."""
        taken: list[Edit] = []
        notes = []
        for change in changes:
            if not any(_overlap(a, b) for a in change.edits for b in taken):
                taken += change.edits
                notes.append(change.note)
        text = self.text
        for edit in sorted(taken, key=lambda e: (e.start, e.end), reverse=True):
            text = text[: edit.start] + edit.text + text[edit.end :]
        return text, notes


def _bodies_of(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for field in ("body", "orelse", "finalbody"):
        value = getattr(node, field, None)
        if isinstance(value, list):
            yield value


def _overlap(a: Edit, b: Edit) -> bool:
    if a.start == a.end == b.start == b.end:
        return True
    return a.start < b.end and b.start < a.end
