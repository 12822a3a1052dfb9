"""Writing to the terminal: consoles, hostile text made harmless, numbers, JSON."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from discovery.json_values import plain
from sandbox.text import one_line

if TYPE_CHECKING:
    from discovery.browse.campaign_stats import End

PIPED_WIDTH, LEAST_WIDTH = 120, 20
_DIGITS = 4  # of a width


def stdout_console() -> Console:
    """A console on stdout; into a file or pipe it is wide, unless COLUMNS says otherwise."""
    return console_on(stderr=False)


def console_on(stderr: bool) -> Console:
    """A console of a width that something can be read at: a COLUMNS of 0, or of a billion, does not count."""
    stream, surroundings = sys.stderr if stderr else sys.stdout, dict(os.environ)
    given = surroundings.pop("COLUMNS", "")
    if given.isdecimal() and len(given) <= _DIGITS and int(given) >= LEAST_WIDTH:
        width: int | None = int(given)
    else:
        width = None if stream.isatty() else PIPED_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, _environ=surroundings)


def words(text: str, style: str = "", limit: int = 200) -> Text:
    """Hostile text as one line that rich does not read as markup."""
    return Text(one_line(text, limit), style=style)


def print_next(console: Console, command: str) -> None:
    """The command that a reader would type next, on one line however long: it is made to be copied."""
    console.print(Text(f"Next: {one_line(command, 1000)}", style="dim"), soft_wrap=True)


def print_end(console: Console, end: End) -> None:
    """Why a campaign ended, and the share of copies among its proposals."""
    for line in end.lines:
        console.print(words(line, "dim", 1000))


def number(value: float) -> str:
    """Four decimals where that shows enough, else two digits and a power of ten."""
    plain = value == 0 or 1e-4 <= abs(value) < 1e4
    return f"{value:.4f}" if plain else f"{value:.1e}"


def signed(value: float) -> str:
    """The same with its sign."""
    return f"{'+' if value >= 0 else ''}{number(value)}"


def dollars(value: float) -> str:
    """``$12.30``, with more digits below a dollar, where replies cost fractions of a cent."""
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.2g}"


def duration(seconds: float) -> str:
    """``8 s``, ``3:05`` or ``2:03:05``."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def print_json(value: Any) -> None:
    """One JSON document on stdout, ASCII only, so that nothing hostile reaches a terminal; NaN becomes null."""
    print(json.dumps(plain(value), indent=2, ensure_ascii=True, allow_nan=False))
