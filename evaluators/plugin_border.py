"""The border to other people's code: whatever a plug-in raises becomes a typed error with its file and line, as plain text.

No exception object of a plug-in leaves its process: its class may not exist elsewhere, and unpickling it would run its code.
"""

from __future__ import annotations

import errno
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from evaluators.options import OptionsError
from sandbox.failure import CandidateError, InfrastructureError, PluginError
from sandbox.text import one_line

_TYPED = (CandidateError, InfrastructureError, OptionsError, PluginError)
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.EAGAIN)
_MAX_TEXT = 300
_HERE, _IMPORTS = os.path.join(os.path.dirname(__file__), "plugin"), os.path.dirname(importlib.__file__)


@contextmanager
def plugin_border(plugin: object, doing: str, passes: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Run code of a plug-in; errors that say whose fault they are pass through.

    Args:
        plugin: the object or class that is called.
        doing: what it is asked to do, for the message, such as ``run``.
        passes: further errors that its protocol allows.

    Raises:
        PluginError: it raised anything else, `SystemExit` included; says what and where.
        InfrastructureError: the machine has no memory, no disk space or no open files left.
        CandidateError, OptionsError: as they were raised.
    """
    try:
        yield
    except _TYPED:
        raise
    except passes:
        raise
    except (Exception, SystemExit) as error:
        said = f"{name_of(plugin)}, {doing}: {describe(error, plugin)}"
        if _is_machines(error):
            raise InfrastructureError(said) from error
        raise PluginError(said) from error


def name_of(plugin: object) -> str:
    """``module:Class`` of a plug-in's object or class."""
    kind = plugin if isinstance(plugin, type) else type(plugin)
    return f"{kind.__module__}:{kind.__qualname__}"


def describe(error: BaseException, plugin: object = None) -> str:
    """``ValueError: too small (/path/mine.py:12)``: the text, and the innermost line of the plug-in's own code."""
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  the text of an error is other people's code too
        text = ""
    if isinstance(error, SyntaxError) and error.filename:
        where, text = f"{error.filename}:{error.lineno}", error.msg
    else:
        where = _place(error, plugin)
    return one_line(f"{kind}: {text}" if text else kind, _MAX_TEXT) + (f" ({one_line(where, 400)})" if where else "")


def method_of(plugin: object, name: str) -> str:
    """``module:Class, run (/path/mine.py:12)``: a method, and where it is defined if that is known."""
    method = getattr(type(plugin), name, None)
    code = getattr(inspect.unwrap(method), "__code__", None) if callable(method) else None
    where = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return f"{name_of(plugin)}, {name}{where}"


def optional(plugin: object, name: str) -> Any:
    """A member that a plug-in may have besides those of its protocol; None if it has none. Raises what a property raises."""
    return getattr(plugin, name) if inspect.getattr_static(plugin, name, None) is not None else None


def _place(error: BaseException, plugin: object) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    home = _home(plugin)
    own = [f for f in frames if home and os.path.abspath(f.filename).startswith(home)]
    others = [f for f in frames if not f.filename.startswith(("<frozen", _IMPORTS, _HERE))]
    for frame in (*reversed(own), *reversed(others)):
        return f"{frame.filename}:{frame.lineno}"
    return ""


def _home(plugin: object) -> str:
    """The file of the plug-in's module, or the folder of its package; empty if unknown."""
    if plugin is None:
        return ""
    kind = plugin if isinstance(plugin, type) else type(plugin)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if not file:
        return ""
    depth = kind.__module__.count(".")
    path: str = os.path.abspath(file)
    if not depth:
        return path
    for _ in range(depth + os.path.basename(path).startswith("__init__.")):
        path = os.path.dirname(path)
    return path + os.sep


def _is_machines(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _MACHINE
    return (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    )  # torch's, which is not imported
