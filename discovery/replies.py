"""Reading a language model's reply: name, thought and code out of whatever it wrote around them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.records import Idea
from discovery.lenient_json import find_objects
from sandbox.text import clean_text, one_line

MAX_REPLY_CHARS = 200_000
MAX_NAME_CHARS = 60
MAX_THOUGHT_CHARS = 4000
UNNAMED = "unnamed"

_FORM = 'Answer with one JSON object: {"thought": "...", "name": "...", "code": "..."}'
_KEYS = {
    "code": ("code", "source", "python", "implementation", "function", "losscode", "program"),
    "name": ("name", "title", "lossname", "functionname"),
    "thought": ("thought", "thoughts", "reasoning", "idea", "rationale", "explanation", "description"),
}
_MAX_NESTED = 3  # {"answer": {"code": ...}}
_OPEN, _CLOSE = re.compile(r"<think(?:ing)?>", re.IGNORECASE), re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_FENCE = re.compile(r"[ \t]*+(`{3,}|~{3,})[ \t]*+([\w+.-]*+)")
_NOT_LABEL = re.compile(r"[^A-Za-z0-9_ -]+")
_NAME_LINE = re.compile(r"^[ \t*#>-]{0,8}name[ \t*]{0,4}[:=][ \t]*+(\S.{0,120})", re.IGNORECASE | re.MULTILINE)
_PYTHON_START = re.compile(r"(?:import |from |def |@|\"\"\"|'''|#|[A-Za-z_]\w*+ *= *[-\d(\[{\"'m])")
_PYTHON_GOES_ON = re.compile(r"[ \t)\]}#@\"']|import |from |def |[A-Za-z_]\w*+ *=")
_PYTHON_LABELS = {"python", "py", "python3", "torch", "pytorch"}


class ReplyError(ValueError):
    """The reply holds no code that can be read. The message is one line that goes back to the language model."""


@dataclass(frozen=True)
class _Block:
    """A fenced block: its language label in lower case, its text, and whether the closing fence is there."""

    label: str
    text: str
    closed: bool


def parse_reply(text: str, function: str = "loss") -> Idea:
    """The idea in a reply.

    Understood: a JSON object with thought, name and code (also fenced, with raw newlines, trailing commas or text around
    it), a fenced block of code, and bare code. Reasoning between <think> tags is dropped first. Of several answers the
    last one that defines `function` is taken. Runs in time linear in the text, which is hostile.

    Raises:
        ReplyError: empty, too long, cut off, or without code; says what to send instead.
    """
    if len(text) > MAX_REPLY_CHARS:
        raise ReplyError(f"The reply has {len(text)} characters, at most {MAX_REPLY_CHARS} are read. {_FORM}.")
    answer = strip_thinking(text)
    if not answer.strip():
        what = "The reply ends after its reasoning" if text.strip() else "The reply is empty"
        raise ReplyError(f"{what}. {_FORM}.")
    defines = re.compile(rf"\bdef\s++{re.escape(function)}\b")
    objects = [_fields(o) for o in find_objects(answer)]
    coded = [o for o in objects if "code" in o]
    about = next((o for o in reversed(objects) if "code" not in o and o), {})
    best = _last_defining([o["code"] for o in coded], defines)
    if best is not None and (defines.search(best) or not defines.search(answer)):
        chosen = next(o for o in reversed(coded) if o["code"] == best)
        return _idea(best, chosen.get("name", ""), chosen.get("thought", ""))
    code, prose = _code_in_text(answer, defines)
    if code is None and best is not None:
        chosen = next(o for o in reversed(coded) if o["code"] == best)
        return _idea(best, chosen.get("name", ""), chosen.get("thought", ""))
    if code is None:
        raise ReplyError(_why_not(answer, objects, function))
    found = _NAME_LINE.search(prose)
    return _idea(code, about.get("name", "") or (found.group(1) if found else ""), about.get("thought", "") or prose)


def strip_thinking(text: str) -> str:
    """The text without `<think>...</think>` blocks; a block that never closes loses only its tag.

    A closing tag without an opening one ends reasoning that began in the prompt's template.
    """
    first_open, first_close = _OPEN.search(text), _CLOSE.search(text)
    if first_close and (first_open is None or first_close.start() < first_open.start()):
        text = text[first_close.end() :]
    kept: list[str] = []
    position = 0
    while True:
        start = _OPEN.search(text, position)
        if start is None:
            return "".join([*kept, text[position:]])
        kept.append(text[position : start.start()])
        end = _CLOSE.search(text, start.end())
        if end is None:
            return "".join([*kept, text[start.end() :]])
        position = end.end()


def label(name: str) -> str:
    """A name reduced to letters, digits, `_`, `-` and blanks, at most 60 of them; `unnamed` if nothing is left."""
    plain = _NOT_LABEL.sub(" ", one_line(name, 4 * MAX_NAME_CHARS))
    return " ".join(plain.split())[:MAX_NAME_CHARS].strip() or UNNAMED


def _idea(code: str, name: str, thought: str) -> Idea:
    return Idea(label(name), clean_text(thought.strip(), MAX_THOUGHT_CHARS), code)


def _fields(found: Mapping[str, Any], depth: int = 0) -> dict[str, str]:
    """Our three fields of a JSON object, whatever it spells their keys; looks into nested objects for the code."""
    plain = {re.sub(r"[^a-z]", "", str(key).lower()[:40]): value for key, value in found.items()}
    fields: dict[str, str] = {}
    for field, spellings in _KEYS.items():
        value = next((plain[s] for s in spellings if s in plain), None)
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "\n".join(line.rstrip("\n") for line in value)
        if isinstance(value, str) and value.strip():
            fields[field] = _clean_code(value) if field == "code" else value
    if "code" not in fields and depth < _MAX_NESTED:
        for value in found.values():
            inner = _fields(value, depth + 1) if isinstance(value, dict) else {}
            if "code" in inner:
                return {**fields, **inner}
    return fields


def _clean_code(code: str) -> str:
    """Undo what models do to code inside JSON: fences, a second round of escapes, no-break blanks, common indentation."""
    code = code.replace("\r\n", "\n").replace("\u00a0", " ").lstrip("\ufeff")
    if "\n" not in code.strip() and "\\n" in code:
        code = code.replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"')
    blocks = [b for b in _blocks(code) if b.text.strip()] if code.lstrip().startswith(("```", "~~~")) else []
    return textwrap.dedent((blocks[0].text if blocks else code).strip("\n"))


def _last_defining(codes: list[str], defines: re.Pattern[str]) -> str | None:
    choice = [c for c in codes if defines.search(c)] or codes
    return choice[-1] if choice else None


def _code_in_text(text: str, defines: re.Pattern[str]) -> tuple[str | None, str]:
    """Code from fenced blocks or from the bare text, and the prose before it."""
    blocks = [b for b in _blocks(text) if b.closed or defines.search(b.text)]
    python = [b for b in blocks if defines.search(b.text) and not b.text.lstrip().startswith("{")]
    python = python or [b for b in blocks if b.label in _PYTHON_LABELS and b.text.strip()]
    if python:
        code = python[-1].text
        fence = re.search(r"^[ \t]*+(?:```|~~~)", text, re.MULTILINE)
        return _clean_code(code), text[: fence.start()] if fence else ""
    if not any(defines.search(b.text) for b in blocks) and not text.lstrip().startswith("{"):  # else: broken JSON
        return _bare_code(text, defines)
    return None, text


def _blocks(text: str) -> list[_Block]:
    """Fenced blocks in order; one that the text's end cuts off is not closed."""
    blocks: list[_Block] = []
    fence, label_of = "", ""
    lines: list[str] = []
    for line in text.split("\n"):
        match = _FENCE.match(line)
        if not fence and match:
            fence, label_of, lines = match.group(1), match.group(2).lower(), []
        elif fence and match and match.group(1).startswith(fence) and not line.strip().strip("`~"):
            blocks.append(_Block(label_of, "\n".join(lines), True))
            fence = ""
        elif fence:
            lines.append(line)
    if fence:
        blocks.append(_Block(label_of, "\n".join(lines), False))
    return blocks


