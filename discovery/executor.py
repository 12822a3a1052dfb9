"""Ray: a pool of trial actors and a pool of check actors, awaited from the campaign's event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any

from discovery.ray_processes import first_dead, node_process, vital_processes
from discovery.ray_session import Session, answers, join, plugin_path, start, start_trouble
from discovery.reaper import Reaper
from discovery.room import Node, Pools, fit
from discovery.workers import Check, CheckWorker, Prepared, Refused, SelfTest, TaskSpec, TrialWorker
from evaluators.base import TrialReport
from evaluators.options import OptionsError
from sandbox.candidate import Candidate
from sandbox.contract import Conditions, Contract
from sandbox.failure import Failure, FailureKind, InfrastructureError, PluginError
from sandbox.limits import Limits
from sandbox.text import one_line

_LOOK_S = 0.5
_SILENT_LOOKS = 6  # looks in a row at which a cluster's head does not answer
_TRIES = 3  # at bringing up one worker
_ROOM_S = 30.0  # a worker that is not up by then waits for room


class RayExecutor:
    """Trials and checks on Ray actors that stay prepared.

    One event loop uses it. `trial` and `check` wait for a free actor, and never raise for a candidate: what goes wrong is
    in the returned value. An actor that dies is replaced, and its work comes back as an INFRASTRUCTURE failure.

    Raises:
        InfrastructureError: Ray cannot be started or reached. OptionsError: workers that this machine has no room for.
    """

    def __init__(
        self,
        pools: Pools,
        tasks: Mapping[str, TaskSpec],
        contract: Contract,
        limits: Limits,
        log: logging.Logger | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`log` gets the tracebacks of our own faults in workers and what Ray says; `tell` what people should know."""
        self._pools, self._tasks, self._limits = pools, tasks, limits
        self._contract = contract
        self._conditions: Conditions  # from `start` on
        self._log, self._tell = log or logging.getLogger(__name__), tell
        self._trial: asyncio.Queue[Any] = asyncio.Queue()
        self._check: asyncio.Queue[Any] = asyncio.Queue()
        self._checkers: list[Any] = []  # the first actors of each pool
        self._trainers: list[Any] = []
        self.trial_slots = pools.trial_slots  # after `start`: as many as there is room for
        self._lock = threading.Lock()  # `start` runs on a thread and may still be at it when the campaign is stopped
        self._ray: Any = None
        self._reaper: Reaper | None = None
        self._closed = False
        self._vital: dict[
            int, str
        ] = {}  # processes that it cannot live without: all of our own Ray, our node's of a cluster
        self._session: Session | None = None
        self._coming: set[asyncio.Task[None]] = set()  # one for each actor that is not up yet
        self._broken = self._waits = False
        self._over = threading.Event()

    async def start(self, conditions: Conditions) -> None:
        """Start or join Ray and create the actors; they come up while the caller goes on. `watch` runs beside it.

        `conditions`: those that candidates are compared under.

        Raises InfrastructureError, or OptionsError for more than the cluster has.
        """
        self._conditions = conditions
        # A thread that nobody waits for at the end: where a process of a starting Ray is killed, Ray blocks it for a
        # minute and then ends this process. It stays, because Ray's processes end with the thread that started them.
        done: Future[None] = Future()

        def work() -> None:
            _into(done, self._start)
            self._over.wait()

        threading.Thread(target=work, name="Ray", daemon=True).start()
        await asyncio.wrap_future(done)
        for actor in self._checkers:
            self._await(self._check, actor, self._check_actor)
        for actor in self._trainers:
            self._await(self._trial, actor, self._trial_actor)

    def _start(self) -> None:
        import ray

        needed = self._pools.trial_slots * self._pools.resources.cpus + self._pools.check_workers
        with self._lock:
            if self._closed:
                return
            if self._pools.address:
                self._session = join(self._pools.address, self._log)
            else:
                self._reaper = Reaper()
                self._session = start(max(os.cpu_count() or 1, int(needed + 0.999)), self._pools.secrets, self._log)
            self._ray = ray
            fitted = fit(self._pools, self._nodes())
            if fitted.said:
                self._tell(fitted.said)
            self.trial_slots = fitted.trial_slots
            self._checkers = [self._check_actor() for _ in range(fitted.check_workers)]
            self._trainers = [self._trial_actor() for _ in range(fitted.trial_slots)]

    def _nodes(self) -> list[Node]:
        """What is on each node; the cores and the memory of a machine of our own are shared with everything else on it."""
        found = [n["Resources"] for n in self._ray.nodes() if n["Alive"]]
        if not self._pools.address:
            return [Node(math.inf, n.get("GPU", 0.0), math.inf) for n in found]
        return [Node(n.get("CPU", 0.0), n.get("GPU", 0.0), n.get("memory", 0.0) / 2**20) for n in found]

    def close(self) -> None:
        """Leave Ray, which ends the actors; a Ray that was started here ends. Waits for a `start` that is under way."""
        if self._broken:  # it answers nobody, not even a `start`; the reaper ends what is left
            if self._reaper is not None:
                self._reaper.close()
                self._reaper = None
            return
        for coming in self._coming:
            coming.cancel()
        with self._lock:
            self._closed = True
            if self._ray is not None:
                self._ray.shutdown()  # which ends this driver's actors, wherever they are
            if self._reaper is not None:
                self._reaper.close()
            self._ray = self._reaper = None
        self._over.set()

    async def watch(self) -> None:
        """Runs beside the work for as long as Ray is whole. Raises InfrastructureError when it is not."""
        silent = 0
        while True:
            await asyncio.sleep(_LOOK_S)
            session = self._session
            if not self._pools.address:
                self._vital |= vital_processes()  # while Ray starts, they come one after the other
            elif session is not None:
                self._vital = self._vital or node_process(session.raylet)
                silent = 0 if await asyncio.to_thread(answers, session.control) else silent + 1
            gone = first_dead(self._vital)
            if gone is None and silent < _SILENT_LOOKS:
                continue
            self._broken = True
            if self._pools.address:
                what = f"this machine's node of the Ray cluster ({gone})" if gone else "the head of the Ray cluster"
                raise InfrastructureError(
                    f"{what} has died: once the cluster is up again, run the same command, it goes on where it stopped"
                )
            words = "" if session is not None else start_trouble()
            if words:  # it ended by itself, and would do so again
                raise InfrastructureError(f"cannot start Ray, its process {gone} has ended: {one_line(words, 400)}")
            raise InfrastructureError(
                f"Ray's process {gone} has died: run the same command again, it goes on where it stopped"
            )

    async def prepare(self, task: str, tell: Callable[[str], None]) -> Prepared:
        """Prepare a task on one actor; the others find it cached. `tell` hears how it goes.

        Raises OptionsError, PluginError or InfrastructureError.
        """

        async def listen(lines: Any) -> Any:
            async for line in lines:
                heard = await line
                if not isinstance(heard, str):
                    return heard
                tell(heard)
            raise InfrastructureError(f"preparing {task} ended without a result")

        for tried in range(1, _TRIES + 1):
            result = await self._on(
                self._trial,
                self._trial_actor,
                None,
                lambda actor: listen(actor.prepare_aloud.options(num_returns="streaming").remote(task)),
            )
            if not isinstance(result, Failure) or result.kind is not FailureKind.INFRASTRUCTURE or tried == _TRIES:
                break
            tell(f"attempt {tried} lost ({result.message}), again")
        if isinstance(result, Failure):
            error = PluginError if result.kind is FailureKind.PLUGIN else InfrastructureError
            raise error(f"preparing {task}: {result.message}")
        prepared: Prepared = result
        return prepared

    async def trial(
        self, task: str, candidate: Candidate, parameters: tuple[str, ...], seed: int
    ) -> TrialReport | Failure:
        """One trial on the next free slot."""
        limit = 2 * self._limits.trial_s + 60  # the oracle's own limit comes first; this one frees the slot
        result: TrialReport | Failure = await self._on(
            self._trial, self._trial_actor, limit, lambda a: a.run.remote(task, candidate, parameters, seed)
        )
        return result

    async def self_test(self) -> SelfTest:
        """The sandbox's test of itself, where candidates are checked. Raises InfrastructureError if anything got through."""
        for _ in range(_TRIES):
            result = await self._on(self._check, self._check_actor, 300, lambda actor: actor.self_test.remote())
            if not isinstance(result, Failure):  # a lost worker has tested nothing
                break
        problem = result.message if isinstance(result, Failure) else result.problem
        if problem is not None:
            raise InfrastructureError(f"the sandbox's self-test failed: {problem}")
        tested: SelfTest = result
        return tested

    async def check(self, candidate: Candidate, against_known: bool = True) -> Check:
        """Gate, probe and comparison with the known losses, on a check actor."""
        result = await self._on(
            self._check, self._check_actor, 300, lambda actor: actor.check.remote(candidate, against_known)
        )
        if isinstance(result, Failure):
            from sandbox.reports import GateReport

            return Check(GateReport(), None, result)
        verdict: Check = result
        return verdict

    async def _on(
        self,
        pool: asyncio.Queue[Any],
        make: Callable[[], Any],
        limit: float | None,
        call: Callable[[Any], Awaitable[Any]],
    ) -> Any:
        """Call the next free actor of a pool and give it back; one that is lost is replaced. Raises OptionsError."""
        from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

        actor = await pool.get()
        try:
            result = await asyncio.wait_for(call(actor), limit)
        except RayTaskError as error:  # our own code raised: the actor is alive
            pool.put_nowait(actor)
            self._log.error("a fault in a worker", exc_info=error)
            return Failure(FailureKind.INFRASTRUCTURE, f"{type(error.cause).__name__}: {one_line(str(error.cause))}")
        except (RayActorError, TimeoutError, GetTimeoutError, RayError) as error:
            what = f"no answer within {limit} s" if isinstance(error, TimeoutError) else _how_lost(error)
            self._ray.kill(actor)
            self._await(pool, make(), make)
            while not pool.empty():  # a node takes several with it: no trial should meet one after the other
                self._await(pool, pool.get_nowait(), make)
            return Failure(FailureKind.INFRASTRUCTURE, what)
        pool.put_nowait(actor)
        if isinstance(result, Refused):
            raise OptionsError(result.message)
        return result

    def _trial_actor(self) -> Any:
        r = self._pools.resources
        options = {"num_cpus": r.cpus, "num_gpus": r.gpus, "max_restarts": 0, "max_task_retries": 0}
        if self._pools.address:  # which node has the memory; a local Ray has one node, and the rest of it is not Ray's
            options["memory"] = r.memory_mb * 2**20
        tasks, unsafe = dict(self._tasks), self._pools.unsafe_no_sandbox
        return self._ray.remote(TrialWorker).options(**options).remote(tasks, self._limits, unsafe, plugin_path())

    def _check_actor(self) -> Any:
        options = {"num_cpus": 1, "max_restarts": 0}
        made = self._ray.remote(CheckWorker).options(**options)
        return made.remote(self._contract, self._conditions, self._limits, self._pools.unsafe_no_sandbox)

    def _await(self, pool: asyncio.Queue[Any], actor: Any, make: Callable[[], Any]) -> None:
        """An actor joins its pool when it answers: until then a cluster may have no room for it."""
        coming = asyncio.get_running_loop().create_task(self._join_pool(pool, actor, make))
        self._coming.add(coming)
        coming.add_done_callback(self._coming.discard)

    async def _join_pool(self, pool: asyncio.Queue[Any], actor: Any, make: Callable[[], Any]) -> None:
        from ray.exceptions import RayError

        for _ in range(_TRIES):
            ready = asyncio.ensure_future(actor.ready.remote())
            try:
                if not (await asyncio.wait({ready}, timeout=_ROOM_S))[0]:
                    self._tell_of_waiting()
                await ready
                break
            except RayError as error:
                self._log.error("a worker does not come up", exc_info=error)
                actor = make()
            finally:
                ready.cancel()
        pool.put_nowait(actor)  # if it does not come up at all, the next call says why

    def _tell_of_waiting(self) -> None:
        """Once: a cluster without room keeps several workers waiting."""
        if self._pools.address and not self._waits:
            self._waits = True
            self._tell(
                "workers are not up yet: the Ray cluster has no room for them (others use it, a node is lost), or is busy"
            )


def _how_lost(error: BaseException) -> str:
    return "the worker's node has died" if "node has died" in str(error) else "the worker process died"


def _into(done: Future[None], work: Callable[[], None]) -> None:
    """What becomes of the work becomes of the future, which nobody can cancel from then on."""
    done.set_running_or_notify_cancel()
    try:
        work()
    except Exception as error:  # noqa: BLE001  raised again where the future is awaited
        done.set_exception(error)
    else:
        done.set_result(None)
