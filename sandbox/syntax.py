"""Python source to a syntax tree, from any thread."""

from __future__ import annotations

import ast
import threading

# Python up to 3.12 counts the depth of the tree that it builds in one place for all threads: where the garbage
# collector gives way to another thread in the middle, and that one parses as well, both end in a SystemError
# (python/cpython#106905). The driver's proposers, its oracles and the dashboard's requests all run in threads.
_ONE_AT_A_TIME = threading.RLock()


def parse(source: str, filename: str = "<candidate>") -> ast.Module:
    """`ast.parse` for any thread.

    Raises:
        SyntaxError: the source is not Python.
        ValueError: it holds what no Python source may (a NUL, a lone surrogate).
        RecursionError, MemoryError: it is nested too deeply.
    """
    with _ONE_AT_A_TIME:
        return ast.parse(source, filename)
