"""Charts as Plotly reads them, without colours: those are the style sheet's, so that they follow light and dark.

Names go through `label`, since Plotly reads a little HTML in texts, links included.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sandbox.text import one_line

Figure = dict[str, Any]
T = TypeVar("T")
MANY = 2_000  # points of a line or cloud


def label(text: str, limit: int = 40) -> str:
    """Hostile text as Plotly shows it to the letter; the name of something that has none says so."""
    return _letters(text, limit) or "unnamed"


def _letters(text: str, limit: int) -> str:
    return html.escape(one_line(text, limit), quote=False)


def thinned(values: Sequence[T], most: int = MANY) -> list[T]:
    """Evenly picked, the last one included."""
    if len(values) <= most:
        return list(values)
    step = (len(values) - 1) / (most - 1)
    return [values[round(i * step)] for i in range(most)]


def figure(
    traces: Sequence[Mapping[str, Any]],
    x: str,
    y: str,
    *,
    x_type: str | None = None,
    layout: Mapping[str, Any] | None = None,
) -> Figure:
    """Traces with titled axes (an empty title is none); `x_type` as Plotly names them, None for what the values say."""
    x_axis: dict[str, Any] = {"title": {"text": _letters(x, 80)}}
    if x_type is not None:
        x_axis["type"] = x_type
    axes = {"xaxis": x_axis, "yaxis": {"title": {"text": _letters(y, 80)}}}
    return {"data": list(traces), "layout": axes | dict(layout or {})}


def line(name: str, x: Sequence[Any], y: Sequence[Any], **more: Any) -> dict[str, Any]:
    return {"type": "scatter", "mode": "lines", "name": label(name), "x": list(x), "y": list(y)} | more


@dataclass(frozen=True)
class Dot:
    """One point of a cloud; `to` is where a click leads."""

    x: Any
    y: Any
    text: str
    to: str


def cloud(name: str, dots: Sequence[Dot], **more: Any) -> dict[str, Any]:
    """Points that say their names and lead somewhere."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": label(name),
        "x": [d.x for d in dots],
        "y": [d.y for d in dots],
        "text": [label(d.text, 60) for d in dots],
        "customdata": [d.to for d in dots],
        "hovertemplate": "%{text}<br>%{x}, %{y}<extra></extra>",
    } | more


def bars(counts: Mapping[str, int], x: str, y: str) -> Figure:
    """Counts by name, the largest on top. `x`, `y`: titles of the counts and of the names."""
    names = sorted(counts, key=lambda n: counts[n])
    trace = {"type": "bar", "orientation": "h", "x": [counts[n] for n in names], "y": [label(n) for n in names]}
    return figure([trace] if names else [], x, y)


def at(time: datetime) -> str:
    """A time as Plotly reads it."""
    return time.strftime("%Y-%m-%d %H:%M:%S.%f")
