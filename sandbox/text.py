"""Text that came from a candidate, a language model or an archive, made safe to store and to show."""

from __future__ import annotations

import re
import unicodedata

_KEEP = "\n\t"
_ASCII_CONTROLS = {code: None for code in (*range(32), 127) if chr(code) not in _KEEP}
_LINE_ENDS = {0x2028: "\n", 0x2029: "\n", 0x85: "\n"}  # that some programs obey and others show
_BLANK = dict.fromkeys(
    (0x115F, 0x1160, 0x3164, 0xFFA0, 0x034F, 0x17B4, 0x17B5), " "
)  # letters by name that show nothing
_MARK = "[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe2f]"  # drawn on the letter before it
_PILED = re.compile(f"({_MARK}{{3}}){_MARK}+")


def visible(text: str) -> str:
    """The text without what acts on a screen instead of showing: the one function that all that is shown goes through.

    Control, format and surrogate characters go (escape sequences, bidirectional overrides, zero width and tag characters,
    unassigned and private ones), but for line ends and tabs; letters that show nothing become spaces, and of marks that are
    piled on one letter three are left.
    """
    if text.isascii():  # a hundred times faster, and almost always so
        return text if text.isprintable() else text.translate(_ASCII_CONTROLS)
    text = text.translate(_LINE_ENDS | _BLANK)
    kept = "".join(c for c in text if c in _KEEP or unicodedata.category(c)[0] != "C")
    return _PILED.sub(r"\1", kept)


def clean_text(text: str, limit: int = 2000) -> str:
    """`visible` text, cut to `limit` characters."""
    kept = visible(text[: limit * 4])
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def one_line(text: str, limit: int = 200) -> str:
    """`clean_text` folded to a single line."""
    return clean_text(" ".join(clean_text(text, limit * 4).split()), limit)
