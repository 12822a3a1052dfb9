"""`discovery import`: take loss files into the archive, checked like any candidate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from db.endings import Ending, Reason
from discovery.cli.archives import archive_url, option_for
from discovery.cli.border import BAD_INPUT
from discovery.cli.catalogue import contract_named
from discovery.cli.files import print_notes
from discovery.cli.platforms import require_linux
from discovery.cli.tables import add_name, add_note, add_text, add_word, name_cell, print_table, table
from discovery.cli.terminal import print_json, print_next, stdout_console, words
from discovery.imports import Given, read_losses
from evaluators.options import OptionsError
from evaluators.plugins import load_plugin, make_plugin, plugin_names
from sandbox.failure import PluginError
from sandbox.text import one_line

if TYPE_CHECKING:
    from db.archive import Archive
    from discovery.novelty import FingerprintIndex
    from evaluators.base import Evaluator
    from sandbox.contract import Conditions, Contract
    from sandbox.known import KnownLosses
    from sandbox.reports import GateReport, ProbeReport
    from sandbox.server import OracleServer

_LONGEST_NAME = 100  # of a campaign too
STATUS = "imported"  # of the collection, where a campaign says how it ended
_COLLECTION = {"imported": True}  # its settings: a collection is known by them also where an import was killed


@dataclass(frozen=True)
class Verdict:
    """What became of one loss. `verdict` is imported, there already, known, duplicate, refused or unreadable."""

    given: Given
    verdict: str
    reason: str = ""
    gate: GateReport | None = None
    probe: ProbeReport | None = None

    @property
    def is_there(self) -> bool:
        return self.verdict in ("imported", "there already")


def import_losses(
    paths: Sequence[Path], contract_name: str, archive: str | None, collection: str, as_json: bool
) -> int:
    """0 if at least one loss is in the archive afterwards, else 2.

    Raises:
        OptionsError: a path holds nothing, or the collection's name is too long.
        ArchiveError: the archive cannot be written. InfrastructureError.
    """
    require_linux("import")
    if not 1 <= len(collection) <= _LONGEST_NAME:
        raise OptionsError(f"--as takes a name of 1 to {_LONGEST_NAME} characters")
    contract = contract_named(contract_name)
    given = [g for path in paths for g in read_losses(path, contract)]
    from db.archive import Archive

    url = archive_url(archive)
    with Archive(url, create=True) as stored:
        shown = stored.url
        verdicts = _Import(stored, contract, collection).run(given)
    if as_json:
        print_json(_as_values(verdicts, collection, shown))
    else:
        _print(stdout_console(), verdicts, collection, option_for(url, shown))
    return 0 if any(v.is_there for v in verdicts) else BAD_INPUT


@dataclass
class _Import:
    """One run: checks each loss and records the accepted ones as proposals of the collection."""

    archive: Archive
    contract: Contract
    collection: str
    names: dict[str, str] = field(default_factory=dict)  # what the collection holds, by candidate id

    def run(self, given: Sequence[Given]) -> list[Verdict]:
        from evaluators.objectives import known_losses
        from sandbox.server import OracleServer

        index, number, conditions = self._held()
        with OracleServer() as server:
            known = known_losses(server, self.contract, conditions)
            verdicts = [self._judge(server, known, index, g) for g in given]
        accepted = [v for v in verdicts if v.verdict == "imported"]
        if accepted:
            self._store(accepted, number)
        return verdicts

    def _held(self) -> tuple[FingerprintIndex, int, Conditions]:
        """Fingerprints of the collection's losses, the next free number in it, and conditions to take new ones under."""
        from discovery.novelty import FingerprintIndex
        from evaluators.objectives import machine_conditions

        index, conditions = FingerprintIndex(), machine_conditions()
        existing = {c.name: c for c in self.archive.campaigns()}.get(self.collection)
        if existing is None:
            return index, 0, conditions
        if existing.config != _COLLECTION:
            raise OptionsError(f"{self.collection!r} is a campaign of this archive; choose another name with --as")
        held = self.archive.proposals(self.collection)
        for proposal in held:
            if proposal.candidate is None:
                continue
            if proposal.candidate.contract != self.contract.name:
                raise OptionsError(
                    f"{self.collection!r} holds losses for {proposal.candidate.contract}; choose another name with --as"
                )
            self.names[proposal.candidate.id] = proposal.name
            if proposal.probe is not None and proposal.probe.fingerprint is not None:
                index.add(proposal.candidate.id, proposal.probe.fingerprint)
                conditions = proposal.probe.fingerprint.conditions or conditions
        return index, max((p.index for p in held), default=-1) + 1, conditions

    def _judge(self, server: OracleServer, known: KnownLosses, index: FingerprintIndex, given: Given) -> Verdict:
        from sandbox.check import check_candidate, refusal

        candidate = given.candidate
        if candidate is None:
            return Verdict(given, "unreadable", given.problem)
        if candidate.contract != self.contract.name:
            return Verdict(given, "refused", f"it is written for {candidate.contract}; name that with --contract")
        if candidate.id in self.names:
            return Verdict(given, "there already", f"as {one_line(self.names[candidate.id], 60)}")
        gate, probe = check_candidate(server, candidate, self.contract, conditions=known.conditions)
        failure = refusal(gate, probe)
        if failure is not None or probe is None or probe.fingerprint is None:
            lines = len(gate.violations)
            reason = f"by the gate, {lines} line{'s' if lines > 1 else ''} below" if lines else str(failure)
            return Verdict(given, "refused", reason, gate, probe)
        match = known.match(probe.fingerprint, probe.properties, gate.parameters)
        if match is not None:
            what = match.describe(self.contract.scale_scalar)
            reason = match.refusal(self.contract.scale_scalar).message if match.factor else f"it is {what}"
            return Verdict(given, "known", f"{reason}; use that by its name", gate, probe)
        twin = index.duplicate_of(probe.fingerprint)
        if twin is not None:
            return Verdict(given, "duplicate", f"it behaves like {one_line(self.names[twin], 60)}", gate, probe)
        index.add(candidate.id, probe.fingerprint)
        self.names[candidate.id] = given.name
        return Verdict(given, "imported", "", gate, probe)

    def _store(self, accepted: Sequence[Verdict], number: int) -> None:
        from db.records import Proposal

        evaluator = _evaluator_of(self.contract)
        metric = next(m for m in evaluator.metrics if m.name == evaluator.primary_metric)
        campaign = self.archive.start_campaign(
            self.collection,
            _COLLECTION,
            task=evaluator.task,
            metric=metric.name,
            higher_is_better=metric.higher_is_better,
            tell=lambda line: print(line, file=sys.stderr, flush=True),
        ).id
        for position, verdict in enumerate(accepted):
            given = verdict.given
            proposal = Proposal(
                index=number + position, origin="imported", proposer="file", name=given.name,
                thought=given.thought, candidate=given.candidate, gate=verdict.gate, probe=verdict.probe,
            )  # fmt: skip
            self.archive.record_known(campaign, proposal)
        self.archive.finish_campaign(campaign, STATUS, Ending(Reason.IMPORTED))


