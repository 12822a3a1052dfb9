"""Reading a language model's reply: name, thought and code out of whatever it wrote around them.

Everything that may be the code is found first, wherever it stands; then the last one that suits best is taken. So no odd
block, key or brace before or after a good answer hides it.
"""

from __future__ import annotations

import html
import json
import re
import textwrap
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from db.messages import Idea
from discovery.code_blocks import PYTHON_LABELS, Block, bare_code, blocks
from discovery.lenient_json import Found, find_objects, unescape
from discovery.reply_text import plain_text, unmarked
from sandbox.gate_text import text_violations
from sandbox.syntax import parse
from sandbox.text import clean_text, one_line

MAX_REPLY_CHARS = 200_000
MAX_NAME_CHARS = 60
MAX_THOUGHT_CHARS = 4000
UNNAMED = "unnamed"

_FORM = 'Answer with one JSON object: {"thought": "...", "name": "...", "code": "..."}'
_KEYS = {
    "code": (
        "code",
        "source",
        "python",
        "implementation",
        "function",
        "losscode",
        "program",
        "pythoncode",
        "sourcecode",
    ),
    "name": ("name", "title", "lossname", "functionname"),
    "thought": ("thought", "thoughts", "reasoning", "idea", "rationale", "explanation", "description"),
}
_MAX_NESTED = 3  # {"answer": {"code": ...}}
_MAX_VALUES = 200  # of one object that are looked into
_MAX_OBJECTS = 100  # that are looked into, the last ones
_MAX_BLOCKS = 400
_MAX_TRIED = 40  # pieces of code that are looked at, the last ones
_SIGNATURE_CHARS = 3000
_NOT_LABEL = re.compile(r"[^A-Za-z0-9_ -]+")
_NAME_LINE = re.compile(r"^[ \t*#>-]{0,8}name[ \t*]{0,4}[:=][ \t]*+(\S.{0,120})", re.IGNORECASE | re.MULTILINE)
_BROKEN_JSON = re.compile(
    r"[\"'](?:code|source|python|implementation|function)[\"']\s{0,20}:\s{0,20}[\"'`\[]", re.IGNORECASE
)
_ESCAPED_JSON = re.compile(r"\{\s{0,20}\\+[\"n]")
_ENTITY = re.compile(r"&(?:lt|gt|amp|quot|apos|#\d{1,4}|#x[0-9a-fA-F]{1,4});")


class ReplyError(ValueError):
    """The reply holds no code that can be read. The message is one line that goes back to the language model."""


@dataclass(frozen=True)
class _Piece:
    """What may be the code, with what stands beside it. `keyed`: under a name that means code."""

    code: str
    end: int
    name: str = ""
    thought: str = ""
    keyed: bool = False


@dataclass(frozen=True)
class _Wanted:
    """What the code should define."""

    function: str
    parameters: tuple[str, ...]

    @property
    def defines(self) -> re.Pattern[str]:
        return re.compile(rf"\bdef\s++{re.escape(self.function)}\b")


def parse_reply(text: str, function: str = "loss", parameters: tuple[str, ...] = ()) -> Idea:
    """The idea in a reply.

    Understood: a JSON object with thought, name and code (also fenced, within a string, with raw newlines, comments, lost
    commas or braces, other key names, or text around it), blocks of code, and bare code. Reasoning between <think> tags is
    dropped first. Of several pieces of code the last one is taken that is Python and defines `function` with `parameters`;
    where there is none, the one that comes closest. Runs in time linear in the text, which is hostile.

    Raises:
        ReplyError: empty, too long, cut off, or without code; says what to send instead.
    """
    if len(text) > MAX_REPLY_CHARS:
        raise ReplyError(f"The reply has {len(text)} characters, at most {MAX_REPLY_CHARS} are read. {_FORM}.")
    answer = plain_text(text)
    if not answer.strip():
        what = "The reply ends after its reasoning" if unmarked(text).strip() else "The reply is empty"
        raise ReplyError(f"{what}. {_FORM}.")
    wanted = _Wanted(function, parameters)
    for version in _versions(answer):
        idea = _idea_in(version, wanted)
        if idea is not None:
            return idea
    raise ReplyError(_why_not(answer, function))


