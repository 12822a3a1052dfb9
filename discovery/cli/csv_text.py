"""Listings as CSV that a spreadsheet can open without running anything."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from discovery.json_values import plain
from sandbox.text import one_line

_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for a formula's beginning
_LIMIT = 30_000  # characters of a cell; spreadsheets take 32,767


def print_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A header and rows on stdout. Each text is one line; one that begins like a formula gets a quotation mark first."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([cell(c) for c in columns])
    writer.writerows([cell(row.get(c)) for c in columns] for row in rows)


def cell(value: Any) -> str:
    """One value as the text of a cell: numbers to all their digits, nothing for None and what is not finite."""
    made = plain(value)
    if made is None:
        return ""
    if isinstance(made, (bool, int, float)):
        return repr(made)
    text = one_line(str(made), _LIMIT)
    return f"'{text}" if text.startswith(_FORMULA) else text
