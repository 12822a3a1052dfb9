"""The seams of a campaign: strategies ask and tell, proposers answer prompts. No Ray, no SQL, no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from db.messages import Prompt, Reply
from db.records import Proposal, Score
from sandbox.contract import Contract
from sandbox.failure import Failure


@dataclass(frozen=True)
class Past:
    """One earlier loss as a strategy knows it. `score` and `failure` are both None while it is still in training.

    Attributes:
        privileged: the inputs that tell it more than labels do.
        apart: it does not compete with the losses that are looked for, whatever its score (`discovery.contest`).
    """

    candidate_id: str
    name: str
    thought: str
    source: str
    origin: str
    score: Score | None = None
    failure: Failure | None = None
    privileged: tuple[str, ...] = ()
    apart: bool = False


@dataclass(frozen=True)
class Plan:
    """What the next proposal should build on.

    Attributes:
        index: number of the question within the campaign, from 0; baselines and repairs have none.
        seed: for anything random in this proposal; a function of the campaign's seed and `index`.
        in_full: past losses shown with code, thought and score (best first, those that do not compete last).
        in_brief: past losses shown as one line each: name, score or error.
    """

    index: int
    seed: int
    in_full: tuple[Past, ...] = ()
    in_brief: tuple[Past, ...] = ()

    @property
    def parents(self) -> tuple[str, ...]:
        return tuple(p.candidate_id for p in self.in_full)


@dataclass(frozen=True)
class Outcome:
    """What became of a proposal: refused, failed in training, or scored.

    `apart`: it does not compete with the losses that are looked for, whatever its score (`discovery.contest`).
    """

    proposal: Proposal
    score: Score | None = None
    failure: Failure | None = None
    apart: bool = False


class Strategy(Protocol):
    """Decides what each proposal builds on. Called from one thread; must be fast; knows no Ray, no LLM, no SQL.

    After a restart the campaign tells it all stored outcomes again, in order, so it keeps nothing on disk.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    def __init__(self, options: Mapping[str, Any], seed: int) -> None:
        """Raises OptionsError for unknown or ill-typed options."""

    def ask(self, index: int) -> Plan: ...

    def tell(self, outcome: Outcome) -> None: ...


class ProposerError(Exception):
    """No reply could be had. `fatal` means that asking again cannot help (wrong key, unknown model, nobody there).

    `billed`: a reply without text that holds what was taken all the same, where anybody said so; it is stored and counted.
    """

    def __init__(self, message: str, *, fatal: bool, billed: Reply | None = None) -> None:
        super().__init__(message)
        self.fatal, self.billed = fatal, billed


class ProposerExhausted(ProposerError):  # noqa: N818 - an end, not an error
    """There is nothing left to propose: the campaign finishes what is queued and ends normally."""

    def __init__(self, message: str) -> None:
        super().__init__(message, fatal=True)


@dataclass(frozen=True)
class Request:
    """One question to a proposer. Proposers that are not language models read `plan` and ignore the prompt."""

    prompt: Prompt
    plan: Plan
    attempt: int = 0  # 0 for a first proposal, n for the n-th repair of it


class Proposer(Protocol):
    """Answers requests. `propose` runs many times concurrently on one asyncio event loop.

    `uses_llm` tells people and the archive plainly whether a language model is behind it. `repairs` says whether an error
    that is given back can lead to a better answer; if not, nothing is asked twice.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    uses_llm: ClassVar[bool]
    repairs: ClassVar[bool]

    def __init__(self, options: Mapping[str, Any], contract: Contract, seed: int) -> None:
        """Raises OptionsError for unknown or ill-typed options, a missing key variable or file."""

    async def propose(self, request: Request) -> Reply:
        """A reply, also one without an answer (`Reply.problem`): whatever was billed is counted. Raises ProposerError."""

    async def aclose(self) -> None: ...


@runtime_checkable
class Finite(Protocol):
    """What a proposer may have besides, which knows before it is asked that it has nothing more to propose."""

    def has_ended(self, index: int) -> ProposerExhausted | None:
        """Why nothing is proposed from question number `index` (from 0) on; None if something may be."""


@runtime_checkable
class Bounded(Protocol):
    """What a proposer with a language model may have besides: a bound on what one reply can take."""

    @property
    def max_reply_tokens(self) -> int | None:
        """None where the server decides."""


@dataclass(frozen=True)
class Prices:
    """What a language model takes for a million tokens, in US dollars."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


@runtime_checkable
class Priced(Protocol):
    """What a proposer with a language model may have besides: its prices."""

    @property
    def prices(self) -> Prices | None:
        """None where nobody told them."""


@runtime_checkable
class Preflight(Protocol):
    """What a proposer may have besides: a quick test of its key, model and connection before anything is started."""

    async def preflight(self) -> None:
        """Raises ProposerError only where no request could succeed. Takes some ten seconds at most."""
