"""Code in a language model's text: fenced blocks as the standard has them and as models write them, tags, bare code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

PYTHON_LABELS = frozenset({"python", "py", "python3", "torch", "pytorch"})

_FENCE = re.compile(r"[ \t]*+(`{3,}|~{3,})[ \t]*+([^\n]*)")
_TAG = re.compile(r"[<\[](/?)(code|python|solution|answer)[>\]]", re.IGNORECASE)
_PYTHON_START = re.compile(r"(?:import |from |def |@|\"\"\"|'''|#|[A-Za-z_]\w*+ *= *[-\d(\[{\"'m])")
_PYTHON_GOES_ON = re.compile(r"[ \t)\]}#@\"']|import |from |def |[A-Za-z_]\w*+ *=")
_STATEMENT = re.compile(r"(?:import|from|def)\b")
_LABEL = re.compile(r"[{.]*([\w+-]*)")
_INDENT = re.compile(r"[ \t]*+")


@dataclass(frozen=True)
class Block:
    """A block of text that may be code: its label in lower case, where it begins and ends, and whether its end is marked."""

    label: str
    text: str
    start: int
    end: int
    closed: bool


def blocks(text: str) -> list[Block]:
    """All readings of the blocks in `text`: fences by the standard, fences that end within a line, tags."""
    return [*_fenced(text, strict=True), *_fenced(text, strict=False), *_tagged(text)]


def _fenced(text: str, strict: bool) -> Iterator[Block]:
    """Fenced blocks in order; one that the text's end cuts off is not closed.

    By the standard a fence ends at a line that holds nothing else. Models also close it behind the last line of code, write
    on behind it, forget to close it before the next one, and write code behind the fence that opens it.
    """
    fence, label, start, position = "", "", 0, 0
    lines: list[str] = []
    for line in text.split("\n"):
        here, position = position, position + len(line) + 1
        match = _FENCE.match(line)
        if not fence:
            if match:
                fence, start = match.group(1), here
                label, lines = _opened(match.group(2), strict)
                if not lines or fence not in lines[0]:
                    continue
                line, lines, match = lines[0], [], None
            else:
                continue
        closes = match is not None and match.group(1).startswith(fence)
        if closes and match is not None and not match.group(2).strip("`~ \t"):
            yield Block(label, "\n".join(lines), start, position, True)
            fence = ""
        elif not strict and fence in line:
            code, _, rest = line.partition(fence)
            yield Block(label, "\n".join([*lines, code] if code.strip() else lines), start, position, True)
            fence = ""
            if not code.strip() and _LABEL.fullmatch(rest.strip()):  # the next block opens here
                fence, start, label, lines = (
                    line.strip()[: len(line.strip()) - len(rest)] or "```",
                    here,
                    rest.strip(),
                    [],
                )
        else:
            lines.append(line)
    if fence:
        yield Block(label, "\n".join(lines), start, len(text), False)


def _opened(info: str, strict: bool) -> tuple[str, list[str]]:
    """The label behind an opening fence, and code that stands there too."""
    match = _LABEL.match(info)
    label = match.group(1).lower() if match else ""
    if strict:
        return label, []
    if _STATEMENT.match(info):
        return "", [info]
    rest = info[match.end() :].strip() if match else ""
    return label, [rest] if _STATEMENT.match(rest) else []


def _tagged(text: str) -> Iterator[Block]:
    opened: re.Match[str] | None = None
    for tag in _TAG.finditer(text):
        if not tag.group(1):
            opened = tag
        elif opened is not None and opened.group(2).lower() == tag.group(2).lower():
            yield Block("", text[opened.end() : tag.start()], opened.start(), tag.end(), True)
            opened = None


def bare_code(text: str, function: str) -> Block | None:
    """Unfenced code that defines `function`: from the first line that looks like Python to the first that cannot go on."""
    defines = re.compile(rf"[ \t]*+(?:async )?def\s++{re.escape(function)}\b")
    lines = text.split("\n")
    entry = next((i for i, line in enumerate(lines) if defines.match(line)), None)
    if entry is None:
        return None
    indent = _INDENT.match(lines[entry]).group()  # type: ignore[union-attr]
    plain = [line.removeprefix(indent) for line in lines]
    start = entry
    while start and (_PYTHON_START.match(plain[start - 1]) or _PYTHON_GOES_ON.match(plain[start - 1] or " ")):
        start -= 1
    end, in_string = entry + 1, False
    for end in range(entry + 1, len(plain) + 1):
        if end == len(plain):
            break
        line = plain[end]
        outdented = bool(indent) and bool(line.strip()) and not lines[end].startswith(indent)
        if not in_string and line and (outdented or not _PYTHON_GOES_ON.match(line)):
            break
        in_string ^= (line.count('"""') + line.count("'''")) % 2 == 1
    before = sum(len(line) + 1 for line in lines[:start])
    code = "\n".join(plain[start:end])
    return Block("", code, before, before + len(code), True)
