"""Templates of the exporters, and the lines that mark a loss within a file."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from discovery.exporters.base import ExportError
from sandbox.syntax import parse

if TYPE_CHECKING:
    from jinja2 import Environment

_PLACEHOLDER = ast.dump(parse("0").body[0])

BEGIN = "# ---- the loss, as it is in the archive: `discovery import` takes it from here"
END = "# ---- to here"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # not HTML; values are inserted as they are, and never read as a template
    )


def render_around(template: str, code: str, short_id: str, **values: Any) -> str:
    """A template of ours with candidate code in it as `code`.

    Raises:
        ExportError: the result does not parse into the template's statements around the code's: something in the code or in
            the text about it reaches out of its place.
    """
    text = render(template, code=code, **values)
    frame = parse(render(template, code="0", **values | {"thought": "", "docstring": '"""."""'}))
    place = next(i for i, n in enumerate(frame.body) if ast.dump(n) == _PLACEHOLDER)
    expected = [*frame.body[1:place], *parse(code).body, *frame.body[place + 1 :]]
    try:
        found = parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ExportError(f"the file made from {short_id} does not parse; nothing was exported") from None
    same = [ast.dump(n) for n in found.body[1:]] == [ast.dump(n) for n in expected]
    if not same or ast.get_docstring(found) is None:
        raise ExportError(f"the file made from {short_id} differs from the archived code; nothing was exported")
    return text


def render(template: str, **values: Any) -> str:
    """The text of a template of ours. Values are hostile where they come from a candidate: clean or escape them first."""
    return _environment().get_template(template).render(**values)
