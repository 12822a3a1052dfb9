"""`discovery compare`: candidates side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from discovery.browse.comparison import compare as compared
from discovery.cli.archives import opened
from discovery.cli.board import WIDE, difference_text, verdict_text
from discovery.cli.listings import entry_values
from discovery.cli.pictures import print_curves
from discovery.cli.tables import Grid, add_figure, add_name, add_word, name_cell, print_table, table
from discovery.cli.terminal import number, print_json, stdout_console, words
from discovery.contest import PRIVILEGED, alike, told
from sandbox.text import one_line

if TYPE_CHECKING:
    from db.records import Entry
    from discovery.browse.comparison import Beside, Measured


def compare(archive: str | None, prefixes: Sequence[str], campaign: str | None, as_json: bool) -> None:
    """Raises OptionsError, ArchiveError."""
    with opened(archive) as stored:
        found = compared(stored, prefixes, campaign)
    if as_json:
        others = [
            entry_values(o.entry) | {"alike": alike(o.entry, found.first), "diff": o.diff, "measured": o.measured}
            for o in found.others
        ]
        print_json({"first": entry_values(found.first), "others": others, "curves": found.curves})
        return
    console = stdout_console()
    for place, other in enumerate(found.others):
        if place:
            console.print()
        _print(console, found.first, other)
    print_curves(console, found.curves)
    console.print(
        "\nDifferences are paired by seed, and by world where a metric has worlds. The interval of the metric that ranks is "
        "as wide as on the leaderboard, where it holds for all losses at once; each other 95% interval speaks for itself. "
        "Better or worse only if the whole interval lies on that side, beyond the metric's minimum effect.",
        style="dim",
    )


def _print(console: Console, first: Entry, other: Beside) -> None:
    names = [f"{one_line(e.name, 50) or 'unnamed'} ({e.candidate.short_id})" for e in (first, other.entry)]
    campaigns = " and ".join(dict.fromkeys(one_line(e.campaign, 60) for e in (other.entry, first)))
    console.print(Text(f"{names[1]} against {names[0]}, in {campaigns}", style="bold"))
    for one, name in ((first, names[0]), (other.entry, names[1])):
        if one.privileged:
            console.print(words(f"{name} is {PRIVILEGED}: it reads {told(one)}", "magenta", 400))
    like = alike(first, other.entry)
    if not like:
        console.print(words("so they are not compared like with like", "magenta"))
    diff = other.diff or "the same code"
    console.print(Syntax(diff, "diff", background_color="default").highlight(diff), soft_wrap=True)
    if not other.measured:
        console.print(Text("no seed was finished by both on any task", style="dim"))
    for measured in other.measured:
        console.print()
        console.print(Text(measured.title, style="bold"))
        grid = _table(measured, console.width >= WIDE, like)
        print_table(console, grid, ("pairs", "first", "mean", "difference [95%]"))


def _table(measured: Measured, wide: bool, like: bool) -> Grid:
    grid = table()
    add_name(grid, "metric")
    for header in ("mean", "first", "difference [95%]", "pairs"):
        add_figure(grid, header)
    add_word(grid, "verdict")
    for metric in measured.metrics:
        grid.add_row(
            name_cell(metric.metric, "bold" if metric.ranks else ""),
            number(metric.mean),
            number(metric.first_mean),
            difference_text(metric.difference, wide),
            str(metric.difference.n),
            verdict_text(metric.difference, like),
        )
    return grid
