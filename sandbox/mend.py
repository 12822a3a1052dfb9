"""A candidate from a text that somebody wrote: what is harmless and means one thing is put right, and a note says so.

People and language models write losses as they write any Python: with a test under `if __name__ == "__main__"`, an import
that nothing uses, a decorator that compiles, a signature without the inputs that the loss does not need. The gate refuses
all of that, and is right: what it accepts is run, exported and imported as it stands. But none of it changes what the loss
computes, so it is taken out here, before the gate reads what is left. Mending allows nothing: the gate judges the result as
it judges any text. A text that the gate accepts is left alone, to the last character.

One place for all that reads a text: replies, imports, files that are checked, evaluated or compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sandbox.candidate import Candidate
from sandbox.contract import Contract
from sandbox.gate import check_source
from sandbox.gate_text import text_violations
from sandbox.mend_entry import aliases, lambdas, module_values, other_names, parameters
from sandbox.mend_idle import (
    autocast,
    compilers,
    decorators,
    foreign_types,
    idle_keywords,
    inference_mode,
    messages,
    never_run,
)
from sandbox.mend_source import Change, Source
from sandbox.mend_unused import imports, statements

MAX_NOTES = 12
_ROUNDS = 6  # one rule may make room for another: an import is unused once the block that used it is gone
_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)

Rule = Callable[[Source], Iterator[Change]]

# what is not used goes before what is left is looked at, which may leave more unused: then the next round finds it
RULES: tuple[Rule, ...] = (
    never_run, decorators, compilers, lambdas, aliases, other_names, imports, statements, inference_mode, autocast,
    idle_keywords, messages, foreign_types, parameters, module_values,
)  # fmt: skip


def read_candidate(text: str, contract: Contract) -> Candidate:
    """The candidate in a text; `notes` of it say what was mended.

    Never raises, whatever the text is: what cannot be read stays as it is, and the gate says why.
    """
    given = Candidate(contract.name, text.removeprefix("\ufeff"))
    if text_violations(given.source) or check_source(given, contract).accepted:
        return given
    notes: list[str] = []
    try:
        source = Source(given.source, contract)
    except _UNREADABLE:
        return given
    for _ in range(_ROUNDS):
        before = source.text
        for rule in RULES:
            source, more = _applied(rule, source)
            notes = list(dict.fromkeys([*notes, *more]))
        if source.text == before:
            break
    return Candidate(contract.name, source.text, tuple(notes[:MAX_NOTES])) if notes else given


def _applied(rule: Rule, source: Source) -> tuple[Source, list[str]]:
    """The text after one rule, and what the rule did; the same text where the rule would break it.

    A text is read once for all rules that leave it alone, which are nearly all.
    """
    try:
        changed, notes = source.edited(rule(source))
        if notes and not text_violations(changed):
            return Source(changed, source.contract), notes
    except _UNREADABLE:
        notes = ["broken"]
    # a rule that wanted something may have changed the tree on its way
    return (Source(source.text, source.contract) if notes else source), []
