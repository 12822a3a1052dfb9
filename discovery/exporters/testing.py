"""The suite that every exporter passes. Inherit it in a test module and say how yours is made:

class TestMine(ExporterConformance):
    def make_exporter(self):
        return MyExporter()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from db.records import Ancestor, Entry, Proposal, Score
from discovery.dossier import Comparison, Dossier, Measurement
from discovery.exporters.base import Curve, Export, ExportContext, Exporter, ExportError
from discovery.exporting import Typed, make_export, verify
from discovery.statistics import paired_difference
from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS, UNPAIRED
from sandbox.candidate import Candidate
from sandbox.contract import Contract
from sandbox.failure import Failure, FailureKind
from sandbox.gate import check_source
from sandbox.reports import ProbeReport, Properties
from sandbox.server import OracleServer

HOSTILE = (
    'x"""\nimport os; os.system("echo pwned")\n"""\\',
    "'''\n# coding: utf-7\n+AGkAbQBwAG8AcgB0-",
    "line\u2028import os\x0cimport os\rimport os\x85import os",
    '\\N{nothing} \\x \\u12 \\"""',
    '""""""""',
    "\x00\x1b[2J\u202e\ud800",
    "{{ 7 * 7 }} %(x)s {x}",
)

MARGINS = tuple(i / 10 - 5 for i in range(101))
CURVES = tuple(
    Curve(name, MARGINS, tuple(k * m * m / 50 - m for m in MARGINS), tuple(k * m / 25 - 1 for m in MARGINS))
    for k, name in enumerate(("a_loss", "dpo", "hinge", "ipo", "lrml"), 1)
)
CONTEXT = ExportContext(
    command="discovery export 0123456789 -o loss.py",
    exported_at=datetime(2026, 1, 31, 12, 0, tzinfo=UTC),
    version="0.0.0",
    curves=CURVES,
)
LINEAGE = (
    Ancestor("a" * 64, "dpo", "known", 1, (), "ranked", 0.5),
    Ancestor("b" * 64, "another loss", "proposed", 2, (), "accepted", None),
)
PROPERTIES = Properties(False, True, True, True, False, ("policy_chosen_logps", "policy_rejected_logps"))


def measurement() -> Measurement:
    """Two seeds of the ranking task beside one baseline."""
    score = Score("frontier", True, {0: 0.5, 1: 0.75})
    mean = paired_difference(score.by_seed, {0: 0.0, 1: 0.0}, True, 0.0)
    difference = paired_difference(score.by_seed, {0: 0.25, 1: 0.5}, True, 0.005)
    versus = Comparison("dpo", "a" * 64, 0.375, difference)
    return Measurement("preference.enumerable", "t" * 64, True, False, score, mean, (versus,))


def dossier(
    name: str = "a_loss",
    thought: str = "an idea",
    source: str | None = None,
    contract: Contract = PAIRS,
    **entry: Any,
) -> Dossier:
    """A ranked loss of a campaign; its source is DPO's unless another is given. `entry` replaces fields of the entry."""
    candidate = Candidate(contract.name, source) if source else known_objectives(PAIRS.name)["dpo"].candidate
    score = Score("frontier", True, {0: 0.5, 1: 0.75})
    made = datetime(2026, 1, 30, 9, 0, tzinfo=UTC)
    plain = Entry(candidate, name, thought, "proposed", "evolve", "run", score=score, created_at=made, status="ranked")
    listed = replace(plain, **entry)
    gate = check_source(candidate, contract)
    proposal = Proposal(7, "proposed", "evolve", name, thought, candidate=candidate, gate=gate)
    return Dossier(
        listed, contract, gate, ProbeReport(None, PROPERTIES), proposal, "some-model", lineage=LINEAGE,
        measurements=(measurement(),),
    )  # fmt: skip


class ExporterConformance:
    """What the command line relies on."""

    hostile: ClassVar[tuple[str, ...]] = HOSTILE
    extra_sources: ClassVar[Sequence[str]] = ()  # candidates of yours that must export and verify too

    def make_exporter(self) -> Exporter:
        """A fresh exporter. Override it."""
        raise TypeError(f"{type(self).__name__} must define make_exporter()")

    def export(self, of: Dossier, context: ExportContext = CONTEXT) -> Export:
        return self.make_exporter().export(of, context)

    def test_it_says_what_it_is(self) -> None:
        exporter = self.make_exporter()
        assert exporter.name
        assert "\n" not in exporter.summary
        assert exporter.suffix.startswith(".")

    def test_equal_arguments_give_equal_bytes(self) -> None:
        one, two = (self.export(dossier()) for _ in range(2))
        assert one == two

    def test_provenance_is_in_the_file(self) -> None:
        text = self.export(dossier()).text
        for fact in (dossier().entry.candidate.id, "a_loss", "an idea", "run", "evolve", "some-model", CONTEXT.command,
                     "0.625", "frontier", LINEAGE[1].name):  # fmt: skip
            assert fact in text, fact

    def test_every_known_objective_exports_and_what_it_exports_to_computes_the_loss(self) -> None:
        """One that needs inputs which the format's user does not have is refused by their names."""
        families = {PAIRS: self.extra_sources, UNPAIRED: ()}
        with OracleServer() as server:
            for contract, extra in families.items():
                for source in [*(o.candidate.source for o in known_objectives(contract.name).values()), *extra]:
                    self._export_and_compare(dossier(source=source, contract=contract), server)

    def _export_and_compare(self, of: Dossier, server: OracleServer) -> None:
        exporter = self.make_exporter()
        try:
            made = make_export(exporter, of, Typed(), server)
        except ExportError as error:
            if not any(name in str(error) for name in set(of.parameters) - set(PAIRS.required)):
                raise
            return
        assert made.export.text
        assert made.compared == bool(exporter.runnables(made.export, made.dossier))

    def test_a_file_of_another_loss_does_not_verify(self) -> None:
        exporter, ours = self.make_exporter(), dossier()
        other = dossier(source=ours.entry.candidate.source.replace("beta * margin", "1.0001 * beta * margin"))
        runnables = exporter.runnables(exporter.export(other, CONTEXT), other)
        if runnables:
            with OracleServer() as server, pytest.raises(ValueError, match="something else"):
                verify(server, ours, runnables)

    def test_losses_without_scores_or_a_campaign_export(self) -> None:
        assert self.export(
            replace(dossier(campaign="", origin="known", score=None), measurements=(), proposal=None)
        ).text

    def test_failed_losses_are_taken_or_not_as_declared(self) -> None:
        failed = dossier(score=None, failure=Failure(FailureKind.CRASH, "boom"), status="failed")
        exporter = self.make_exporter()
        if exporter.takes_failed:
            assert "boom" in exporter.export(failed, CONTEXT).text
        else:
            with pytest.raises(ValueError, match="boom"):
                make_export(exporter, failed, Typed(), None)

    def test_hostile_text_leaves_no_control_characters(self) -> None:
        for text in self.hostile:
            bad = replace(dossier(name=text, thought=text, campaign=text, proposer=text), model=text)
            exported = self.export(bad, replace(CONTEXT, command=text)).text
            assert not set(exported) & set("\x00\x1b\x0c\r\x85\u202e\u2028\ud800")
            exported.encode()
