"""Writing to the terminal: consoles, hostile text made harmless, numbers, JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from discovery.cli.streams import unfiltered
from discovery.json_values import plain
from sandbox.text import one_line, visible

if TYPE_CHECKING:
    from discovery.browse.campaign_stats import End

PIPED_WIDTH, LEAST_WIDTH = 120, 20
_DIGITS = 4  # of a width


class CleanConsole(Console):
    """A console of which only the styles act on the terminal: no text does, and none is read as markup."""

    def __init__(self, file: IO[str], width: int | None, surroundings: Mapping[str, str]) -> None:
        super().__init__(
            file=unfiltered(file), width=width, markup=False, emoji=False, highlight=False, _environ=surroundings
        )

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What everything that is printed comes down to: pieces of text in a style, and the console's own controls."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else Segment(visible(piece.text), piece.style)


def stdout_console() -> CleanConsole:
    """A console on stdout; into a file or pipe it is wide, unless COLUMNS says otherwise."""
    return _console_on(sys.stdout)


def stderr_console() -> CleanConsole:
    """A console on stderr, for what is said beside the result."""
    return _console_on(sys.stderr)


def _console_on(stream: IO[str]) -> CleanConsole:
    """A console of a width that something can be read at: a COLUMNS of 0, or of a billion, does not count."""
    surroundings = dict(os.environ)
    given = surroundings.pop("COLUMNS", "")
    if given.isdecimal() and len(given) <= _DIGITS and int(given) >= LEAST_WIDTH:
        return CleanConsole(stream, int(given), surroundings)
    return CleanConsole(stream, None if stream.isatty() else PIPED_WIDTH, surroundings)


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
