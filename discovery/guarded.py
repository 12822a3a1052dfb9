"""Strategies and proposers behind the border to other people's code: asked, told, and held to what they promise."""

from __future__ import annotations

from db.records import Reply
from discovery.protocols import Outcome, Plan, Proposer, ProposerError, Request, Strategy
from evaluators.plugin_border import method_of, plugin_border
from sandbox.failure import PluginError


def ask(strategy: Strategy, index: int) -> Plan:
    """What the proposal of that number builds on. Raises PluginError."""
    with plugin_border(strategy, f"ask {index}"):
        plan = strategy.ask(index)
    if not isinstance(plan, Plan):
        raise PluginError(f"{method_of(strategy, 'ask')} returned a {type(plan).__name__}, not a Plan")
    return plan


def tell(strategy: Strategy, outcome: Outcome) -> None:
    """The strategy hears what became of a proposal. Raises PluginError."""
    with plugin_border(strategy, f"tell {outcome.proposal.index}"):
        strategy.tell(outcome)


async def propose(proposer: Proposer, request: Request) -> Reply:
    """What the proposer answers. A fault of its own costs one question, as a lost reply does. Raises ProposerError."""
    try:
        with plugin_border(proposer, f"propose {request.plan.index}", (ProposerError,)):
            reply = await proposer.propose(request)
    except PluginError as error:
        raise ProposerError(str(error), fatal=False) from error
    if not isinstance(reply, Reply):
        where = method_of(proposer, "propose")
        raise ProposerError(f"{where} returned a {type(reply).__name__}, not a Reply", fatal=True)
    return reply
