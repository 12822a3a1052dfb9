"""A live test of the cage: children try what no candidate may do, and are seen to be stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sandbox.candidate import Candidate
from sandbox.contract import Contract, TensorInput
from sandbox.failure import CandidateError, Failure, FailureKind, InfrastructureError, NoSandboxError
from sandbox.limits import Limits
from sandbox.server import OracleServer

_CONTRACT = Contract("self_test", "loss", "", (TensorInput("x", "", 0.0, 1.0, carries_gradient=True),))
# What a call may take: little, so that the test is quick; more if a busy machine gave the child no time within it.
_CALLS_S = (0.02, 0.5, 5.0)
_FORBIDDEN, _PTRACE_ATTACH = "a forbidden system call", 16


@dataclass(frozen=True)
class Attempt:
    """One thing that a child tried. `how`: the failure that ended it, or that nothing did."""

    name: str
    stopped: bool
    how: str
    wall_ms: float


@dataclass(frozen=True)
class _Attack:
    """What is tried, as the body of a candidate, and what must end it."""

    name: str
    body: str
    kind: FailureKind
    words: str = ""


def _system_call(name: str, *arguments: object) -> _Attack:
    """Past everything in Python that could refuse: straight to the kernel."""
    given = ", ".join(str(a) for a in arguments)
    return _Attack(name, f"torch.sys.modules['ctypes'].CDLL(None).syscall({given})", FailureKind.CRASH, _FORBIDDEN)


def _attacks() -> list[_Attack]:
    return [
        _Attack("loop for ever", "for _ in range(10**12): pass", FailureKind.TIMEOUT),
        _Attack("take 3 GB of memory", "torch.empty(3 << 30, dtype=torch.uint8).fill_(1)", FailureKind.OUT_OF_MEMORY),
        _system_call("open a file", 2, "b'/etc/passwd'", 0),
        _system_call("open a socket", 41, 2, 1, 0),
        _system_call("fork", 57),
        _system_call("run a program", 59, "b'/bin/true'", 0, 0),
        _system_call("trace its parent", 101, _PTRACE_ATTACH, os.getpid(), 0, 0),
    ]


def self_test(server: OracleServer) -> tuple[Attempt, ...]:
    """Let children try everything; all of them must have been stopped. Takes under a tenth of a second on idle cores.

    What a busy machine kept from running is tried again with more time, because a campaign that starts there should start.

    Raises:
        NoSandboxError: children cannot be confined here at all.
        InfrastructureError: ours or the machine's fault.
    """
    server.start()
    loop, *others = _attacks()
    with ThreadPoolExecutor(1) as beside:  # the loop takes as long as all others together
        looping = beside.submit(_try, server, loop)
        tried = [_try(server, attack) for attack in others]
        return (looping.result(), *tried)


def not_stopped(attempts: Sequence[Attempt]) -> str | None:
    """What went wrong, in one line; None if everything was stopped."""
    bad = [a for a in attempts if not a.stopped]
    return "; ".join(f"a child could {a.name} ({a.how})" for a in bad) or None


def _try(server: OracleServer, attack: _Attack) -> Attempt:
    started = time.perf_counter()
    failure = _ended_by(server, attack)
    stopped = failure is not None and failure.kind is attack.kind and attack.words in failure.message
    how = "nothing stopped it" if failure is None else str(failure)
    return Attempt(attack.name, stopped, how, 1e3 * (time.perf_counter() - started))


def _ended_by(server: OracleServer, attack: _Attack) -> Failure | None:
    """What ended the candidate; None if nothing did."""
    *shorter, longest = _CALLS_S
    for call_s in shorter:
        try:
            return _run(server, attack, call_s)
        except NoSandboxError:
            raise
        except InfrastructureError:
            continue
    return _run(server, attack, longest)


def _run(server: OracleServer, attack: _Attack, call_s: float) -> Failure | None:
    import torch

    from sandbox.oracle import LossOracle

    candidate = Candidate(_CONTRACT.name, f"import torch\n\n\ndef loss(x):\n    {attack.body}\n    return x\n")
    limits = Limits(call_s=call_s, trial_s=10.0, memory_mb=256)
    try:
        with LossOracle(server, candidate, _CONTRACT, ("x",), limits) as oracle:
            oracle.evaluate({"x": torch.ones(1, 1)}, {})
    except CandidateError as error:
        return error.failure
    return None
