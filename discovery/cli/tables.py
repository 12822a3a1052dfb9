"""Tables that read well at 80 columns, at 120, and in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sandbox.text import one_line


def table(title: str = "") -> Table:
    """An empty table in the house style. `title` is ours or cleaned."""
    return Table(
        title=Text(title) if title else None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1),
        collapse_padding=True,
        header_style="bold",
    )


def print_table(console: Console, grid: Table, optional: Sequence[str] = ()) -> None:
    """Print it; where it is too wide, columns with the headers `optional` are left out, the first one first."""
    unbound = console.options.update(width=10_000)
    for header in optional:
        if console.measure(grid, options=unbound).maximum - _gives(grid) <= console.width:
            break
        grid = _without(grid, header)
    console.print(grid)


def _without(grid: Table, header: str) -> Table:
    """The same with one column less: a column of rich's knows its place, so it cannot be taken out."""
    kept, left = [c for c in grid.columns if c.header != header], table()
    left.title = grid.title
    for column in kept:
        left.add_column(column.header, justify=column.justify, no_wrap=column.no_wrap, min_width=column.min_width)
    for row in zip(*(c.cells for c in kept), strict=True):
        left.add_row(*row)
    return left


def _gives(grid: Table) -> int:
    """By how much the columns of `add_name` can give way."""
    names = (c for c in grid.columns if c.min_width is not None)
    widest = ((max(cell_len(getattr(cell, "plain", str(cell))) for cell in c.cells), c.min_width or 0) for c in names)
    return sum(max(0, content - least) for content, least in widest)


def key_values() -> Table:
    """A two-column grid: label, value."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def add_name(grid: Table, header: str, least: int = 10) -> None:
    """A column for hostile or long words, made with `name_cell`: it gives way before all others."""
    grid.add_column(header, min_width=least, no_wrap=False)  # rich narrows columns that may wrap first


def name_cell(text: str, style: str = "", limit: int = 60) -> Text:
    """A cell of such a column: cut, not wrapped."""
    return Text(one_line(text, limit), style=style, no_wrap=True, overflow="ellipsis")


def add_figure(grid: Table, header: str) -> None:
    """A right-aligned column that keeps its width."""
    grid.add_column(one_line(header, 40), justify="right", no_wrap=True)


def add_word(grid: Table, header: str) -> None:
    """A column of short words of ours that keeps its width."""
    grid.add_column(header, no_wrap=True)
