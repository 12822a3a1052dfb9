"""Taking up an interrupted campaign from what its archive holds."""

from __future__ import annotations

from dataclasses import replace

from db.archive import Archive
from db.records import Proposal, Result
from discovery import guarded
from discovery.config_errors import ConfigError
from discovery.protocols import Outcome
from discovery.search import GIVEN, Resumed, Search
from discovery.stages import stored_results
from evaluators.base import Evaluator
from evaluators.objectives import machine_conditions
from evaluators.promises import calls_of
from sandbox.contract import Conditions


def restore(search: Search) -> list[Resumed]:
    """Tell strategy, novelty index and budgets everything that is stored, in order; return what is unfinished.

    Raises:
        ArchiveError: the archive cannot be read. ConfigError: the campaign is about another family of losses.
    """
    parts = search.parts
    unfinished: list[Resumed] = []
    results = stored_results(parts.archive, parts.campaign, parts.stage)
    for proposal in parts.archive.proposals(parts.campaign):
        if proposal.candidate is not None and proposal.candidate.contract != parts.contract.name:
            raise ConfigError(
                f"the campaign {parts.config.name!r} in this archive is about {proposal.candidate.contract}, "
                f"its evaluator now about {parts.contract.name}; give the new campaign another name"
            )
        _count(search, proposal)
        if not proposal.judged:
            unfinished.append(Resumed(proposal, accepted=False))
            continue
        if proposal.candidate is not None and proposal.failure is not None and proposal.failure.kind.candidates_fault:
            search.names.setdefault(proposal.candidate.id, proposal.name)
        guarded.tell(parts.strategy, Outcome(proposal, failure=proposal.failure))
        if proposal.failure is None:
            assert proposal.candidate is not None
            search.remember(proposal)
            result = results.get(proposal.candidate.id, Result({}))
            if result.failure is None and len(result.by_seed) < len(parts.stage.seeds):
                unfinished.append(Resumed(proposal, accepted=True, by_seed=result.by_seed))
            else:
                search.report(proposal, result)
    search.exhausted = guarded.has_ended(parts.proposer, search.ledger.next_question)
    _count_lost(search)
    _count_device_time(search)
    parts.progress.usd = search.ledger.spent
    return unfinished


def conditions_of(archive: Archive, campaign: int, evaluator: Evaluator) -> Conditions:
    """The conditions that a campaign's candidates are compared under: as its evaluator trains them.

    With the secret of its stored fingerprints, if it has any, wherever they were made: new ones must compare with them.
    Raises ArchiveError, PluginError.
    """
    wanted = machine_conditions(calls_of(evaluator))
    for proposal in archive.proposals(campaign):
        found = proposal.probe.fingerprint if proposal.probe is not None else None
        if found is not None and found.conditions is not None and replace(found.conditions, seed=wanted.seed) == wanted:
            return found.conditions
    return wanted


def _count_lost(search: Search) -> None:
    """Questions that earlier runs sent and got no reply to; their numbers are free and are asked again."""
    totals = search.parts.archive.totals(search.parts.campaign)
    search.ledger.lose(totals.lost_tokens, totals.lost_cost)
    if totals.lost_requests:
        search.parts.progress.say(
            "note",
            f"{totals.lost_requests} questions were on their way when earlier runs ended: counted as the "
            f"{totals.lost_tokens:,} tokens that they can have taken at most, and asked again",
        )


def _count_device_time(search: Search) -> None:
    archive, campaign = search.parts.archive, search.parts.campaign
    seconds = sum(device.seconds for device in archive.device_times(campaign))
    search.ledger.trained(seconds, archive.totals(campaign).attempts)


def _count(search: Search, proposal: Proposal) -> None:
    progress, ledger = search.parts.progress, search.ledger
    ledger.restore(proposal.index, is_question=proposal.origin == "proposed")
    if proposal.origin == "imported":
        ledger.imported.add(proposal.index)
    if proposal.failure is not None:
        search.count_failure(proposal)
    elif proposal.judged and proposal.origin not in GIVEN:
        ledger.accepted += 1
        progress.accepted = ledger.accepted
    if proposal.reply is not None:
        counts = (proposal.reply.prompt_tokens, proposal.reply.completion_tokens)
        uncounted = None in counts and search.parts.proposer.uses_llm
        ledger.pay(proposal.reply, search.parts.archive.prompt(proposal.id) if uncounted else None)
        progress.proposals += 1
        progress.prompt_tokens += proposal.reply.prompt_tokens or 0
        progress.completion_tokens += proposal.reply.completion_tokens or 0
