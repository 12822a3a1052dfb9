"""The suite that every exporter passes. Inherit it in a test module and say how yours is made:

class TestMine(ExporterConformance):
    def make_exporter(self):
        return MyExporter()
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar

from db.records import Entry, Score
from discovery.exporters.base import Ancestor, ExportContext, Exporter
from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.failure import Failure, FailureKind

HOSTILE = (
    'x"""\nimport os; os.system("echo pwned")\n"""\\',
    "'''\n# coding: utf-7\n+AGkAbQBwAG8AcgB0-",
    "line\u2028import os\x0cimport os\rimport os\x85import os",
    '\\N{nothing} \\x \\u12 \\"""',
    '""""""""',
    "\x00\x1b[2J\u202e\ud800",
    "{{ 7 * 7 }} %(x)s {x}",
)

CONTEXT = ExportContext(
    contract=PAIRS,
    command="discovery export 0123456789 -o loss.py",
    exported_at=datetime(2026, 1, 31, 12, 0, tzinfo=UTC),
    version="0.0.0",
    model="some-model",
    lineage=(Ancestor("a" * 64, "dpo", "known"), Ancestor("b" * 64, "a loss", "proposed")),
)


def entry(name: str = "a_loss", thought: str = "an idea", source: str | None = None) -> Entry:
    """A ranked entry; its source is DPO's unless another is given."""
    candidate = Candidate(PAIRS.name, source) if source else known_objectives(PAIRS.name)["dpo"].candidate
    score = Score("frontier", True, {0: 0.5, 1: 0.75})
    made = datetime(2026, 1, 30, 9, 0, tzinfo=UTC)
    return Entry(candidate, name, thought, "proposed", "evolve", "run", score=score, created_at=made)


class ExporterConformance:
    """What the command line relies on."""

    hostile: ClassVar[tuple[str, ...]] = HOSTILE

    def make_exporter(self) -> Exporter:
        """A fresh exporter. Override it."""
        raise TypeError(f"{type(self).__name__} must define make_exporter()")

    def test_it_says_what_it_is(self) -> None:
        exporter = self.make_exporter()
        assert exporter.name
        assert "\n" not in exporter.summary
        assert exporter.suffix.startswith(".")

    def test_equal_arguments_give_equal_text(self) -> None:
        one, two = (self.make_exporter().export(entry(), (), CONTEXT) for _ in range(2))
        assert one == two

    def test_provenance_is_in_the_file(self) -> None:
        text = self.make_exporter().export(entry(), (), CONTEXT)
        for fact in (
            entry().candidate.id,
            "a_loss",
            "an idea",
            "run",
            "evolve",
            "some-model",
            CONTEXT.command,
            "0.625",
        ):
            assert fact in text, fact
        assert CONTEXT.lineage[1].name in text

    def test_every_known_objective_can_be_exported(self) -> None:
        for objective in known_objectives(PAIRS.name).values():
            assert self.make_exporter().export(entry(source=objective.candidate.source), (), CONTEXT)

    def test_unranked_and_failed_entries_can_be_exported(self) -> None:
        failed = replace(entry(), score=None, failure=Failure(FailureKind.CRASH, "boom"))
        assert "boom" in self.make_exporter().export(failed, (), CONTEXT)

    def test_hostile_text_leaves_no_control_characters(self) -> None:
        for text in self.hostile:
            bad = replace(entry(name=text, thought=text), campaign=text, proposer=text)
            exported = self.make_exporter().export(bad, (), replace(CONTEXT, model=text, command=text))
            assert not set(exported) & set("\x00\x1b\x0c\r\x85\u202e\u2028\ud800")
            exported.encode()
