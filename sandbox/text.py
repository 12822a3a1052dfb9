"""Text that came from a candidate or a language model, made safe to store and to show."""

from __future__ import annotations

import unicodedata

_KEEP = "\n\t"
_ASCII_CONTROLS = {code: None for code in (*range(32), 127) if chr(code) not in _KEEP}


def clean_text(text: str, limit: int = 2000) -> str:
    """Strip control, format and surrogate characters and cut to `limit` characters.

    Escape sequences, bidirectional overrides and NUL bytes would otherwise reach terminals, logs and databases.
    """
    text = text[: limit * 4]
    if text.isascii():  # a hundred times faster, and almost always so
        kept = text.translate(_ASCII_CONTROLS)
    else:
        kept = "".join(c for c in text if c in _KEEP or unicodedata.category(c)[0] != "C")
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def one_line(text: str, limit: int = 200) -> str:
    """`clean_text` folded to a single line."""
    return clean_text(" ".join(clean_text(text, limit * 4).split()), limit)