def _bare_code(text: str, defines: re.Pattern[str]) -> tuple[str | None, str]:
    """Unfenced code: from the first line that looks like Python up to the first that cannot go on."""
    lines = text.split("\n")
    entry = next((i for i, line in enumerate(lines) if defines.match(line)), None)
    if entry is None:
        return None, text
    start = entry
    while start and (_PYTHON_START.match(lines[start - 1]) or _PYTHON_GOES_ON.match(lines[start - 1] or " ")):
        start -= 1
    end, in_string = entry + 1, False
    for end in range(entry + 1, len(lines) + 1):
        if end == len(lines):
            break
        line = lines[end]
        if not in_string and line and not _PYTHON_GOES_ON.match(line):
            break
        in_string ^= (line.count('"""') + line.count("'''")) % 2 == 1
    return _clean_code("\n".join(lines[start:end])), "\n".join(lines[:start])


def _why_not(answer: str, objects: list[dict[str, str]], function: str) -> str:
    if any(objects):
        present = ", ".join(sorted({key for o in objects for key in o}))
        return f'The JSON object has {present} but no "code" with the source text. {_FORM}.'
    if answer.lstrip().startswith(("{", "```json")):
        return (
            "The JSON object cannot be read: it is cut off, or quotes inside a string are not escaped. "
            f"{_FORM}, keep it short and escape newlines as \\n."
        )
    return f"The reply holds no code that defines `{function}`. {_FORM}."
