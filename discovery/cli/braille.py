"""Curves drawn with braille dots, two across and four down in each character."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

COLOURS = ("bold red", "blue", "green", "magenta", "cyan", "yellow")
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # by column, then from the top
_EMPTY = 0x2800


def drawn(curves: Sequence[Sequence[float]], width: int, height: int) -> list[Text]:
    """Lines of text with all curves in one frame, the first on top of the others.

    Args:
        curves: finite values at evenly spaced points, two or more each; curve i has the colour `COLOURS[i % len(COLOURS)]`.
        width, height: in characters.
    """
    low, high = min(min(c) for c in curves), max(max(c) for c in curves)
    cells = [[_EMPTY] * width for _ in range(height)]
    styles = [[""] * width for _ in range(height)]
    for index in reversed(range(len(curves))):
        for x, y in _dots(curves[index], 2 * width, 4 * height, low, high):
            row, column = y // 4, x // 2
            cells[row][column] |= _DOTS[x % 2][y % 4]
            styles[row][column] = COLOURS[index % len(COLOURS)]
    return [
        Text.assemble(*((chr(c), s) for c, s in zip(row, style, strict=True)))
        for row, style in zip(cells, styles, strict=True)
    ]


def _dots(values: Sequence[float], wide: int, high: int, bottom: float, top: float) -> list[tuple[int, int]]:
    """Dots of one curve, from the left, without gaps between neighbours; (0, 0) is the upper left one."""
    found, before = [], None
    for x in range(wide):
        place = x / (wide - 1) * (len(values) - 1)
        left = min(int(place), len(values) - 2)
        value = values[left] + (place - left) * (values[left + 1] - values[left])
        share = (value - bottom) / (top - bottom) if top > bottom else 0.5
        y = round((1 - share) * (high - 1))
        start = y if before is None or before == y else before + (1 if y > before else -1)
        found += [(x, between) for between in range(min(start, y), max(start, y) + 1)]
        before = y
    return found
