"""Ways in which people write losses, with what must be said of each, from `tests/sandbox/idioms.txt`.

An entry begins with `#### VERDICT NAME | FRAGMENT`. A text without a function is the body of one, with the margin as `d`.

- accepted: the gate takes it as it is.
- mended: it is accepted after mending; a note holds the fragment. `NAME FUNCTION` says what the loss is called in the text.
- refused: the message holds the fragment; after `---` stands the text with the advice followed, which is accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.losses import HEAD, MARGIN

_FILE = Path(__file__).parents[1] / "sandbox" / "idioms.txt"


@dataclass(frozen=True)
class Idiom:
    """One entry; `followed` is the text with the advice followed, `function` what the loss is called in `source`."""

    verdict: str
    name: str
    fragment: str
    source: str
    followed: str
    function: str


def _module(text: str) -> str:
    if "def loss(" in text or "loss = " in text or "policy_chosen_logps" in text:
        return text
    return HEAD + MARGIN + "".join(f"    {line}\n" for line in text.splitlines())


def _read(part: str) -> Idiom:
    title, _, text = part.partition("\n")
    heading, _, fragment = title.partition(" | ")
    verdict, name, *function = heading.split()
    source, _, followed = text.partition("\n---\n")
    followed = _module(followed) if followed else ""
    return Idiom(verdict, name, fragment, _module(source), followed, function[0] if function else "loss")


IDIOMS = [_read(part) for part in ("\n" + _FILE.read_text(encoding="utf-8")).split("\n#### ")[1:]]
