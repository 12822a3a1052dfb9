"""Ray: a pool of trial actors and a pool of check actors, awaited from the campaign's event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.redact import redact_url
from discovery.ray_processes import first_dead, vital_processes
from discovery.reaper import Reaper
from discovery.workers import Check, CheckWorker, Prepared, SelfTest, TaskSpec, TrialWorker
from evaluators.base import Resources, TrialReport
from evaluators.options import OptionsError
from sandbox.candidate import Candidate
from sandbox.contract import Conditions, Contract
from sandbox.failure import Failure, FailureKind, InfrastructureError
from sandbox.limits import Limits
from sandbox.text import one_line

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_LOOK_S = 0.5
_PACKAGES = ("sandbox", "evaluators", "db", "discovery")
_OBJECT_STORE_BYTES = 200 * 1024 * 1024  # reports are small; the default takes a third of the memory


@dataclass(frozen=True)
class Pools:
    """How many actors, with what, and where.

    `secrets`: environment variables that no other process may see. `unsafe_no_sandbox`: see `OracleServer`.
    """

    trial_slots: int
    check_workers: int
    address: str | None
    resources: Resources
    secrets: tuple[str, ...] = ()
    unsafe_no_sandbox: bool = False


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
        conditions: Conditions,
        limits: Limits,
        log: logging.Logger | None = None,
    ) -> None:
        self._pools, self._tasks, self._limits = pools, tasks, limits
        self._contract, self._conditions = contract, conditions
        self._log = log or logging.getLogger(__name__)  # gets the tracebacks of our own faults in workers
        self._trial: asyncio.Queue[Any] = asyncio.Queue()
        self._check: asyncio.Queue[Any] = asyncio.Queue()
        self._actors: set[Any] = set()
        self._lock = threading.Lock()  # `start` runs on a thread and may still be at it when the campaign is stopped
        self._ray: Any = None
        self._reaper: Reaper | None = None
        self._closed = False
        self._vital: dict[int, str] = {}  # processes of a Ray that was started here
        self._broken = False
        self._over = threading.Event()

    async def start(self) -> None:
        """Start or join Ray and create the actors; they come up while the caller goes on. `watch` runs beside it.

        Raises InfrastructureError, or OptionsError for more than the cluster has.
        """
        # A thread that nobody waits for at the end: where a process of a starting Ray is killed, Ray blocks it for a
        # minute and then ends this process. It stays, because Ray's processes end with the thread that started them.
        done: Future[None] = Future()

        def work() -> None:
            _into(done, self._start)
            self._over.wait()

        threading.Thread(target=work, name="Ray", daemon=True).start()
        await asyncio.wrap_future(done)

    def _start(self) -> None:
        import ray

        needed = self._pools.trial_slots * self._pools.resources.cpus + self._pools.check_workers
        with self._lock:
            if self._closed:
                return
            if not self._pools.address:
                self._reaper = Reaper()
            with _without_secrets(self._pools.secrets), _import_path():
                _init_ray(self._pools.address, max(os.cpu_count() or 1, int(needed + 0.999)))
            self._ray = ray
            if not self._pools.address:
                require_room(self._pools, ray.cluster_resources())
            for _ in range(self._pools.trial_slots):
                self._trial.put_nowait(self._new_trial_actor())
            for _ in range(self._pools.check_workers):
                self._check.put_nowait(self._new_check_actor())

    def close(self) -> None:
        """Kill the actors and leave Ray; a Ray that was started here ends. Waits for a `start` that is under way."""
        if self._broken:  # it answers nobody, not even a `start`; the reaper ends what is left
            if self._reaper is not None:
                self._reaper.close()
                self._reaper = None
            return
        with self._lock:
            self._closed = True
            if self._ray is not None:
                for actor in self._actors:
                    self._ray.kill(actor)
                self._actors.clear()
                self._ray.shutdown()
            if self._reaper is not None:
                self._reaper.close()
            self._ray = self._reaper = None
        self._over.set()

    async def watch(self) -> None:
        """Runs beside the work for as long as Ray is whole. Raises InfrastructureError when one of its processes is gone."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if not self._pools.address:
                self._vital |= vital_processes()  # while Ray starts, they come one after the other
            gone = first_dead(self._vital)
            if gone is not None:
                self._broken = True
                raise InfrastructureError(
                    f"Ray's process {gone} has died: run the same command again, it goes on where it stopped"
                )

    async def prepare(self, task: str, tell: Callable[[str], None]) -> Prepared:
        """Prepare a task on one actor; the others find it cached. `tell` hears how it goes.

        Raises OptionsError or InfrastructureError.
        """

        async def listen(lines: Any) -> Any:
            async for line in lines:
                heard = await line
                if not isinstance(heard, str):
                    return heard
                tell(heard)
            raise InfrastructureError(f"preparing {task} ended without a result")

        result = await self._on(
            self._trial,
            self._new_trial_actor,
            None,
            lambda actor: listen(actor.prepare_aloud.options(num_returns="streaming").remote(task)),
        )
        if isinstance(result, Failure):
            raise InfrastructureError(f"preparing {task}: {result.message}")
        prepared: Prepared = result
        return prepared

    async def trial(
        self, task: str, candidate: Candidate, parameters: tuple[str, ...], seed: int
    ) -> TrialReport | Failure:
        """One trial on the next free slot."""
        limit = 2 * self._limits.trial_s + 60  # the oracle's own limit comes first; this one frees the slot
        result: TrialReport | Failure = await self._on(
            self._trial, self._new_trial_actor, limit, lambda a: a.run.remote(task, candidate, parameters, seed)
        )
        return result

    async def self_test(self) -> SelfTest:
        """The sandbox's test of itself, where candidates are checked. Raises InfrastructureError if anything got through."""
        result = await self._on(self._check, self._new_check_actor, 300, lambda actor: actor.self_test.remote())
        problem = result.message if isinstance(result, Failure) else result.problem
        if problem is not None:
            raise InfrastructureError(f"the sandbox's self-test failed: {problem}")
        tested: SelfTest = result
        return tested

    async def check(self, candidate: Candidate, against_known: bool = True) -> Check:
        """Gate, probe and comparison with the known losses, on a check actor."""
        result = await self._on(
            self._check, self._new_check_actor, 300, lambda actor: actor.check.remote(candidate, against_known)
        )
        if isinstance(result, Failure):
            from sandbox.reports import GateReport

            return Check(GateReport(), None, result)
        verdict: Check = result
        return verdict

    async def _on(
        self,
        pool: asyncio.Queue[Any],
        replacement: Callable[[], Any],
        limit: float | None,
        call: Callable[[Any], Awaitable[Any]],
    ) -> Any:
        """Call the next free actor of a pool and give it back, or a new one if it is lost."""
        from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

        actor = await pool.get()
        try:
            return await asyncio.wait_for(call(actor), limit)
        except RayTaskError as error:  # our own code raised: the actor is alive
            if isinstance(error.cause, OptionsError):
                raise OptionsError(str(error.cause)) from None
            self._log.error("a fault in a worker", exc_info=error)
            return Failure(FailureKind.INFRASTRUCTURE, f"{type(error.cause).__name__}: {one_line(str(error.cause))}")
        except (RayActorError, TimeoutError, GetTimeoutError, RayError) as error:
            what = f"no answer within {limit} s" if isinstance(error, TimeoutError) else "the worker process died"
            actor = self._replace(actor, replacement)
            return Failure(FailureKind.INFRASTRUCTURE, what)
        except asyncio.CancelledError:
            actor = None
            raise
        finally:
            if actor is not None:
                pool.put_nowait(actor)

    def _replace(self, actor: Any, replacement: Callable[[], Any]) -> Any:
        self._actors.discard(actor)
        self._ray.kill(actor)
        return replacement()

    def _new_trial_actor(self) -> Any:
        r = self._pools.resources
        options = {"num_cpus": r.cpus, "num_gpus": r.gpus, "max_restarts": 0, "max_task_retries": 0}
        if self._pools.address:  # which node has the memory; a local Ray has one node, and the rest of it is not Ray's
            options["memory"] = r.memory_mb * 2**20
        return self._new(TrialWorker, options, dict(self._tasks), self._limits, self._pools.unsafe_no_sandbox)

    def _new_check_actor(self) -> Any:
        options = {"num_cpus": 1, "max_restarts": 0}
        return self._new(
            CheckWorker, options, self._contract, self._conditions, self._limits, self._pools.unsafe_no_sandbox
        )

    def _new(self, cls: type, options: Mapping[str, Any], *arguments: Any) -> Any:
        actor = self._ray.remote(cls).options(**options).remote(*arguments)
        self._actors.add(actor)
        return actor


