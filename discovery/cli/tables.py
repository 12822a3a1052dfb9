"""Tables that keep what matters at any width: names and verdicts are never cut or left out, other columns leave first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from sandbox.text import one_line

Kind = Literal["fixed", "name", "note", "text"]  # keeps its width; is folded; is cut; is wrapped between words
COMFORT = 20  # columns that a name has before it is folded more than others are left out
_BREAKS = "_-. "  # a name is folded after these, where that is possible
_GAP = 2  # between two columns


class Grid(Table):
    """A table that knows which of its columns may give way, and how far. Fill it with the functions of this module."""

    kinds: list[tuple[Kind, int]]  # of each column, with the least width


def table(title: str = "") -> Grid:
    """An empty table in the house style. `title` is ours or cleaned."""
    made = Grid(
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
    made.kinds = []
    return made


def add_name(grid: Grid, header: str, least: int = 10) -> None:
    """A column of names, made with `name_cell`: folded where there is no room, never cut."""
    grid.kinds.append(("name", least))
    grid.add_column(header)


def add_note(grid: Grid, header: str, least: int = 8) -> None:
    """A column of hostile or long words, made with `name_cell`, that gives way before all others and is cut."""
    grid.kinds.append(("note", least))
    grid.add_column(header)


def add_text(grid: Grid, header: str, least: int = 20) -> None:
    """A column of sentences, wrapped between words."""
    grid.kinds.append(("text", least))
    grid.add_column(header)


def add_figure(grid: Grid, header: str) -> None:
    """A right-aligned column that keeps its width."""
    grid.kinds.append(("fixed", 0))
    grid.add_column(one_line(header, 40), justify="right", no_wrap=True)


def add_word(grid: Grid, header: str) -> None:
    """A column of short words of ours that keeps its width."""
    grid.kinds.append(("fixed", 0))
    grid.add_column(header, no_wrap=True)


def name_cell(text: str, style: str = "", limit: int = 60) -> Text:
    """A cell of hostile or long words, on one line."""
    return Text(one_line(text, limit), style=style)


def print_table(console: Console, grid: Grid, leaves: Sequence[str] = ()) -> None:
    """Print it. Where it is too wide, columns with the headers `leaves` are left out, the first one first.

    What is left and still too wide is printed row by row, each column on a line of its own.
    """
    width = console.width
    for header in leaves:
        if _total(_floors(grid, COMFORT)) <= width:
            break
        grid = _without(grid, header)
    floors = _floors(grid, COMFORT)
    if _total(floors) > width:
        floors = _floors(grid, 0)
    if _total(floors) > width or not grid.columns:
        _print_rows(console, grid)
        return
    console.print(_laid_out(grid, _widths(grid, floors, width)))


def key_values() -> Table:
    """A two-column grid: label, value."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _without(grid: Grid, header: str) -> Grid:
    """The same with one column less: a column of rich's knows its place, so it cannot be taken out."""
    kept = [i for i, c in enumerate(grid.columns) if c.header != header]
    left = table()
    left.title = grid.title
    for i in kept:
        column = grid.columns[i]
        left.kinds.append(grid.kinds[i])
        left.add_column(column.header, justify=column.justify, no_wrap=column.no_wrap)
    for row in zip(*(grid.columns[i].cells for i in kept), strict=True):
        left.add_row(*row)
    return left


def _natural(grid: Grid) -> list[int]:
    """How wide each column is if nothing gives way."""
    return [max((_length(cell) for cell in (c.header, *c.cells)), default=0) for c in grid.columns]


def _length(cell: RenderableType) -> int:
    return cell_len(cell.plain if isinstance(cell, Text) else str(cell))


def _floors(grid: Grid, comfort: int) -> list[int]:
    """How narrow each column may become, if names keep at least `comfort` columns."""
    floors = []
    for (kind, least), natural, column in zip(grid.kinds, _natural(grid), grid.columns, strict=True):
        wanted = max(least, comfort) if kind == "name" else least
        floors.append(natural if kind == "fixed" else min(natural, max(wanted, _length(column.header))))
    return floors


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * max(0, len(widths) - 1)


def _widths(grid: Grid, floors: Sequence[int], width: int) -> list[int]:
    """What is left over goes to names first, then to sentences, then to notes."""
    widths, natural = list(floors), _natural(grid)
    spare = width - _total(widths)
    for kind in ("name", "text", "note"):
        for i, (own, _) in enumerate(grid.kinds):
            if own == kind:
                more = min(spare, natural[i] - widths[i])
                widths[i], spare = widths[i] + more, spare - more
    return widths


def _laid_out(grid: Grid, widths: Sequence[int]) -> Table:
    """The table with these widths, names folded and notes cut to them."""
    made = table()
    made.title, made.padding, made.collapse_padding = grid.title, (0, 1), True
    for column, width in zip(grid.columns, widths, strict=True):
        made.add_column(column.header, justify=column.justify, width=width, overflow="fold")
    kinds = [kind for kind, _ in grid.kinds]
    for row in zip(*(c.cells for c in grid.columns), strict=True):
        made.add_row(*(_fitted(cell, kind, width) for cell, kind, width in zip(row, kinds, widths, strict=True)))
    return made


def _fitted(cell: RenderableType, kind: Kind, width: int) -> RenderableType:
    text = cell.copy() if isinstance(cell, Text) else Text(str(cell))
    if kind == "name":
        return folded(text, width)
    if kind == "note":
        text.truncate(width, overflow="ellipsis")
    return text


def folded(text: Text, width: int) -> Text:
    """A name on as many lines as it needs, broken after a joint of it where there is one in the line's second half."""
    lines, left = [], text
    while cell_len(left.plain) > width:
        fits = 0
        while fits < len(left.plain) and cell_len(left.plain[: fits + 1]) <= width:
            fits += 1
        joint = max((left.plain.rfind(b, width // 2, fits) for b in _BREAKS), default=-1)
        at = max(1, joint + 1 if joint >= 0 else fits)
        line, left = left.divide([at])
        lines.append(line)
    return Text("\n").join([*lines, left])


def _print_rows(console: Console, grid: Grid) -> None:
    """Each row as lines ``header: cell``."""
    if grid.title:
        console.print(grid.title, overflow="fold")
    headers = [str(c.header) for c in grid.columns]
    for row in zip(*(c.cells for c in grid.columns), strict=True):
        for i, (header, cell) in enumerate(zip(headers, row, strict=True)):
            text = cell if isinstance(cell, Text) else Text(str(cell))
            label = "" if not i or not header else f"{header}: "
            console.print(Text.assemble("  " if i else "", label, text), overflow="fold")
