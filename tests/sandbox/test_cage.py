"""Processes: what a child can reach, who is blamed, and that nothing outlives its owner. The gate is skipped on purpose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.failure import CandidateError, FailureKind, InfrastructureError
from sandbox.limits import Limits
from sandbox.oracle import LossOracle
from sandbox.server import OracleServer
from tests.support.losses import KNOWN, body

INPUTS = {n: torch.full((1, 4), -20.0).requires_grad_(n.startswith("policy")) for n in PAIRS.required[:4]}
BETA = {"beta": [0.1]}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="candidates run on Linux only")


def ask(oracle: LossOracle) -> torch.Tensor:
    return oracle(INPUTS, BETA).detach()


def oracle_of(server: OracleServer, candidate: Candidate, limits: Limits | None = None) -> LossOracle:
    return LossOracle(server, candidate, PAIRS, PAIRS.required, limits)


def ask_often(oracle: LossOracle) -> None:
    for _ in range(1000):
        ask(oracle)


def child_pid(oracle: LossOracle) -> int:
    assert oracle._child is not None
    return oracle._child.pid


def server_pid(server: OracleServer) -> int:
    assert server._current is not None
    return server._current.pid


def is_alive(pid: int) -> bool:
    """Running or a zombie."""
    return Path(f"/proc/{pid}").exists()


def children_of(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


_BUILTINS = "torch.serialization.os.sys.modules['builtins']"


def test_no_secret_of_the_parent_is_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that a candidate finds is the fixed one; what the kernel keeps of it is out of its reach."""
    monkeypatch.setenv("FAKE_API_KEY", "sk-canary-123")
    reads = {
        "raise ValueError(str(dict(torch.os.environ)))": "OMP_NUM_THREADS",  # the read itself works
        f"raise ValueError({_BUILTINS}.open('/proc/self/environ').read())": "opens no files",
        f"raise ValueError({_BUILTINS}.open('/proc/%d/environ' % torch.os.getppid()).read())": "SIGSYS",
    }
    with OracleServer() as own:
        for lines, found in reads.items():
            with oracle_of(own, body(lines)) as oracle, pytest.raises(CandidateError) as caught:
                ask(oracle)
            assert "canary" not in caught.value.failure.message
            assert found in caught.value.failure.message
        if os.geteuid() == 0:  # others are refused the look
            assert b"canary" not in Path(f"/proc/{server_pid(own)}/environ").read_bytes()


@pytest.mark.parametrize(
    "lines",
    ["for i in range(10 ** 12): pass", "a = torch.ones(1500, 1500)\nfor i in range(10 ** 6): a = a @ a * 0",
     "n = 999999\nfor i in range(40): n = n * n"],
)  # fmt: skip
def test_a_computing_hang_is_killed_and_blamed(lines: str, server: OracleServer) -> None:
    with oracle_of(server, body(lines + "\nreturn d"), Limits(call_s=1.0)) as oracle:
        started = time.monotonic()
        with pytest.raises(CandidateError) as caught:
            ask(oracle)
        assert time.monotonic() - started < 30
    assert caught.value.failure.kind is FailureKind.TIMEOUT
    assert caught.value.failure.message == "the loss took more than 1 s in one call; make it cheaper"
    before = server_pid(server)
    with oracle_of(server, KNOWN["dpo"]) as oracle:
        assert torch.isfinite(ask(oracle)).all()
    assert server_pid(server) == before


def test_a_trial_of_many_slow_calls_is_blamed_as_a_trial(server: OracleServer) -> None:
    slow = body("x = torch.ones(600, 600)\nfor i in range(12): x = torch.tanh(x @ x)\nreturn d")
    failure = None
    for _ in range(8):  # a busy machine robs the child of CPU time, and is then blamed itself
        with oracle_of(server, slow, Limits(call_s=20.0, trial_s=1.0)) as oracle:
            try:
                ask_often(oracle)
            except CandidateError as error:
                failure = error.failure
                break
            except InfrastructureError:
                continue
    assert failure is not None
    assert failure.kind is FailureKind.TIMEOUT
    assert "1 s in one trial" in failure.message or "CPU time in one trial" in failure.message


def test_a_stopped_child_is_not_the_candidates_fault(server: OracleServer) -> None:
    with oracle_of(server, KNOWN["dpo"], Limits(call_s=0.6)) as oracle:
        first = ask(oracle)
        os.kill(child_pid(oracle), signal.SIGSTOP)
        with pytest.raises(InfrastructureError, match="CPU time"):
            ask(oracle)
        assert torch.equal(ask(oracle), first)


def test_a_child_killed_from_outside_is_replaced(server: OracleServer) -> None:
    with oracle_of(server, KNOWN["dpo"]) as oracle:
        first = ask(oracle)
        lost = child_pid(oracle)
        os.kill(lost, signal.SIGKILL)
        assert torch.equal(ask(oracle), first)
        assert child_pid(oracle) != lost


def test_a_child_that_is_killed_again_and_again_is_not_the_candidates_fault(server: OracleServer) -> None:
    suicide = body("torch.os.kill(torch.os.getpid(), 9)\nreturn d")
    with OracleServer(unsafe_no_sandbox=True) as open_server, oracle_of(open_server, suicide) as oracle:
        with pytest.raises(InfrastructureError, match="killed from outside"):
            ask(oracle)
        assert oracle.calls == 0


