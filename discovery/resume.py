"""Taking up an interrupted campaign from what its archive holds."""

from __future__ import annotations

from db.records import Proposal
from discovery.protocols import Outcome
from discovery.search import Resumed, Search
from discovery.stages import stored_result
from discovery.trials import Result


def restore(search: Search) -> list[Resumed]:
    """Tell strategy, novelty index and budgets everything that is stored, in order; return what is unfinished.

    Raises:
        ArchiveError: the archive cannot be read.
    """
    parts = search.parts
    unfinished: list[Resumed] = []
    for proposal in parts.archive.proposals(parts.campaign):
        search.next_index = max(search.next_index, proposal.index + 1)
        _count(search, proposal)
        if not proposal.judged:
            unfinished.append(Resumed(proposal, accepted=False))
            continue
        if proposal.candidate is not None and proposal.failure is not None:
            search.names.setdefault(proposal.candidate.id, proposal.name)
        parts.strategy.tell(Outcome(proposal, failure=proposal.failure))
        if proposal.failure is None:
            search.remember(proposal)
            result = _stored(search, proposal)
            if result.failure is None and len(result.by_seed) < len(parts.stage.seeds):
                unfinished.append(Resumed(proposal, accepted=True, by_seed=result.by_seed))
            else:
                search.report(proposal, result)
    return unfinished


def _stored(search: Search, proposal: Proposal) -> Result:
    assert proposal.candidate is not None
    return stored_result(search.parts.archive, search.parts.campaign, proposal.candidate.id, search.parts.stage)


def _count(search: Search, proposal: Proposal) -> None:
    progress = search.parts.progress
    if proposal.failure is not None:
        progress.failures[str(proposal.failure.kind)] += 1
    elif proposal.judged and proposal.origin != "known":
        search.accepted += 1
        progress.accepted = search.accepted
    if proposal.reply is not None:
        progress.proposals += 1
        progress.prompt_tokens += proposal.reply.prompt_tokens or 0
        progress.completion_tokens += proposal.reply.completion_tokens or 0
