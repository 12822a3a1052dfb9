"""Limits that must hold before the parser sees a text.

Python's parser recurses: a few thousand signs or brackets overflow its C stack and take the process along. So nesting is
measured first, by a scanner that has no recursion and agrees with Python about where strings begin and end.
"""

from __future__ import annotations

import re
import unicodedata

from sandbox.candidate import MAX_SOURCE_BYTES
from sandbox.reports import Violation

MAX_LINES = 600
MAX_NESTING = 20  # brackets within brackets
MAX_INDENT = 80  # columns
MAX_OPERATORS = 400  # in one statement
MAX_SYMBOLS = 3000  # operators, brackets, strings and lines in the whole text: bounds the gate's time
MAX_UNARY = 12  # in a row
MAX_BRANCHES = 40  # `elif` nests without indentation
MAX_F_STRING = 60  # brackets and operators in one f-string
MAX_FIELDS = 200  # braces in all f-strings: each field starts the parser anew

# C0 and C1 controls, surrogates, and the characters that show a line in another order than it runs
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_COOKIE = re.compile(r"[ \t\f]*#.*?coding[:=]")

_SYMBOL = re.compile(
    r"""(?P<string>(?<![0-9A-Za-z_])[rbfutRBFUT]{0,2}(?:'''(?:\\.|[^\\])*?'''|\"\"\"(?:\\.|[^\\])*?\"\"\"|'(?:\\.|[^\\\n'])*'|"(?:\\.|[^\\\n"])*")
        |'''(?:\\.|[^\\])*?'''|\"\"\"(?:\\.|[^\\])*?\"\"\"|'(?:\\.|[^\\\n'])*'|"(?:\\.|[^\\\n"])*")
    |(?P<comment>\#[^\n]*)|(?P<continued>\\\n)|(?P<open>[\[({])|(?P<close>[\])}])|(?P<newline>\n[ \t]*)
    |(?P<unary>(?:(?:[-+~]|\bnot\b)[\s\\]*)+)|(?P<branch>\belif\b)
    |(?P<operator>[*/%@<>=!&|^.,:;]|\b(?:and|or|if|else|in|is|lambda|for|await)\b)|(?P<alien>[^\x00-\x7f])|(?P<stray>['"])""",
    re.VERBOSE | re.DOTALL,
)  # fmt: skip
# characters that editors and language models write for those of Python
_SPELLED = {
    "\u2212": "`-`", "\u2013": "`-`", "\u2014": "`-`", "\u00d7": "`*`", "\u00b7": "`*`", "\u22c5": "`*`", "\u00f7": "`/`",
    "\u2264": "`<=`", "\u2265": "`>=`", "\u2260": "`!=`", "\u221e": "`math.inf`", "\u00b2": "`**2`", "\u00b3": "`**3`",
    "\u2018": "`'`", "\u2019": "`'`", "\u201c": '`"`', "\u201d": '`"`', "\u2032": "`_prime`", "\u2026": "`...`",
    "\u00a0": "a plain space", "\u202f": "a plain space", "\u2009": "a plain space", "\u3000": "a plain space",
    "\u2192": "`->`", "\u221a": "`math.sqrt` or `torch.sqrt`",
}  # fmt: skip
_INVISIBLE = frozenset("\u200b\u200c\u200d\u2060\ufeff\u00ad\ufe0f")
_NESTS = re.compile(r"[(\[{+~*/.<-]|\b(?:not|lambda|if)\b")


def text_violations(source: str) -> list[Violation]:
    """What makes a text unfit to be parsed; at most one violation."""
    if len(source.encode("utf-8", "replace")) > MAX_SOURCE_BYTES or source.count("\n") > MAX_LINES:
        limits = f"{MAX_SOURCE_BYTES} bytes or {MAX_LINES} lines"
        return [Violation(0, f"the source is longer than {limits}", "Write a shorter loss")]
    for number, line in enumerate(source.split("\n", 2)[:2], 1):
        if _COOKIE.match(line):
            return [Violation(number, "an encoding declaration", "Leave it out; sources are UTF-8")]
    unfit = _UNFIT.search(source)
    if unfit is not None:
        return [_at(source, unfit.start(), "a control, direction or surrogate character", "Use plain text")]
    return _nesting_violations(source)


def matching_bracket(source: str, opening: int) -> int | None:
    """Where the bracket at `opening` is closed, strings and comments aside; None if it is not."""
    depth = 0
    for match in _SYMBOL.finditer(source, opening):
        depth += (match.lastgroup == "open") - (match.lastgroup == "close")
        if depth == 0:
            return match.start()
    return None


