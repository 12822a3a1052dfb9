"""A question to a proposer, and what is stored of its answer."""

from __future__ import annotations

from dataclasses import dataclass

from db.messages import Prompt, Reply
from db.records import Origin, Proposal
from discovery.protocols import Plan
from sandbox.candidate import Candidate


@dataclass
class Asked:
    """One question and what came of it, kept for a repair."""

    plan: Plan
    prompt: Prompt
    index: int
    attempt: int = 0
    repair_of: int | None = None
    reply: Reply | None = None
    checked: Candidate | None = None  # what the reply was read as

    def answered(self, reply: Reply, proposer: str) -> Proposal:
        """The proposal that a reply makes, not judged yet."""
        origin: Origin = "repaired" if self.attempt else "proposed"
        return Proposal(
            index=self.index,
            origin=origin,
            proposer=proposer,
            name="",
            thought="",
            parents=self.plan.parents,
            repair_of=self.repair_of,
            prompt=self.prompt,
            reply=reply,
        )
