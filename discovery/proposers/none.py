"""Proposes nothing: a campaign measures its baselines and what it starts from, and ends. For any contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from db.messages import Reply
from discovery.protocols import ProposerExhausted, Request
from evaluators.options import parse_options
from sandbox.contract import Contract


@dataclass(frozen=True)
class NoOptions:
    """There is nothing to choose."""


class NoProposer:
    """Exhausted from the beginning."""

    name: ClassVar[str] = "none"
    summary: ClassVar[str] = "nothing is proposed; baselines and given losses are measured"
    uses_llm: ClassVar[bool] = False
    repairs: ClassVar[bool] = False
    Options = NoOptions

    def __init__(self, options: Mapping[str, Any], contract: Contract, seed: int) -> None:
        """Raises OptionsError for any option."""
        del contract, seed
        parse_options(NoOptions, options, self.name)

    def has_ended(self, index: int) -> ProposerExhausted:
        """From the beginning."""
        return ProposerExhausted("nothing is proposed, baselines and given losses are measured")

    async def propose(self, request: Request) -> Reply:
        """Raises ProposerExhausted."""
        raise self.has_ended(request.plan.index)

    async def aclose(self) -> None:
        """Nothing is open."""
