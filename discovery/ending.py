"""Why a campaign ends: worked out where it ends, stored with it, and said wherever the campaign is shown."""

from __future__ import annotations

from db.endings import Ending, Reason
from db.errors import ArchiveError
from discovery.config_errors import ConfigError
from discovery.copies import Copies
from discovery.ledger import PER_CANDIDATE, Ledger
from discovery.search import Search, SearchError
from evaluators.options import OptionsError
from sandbox.failure import InfrastructureError, PluginError

EXPECTED = (SearchError, InfrastructureError, PluginError, OptionsError, ConfigError, ArchiveError)  # one line each


def of_search(search: Search) -> Ending:
    """Why a search that has come to its end proposes nothing more."""
    if search.exhausted is not None:
        return Ending(Reason.EXHAUSTED, f"the proposer had nothing more: {search.exhausted}")
    ledger, progress = search.ledger, search.parts.progress
    full = ledger.full(len(search.parts.stage.seeds))
    if full is None:
        limit = search.parts.config.budget.wall_s
        return Ending(Reason.WALL, f"budget.wall_s is used up: this run had {limit:,g} s")
    if full == "proposals" and search.copies.stalls(progress.proposals):
        return Ending(Reason.STALLED, _stalled(search.copies, progress.proposals, ledger))
    if full == "candidates" and not ledger.limits.candidates:
        return Ending(Reason.CANDIDATES, "budget.candidates is 0: nothing was to be proposed")
    return Ending(Reason(full), f"budget.{full} {_had(full, ledger)}")


def of_error(error: BaseException) -> Ending:
    """Why a campaign that an error stopped did not go on."""
    if isinstance(error, SearchError):
        return Ending(Reason.PROPOSER, str(error))
    if isinstance(error, (OptionsError, ConfigError)):
        return Ending(Reason.SETTINGS, str(error))
    if isinstance(error, PluginError):
        return Ending(Reason.PLUGIN, str(error))
    if isinstance(error, EXPECTED):
        return Ending(Reason.FAULT, str(error))
    return Ending(Reason.FAULT, f"unexpected fault: {type(error).__name__}: {error}")


def of_request(stage: str) -> Ending:
    """Why a campaign that somebody stopped did not go on. `stage`: what it was at."""
    return Ending(Reason.INTERRUPTED, f"it was asked to stop (Ctrl-C, SIGTERM or a call of `stop`) during: {stage}")


def _had(full: str, ledger: Ledger) -> str:
    if full == "candidates":
        return f"is reached: {ledger.used(full)}"
    if full == "proposals" and ledger.limits.proposals is None:
        accepted = f"{ledger.accepted} of {ledger.limits.candidates} losses accepted"
        return f"is used up: {ledger.used(full)} ({PER_CANDIDATE} for each of budget.candidates), {accepted}"
    return f"has no room for another proposal: {ledger.used(full)}"


def _stalled(copies: Copies, proposals: int, ledger: Ledger) -> str:
    short = ledger.limits.candidates
    reached = f", {ledger.accepted} of {short} losses accepted" if short is not None else ""
    return f"the search stalled: {copies.among(proposals)}; {ledger.used('proposals')}{reached}"
