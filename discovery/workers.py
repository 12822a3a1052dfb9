"""What runs inside Ray actors: trials with a prepared evaluator, and candidate checks. No Ray in here.

Everything returned is a frozen value of ours. No exception that a candidate raised ever exists in these processes.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from evaluators.base import Evaluator, TrialReport
from evaluators.objectives import known_losses
from evaluators.options import OptionsError
from evaluators.plugins import make_plugin
from evaluators.promises import prepare
from sandbox.candidate import Candidate
from sandbox.contract import Conditions, Contract
from sandbox.failure import CandidateError, Failure, InfrastructureError, PluginError
from sandbox.limits import Limits
from sandbox.reports import GateReport, ProbeReport

if TYPE_CHECKING:
    from sandbox.known import KnownLosses
    from sandbox.server import OracleServer

T = TypeVar("T")


@dataclass(frozen=True)
class TaskSpec:
    """How to rebuild an evaluator in another process: its plug-in name and options."""

    evaluator: str
    options: Mapping[str, Any]
    cache_dir: Path | None = None

    def build(self) -> Evaluator:
        """Raises OptionsError, PluginError."""
        evaluator: Evaluator = make_plugin("evaluators", self.evaluator, self.options, self.cache_dir)
        return evaluator


@dataclass(frozen=True)
class Prepared:
    """Facts about a prepared task, e.g. the held-out accuracy of its reward."""

    facts: Mapping[str, float]


@dataclass(frozen=True)
class Refused:
    """A setting that an evaluator refuses only where trials run, such as data that is missing there."""

    message: str


@dataclass(frozen=True)
class Check:
    """Verdict on a candidate before training. `match` names the known loss that it copies."""

    gate: GateReport
    probe: ProbeReport | None
    failure: Failure | None
    match: str | None = None


@dataclass(frozen=True)
class SelfTest:
    """What children are confined with on a worker's machine, and what is wrong with it, if anything."""

    cage: str
    problem: str | None
    wall_s: float


def _warming_server(unsafe_no_sandbox: bool) -> OracleServer:
    """A fork server that imports torch while the worker does the same; whoever needs it first waits for it."""
    from sandbox.server import OracleServer

    server = OracleServer(unsafe_no_sandbox)
    threading.Thread(target=_start, args=(server,), daemon=True).start()
    return server


def _start(server: OracleServer) -> None:
    with suppress(InfrastructureError):  # the first use tries again, and reports it
        server.start()


def _typed(work: Callable[[], T]) -> T | Refused | Failure:
    """What the work gives, or what went wrong as a value: no exception of a plug-in is ever pickled."""
    try:
        return work()
    except OptionsError as error:
        return Refused(str(error))
    except (CandidateError, InfrastructureError, PluginError) as error:
        return error.failure


class TrialWorker:
    """Runs trials one at a time and keeps its evaluators prepared between them."""

    def __init__(
        self,
        tasks: Mapping[str, TaskSpec],
        limits: Limits,
        unsafe_no_sandbox: bool = False,
        plugin_path: Sequence[str] = (),
    ) -> None:
        """`plugin_path`: folders where plug-ins are looked for after all others, so that nothing in them hides a module."""
        sys.path += [folder for folder in plugin_path if folder not in sys.path]
        self._tasks, self._limits = tasks, limits
        self._evaluators: dict[str, Evaluator] = {}
        self._server = _warming_server(unsafe_no_sandbox)

    def ready(self) -> None:
        """Return: the worker is up."""

    def prepare(self, task: str, tell: Callable[[str], None] | None = None) -> Prepared:
        """Build and prepare the task's evaluator. Raises OptionsError, PluginError, InfrastructureError."""
        evaluator = self._tasks[task].build()
        facts = prepare(evaluator, tell)
        self._evaluators[task] = evaluator
        return Prepared(facts)

    def prepare_aloud(self, task: str) -> Iterator[str | Prepared | Refused | Failure]:
        """Prepare a task: first what the evaluator says meanwhile, then the result, or why there is none."""
        said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        with ThreadPoolExecutor(1) as beside:
            preparing = beside.submit(self.prepare, task, lambda line: said.put(str(line)))
            preparing.add_done_callback(lambda _: said.put(None))
            while (line := said.get()) is not None:
                yield line
            yield _typed(preparing.result)

    def run(
        self, task: str, candidate: Candidate, parameters: tuple[str, ...], seed: int
    ) -> TrialReport | Refused | Failure:
        """One trial; a Failure says whose fault it was."""
        from evaluators.trial import run_trial

        def trial() -> TrialReport:
            if task not in self._evaluators:
                self.prepare(task)
            return run_trial(self._server, self._evaluators[task], candidate, parameters, seed, self._limits)

        return _typed(trial)


class CheckWorker:
    """Gate, probe and comparison with the known losses of one contract, under the conditions of one training."""

    def __init__(
        self, contract: Contract, conditions: Conditions, limits: Limits, unsafe_no_sandbox: bool = False
    ) -> None:
        self._contract, self._conditions, self._limits = contract, conditions, limits
        self._server = _warming_server(unsafe_no_sandbox)
        self._known: KnownLosses | None = None

    def ready(self) -> None:
        """Return: the worker is up."""

    def self_test(self) -> SelfTest:
        """Whether what no candidate may do is stopped on this machine."""
        import sandbox.oracle  # noqa: F401 - torch; neither this nor the server's start is what is timed
        from sandbox.self_test import not_stopped, self_test

        started = time.perf_counter()
        try:
            cage = self._server.cage
            started = time.perf_counter()
            attempts = self_test(self._server)
        except InfrastructureError as error:
            return SelfTest("", str(error), time.perf_counter() - started)
        return SelfTest(cage, not_stopped(attempts), time.perf_counter() - started)

    def check(self, candidate: Candidate, against_known: bool) -> Check:
        """`against_known` is off for the known losses themselves."""
        from sandbox.check import check_candidate, refusal

        try:
            gate, probe = check_candidate(self._server, candidate, self._contract, self._limits, self._conditions)
            failure = refusal(gate, probe)
            if failure is None and against_known and probe is not None and probe.fingerprint is not None:
                known = self._known_losses()
                match = known.match(probe.fingerprint, probe.properties, gate.parameters)
                probe = replace(probe, nearest=known.nearest(probe.fingerprint, probe.curve))
                if match is not None:
                    return Check(gate, probe, match.refusal(self._contract.scale_scalar), match.name)
        except InfrastructureError as error:
            return Check(GateReport(), None, error.failure)
        return Check(gate, probe, failure)

    def _known_losses(self) -> KnownLosses:
        if self._known is None:
            self._known = known_losses(self._server, self._contract, self._conditions)
        return self._known