def test_a_lost_server_is_replaced() -> None:
    with OracleServer() as own, oracle_of(own, KNOWN["lrml"]) as oracle:
        first = ask(oracle)
        lost = server_pid(own)
        child = child_pid(oracle)
        os.kill(lost, signal.SIGKILL)
        assert wait_for(lambda: not is_alive(child))
        assert torch.equal(ask(oracle), first)  # the trial goes on
        assert server_pid(own) != lost


def test_a_server_lost_between_oracles_is_replaced_without_an_error() -> None:
    with OracleServer() as own:
        with oracle_of(own, KNOWN["dpo"]) as oracle:
            first = ask(oracle)
        os.kill(server_pid(own), signal.SIGKILL)
        with oracle_of(own, KNOWN["dpo"]) as oracle:
            assert torch.equal(ask(oracle), first)


def test_the_server_outlives_the_thread_that_started_it() -> None:
    with OracleServer() as own:
        starter = threading.Thread(target=own.start)
        starter.start()
        starter.join()
        pid = server_pid(own)
        with oracle_of(own, KNOWN["dpo"]) as oracle:
            assert torch.isfinite(ask(oracle)).all()
        assert server_pid(own) == pid


def test_nothing_is_left_after_close() -> None:
    own = OracleServer()
    oracles = [oracle_of(own, KNOWN["dpo"]) for _ in range(3)]
    for oracle in oracles:
        ask(oracle)
    pids = [server_pid(own), *map(child_pid, oracles)]
    oracles[0].close()
    assert not is_alive(pids[1])
    own.close()
    assert [p for p in pids if is_alive(p)] == []


def test_no_process_or_descriptor_leaks_over_many_oracles() -> None:
    with OracleServer() as server:  # its own: a warm process that has made a few hundred children is replaced
        with oracle_of(server, KNOWN["dpo"]) as oracle:
            ask(oracle)
        pid = server_pid(server)

        def counts() -> tuple[int, int, int]:
            ours, theirs = (len(os.listdir(f"/proc/{p}/fd")) for p in (os.getpid(), pid))
            return ours, theirs, len(children_of(pid))

        before = counts()
        broken = body("raise ValueError('no')")
        for i in range(200):
            with oracle_of(server, broken if i % 10 == 0 else KNOWN["hinge"]) as oracle:
                try:
                    ask(oracle)
                except CandidateError:
                    assert i % 10 == 0
        assert server_pid(server) == pid
        assert counts() == before


_OWNER = """
import torch
from evaluators.preference.contract import PAIRS
from sandbox.oracle import LossOracle
from sandbox.server import OracleServer
from tests.support.losses import KNOWN, body
server = OracleServer()
hanging = body("if beta > 1:\\n    for i in range(10 ** 12): pass\\nreturn d")
idle, busy = (LossOracle(server, c, PAIRS, PAIRS.required) for c in (KNOWN["dpo"], hanging))
inputs = {n: torch.full((1, 4), -20.0) for n in PAIRS.required[:4]}
for oracle in (idle, busy):
    oracle.evaluate(inputs, {"beta": [0.1]})
print(server._current.pid, idle._child.pid, busy._child.pid, flush=True)
busy.evaluate(inputs, {"beta": [2.0]})
"""


def test_nothing_outlives_a_killed_owner() -> None:
    root = Path(__file__).resolve().parents[2]
    owner = subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, text=True, cwd=root)
    try:
        assert owner.stdout is not None
        pids = [int(p) for p in owner.stdout.readline().split()]
        assert len(pids) == 3
        assert all(map(is_alive, pids))
    finally:
        owner.kill()
        owner.communicate()
    assert wait_for(lambda: not any(map(is_alive, pids)))


def test_children_hold_only_their_channel(server: OracleServer) -> None:
    with open(__file__, encoding="utf-8"), oracle_of(server, KNOWN["dpo"]) as oracle:
        ask(oracle)
        if os.geteuid() == 0:  # others are refused the look
            assert len(os.listdir(f"/proc/{child_pid(oracle)}/fd")) == 1
        status = Path(f"/proc/{child_pid(oracle)}/status").read_text(encoding="ascii")
        limits = Path(f"/proc/{child_pid(oracle)}/limits").read_text(encoding="ascii")
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert "CapEff:\t0000000000000000" in status
    fields = {line[:25].strip(): line[26:].split()[:2] for line in limits.splitlines()[1:]}
    assert fields["Max file size"] == ["0", "0"]
    assert fields["Max core file size"] == ["0", "0"]
    assert int(fields["Max data size"][1]) < 4 << 30
    assert fields["Max open files"] == ["0", "0"]


def test_other_platforms_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with OracleServer() as own:
        monkeypatch.setattr(sys, "platform", "darwin")
        with pytest.raises(InfrastructureError, match=r"Linux only; use the container recipe"):
            own.start()


def test_a_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with OracleServer() as own, pytest.raises(InfrastructureError, match="did not start"):
        own.start()
