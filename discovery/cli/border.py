"""Where the command begins and ends: every error becomes one line on stderr and an exit code.

2: something the person gave is wrong. 1: a fault of the machine, the network, a plug-in or ours. 130: interrupted by Ctrl-C.
"""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from types import TracebackType
from typing import Any

import typer

from discovery.cli.streams import clean_streams
from sandbox.text import one_line

BAD_INPUT, FAULT, INTERRUPTED = 2, 1, 130
MAX_MESSAGE = 1000

# Looked up among the modules already loaded: a class whose module was never imported cannot have been raised, and the
# modules are too heavy to import for a usage error.
_EXIT_CODES: Sequence[tuple[str, str, int]] = (
    ("db.errors", "ArchiveError", BAD_INPUT),
    ("evaluators.options", "OptionsError", BAD_INPUT),
    ("discovery.exporters.base", "ExportError", BAD_INPUT),
    ("sandbox.failure", "CandidateError", BAD_INPUT),
    ("sandbox.failure", "InfrastructureError", FAULT),
    ("sandbox.failure", "PluginError", FAULT),
    ("discovery.search", "SearchError", FAULT),
    ("builtins", "OSError", FAULT),
)
_CLICK_ERROR: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
_HINTS = {28: "free some space and run the same command again"}  # by errno: ENOSPC


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        arguments: without the program's name; None takes those of the process.

    Raises:
        Exception: a fault of ours. The interpreter hands it to `sys.excepthook`, which is set here to say it in one line.
    """
    _settle_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given  # accepted anywhere, before and after the command's name
    given = [a for a in given if a != "--debug"]
    sys.excepthook = sys.__excepthook__ if debug else _unexpected
    try:
        os.getcwd()
    except OSError:
        say_error("the current folder has been deleted; change into another one")
        return BAD_INPUT
    with clean_streams(sys.stdout, sys.stderr):
        return _ended(given, debug)


def _ended(given: list[str], debug: bool) -> int:
    """Run a command up to its exit code. Raises faults of ours."""
    from discovery.cli.app import app

    try:
        code = _invoke(typer.main.get_command(app), given)
        sys.stdout.flush()
        return code
    except (KeyboardInterrupt, typer.Abort):
        say_error("interrupted; the same command goes on from what is stored", prefix="")
        return INTERRUPTED
    except BrokenPipeError:  # `discovery candidates | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing to flush into at exit
        return FAULT
    except _known_errors() as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group alone, as `discovery archive`
            print(message_of(error, as_help=True), file=sys.stderr)
            return BAD_INPUT
        if debug:
            traceback.print_exception(error)
        say_error(message_of(error))
        return _exit_code(error)


def _settle_streams() -> None:
    """What a terminal cannot show is replaced, and a closed stream is nowhere: neither decides how a command ends."""
    while (
        descriptor := os.open(os.devnull, os.O_RDWR)
    ) <= 2:  # a file opened later must not become the standard output
        continue
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.devnull, "w"), encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _invoke(command: Any, arguments: list[str]) -> int:
    """The command itself, without the exits and messages that the command library would add."""
    try:
        with command.make_context("discovery", arguments) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0


def say_error(message: str, prefix: str = "error: ") -> None:
    """One line on stderr, without secrets or control characters."""
    from db.redact import redact_secrets

    line = one_line(redact_secrets(message), MAX_MESSAGE)
    print(f"{prefix}{line}", file=sys.stderr, flush=True)


def message_of(error: BaseException, as_help: bool = False) -> str:
    """What to say about an expected error. `as_help`: the command line's own words, on several lines."""
    if as_help:
        return str(getattr(error, "format_message", error.__str__)())
    if isinstance(error, _CLICK_ERROR):
        return _usage(error)
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__
        where = f": {error.filename}" if error.filename else ""
        hint = _HINTS.get(error.errno or 0)
        return f"{what}{where}" + (f"; {hint}" if hint else "")
    return str(error)


def _usage(error: Exception) -> str:
    """What is wrong on the command line, with the nearest command or option that there is."""
    format_message: Callable[[], str] = getattr(error, "format_message", error.__str__)
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "discovery"
    message = format_message().rstrip(".")
    if typed := re.match(r"No such (command|option):? '?([^' ]*)", message):
        message = f"no {typed[1]} {typed[2]!r}; {_nearest(typed[2], context)}"
    return f"{message}; see `{command} --help`"


def _nearest(typed: str, context: Any) -> str:
    """The command or option that was meant, as far as its letters tell; for a command that is like none, all there are."""
    if typed.startswith("-"):
        known = [name for parameter in context.command.params for name in (*parameter.opts, *parameter.secondary_opts)]
    else:
        known = list(getattr(context.command, "commands", {}))
    close = get_close_matches(typed, known, n=1, cutoff=0.6)
    listed = (name for name in sorted(known) if name.startswith("-") == typed.startswith("-"))
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(listed)}"


def _known_errors() -> tuple[type[BaseException], ...]:
    loaded = [getattr(sys.modules.get(module), name, None) for module, name, _ in _EXIT_CODES]
    return (_CLICK_ERROR, *(c for c in loaded if isinstance(c, type)))


def _exit_code(error: BaseException) -> int:
    if getattr(error, "fault", False):  # an ArchiveError says itself whether the machine or the person is to blame
        return FAULT
    for module, name, code in _EXIT_CODES:
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type) and isinstance(error, kind):
            return code
    return BAD_INPUT  # the command line itself


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The interpreter's last word about an error that nobody expected; it exits with 1 afterwards."""
    del trace
    say_error(f"{kind.__name__}: {error}; run with --debug for the traceback", prefix="unexpected fault: ")
