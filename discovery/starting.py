"""Losses that a campaign begins with besides its baselines: from files, or from the archive it writes to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from db.archive import Archive, ArchiveError
from db.records import Entry, Proposal
from discovery import guarded
from discovery.imports import Given, read_losses
from discovery.protocols import Outcome
from discovery.search import Resumed, Search
from evaluators.options import OptionsError
from sandbox.contract import Contract
from sandbox.failure import Failure, FailureKind
from sandbox.gate import check_source
from sandbox.text import one_line


def from_files(names: Sequence[str], contract: Contract) -> list[Given]:
    """The losses of those names that are files or folders.

    Raises:
        OptionsError: a file holds no loss, or one that the gate refuses: the first line that is wrong.
    """
    found = [given for name in names if Path(name).exists() for given in read_losses(Path(name), contract)]
    for given in found:
        if given.candidate is None:
            raise OptionsError(f"start_from: {one_line(given.where)}: {one_line(given.problem)}")
        if given.candidate.contract != contract.name:
            raise OptionsError(f"start_from: {one_line(given.where)} is written for {given.candidate.contract}")
        violations = check_source(given.candidate, contract).violations
        if violations:
            line = f":{violations[0].line}" if violations[0].line else ""
            more = f" (and {len(violations) - 1} more; see `discovery check`)" if len(violations) > 1 else ""
            what = f"{violations[0].problem}. {violations[0].instead}"
            raise OptionsError(f"start_from: {one_line(given.where)}{line}: {one_line(what, 400)}{more}")
    return found


def from_archive(archive: Archive, names: Sequence[str], contract: Contract, campaign: str) -> list[Given]:
    """The losses of those names that are no files: a candidate's id or name, or another campaign with all it accepted.

    Raises:
        OptionsError: a name is none of them, or its losses have another interface. ArchiveError: an ambiguous id.
    """
    campaigns = {c.name for c in archive.campaigns()} - {campaign}
    found = []
    for name in (n for n in names if not Path(n).exists()):
        if name in campaigns:
            entries = [e for e in archive.entries(name) if e.failure is None and e.origin != "known"]
        else:
            try:
                entries = [archive.entry(name)]
            except ArchiveError as error:
                if error.fault:
                    raise
                raise OptionsError(
                    f"start_from: {one_line(name, 80)!r} is no file or folder, and no other campaign or collection; {error}"
                ) from error
            if entries[0].origin == "known":
                raise OptionsError(f"start_from: {one_line(name, 80)} is a known loss: name it under `baselines`")
        found += [_given(entry, name, contract) for entry in entries]
    return found


def _given(entry: Entry, name: str, contract: Contract) -> Given:
    if entry.candidate.contract != contract.name:
        raise OptionsError(
            f"start_from: {one_line(name, 80)} is about {entry.candidate.contract}, this campaign about {contract.name}"
        )
    return Given(entry.candidate.short_id, entry.name, entry.thought, entry.candidate)


async def admit(search: Search, given: Iterable[Given]) -> list[Resumed]:
    """Check and record those that the campaign does not have yet; the accepted ones are to be trained.

    What the probe refuses, and copies of known losses, are recorded with the reason and left out.
    """
    admitted = []
    for loss in given:
        candidate = loss.candidate
        if candidate is None or candidate.id in search.names:
            continue
        check = await search.check(candidate)
        failure, match = check.failure, check.match
        if failure is not None and not failure.kind.candidates_fault:
            search.parts.progress.say("note", f"{loss.name} could not be checked: {failure}")
            continue
        fingerprint = check.probe.fingerprint if check.probe is not None else None
        twin = search.novelty.duplicate_of(fingerprint) if failure is None and fingerprint is not None else None
        if twin is not None:
            failure, match = Failure(FailureKind.DUPLICATE, f"behaves like ({search.names[twin]})"), twin
        proposal = Proposal(
            index=search.ledger.take_other(), origin="imported", proposer="file", name=loss.name, thought=loss.thought,
            candidate=candidate, gate=check.gate, probe=check.probe, failure=failure, duplicate_of=match,
        )  # fmt: skip
        proposal = replace(proposal, id=search.parts.archive.record_known(search.parts.campaign, proposal))
        search.ledger.imported.add(proposal.index)
        guarded.tell(search.parts.strategy, Outcome(proposal, failure=failure))
        if failure is not None:
            search.names.setdefault(candidate.id, loss.name)
            search.parts.progress.say("refused", f"{loss.name}, to start from: {failure}")
            continue
        search.remember(proposal)
        admitted.append(Resumed(proposal, accepted=True))
    return admitted