def _versions(answer: str) -> Iterator[str]:
    """The answer, and what it is where it was sent as the inside of a JSON string."""
    yield answer
    whole = answer.strip()
    if whole.startswith('"'):
        try:
            inner = json.loads(whole, strict=False)
        except (ValueError, RecursionError):
            inner = None
        if isinstance(inner, str):
            yield unmarked(inner)
    if _ESCAPED_JSON.match(whole):
        yield unmarked(unescape(whole))


def _idea_in(answer: str, wanted: _Wanted) -> Idea | None:
    objects = list(deque(find_objects(answer), maxlen=_MAX_OBJECTS))
    fields = [_fields(o.value) for o in objects]
    keyed = [p for o in objects for p in _pieces(o.value, wanted, o.end)]
    holders = [o for o in objects if any(p.end == o.end for p in keyed)]
    found = _blocks_beside(answer, holders)
    in_blocks = [_Piece(_clean_code(b.text), b.end) for b in _likely(found, wanted)]
    if not in_blocks and not keyed:
        bare = None if _is_broken_json(answer, found, wanted) else bare_code(answer, wanted.function)
        found, in_blocks = ([bare], [_Piece(_clean_code(bare.text), bare.end)]) if bare else (found, [])
    best = _best([*keyed, *in_blocks], wanted)
    if best is None or best.keyed:
        return None if best is None else _idea(best.code, best.name, best.thought)
    about = next((f for f in reversed(fields) if f and "code" not in f), {})
    prose = answer[: min((b.start for b in found), default=0)]
    named = _NAME_LINE.search(prose)
    return _idea(
        best.code, about.get("name", "") or (named.group(1) if named else ""), about.get("thought", "") or prose
    )


def label(name: str) -> str:
    """A name reduced to letters, digits, `_`, `-` and blanks, at most 60 of them; `unnamed` if nothing is left."""
    plain = _NOT_LABEL.sub(" ", one_line(name, 4 * MAX_NAME_CHARS))
    return " ".join(plain.split())[:MAX_NAME_CHARS].strip() or UNNAMED


def _idea(code: str, name: str, thought: str) -> Idea:
    return Idea(label(name), clean_text(thought.strip(), MAX_THOUGHT_CHARS), code)


# objects


def _fields(found: Mapping[str, Any]) -> dict[str, str]:
    """Our three fields of a JSON object, whatever it spells their keys."""
    plain = {re.sub(r"[^a-z]", "", str(key).lower()[:40]): value for key, value in found.items()}
    fields: dict[str, str] = {}
    for field, spellings in _KEYS.items():
        for value in (_as_text(plain[s]) for s in spellings if s in plain):
            if value.strip():
                fields[field] = value
                break
    return fields


