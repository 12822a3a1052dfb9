"""The proposing side of a campaign: ask, propose, parse, check, compare, queue; repair on failure."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from db.archive import Archive
from db.messages import Idea
from db.records import Proposal, Result, Score
from discovery import guarded
from discovery.config import CampaignConfig
from discovery.contest import competes
from discovery.copies import Copies
from discovery.executor import RayExecutor
from discovery.ledger import Ledger
from discovery.progress import Progress
from discovery.prompts.builder import PromptBuilder
from discovery.protocols import Outcome, Proposer, ProposerError, ProposerExhausted, Request, Strategy
from discovery.questions import Asked
from discovery.remembered import Remembered
from discovery.replies import ReplyError, parse_reply
from discovery.trials import Stage, TrialQueue, Work
from discovery.workers import Check
from sandbox.candidate import Candidate
from sandbox.contract import Contract
from sandbox.failure import Failure, FailureKind
from sandbox.mend import read_candidate

if TYPE_CHECKING:
    from discovery.leaderboard import Board

GIVEN = ("known", "imported")  # origins of losses that nobody had to propose: they go first and count towards no budget
_GIVE_UP_AFTER = 3  # times the proposals in flight, in a row, without a single reply


class SearchError(Exception):
    """The search cannot go on; one line that says why and what to do. `board`: what was measured until then, if anything."""

    board: Board | None = None


@dataclass(frozen=True)
class Parts:
    """What a search works with."""

    config: CampaignConfig
    campaign: int
    contract: Contract
    archive: Archive
    executor: RayExecutor
    queue: TrialQueue
    strategy: Strategy
    proposer: Proposer
    builder: PromptBuilder
    progress: Progress
    stage: Stage
    about_privileged: bool  # whether losses compete that are told more than labels (`discovery.contest`)


@dataclass(frozen=True)
class Resumed:
    """Unfinished business of an interrupted campaign: a reply to judge, or an accepted proposal with seeds missing."""

    proposal: Proposal
    accepted: bool
    by_seed: Mapping[int, float] = field(default_factory=dict)


@dataclass
class Search:
    """Keeps proposals in flight until a budget is used up. One event loop."""

    parts: Parts
    ledger: Ledger
    novelty: Remembered = field(default_factory=Remembered)
    names: dict[str, str] = field(default_factory=dict)  # candidate id -> name, everything judged in this campaign
    known: set[str] = field(default_factory=set)  # ids of known objectives among them
    copies: Copies = field(default_factory=Copies)  # among the proposals
    _baselines_open: int = 0
    _training: int = 0
    _lost_in_a_row: int = 0
    deadline: float = math.inf  # on the event loop's clock: nothing new is asked from then on
    exhausted: ProposerExhausted | None = None  # nothing more comes from the proposer
    given_up: ProposerError | None = None  # nothing more is asked of it
    _failed_in_training: deque[tuple[Asked, Failure]] = field(default_factory=deque)  # to be repaired
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _group: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)

    def _may_propose(self) -> bool:
        """Whether one more proposal fits the budgets, and would not wait in line for a trial slot."""
        config, pending, in_flight = self.parts.config, self.parts.queue.pending, self.ledger.in_flight
        seeds, slots = len(self.parts.stage.seeds), config.workers.trial_slots
        return (
            not self._closed
            and in_flight < config.proposals.in_flight
            and in_flight * seeds + pending < config.proposals.in_flight * seeds + 2 * slots
            and not (self._baselines_open and pending > slots)
            and self.ledger.has_room(self._trials_ahead + seeds)
        )

    @property
    def _trials_ahead(self) -> int:
        """Trials of what is accepted, and of what is in flight if it is."""
        return self.parts.queue.pending + self.ledger.in_flight * len(self.parts.stage.seeds)

    @property
    def _closed(self) -> bool:
        """Whether nothing more is asked, not even a repair."""
        return self.given_up is not None or asyncio.get_running_loop().time() >= self.deadline

    def remember(self, proposal: Proposal) -> None:
        """An accepted candidate, so that copies of it are recognised."""
        assert proposal.candidate is not None
        self.names.setdefault(proposal.candidate.id, proposal.name)
        if proposal.origin == "known":
            self.ledger.baselines.add(proposal.name)
            self.known.add(proposal.candidate.id)
        if proposal.probe is not None and proposal.probe.fingerprint is not None:
            self.novelty.add(proposal.candidate.id, proposal.probe.fingerprint)

    def count_failure(self, proposal: Proposal) -> None:
        """A proposal that the checks refused; a copy of the campaign's own is told from one of a known loss."""
        progress = self.parts.progress
        assert proposal.failure is not None
        progress.failures[str(proposal.failure.kind)] += 1
        if proposal.failure.kind is FailureKind.DUPLICATE and proposal.origin not in GIVEN:
            own = proposal.duplicate_of in self.names and proposal.duplicate_of not in self.known
            self.copies = progress.copies = self.copies.and_one(own)

    @property
    def is_over(self) -> bool:
        """Whether nothing is in flight and nothing more may be asked."""
        return (
            not self.ledger.in_flight and not self._training and (self.exhausted is not None or not self._may_propose())
        )

    # the loop

    async def run(self, resumed: Sequence[Resumed] = ()) -> None:
        """Finish what is resumed, then propose until a budget is used up and everything accepted is trained.

        Raises:
            SearchError: the proposer could not go on (wrong key, unknown model, nobody there), or kept failing. What had
                been accepted is trained by then.
        """
        self.parts.queue.on_change, self.parts.queue.on_attempt = self._wake.set, self.ledger.trained
        if self.deadline < math.inf:
            asyncio.get_running_loop().call_at(self.deadline, self._time_is_up)
        async with self._group:
            for item in resumed:
                self._resume(item)
            while not self.is_over:
                while self.exhausted is None and self._may_propose():
                    self._start(self._propose(self._next_question()))
                self._wake.clear()
                await self._wake.wait()
        if self.given_up is not None:
            raise SearchError(
                f"{self.given_up}; what was accepted before is trained and stored, and the same command goes on"
            ) from self.given_up

    def _time_is_up(self) -> None:
        if not self.is_over:
            self.parts.progress.say(
                "note", "budget.wall_s is used up: nothing new is proposed, what is accepted is trained"
            )
        self._wake.set()

    def _start(self, proposing: Coroutine[Any, Any, None]) -> None:
        self.ledger.in_flight += 1
        self.parts.progress.proposals_in_flight = self.ledger.in_flight
        self._group.create_task(proposing)

    def _resume(self, item: Resumed) -> None:
        if item.accepted:
            self.train(item.proposal, already=item.by_seed)
        else:
            self._start(self._judge_stored(item.proposal))

    async def _judge_stored(self, proposal: Proposal) -> None:
        """A reply that was stored but not judged when the campaign was interrupted."""
        try:
            judged = await self.verdict(proposal)
            if judged.failure is None:
                self.train(judged)
        finally:
            self._landed()

    def _landed(self) -> None:
        self.ledger.in_flight -= 1
        self.parts.progress.proposals_in_flight = self.ledger.in_flight
        self._wake.set()

    def _next_question(self) -> Asked:
        """A repair of what failed in training if there is one, else a new question."""
        while self._failed_in_training:
            repair = self._repair(*self._failed_in_training.popleft())
            if repair is not None:
                return repair
        return self._new_question()

    def _new_question(self) -> Asked:
        number = self.ledger.take_question()
        plan = guarded.ask(self.parts.strategy, self.ledger.question_index(number))
        return Asked(plan, self.parts.builder.build(plan), number)

    async def _propose(self, asked: Asked) -> None:
        """One question and its repairs, until something is accepted for training or nothing more may be tried."""
        try:
            question: Asked | None = asked
            while question is not None:
                question = await self._ask(question)
        finally:
            self._landed()

    async def _ask(self, asked: Asked) -> Asked | None:
        """Ask, store, judge. Returns the repair question that should follow, if any."""
        parts = self.parts
        request = self._note_request(asked)
        try:
            asked.reply = await guarded.propose(parts.proposer, Request(asked.prompt, asked.plan, asked.attempt))
        except ProposerExhausted as error:
            self.exhausted = error
            parts.progress.say("note", str(error))
            return None
        except ProposerError as error:
            if error.billed is not None:
                unanswered = self._store_reply(asked.answered(error.billed, parts.config.proposer.kind), request)
                failure = Failure(FailureKind.INFRASTRUCTURE, str(error))
                self._record(replace(unanswered, name="unanswered", failure=failure))
            else:
                parts.progress.failures["NO_REPLY"] += 1
                if request is not None:
                    parts.archive.close_request(request)
            self._lost(error, is_said=error.billed is not None)
            return None
        proposal = self._store_reply(asked.answered(asked.reply, parts.config.proposer.kind), request)
        return await self._judge(proposal, asked)

    def _note_request(self, asked: Asked) -> int | None:
        """Store that a language model is about to be asked: if this process dies, the question may have been paid for."""
        parts = self.parts
        if not parts.proposer.uses_llm:
            return None
        bound = guarded.max_reply_tokens(parts.proposer)
        most = self.ledger.most(asked.prompt, bound)
        usd = None if self.ledger.prices is None else self.ledger.prices.of(*most)
        return parts.archive.record_request(parts.campaign, asked.index, *most, usd)

    def _store_reply(self, proposal: Proposal, request: int | None) -> Proposal:
        """Commit the reply before anything is made of it: it has been paid for."""
        progress, reply = self.parts.progress, proposal.reply
        assert reply is not None
        assert proposal.prompt is not None
        reply = replace(reply, cost=self.ledger.cost(reply, proposal.prompt))
        proposal = replace(proposal, reply=reply)
        stored = self.parts.archive.record_reply(self.parts.campaign, proposal, request)
        self.ledger.pay(reply, proposal.prompt if self.parts.proposer.uses_llm else None)
        progress.proposals += 1
        progress.prompt_tokens += reply.prompt_tokens or 0
        progress.completion_tokens += reply.completion_tokens or 0
        progress.usd = self.ledger.spent
        return replace(proposal, id=stored)

    async def _judge(self, proposal: Proposal, asked: Asked) -> Asked | None:
        judged = await self.verdict(proposal)
        asked.checked = judged.candidate
        assert proposal.reply is not None
        if proposal.reply.problem is not None and judged.candidate is None:
            self._lost(ProposerError(proposal.reply.problem, fatal=False), is_said=True)
        else:
            self._lost_in_a_row = 0
        if judged.failure is None:
            self.train(judged, asked)
            return None
        return self._repair(asked, judged.failure)

    def _repair(self, asked: Asked, failure: Failure) -> Asked | None:
        """The question that gives the error back, if another attempt is allowed and can help."""
        allowed = asked.attempt < self.parts.config.proposals.max_repairs and not self._closed
        allowed = allowed and self.ledger.has_room_for_repair(self._trials_ahead)
        repairable = failure.kind.candidates_fault and failure.kind is not FailureKind.DUPLICATE
        if not (allowed and repairable and self.parts.proposer.repairs and asked.reply is not None):
            return None
        prompt = self.parts.builder.repair(asked.prompt, asked.reply.text, str(failure), asked.checked)
        return Asked(asked.plan, prompt, self.ledger.take_other(), asked.attempt + 1, repair_of=asked.index)

    def _lost(self, error: ProposerError, is_said: bool) -> None:
        """No answer: count it, and stop asking if that is all that happens. `is_said`: as the verdict on a stored reply."""
        self._lost_in_a_row += 1
        patience = _GIVE_UP_AFTER * self.parts.config.proposals.in_flight
        if self.given_up is None and (error.fatal or self._lost_in_a_row >= patience):
            self.given_up = error
            self.parts.progress.say("note", f"nothing more is proposed, what is accepted is trained: {error}")
        elif self.given_up is None and not is_said:
            self.parts.progress.say("note", f"no reply: {error}")

    # verdicts

    async def verdict(self, proposal: Proposal) -> Proposal:
        """Parse, gate, probe and compare one stored reply; record what came of it."""
        assert proposal.reply is not None
        contract = self.parts.contract
        try:
            idea = parse_reply(proposal.reply.text, contract.function, contract.required)
        except ReplyError as error:
            failure = Failure(FailureKind.STATIC, proposal.reply.problem or str(error))
            name = "unreadable" if proposal.reply.problem is None else "unanswered"
            judged = replace(proposal, name=name, failure=failure)
        else:
            judged = await self._check(proposal, idea)
        self._record(judged)
        return judged

    async def _check(self, proposal: Proposal, idea: Idea) -> Proposal:
        candidate = read_candidate(idea.code, self.parts.contract)
        proposal = replace(proposal, name=idea.name, thought=idea.thought, candidate=candidate)
        if candidate.id in self.names:
            return self._duplicate(proposal, candidate.id)
        check = await self.check(candidate)
        proposal = replace(
            proposal, gate=check.gate, probe=check.probe, failure=check.failure, duplicate_of=check.match
        )
        if check.failure is None and check.probe is not None and check.probe.fingerprint is not None:
            twin = candidate.id if candidate.id in self.names else self.novelty.duplicate_of(check.probe.fingerprint)
            if twin is not None:
                return self._duplicate(proposal, twin)
            self.remember(proposal)
        elif check.failure is None or check.failure.kind.candidates_fault:
            self.names.setdefault(candidate.id, idea.name)
        return proposal

    async def check(self, candidate: Candidate, against_known: bool = True) -> Check:
        """Gate and probe; again if it was our machine that failed."""
        for _ in range(self.parts.config.workers.max_attempts):
            check = await self.parts.executor.check(candidate, against_known)
            if check.failure is None or check.failure.kind.candidates_fault:
                break
        return check

    def _duplicate(self, proposal: Proposal, twin: str) -> Proposal:
        before = "a known loss" if twin in self.known else "which this campaign had before"
        failure = Failure(FailureKind.DUPLICATE, f"behaves like ({self.names[twin]}), {before}")
        return replace(proposal, failure=failure, duplicate_of=twin)

    def _record(self, judged: Proposal) -> None:
        parts = self.parts
        parts.archive.record_verdict(judged.id, judged)
        if judged.failure is not None:
            self.count_failure(judged)
            parts.progress.say("refused", f"{judged.name}: {judged.failure}")
            guarded.tell(parts.strategy, Outcome(judged, failure=judged.failure))
            return
        self.ledger.accepted += 1
        parts.progress.accepted = self.ledger.accepted
        parts.progress.say("accepted", f"{judged.name} (proposal {judged.index})")
        guarded.tell(parts.strategy, Outcome(judged))

    # training

    def train(self, proposal: Proposal, asked: Asked | None = None, already: Mapping[int, float] | None = None) -> None:
        """Queue an accepted proposal on the seeds that are not in `already`, and tell the strategy when it is scored."""
        assert proposal.candidate is not None
        parameters = proposal.gate.parameters if proposal.gate is not None else self.parts.contract.required
        baseline = proposal.origin in GIVEN
        self._baselines_open += baseline
        work = Work(proposal.candidate, parameters, proposal.name, self.parts.stage, priority=0 if baseline else 1)
        future = self.parts.queue.submit(work, already)
        self._training += 1
        self._group.create_task(self._await_result(proposal, future, asked))

    async def _await_result(self, proposal: Proposal, future: asyncio.Future[Result], asked: Asked | None) -> None:
        result = await future
        self._training -= 1
        self._baselines_open -= proposal.origin in GIVEN
        self.report(proposal, result)
        if asked is not None and result.failure is not None:
            self._failed_in_training.append((asked, result.failure))
        self._wake.set()

    def report(self, proposal: Proposal, result: Result) -> None:
        """Tell strategy and watchers how an accepted proposal did; watchers hear of those that compete."""
        stage, progress = self.parts.stage, self.parts.progress
        if result.failure is not None:
            guarded.tell(self.parts.strategy, Outcome(proposal, failure=result.failure))
            return
        score = Score(stage.metric, stage.higher_is_better, result.by_seed)
        apart = proposal.gate is not None and not competes(proposal.gate, self.parts.about_privileged)
        guarded.tell(self.parts.strategy, Outcome(proposal, score=score, apart=apart))
        if proposal.origin == "known" and not apart:
            progress.baselines[proposal.name] = score
        elif not apart and progress.offer_leader(proposal.name, score):
            progress.say("scored", f"{proposal.name}: {stage.metric} {score.mean:.4f}, leads so far")
