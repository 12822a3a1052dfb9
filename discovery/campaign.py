"""A discovery campaign: baselines, search, promotion, leaderboard. The only writer of its archive rows."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from db.archive import Archive, ArchiveError
from db.endings import NOT_RECORDED, Ending
from db.records import CampaignRecord, Proposal, Result
from discovery import ending, guarded
from discovery.campaign_log import campaign_log
from discovery.changes import refuse_another_campaign, said_changes
from discovery.config import CampaignConfig, PromotionConfig
from discovery.contest import is_about_privileged
from discovery.executor import RayExecutor
from discovery.imports import Given
from discovery.interrupts import finishes, interrupts
from discovery.leaderboard import Board
from discovery.ledger import Ledger
from discovery.measured import Measured, board_of, measured
from discovery.progress import Event, Progress
from discovery.prompts.builder import PromptBuilder, PromptContext
from discovery.protocols import Preflight, Prices, Proposer, ProposerError, Strategy
from discovery.resume import conditions_of, restore
from discovery.room import Pools
from discovery.search import Parts, Resumed, Search, SearchError
from discovery.stages import promoted, stored_results
from discovery.starting import admit, from_archive, from_files
from discovery.trials import Stage, TrialQueue, Work
from discovery.unfinished import nothing_left
from evaluators.base import Resources
from evaluators.objectives import known_objective, known_objectives
from evaluators.options import OptionsError
from evaluators.plugin_border import plugin_border
from evaluators.plugins import make_plugin
from evaluators.written import NULL_WORDS
from sandbox.failure import InfrastructureError

_LOOK_S = 1.0


@dataclass(frozen=True)
class CampaignResult:
    """How a campaign ended. `status` is finished or interrupted; either can be taken up again. `ending` says why.

    `changes`: settings that differ from the last run's, a line each.
    """

    campaign: str
    archive: str
    status: str
    board: Board
    ending: Ending = NOT_RECORDED
    changes: tuple[str, ...] = ()


class Campaign:
    """One campaign, new or resumed.

        result = Campaign(load_config("campaign.yaml")).run()

    Args:
        config: from `load_config`.
        listener: called with each piece of news, on the campaign's thread.
        unsafe_no_sandbox: run candidates without the system-call filter where it cannot be had. Recorded with every trial,
            and no setting of a file: a configuration from somebody else must not switch it on.

    Raises:
        OptionsError, ConfigError: something in the configuration is wrong (from the constructor).
        ArchiveError: the archive cannot be opened or written (from `run`).
        SearchError: the proposer cannot go on. InfrastructureError: Ray or the machine failed. PluginError: an evaluator,
            proposer or strategy is faulty (from the constructor too). All of them leave everything stored so far in the
            archive, and the same call resumes.
    """

    def __init__(
        self,
        config: CampaignConfig,
        listener: Callable[[Event], None] | None = None,
        unsafe_no_sandbox: bool = False,
    ) -> None:
        self.config = config
        self._unsafe_no_sandbox = unsafe_no_sandbox
        self.progress = Progress()
        self._listener = listener
        self._search, *self._promotions = measured(config)
        self._contract = self._search.evaluator.contract
        for promotion in self._promotions:
            if promotion.evaluator.contract.name != self._contract.name:
                raise OptionsError(
                    f"{promotion.spec.evaluator} trains losses of {promotion.evaluator.contract.name}, the search looks for "
                    f"{self._contract.name}; promote to an evaluator of that family"
                )
        self._start = from_files(config.start_from, self._contract)
        # those of promotions begin in the search too
        needed = (*self.baselines, *(name for p in config.promotions for name in p.baselines))
        self._known = {name: known_objective(self._contract.name, name) for name in needed}
        self._about_privileged = is_about_privileged(self._known.values())
        context = PromptContext(
            contract=self._contract,
            metric=next(m for m in self._search.evaluator.metrics if m.name == self._search.stage.metric),
            task=self._search.description,
            known=list(known_objectives(self._contract.name).values()),
            described=self.baselines,
            about_privileged=self._about_privileged,
        )
        self._builder = PromptBuilder(context, config.prompts.model_dump())
        self._strategy: Strategy = make_plugin("strategies", config.strategy.kind, config.strategy.options, config.seed)
        self._proposer: Proposer = make_plugin(
            "proposers", config.proposer.kind, config.proposer.options, self._contract, config.seed
        )
        self._require_an_end()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._deadline = math.inf
        self._ending = NOT_RECORDED
        self._ended_before: datetime | None = None

    @property
    def baselines(self) -> tuple[str, ...]:
        return self.config.baseline_names(self._contract.name)

    @property
    def uses_llm(self) -> bool:
        return self._proposer.uses_llm

    def _require_an_end(self) -> None:
        budget = self.config.budget
        if budget.candidates is budget.proposals is budget.wall_s is None and not self.uses_llm:
            raise OptionsError(
                f"this budget may never end a search by the proposer {self.config.proposer.kind}, which uses no tokens; "
                "set candidates, proposals or wall_s too"
            )
        if budget.usd is not None and self._prices is None:
            raise OptionsError(
                "budget.usd needs the model's prices: set usd_per_million_prompt_tokens and "
                "usd_per_million_completion_tokens under proposer"
            )

    @property
    def _prices(self) -> Prices | None:
        return guarded.prices(self._proposer)

    def stop(self) -> None:
        """Ask a running campaign to end soon; safe from any thread. What is stored stays, the rest is resumed later."""
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)

    def run(self) -> CampaignResult:
        """Run to the end of the budget. Works in a notebook too, where an event loop is already running."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self._main())
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(asyncio.run, self._main())
            try:
                return running.result()
            except (
                KeyboardInterrupt
            ):  # a notebook's stop button: the signal comes to this thread, not to the campaign's
                self.stop()
                return running.result()

    async def _main(self) -> CampaignResult:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._deadline = self._loop.time() + (self.config.budget.wall_s or math.inf)
        config = self.config
        secrets = [os.environ.get(name, "") for name in self._secret_names()]
        with (
            Archive(config.archive, create=True, all_arrays=config.all_arrays) as archive,
            campaign_log(config.log_dir, config.name, secrets) as log,
            interrupts(self.stop),
        ):
            self.progress.listener = lambda event: self._news(log, event)
            stage = self._search.stage
            refuse_another_campaign(archive, config, stage)
            given = [*self._start, *from_archive(archive, config.start_from, self._contract, config.name)]
            record = await asyncio.to_thread(  # it may have to wait for another driver's lease to run out
                archive.start_campaign, config.name, config.public(), task=stage.task, metric=stage.metric,
                higher_is_better=stage.higher_is_better, seeds=stage.seeds, tell=self._say_from_a_thread,
            )  # fmt: skip
            changes = said_changes(record)
            for line in changes:
                self.progress.say("note", line)
            try:
                status = await self._until_stopped(self._work(archive, record, log, given), _keep(archive, record.id))
                archive.reset_running(record.id)
                archive.finish_campaign(record.id, status, self._ending, self._ended_before)
            except BaseException as error:
                log.error("%s", error, exc_info=None if isinstance(error, ending.EXPECTED) else error)
                if isinstance(error, SearchError):
                    error.board = self._board(archive, record.id)
                with suppress(ArchiveError):  # it may be the archive that failed
                    archive.reset_running(record.id)
                    archive.finish_campaign(record.id, "stopped by an error", ending.of_error(error))
                raise
            finally:
                with suppress(asyncio.CancelledError), plugin_border(self._proposer, "aclose"):
                    await self._proposer.aclose()
            board = self._board(archive, record.id)
        return CampaignResult(config.name, config.public()["archive"], status, board, self._ending, changes)

    def _board(self, archive: Archive, campaign: int) -> Board:
        return board_of(archive, campaign, self.config.name, [self._search, *self._promotions])

    def _say_from_a_thread(self, line: str) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.progress.say, "note", line)

    def _news(self, log: logging.Logger, event: Event) -> None:
        log.info("%s: %s", event.kind, event.text)
        if self._listener is not None:
            self._listener(event)

    async def _until_stopped(self, work: Coroutine[Any, Any, None], lease: Coroutine[Any, Any, None]) -> str:
        """Await the work, a stop request, or the loss of the campaign to another driver, whichever comes first."""
        assert self._stopping is not None
        if await finishes(work, self._stopping, lease):
            return "finished"
        self._ending = ending.of_request(self.progress.stage)
        self.progress.say("note", "interrupted: ending what runs; Ctrl-C ends it at once")
        return "interrupted"

    async def _work(
        self, archive: Archive, record: CampaignRecord, log: logging.Logger, given: Sequence[Given]
    ) -> None:
        """Everything between opening the archive and the leaderboard."""
        measured = [self._search, *self._promotions]
        executor = RayExecutor(
            self._pools(),
            {m.stage.key: m.spec for m in measured},
            self._contract,
            self.config.limits.sandbox(),
            log,
            lambda line: self.progress.say("note", line),
        )
        attempts = self.config.workers.max_attempts
        queue = TrialQueue(archive, record.id, executor, self.progress, attempts, self._unsafe_no_sandbox)
        search, todo, new = self._taken_up(archive, record, executor, queue)
        promotions = zip(self._promotions, self.config.promotions, strict=True)
        if record.resumed and not new and nothing_left(search, todo, given, promotions):
            self._ending, self._ended_before = ending.of_search(search), record.previous_finish
            self.progress.say("note", "everything that was asked for is stored: nothing is started")
            return
        await self._preflight()
        self._enter("starting Ray", self._search.stage)
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(executor.watch())
                await executor.start(conditions_of(archive, record.id, self._search.evaluator))
                await asyncio.gather(self._prepare(archive, executor, self._search), self._test_sandbox(executor))
                serving = group.create_task(queue.run(executor.trial_slots))
                await self._measure_all(search, todo, new, given)
                serving.cancel()
                watching.cancel()
        finally:
            executor.close()

    async def _preflight(self) -> None:
        """A wrong key is found now, and not after the preparation and the baselines."""
        if isinstance(self._proposer, Preflight):
            self._enter(f"asking whether the proposer {self.config.proposer.kind} is there", self._search.stage)
        try:
            await self.preflight()
        except ProposerError as error:
            raise SearchError(str(error)) from error

    async def preflight(self) -> bool:
        """Ask the proposer's endpoint; whether it has one. Raises ProposerError."""
        if not isinstance(self._proposer, Preflight):
            return False
        with plugin_border(self._proposer, "preflight", (ProposerError,)):
            await self._proposer.preflight()
        return True

    async def _test_sandbox(self, executor: RayExecutor) -> None:
        """Candidates are confined on this machine, today: seen, not assumed."""
        if self._unsafe_no_sandbox:
            self.progress.say("note", "no sandbox: candidates run with this account's rights")
            return
        tested = await executor.self_test()
        self.progress.say("stage", f"the sandbox holds ({tested.cage}; tested in {1e3 * tested.wall_s:.0f} ms)")

    def _taken_up(
        self, archive: Archive, record: CampaignRecord, executor: RayExecutor, queue: TrialQueue
    ) -> tuple[Search, list[Resumed], list[str]]:
        """The search as the archive has it, what of it is unfinished, and the baselines that it does not have."""
        parts = Parts(
            self.config, record.id, self._contract, archive, executor, queue, self._strategy, self._proposer,
            self._builder, self.progress, self._search.stage, self._about_privileged,
        )  # fmt: skip
        search = Search(parts, Ledger(self.config.budget, prices=self._prices), deadline=self._deadline)
        todo = restore(search)
        return search, todo, [name for name in self._known if name not in search.ledger.baselines]

    async def _measure_all(
        self, search: Search, todo: list[Resumed], new: Sequence[str], given: Sequence[Given]
    ) -> None:
        todo += await self._admit(search, new)
        todo += await admit(search, given)
        self._enter("search", self._search.stage)
        self._expect(search, todo)
        await search.run(todo)
        self._ending = ending.of_search(search)
        for promotion, settings in zip(self._promotions, self.config.promotions, strict=True):
            await self._promote(search.parts, promotion, settings)

    async def _prepare(self, archive: Archive, executor: RayExecutor, measured: Measured) -> None:
        self._enter(f"preparing {measured.spec.evaluator}", measured.stage)
        prepared = await executor.prepare(measured.stage.key, lambda line: self.progress.say("prepare", line))
        archive.record_task(measured.stage.task, prepared.facts)
        facts = ", ".join(f"{name} {value:.4g}" for name, value in prepared.facts.items())
        self.progress.say("stage", f"{measured.spec.evaluator} is ready" + (f" ({facts})" if facts else ""))

    def _enter(self, what: str, stage: Stage) -> None:
        progress = self.progress
        progress.stage, progress.metric, progress.higher_is_better = what, stage.metric, stage.higher_is_better
        progress.trials_finished_in_stage = 0
        progress.say("stage", what)

    async def _admit(self, search: Search, names: Sequence[str]) -> list[Resumed]:
        """Check known objectives like any candidate and record them, in this order."""
        known = {name: known_objective(self._contract.name, name) for name in names}
        checking = (search.check(objective.candidate, against_known=False) for objective in known.values())
        admitted = []
        for (name, objective), check in zip(known.items(), await asyncio.gather(*checking), strict=True):
            if check.failure is not None:
                raise InfrastructureError(f"the baseline {name} does not pass its own checks: {check.failure}")
            proposal = Proposal(
                index=search.ledger.take_other(), origin="known", proposer="library", name=name,
                thought=objective.summary, candidate=objective.candidate, gate=check.gate, probe=check.probe,
            )  # fmt: skip
            search.parts.archive.record_known(search.parts.campaign, proposal)
            search.remember(proposal)
            admitted.append(Resumed(proposal, accepted=True))
        return admitted

    def _expect(self, search: Search, todo: list[Resumed]) -> None:
        """How many trials the search has ahead of it, as far as the budget says."""
        candidates = self.config.budget.candidates
        ahead = sum(r.accepted for r in todo) + max(0, (candidates or 0) - search.ledger.accepted)
        self.progress.candidates_budget = candidates
        self.progress.trials_expected = ahead * len(self._search.stage.seeds) if candidates is not None else 0

    async def _promote(self, parts: Parts, promotion: Measured, settings: PromotionConfig) -> None:
        """Measure the leading candidates and some baselines on another task or on fresh seeds."""
        await self._prepare(parts.archive, parts.executor, promotion)
        chosen = promoted(parts.archive, parts.campaign, self._contract.name, settings)
        self._enter(f"{promotion.stage.key}: {promotion.spec.evaluator}", promotion.stage)
        self.progress.trials_expected = len(chosen) * len(promotion.stage.seeds)
        works = []
        results = stored_results(parts.archive, parts.campaign, promotion.stage)
        for entry in chosen:
            parameters = parts.archive.parameters(entry.candidate.id)
            stored = results.get(entry.candidate.id, Result({}))
            if stored.failure is None:
                work = Work(entry.candidate, parameters, entry.name, promotion.stage)
                works.append(parts.queue.submit(work, stored.by_seed))
        await asyncio.gather(*works)

    def _pools(self) -> Pools:
        workers = self.config.workers
        wanted = [m.resources for m in (self._search, *self._promotions)]  # the same actors serve all stages
        resources = Resources(
            cpus=max(w.cpus for w in wanted) if workers.cpus_per_trial is None else workers.cpus_per_trial,
            gpus=max(w.gpus for w in wanted) if workers.gpus_per_trial is None else workers.gpus_per_trial,
            memory_mb=max(w.memory_mb for w in wanted),
        )
        return Pools(
            workers.trial_slots,
            workers.probe_workers,
            workers.ray_address,
            resources,
            self._secret_names(),
            self._unsafe_no_sandbox,
            workers.gpus_per_trial is not None,
        )

    def _secret_names(self) -> tuple[str, ...]:
        """The environment variable that the proposer's key is in."""
        variable = self.config.proposer.options.get("api_key_env")
        return (variable,) if isinstance(variable, str) and variable.lower() not in NULL_WORDS else ()


async def _keep(archive: Archive, campaign: int) -> None:
    """Runs for as long as this process drives the campaign. Raises ArchiveError when another one has taken over."""
    while True:
        await asyncio.sleep(_LOOK_S)
        archive.require_lease(campaign)