def _at(source: str, position: int, problem: str, instead: str) -> Violation:
    return Violation(source.count("\n", 0, position) + 1, problem, instead)


def _nesting_violations(source: str) -> list[Violation]:
    depth = operators = branches = fields = 0
    for symbols, match in enumerate(_SYMBOL.finditer(source)):
        kind = match.lastgroup
        refusal: tuple[str, str] | None = None
        if kind == "open":
            depth += 1
            operators += 1
            if depth > MAX_NESTING:
                refusal = f"brackets nested more than {MAX_NESTING} deep", "Use intermediate variables"
        elif kind == "close":
            depth -= 1
        elif kind == "operator":
            operators += 1
        elif kind == "newline":
            if depth <= 0:
                operators = 0
                if match.end() - match.start() > 8 and len(match.group()[1:].expandtabs(8)) > MAX_INDENT:
                    refusal = "indented too deeply", "Flatten the code"
        elif kind == "unary":
            operators += 1
            if _signs(match.group()) > MAX_UNARY:
                refusal = "too many unary operators in a row", "Write one sign"
        elif kind == "string":
            text = match.group()
            if "{" in text and _is_formatted(text):
                fields += text.count("{")
                if fields > MAX_FIELDS or not _is_simple(text):
                    refusal = "a complicated f-string", "Use a plain string, or format plain variables in it"
        elif kind == "branch":
            branches += 1
            if branches > MAX_BRANCHES:
                refusal = f"more than {MAX_BRANCHES} `elif` branches", "Use a dict of constants"
        elif kind == "stray":  # looking for its end once more from the next quote would take quadratic time
            refusal = "a string that does not end", "Close it with the quote that opened it"
        elif kind == "alien":
            refusal = _alien(match.group())
        if operators > MAX_OPERATORS:
            refusal = "one statement is too long", "Split it with intermediate variables"
        elif symbols >= MAX_SYMBOLS:
            refusal = f"the source has more than {MAX_SYMBOLS} symbols", "Write a shorter loss"
        if refusal is not None:
            return [_at(source, match.start(), *refusal)]
    return []


def _alien(character: str) -> tuple[str, str]:
    """What a character is that has no place in code, and what is written for it."""
    name = unicodedata.name(character, f"U+{ord(character):04X}")
    if character in _SPELLED:
        instead = _SPELLED[character]
    elif name.startswith("GREEK ") and " LETTER " in name:
        word = name.partition(" LETTER ")[2].split()[0].lower()
        instead = f"`{'lam' if word in ('lamda', 'lambda') else word}`"
    else:
        plain = "".join(c for c in unicodedata.normalize("NFKD", character) if c.isascii()).strip()
        instead = f"`{plain}`" if plain.isalnum() else ""
    advice = (
        f"Write {instead}"
        if instead
        else "Leave it out"
        if character in _INVISIBLE
        else "Use ASCII names and operators"
    )
    return f"a non-ASCII character outside strings and comments ({name})", advice


def _signs(text: str) -> int:
    return text.count("-") + text.count("+") + text.count("~") + text.count("not")


def _quote(literal: str) -> int:
    """Where the opening quote stands, after the prefix."""
    return min(literal.find("'") % len(literal), literal.find('"') % len(literal))


def _is_formatted(literal: str) -> bool:
    return bool({"f", "t"} & set(literal[: _quote(literal)].lower()))


def _is_simple(literal: str) -> bool:
    """Whether an f-string's fields hold little code, and end where every Python says that they end.

    Up to Python 3.11 an f-string ends at its first own quote, later versions nest them; both readings agree if strings in
    a field are closed in it, and hold no f-string of their own.
    """
    if len(_NESTS.findall(literal)) > MAX_F_STRING:
        return False
    opening = _quote(literal)
    width = 3 if literal[opening : opening + 3] in ("'''", '"""') else 1
    text = literal[opening + width : -width]
    depth, position = 0, 0
    while position < len(text):
        c = text[position]
        if depth == 0 and text[position : position + 2] in ("{{", "}}"):
            position += 2
            continue
        if c == "{":
            depth += 1
        elif c == "}":
            depth -= 1
        elif depth > 0 and c in "\\#\n":
            return False
        elif depth > 0 and c in "'\"":
            end = text.find(c, position + 1)
            if text[position - 1].isalnum() or end < 0 or set("\\{}\n") & set(text[position:end]):
                return False
            position = end
        if depth < 0:
            return False
        position += 1
    return depth == 0
