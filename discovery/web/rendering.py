"""From values to pages: templates, numbers, highlighted code, and data for charts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from db.records import Entry
from discovery.cli.board import spread_of
from discovery.cli.terminal import number, signed
from discovery.contest import alike, told
from discovery.json_values import plain
from sandbox.text import clean_text, one_line, visible

LONG = 200_000  # characters of a text that are shown


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("discovery.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters |= {
        "number": number,
        "signed": signed,
        "spread": spread_of,
        "when": when,
        "line": one_line,
        "text": lambda value: clean_text(value, LONG).strip("\n"),
        "code": highlighted,
        "diff": highlighted_diff,
        "thousands": lambda value: f"{value:,}",
    }
    made.globals |= {"link": link, "of_candidate": of_candidate, "chart_data": chart_data, "told": told, "alike": alike}
    return made


def _shown(value: Any) -> Any:
    """What a template's expression shows, before it is escaped; markup is ours and made of clean texts."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def shown_values(value: Any) -> Any:
    """The same of all texts in plain JSON values."""
    if isinstance(value, dict):
        return {visible(k): shown_values(v) for k, v in value.items()}
    return [shown_values(v) for v in value] if isinstance(value, list) else _shown(value)


def page(template: str, values: Mapping[str, Any]) -> str:
    """A whole page; all values are escaped."""
    return _environment().get_template(template).render(values)


def when(value: datetime | None) -> str:
    """``2026-11-26 08:30``, UTC."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}" if value is not None else "-"


def link(path: str, **query: Any) -> str:
    """A local address; what is None or empty is left out, a list is repeated."""
    given = {k: v for k, v in query.items() if v not in (None, "", [], ())}
    return path + (f"?{urlencode(given, doseq=True)}" if given else "")


def of_candidate(entry: Entry) -> str:
    """The address of a candidate's page."""
    return link(f"/candidate/{entry.candidate.short_id}", campaign=entry.campaign)


def highlighted(source: str) -> Markup:
    """Python source with classes for the style sheet: escaped by the highlighter, without inline styles."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return Markup(highlight(clean_text(source, LONG), PythonLexer(), HtmlFormatter(cssclass="code")))


def highlighted_diff(diff: str) -> Markup:
    """A unified diff, likewise."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import DiffLexer

    return Markup(highlight(clean_text(diff, LONG), DiffLexer(), HtmlFormatter(cssclass="code")))


def chart_data(figure: Mapping[str, Any]) -> Markup:
    """JSON for a script element that holds data: nothing in it can end the element."""
    text = json.dumps(shown_values(plain(figure)), allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
