"""The trial queue: a fixed number of slots, infrastructure failures retried, every attempt in the archive."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from db.archive import Archive
from db.records import Result
from discovery.executor import RayExecutor
from discovery.progress import Progress, Running
from evaluators.base import Metric, Task, TrialReport
from sandbox.candidate import Candidate
from sandbox.failure import Failure, FailureKind, InfrastructureError, PluginError

_PATIENCE_AT_FIRST, _PATIENCE = 3, 10  # losses in a row that nothing could be measured of


@dataclass(frozen=True)
class Stage:
    """One measurement of a campaign: the search itself, or a promotion.

    Attributes:
        key: what workers know the task by.
        task: the exact task.
        metric: the metric that is read.
        higher_is_better: its direction.
        seeds: trials per candidate.
    """

    key: str
    task: Task
    metric: str
    higher_is_better: bool
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """A candidate to be trained on every seed of a stage. Lower `priority` goes first."""

    candidate: Candidate
    parameters: tuple[str, ...]
    name: str
    stage: Stage
    priority: int = 1


@dataclass
class _Open:
    """A work in progress."""

    work: Work
    done: asyncio.Future[Result]
    by_seed: dict[int, float] = field(default_factory=dict)
    left: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, order=True)
class _Job:
    priority: int
    order: int
    seed: int = field(compare=False)
    open: _Open = field(compare=False)


class TrialQueue:
    """Runs submitted works on the executor's slots, in order of priority, then of submission."""

    def __init__(
        self,
        archive: Archive,
        campaign: int,
        executor: RayExecutor,
        progress: Progress,
        attempts: int,
        unconfined: bool = False,
    ) -> None:
        self._archive, self._campaign, self._executor = archive, campaign, executor
        self._progress, self._attempts, self._unconfined = progress, attempts, unconfined
        self._jobs: asyncio.PriorityQueue[_Job] = asyncio.PriorityQueue()
        self.on_change: Callable[[], None] = lambda: None  # called whenever a trial ends
        self.on_attempt: Callable[[float], None] = lambda seconds: None  # called with how long each attempt took
        self._order = 0
        self._given = 0  # baselines and other losses that nobody proposed
        self._works = "done" in archive.totals(campaign).trials  # whether any trial has ever given a result
        self._lost = 0  # losses in a row that failed through no fault of theirs
        self._running = 0

    @property
    def pending(self) -> int:
        """Trials waiting or running."""
        return self._jobs.qsize() + self._running

    def submit(self, work: Work, already: Mapping[int, float] | None = None) -> asyncio.Future[Result]:
        """Queue the seeds that are not in `already`; the future gives the result of all of them."""
        open_work = _Open(work, asyncio.get_running_loop().create_future(), dict(already or {}))
        seeds = [s for s in work.stage.seeds if s not in open_work.by_seed]
        open_work.left = len(seeds)
        self._given += bool(seeds) and not work.priority
        if not seeds:
            open_work.done.set_result(Result(open_work.by_seed))
        for seed in seeds:
            self._order += 1
            self._jobs.put_nowait(_Job(work.priority, self._order, seed, open_work))
        self._progress.trials_waiting = self._jobs.qsize()
        return open_work.done

    async def run(self, slots: int) -> None:
        """Serve until cancelled. Interrupted trials are left pending in the archive by the caller's `reset_running`."""
        async with asyncio.TaskGroup() as group:
            for slot in range(slots):
                group.create_task(self._serve(slot))

    async def _serve(self, slot: int) -> None:
        while True:
            job = await self._jobs.get()
            self._progress.trials_waiting = self._jobs.qsize()
            if job.open.failure is None:  # a failed seed has already left this candidate unranked
                self._running += 1
                try:
                    await self._run(job, slot)
                finally:
                    self._running -= 1
                    self._progress.running.pop(slot, None)
                    self.on_change()
            job.open.left -= 1
            if not job.open.left and not job.open.done.done():
                job.open.done.set_result(Result(job.open.by_seed, job.open.failure))

    async def _run(self, job: _Job, slot: int) -> None:
        work = job.open.work
        self._progress.running[slot] = Running(work.name, work.stage.key, job.seed, time.monotonic())
        trial = self._archive.ensure_trial(self._campaign, work.candidate.id, work.stage.task.id, job.seed)
        for tried in itertools.count(1):  # attempts of this run: those that an earlier one lost do not count
            attempt = self._archive.start_attempt(trial.id, f"slot {slot}", self._unconfined)
            start = time.monotonic()
            outcome = await self._executor.trial(work.stage.key, work.candidate, work.parameters, job.seed)
            self.on_attempt(time.monotonic() - start)
            if isinstance(outcome, TrialReport):
                self._archive.finish_trial(trial.id, attempt, outcome)
                self._finished(job, outcome.metric(work.stage.metric))
                return
            final = outcome.kind is not FailureKind.INFRASTRUCTURE or tried >= self._attempts
            self._archive.fail_trial(trial.id, attempt, outcome, final)
            self._progress.failures[str(outcome.kind)] += 1
            if final:
                job.open.failure = outcome
                self._progress.trial_finished()
                self._progress.say("failed", f"{work.name} seed {job.seed}: {outcome}")
                self._count_lost(job.open, outcome)
                return
            self._progress.say(
                "note", f"{work.name} seed {job.seed}: attempt {attempt} lost ({outcome.message}), again"
            )

    def _finished(self, job: _Job, metric: Metric) -> None:
        job.open.by_seed[job.seed] = metric.value
        self._works, self._lost = True, 0
        self._progress.trial_finished()
        error = f" ± {metric.stderr:.4f}" if metric.stderr is not None else ""
        work = job.open.work
        self._progress.say("trial", f"{work.name} seed {job.seed}: {metric.name} {metric.value:.4f}{error}")

    def _count_lost(self, open_work: _Open, failure: Failure) -> None:
        """Stop where going on would measure nothing: losses fail in a row, and none of them is to blame.

        Raises PluginError, InfrastructureError.
        """
        if failure.kind.candidates_fault:
            return
        self._lost += 1
        if self._lost < (_PATIENCE if self._works else min(_PATIENCE_AT_FIRST, max(1, self._given))):
            return
        what = "every loss so far has" if not self._works else f"the last {self._lost} losses have all"
        is_plugins = failure.kind is FailureKind.PLUGIN
        do = "mend it" if is_plugins else "see to it"
        error = PluginError if is_plugins else InfrastructureError
        raise error(f"{failure.message}; {what} failed so, none was at fault: {do} and run the same command again")
