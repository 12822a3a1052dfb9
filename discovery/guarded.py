"""Strategies and proposers behind the border to other people's code: asked, told, and held to what they promise."""

from __future__ import annotations

from db.messages import Reply
from discovery.protocols import (
    Outcome,
    Past,
    Plan,
    Prices,
    Proposer,
    ProposerError,
    ProposerExhausted,
    Request,
    Strategy,
)
from evaluators.plugin_border import method_of, name_of, optional, plugin_border
from sandbox.failure import PluginError


def ask(strategy: Strategy, index: int) -> Plan:
    """What the proposal of that number builds on. Raises PluginError."""
    with plugin_border(strategy, f"ask {index}"):
        plan = strategy.ask(index)
    if not isinstance(plan, Plan):
        raise PluginError(f"{method_of(strategy, 'ask')} returned a {type(plan).__name__}, not a Plan")
    odd = next((p for p in (*plan.in_full, *plan.in_brief) if not isinstance(p, Past)), None)
    if odd is not None:
        raise PluginError(f"{method_of(strategy, 'ask')} returned a Plan that shows a {type(odd).__name__}, not a Past")
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
    except ProposerError as error:
        if error.billed is not None:
            _require_reply(error.billed, f"{method_of(proposer, 'propose')} billed")
        raise
    _require_reply(reply, f"{method_of(proposer, 'propose')} returned")
    return reply


def has_ended(proposer: Proposer, index: int) -> ProposerExhausted | None:
    """Why nothing is proposed from that question on; None where something may be. Raises PluginError."""
    with plugin_border(proposer, f"has_ended {index}"):
        tells = optional(proposer, "has_ended")
        ended = tells(index) if tells is not None else None
    if ended is not None and not isinstance(ended, ProposerExhausted):
        raise PluginError(
            f"{method_of(proposer, 'has_ended')} returned a {type(ended).__name__}, not a ProposerExhausted"
        )
    return ended


def max_reply_tokens(proposer: Proposer) -> int | None:
    """The most that one reply can take; None where nobody says. Raises PluginError."""
    with plugin_border(proposer, "max_reply_tokens"):
        most = optional(proposer, "max_reply_tokens")
    if most is not None and not isinstance(most, int):
        raise PluginError(f"{name_of(proposer)}, max_reply_tokens is a {type(most).__name__}, not a whole number")
    return most


def prices(proposer: Proposer) -> Prices | None:
    """What its model takes; None where nobody says. Raises PluginError."""
    with plugin_border(proposer, "prices"):
        said = optional(proposer, "prices")
    if said is not None and not isinstance(said, Prices):
        raise PluginError(f"{name_of(proposer)}, prices are a {type(said).__name__}, not Prices")
    return said


def _require_reply(reply: object, what: str) -> None:
    """Raises ProposerError, after which nothing more is asked."""
    if not isinstance(reply, Reply):
        raise ProposerError(f"{what} a {type(reply).__name__}, not a Reply", fatal=True)
    for name in ("text", "model"):
        value = getattr(reply, name)
        if not isinstance(value, str):
            raise ProposerError(f"{what} a Reply whose {name} is a {type(value).__name__}, not a str", fatal=True)
