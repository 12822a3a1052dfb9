"""Conversation: every ask shows past losses with their scores and errors, the best ones in full.

The search of Lu et al. 2024 (DiscoPOP, arXiv:2406.08414), with two differences: the prompt is bounded by a token budget
instead of growing with the run, and a share of the asks draws the losses shown in full by rank instead of taking the
top, because several asks in flight that all see the same losses get the same ideas back.
"""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from discovery.protocols import Outcome, Past, Plan
from evaluators.options import OptionsError, option, parse_options

CHARS_PER_TOKEN = 4  # the usual estimate for English and code; the real tokeniser is the endpoint's own
OVERHEAD = 40  # tokens of headings and fences around a loss shown in full
LINE_TOKENS = 60  # upper bound of a line in the brief list; an error is cut to one line


@dataclass(frozen=True)
class ConversationOptions:
    """Options of the `conversation` strategy."""

    token_budget: int = option(6000, "Tokens of past losses in a prompt, at 4 characters a token.")
    full: int = option(4, "Past losses shown in full (code, thought, score), at most.")
    brief: int = option(20, "Past losses shown as one line (name, score or error), at most.")
    explore: float = option(
        0.5, "Share of asks whose full losses are drawn by rank instead of taken from the top, 0 to 1."
    )

    def __post_init__(self) -> None:
        if self.token_budget < 1 or self.full < 0 or self.brief < 0:
            raise OptionsError("conversation: token_budget must be at least 1, full and brief at least 0")
        if not 0 <= self.explore <= 1:
            raise OptionsError(f"conversation.explore takes a share from 0 to 1, not {self.explore}")


class ConversationStrategy:
    """Deterministic given its seed and what it was told, in whatever pauses and restarts.

    Losses that do not compete come after all that do, whatever their scores. They are kept in order as they are told. An ask
    that draws by rank still costs O(n log n) in their number: some 70 ms among 100,000.
    """

    name: ClassVar[str] = "conversation"
    summary: ClassVar[str] = "shows past losses with scores and errors, the leading ones in full, within a token budget"
    Options: ClassVar[type[ConversationOptions]] = ConversationOptions

    def __init__(self, options: Mapping[str, Any], seed: int) -> None:
        self._options = parse_options(ConversationOptions, options, "conversation")
        self._seed = seed
        self._past: dict[int, Past] = {}  # by proposal index: a duplicate shares its original's candidate id
        # indices of a candidate's scored proposals; the first one stands for it
        self._scored: dict[str, list[int]] = {}
        # one per scored candidate: whether it does not compete, badness, index; the best first
        self._ranked: list[tuple[bool, float, int]] = []
        self._failed: list[int] = []  # indices, in order
        self._running: list[int] = []

    def tell(self, outcome: Outcome) -> None:
        """Remember what became of a proposal; a later outcome of the same proposal replaces the earlier one.

        Failures that are not the candidate's are no lesson, so they leave the loss as it was before.
        """
        proposal = outcome.proposal
        failure = outcome.failure or proposal.failure
        if failure is not None and not failure.kind.candidates_fault:
            return
        self._forget(proposal.index)
        past = Past(
            candidate_id=proposal.candidate.id if proposal.candidate else "",
            name=proposal.name,
            thought=proposal.thought,
            source=proposal.candidate.source if proposal.candidate else "",
            origin=proposal.origin,
            score=None if failure else outcome.score,
            failure=failure,
            privileged=proposal.gate.privileged if proposal.gate is not None else (),
            apart=outcome.apart,
        )
        self._past[proposal.index] = past
        if past.score is not None:
            self._rank(past.candidate_id, [*self._scored.get(past.candidate_id, ()), proposal.index])
        else:
            insort(self._running if failure is None else self._failed, proposal.index)

    def _forget(self, index: int) -> None:
        """Take what was told of a proposal before out of the lists."""
        past = self._past.get(index)
        if past is None:
            return
        if past.score is not None:
            self._rank(past.candidate_id, [i for i in self._scored[past.candidate_id] if i != index])
        else:
            listed = self._running if past.failure is None else self._failed
            del listed[bisect_left(listed, index)]

    def _rank(self, candidate: str, indices: list[int]) -> None:
        """These are now the scored proposals of a candidate."""
        before = self._scored.pop(candidate, None)
        if before:
            del self._ranked[bisect_left(self._ranked, self._place(before[0]))]
        if indices:
            self._scored[candidate] = sorted(indices)
            insort(self._ranked, self._place(min(indices)))

    def _place(self, index: int) -> tuple[bool, float, int]:
        past = self._past[index]
        return past.apart, _badness(past), index

    def ask(self, index: int) -> Plan:
        """The plan of proposal `index`; asking twice with nothing told in between gives the same plan."""
        seed = int.from_bytes(hashlib.sha256(f"{self._seed}:{index}".encode()).digest()[:6])
        in_full, left = self._full(random.Random(seed))
        return Plan(index, seed, tuple(in_full), tuple(self._brief({p.candidate_id for p in in_full}, left)))

    def _full(self, rng: random.Random) -> tuple[list[Past], int]:
        """Losses to show in full (best first), and the tokens left over."""
        count = len(self._ranked)
        explore = rng.random() < self._options.explore and count > self._options.full
        order: Iterable[int] = _by_rank(count, rng) if explore else range(count)
        chosen: list[int] = []
        left = self._options.token_budget
        for position in order:
            if len(chosen) == self._options.full or left <= OVERHEAD:
                break
            cost = _tokens(self._at(position))
            if cost <= left:  # one that is too long does not keep shorter ones out
                chosen.append(position)
                left -= cost
        return [self._at(i) for i in sorted(chosen)], left

    def _at(self, position: int) -> Past:
        return self._past[self._ranked[position][-1]]

    def _brief(self, shown: Collection[str], left: int) -> list[Past]:
        """Scored ones best first, then failures newest first, then those in training; half the room for each side."""
        room = min(self._options.brief, left // LINE_TOKENS)
        newest = (*reversed(self._failed[-room:]), *reversed(self._running[-room:])) if room else ()
        unscored = [self._past[i] for i in newest[:room]]
        ranked = (past for past in map(self._at, range(len(self._ranked))) if past.candidate_id not in shown)
        scored = list(islice(ranked, room))
        for_scored = max(room - len(unscored), min(len(scored), (room + 1) // 2))
        kept = scored[:for_scored]
        return [*kept, *unscored[: room - len(kept)]]


def _badness(past: Past) -> float:
    assert past.score is not None
    return -past.score.mean if past.score.higher_is_better else past.score.mean


def _tokens(past: Past) -> int:
    return OVERHEAD + -(-(len(past.source) + len(past.thought) + len(past.name)) // CHARS_PER_TOKEN)


def _by_rank(count: int, rng: random.Random) -> list[int]:
    """Positions 0 to count-1 in a random order that favours the first: drawn without replacement, weight 1/(position+1).

    Exponential race: the smallest of Exp(1)/weight comes first (Efraimidis and Spirakis 2006).
    """
    return sorted(range(count), key=lambda position: rng.expovariate(1.0) * (position + 1))