def _as_text(value: Any) -> str:
    """A string, or a list of lines."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(line.rstrip("\n") for line in value)
    return value if isinstance(value, str) else ""


def _pieces(found: Mapping[str, Any], wanted: _Wanted, end: int, depth: int = 0) -> Iterator[_Piece]:
    """What may be the code in an object, and in objects within it and in texts that hold objects."""
    fields = _fields(found)
    name, thought = fields.get("name", ""), fields.get("thought", "")
    inner: list[_Piece] = []
    for value in list(found.values())[:_MAX_VALUES]:
        for one in value[:_MAX_VALUES] if isinstance(value, list) else [value]:
            if depth < _MAX_NESTED:
                inner += [p for o in _objects_in(one) for p in _pieces(o, wanted, end, depth + 1)]
        text = _as_text(value)
        if value is not fields.get("thought") and wanted.defines.search(text):
            inner.append(_Piece(_clean_code(text), end, keyed=True))
    if "code" in fields and not inner:
        inner.append(_Piece(_clean_code(fields["code"]), end, keyed=True))
    yield from (replace(p, name=p.name or name, thought=p.thought or thought) for p in inner)


def _objects_in(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
    elif isinstance(value, str) and value.lstrip().startswith(("{", "[", "```")) and '"' in value:
        yield from (o.value for o in find_objects(value))


# blocks


def _blocks_beside(answer: str, objects: list[Found]) -> list[Block]:
    """The last blocks, without those that are inside of these objects or around them."""
    last = sorted(blocks(answer), key=lambda b: b.end)[-_MAX_BLOCKS:]
    return [b for b in last if not any(o.start < b.end and b.start < o.end for o in objects)]


def _likely(found: list[Block], wanted: _Wanted) -> list[Block]:
    """Those that define what is wanted; else those that say that they are Python and do not end in mid-air."""
    whole = [b for b in found if not b.text.lstrip().startswith(("{", "["))]
    defining = [b for b in whole if wanted.defines.search(b.text)]
    return defining or [b for b in whole if b.closed and b.text.strip() and b.label in PYTHON_LABELS]


def _is_broken_json(answer: str, found: list[Block], wanted: _Wanted) -> bool:
    """Whether what defines something is a string of an object that could not be read."""
    start = wanted.defines.search(answer)
    before = answer[: start.start()] if start else answer
    return (
        before.lstrip().startswith("{")
        or _BROKEN_JSON.search(before) is not None
        or any(wanted.defines.search(b.text) for b in found)
    )


def _clean_code(code: str) -> str:
    """Undo what models do to code inside JSON: fences, a second round of escapes, no-break blanks, common indentation."""
    code = unmarked(code).replace("\u00a0", " ")
    if "\n" not in code.strip() and "\\n" in code:
        code = code.replace("\\r\\n", "\n").replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"')
    if code.lstrip().startswith(("```", "~~~")):
        inside = [b.text for b in blocks(code) if b.text.strip()]
        code = next((t for t in inside if _is_python(t)), inside[0] if inside else code)
    return textwrap.dedent(code.strip("\n"))


# the choice


def _best(pieces: list[_Piece], wanted: _Wanted) -> _Piece | None:
    """The last of those that suit best; code in which a server wrote `&lt;` for `<` is mended if that makes it Python."""
    best: tuple[tuple[int, int, int], _Piece] | None = None
    pieces = [p for p in pieces if p.code.strip()]
    for piece in sorted(pieces, key=lambda p: p.end)[-_MAX_TRIED:]:
        suits = _suits(piece.code, wanted)
        if not suits[1] and _ENTITY.search(piece.code):
            mended = replace(piece, code=html.unescape(piece.code))
            if _suits(mended.code, wanted)[1]:
                piece, suits = mended, _suits(mended.code, wanted)
        if best is None or suits >= best[0]:
            best = suits, piece
    return None if best is None else best[1]


def _suits(code: str, wanted: _Wanted) -> tuple[int, int, int]:
    """How well code suits: whether its signature has the parameters (2 all, 1 some), it is Python, it has the function."""
    match = wanted.defines.search(code) or re.search(r"\bdef\s++\w", code)
    signature = code[match.end() : match.end() + _SIGNATURE_CHARS].partition(")")[0] if match else ""
    named = sum(re.search(rf"\b{re.escape(name)}\b", signature) is not None for name in wanted.parameters)
    has = 2 if match and named == len(wanted.parameters) else min(named, 1)
    return has, int(_is_python(code)), int(wanted.defines.search(code) is not None)


def _is_python(code: str) -> bool:
    if text_violations(code):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they would show the text
            parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _why_not(answer: str, function: str) -> str:
    present = sorted({key for o in find_objects(answer) for key in _fields(o.value)} - {"code"})
    if present:
        return f'The JSON object has {", ".join(present)} but no "code" with the source text. {_FORM}.'
    if answer.lstrip().startswith(("{", "```json")) or _BROKEN_JSON.search(answer):
        return (
            "The JSON object cannot be read: it is cut off, or quotes inside a string are not escaped. "
            f"{_FORM}, keep it short and escape newlines as \\n."
        )
    return f"The reply holds no code that defines `{function}`. {_FORM}."