def _evaluator_of(contract: Contract) -> Evaluator:
    """What would rank a collection's losses: the first evaluator of that interface, as it is by default."""
    for name in plugin_names("evaluators"):
        try:
            if load_plugin("evaluators", name).contract.name == contract.name:
                evaluator: Evaluator = make_plugin("evaluators", name, {})
                return evaluator
        except (OptionsError, PluginError):  # it cannot be had; another may
            continue
    raise OptionsError(f"no evaluator trains losses of {contract.name}")


def _print(console: Console, verdicts: Sequence[Verdict], collection: str, option: str) -> None:
    grid = table()
    add_note(grid, "file", least=16)
    add_name(grid, "loss", least=12)
    add_word(grid, "id")
    add_word(grid, "verdict")
    add_text(grid, "")
    for v in verdicts:
        style = "green" if v.is_there else "yellow" if v.verdict in ("known", "duplicate") else "red"
        identity = v.given.candidate.short_id if v.given.candidate is not None else "-"
        verdict = Text(v.verdict, style=style)
        grid.add_row(name_cell(v.given.where), name_cell(v.given.name), identity, verdict, words(v.reason, limit=300))
    print_table(console, grid, ("file", "id"))
    for v in verdicts:
        _print_violations(console, v)
    there = [v for v in verdicts if v.is_there]
    if there:
        first = there[0].given.candidate
        assert first is not None
        console.print()
        print_next(console, f"discovery candidates --campaign {collection}{option}")
        hint = f"      or `start_from: [{first.short_id}]` in a campaign's configuration, to train them beside its baselines"
        console.print(Text(hint, style="dim"), soft_wrap=True)


def _print_violations(console: Console, verdict: Verdict) -> None:
    """Each line that the gate refuses, with what to do instead."""
    candidate, gate = verdict.given.candidate, verdict.gate
    if candidate is None or gate is None:
        return
    print_notes(console, verdict.given.where, gate)
    lines = candidate.source.split("\n")
    for violation in gate.violations:
        where = f"{verdict.given.where}:{violation.line}: " if violation.line else f"{verdict.given.where}: "
        console.print(words(f"{where}{violation.problem}. {violation.instead}", limit=600), soft_wrap=True)
        if 0 < violation.line <= len(lines):
            console.print(words(f"    > {lines[violation.line - 1].strip()}", "dim", 160), soft_wrap=True)


def _as_values(verdicts: Sequence[Verdict], collection: str, archive: str) -> dict[str, Any]:
    losses = []
    for v in verdicts:
        candidate, gate = v.given.candidate, v.gate
        lines = candidate.source.split("\n") if candidate is not None else []
        losses.append(
            {
                "file": v.given.where,
                "name": v.given.name,
                "id": candidate.id if candidate is not None else None,
                "verdict": v.verdict,
                "reason": v.reason,
                "violations": [
                    {
                        "line": x.line,
                        "problem": x.problem,
                        "instead": x.instead,
                        "source": lines[x.line - 1] if 0 < x.line <= len(lines) else "",
                    }
                    for x in (gate.violations if gate is not None else ())
                ],
                "notes": gate.notes if gate is not None else (),
                "properties": v.probe.properties if v.probe is not None else None,
            }
        )
    imported = sum(v.verdict == "imported" for v in verdicts)
    return {"collection": collection, "archive": archive, "imported": imported, "losses": losses}