def require_room(pools: Pools, available: Mapping[str, float]) -> None:
    """Ray would wait for ever for what a machine does not have. Raises OptionsError."""
    gpus, there = pools.trial_slots * pools.resources.gpus, available.get("GPU", 0.0)
    if gpus > there:
        raise OptionsError(
            f"workers: {pools.trial_slots} trial_slots of {pools.resources.gpus:g} GPUs each need {gpus:g}, this machine "
            f"has {there:g}; lower workers.gpus_per_trial or workers.trial_slots"
        )


def cluster_resources(address: str) -> dict[str, float]:
    """CPUs, GPUs and memory (GiB) of a running cluster. Raises InfrastructureError if it cannot be joined."""
    import ray

    _init_ray(address, 0)
    try:
        found = ray.cluster_resources()
        return {name: found.get(name, 0.0) for name in ("CPU", "GPU")} | {"GiB": found.get("memory", 0.0) // 2**30}
    finally:
        ray.shutdown()


def _into(done: Future[None], work: Callable[[], None]) -> None:
    """What becomes of the work becomes of the future, which nobody can cancel from then on."""
    done.set_running_or_notify_cancel()
    try:
        work()
    except Exception as error:  # noqa: BLE001  raised again where the future is awaited
        done.set_exception(error)
    else:
        done.set_result(None)


def _init_ray(address: str | None, cpus: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: training would starve on a machine in use
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)  # it warns about threads and tokens that are as they should be
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    try:
        if address:
            root = Path(__file__).resolve().parent.parent
            modules = [str(root / package) for package in _PACKAGES]
            ray.init(address=address, runtime_env={"py_modules": modules}, **common)
        else:
            common |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
            ray.init(num_cpus=cpus, **common)
    except Exception as error:  # Ray raises it bare where a process of its node ends while it starts
        where = f"join Ray at {address}" if address else "start Ray"
        raise InfrastructureError(f"cannot {where}: {one_line(str(error))}") from error


@contextmanager
def _without_secrets(names: Sequence[str]) -> Iterator[None]:
    """Ray's processes inherit the environment at start; keys and passwords have no business there."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name in names or _is_secret(name)}
    try:
        yield
    finally:
        os.environ.update(taken)


@contextmanager
def _import_path() -> Iterator[None]:
    """Workers of a local Ray find the plug-ins that this process finds, wherever its import path was changed."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p and not p.startswith(sys.base_prefix))
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _is_secret(name: str) -> bool:
    if name.startswith("RAY_"):  # a cluster's own token
        return False
    return _SECRET_NAME.search(name) is not None or redact_url(os.environ[name]) != os.environ[name]
