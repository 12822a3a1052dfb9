"""What the cage does at its edges: manners before the filter, sleepers, memory, replacing the warm process, a soak."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from evaluators.preference.contract import PAIRS
from sandbox import server as server_module
from sandbox.candidate import Candidate
from sandbox.failure import CandidateError, Failure, FailureKind
from sandbox.limits import Limits
from sandbox.oracle import LossOracle
from sandbox.self_test import not_stopped, self_test
from sandbox.server import OracleServer
from tests.support.losses import KNOWN, body

INPUTS = {n: torch.full((1, 4), -20.0) for n in PAIRS.required[:4]}
BETA = {"beta": [0.1]}
_CTYPES = "c = torch.sys.modules['ctypes']\nl = c.CDLL(None)\n"


def ask(server: OracleServer, candidate: Candidate, limits: Limits | None = None, times: int = 1) -> torch.Tensor:
    with LossOracle(server, candidate, PAIRS, PAIRS.required, limits) as oracle:
        for _ in range(times):
            answer = oracle.evaluate(INPUTS, BETA)
    return answer.losses


def failure(server: OracleServer, lines: str, limits: Limits | None = None, times: int = 1) -> Failure:
    with pytest.raises(CandidateError) as caught:
        ask(server, body(lines), limits, times)
    return caught.value.failure


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("raise ValueError(f'margin was {d}')", "ValueError: margin was tensor("),
        ("return torch.clamp(d, 'a', 1.0)", "received an invalid combination of arguments"),
        ("return d + torch.zeros(3)", "must match the size"),
        ("return d.nothing", "AttributeError: 'Tensor' object has no attribute 'nothing'"),
        ("return torch.serialization.json.nothing", "AttributeError"),
        ("torch.builtins.open('x')", "PermissionError: a loss opens no files"),
        ("torch.builtins.__import__('wave')", "ImportError: a loss imports nothing more"),
        ("return torch.empty(1 << 50)", "can't allocate memory"),
        ("return torch.builtins.eval('1 +')", "SyntaxError"),
    ],
)
def test_an_honest_mistake_does_not_look_like_an_attack(lines: str, words: str, server: OracleServer) -> None:
    """Torch and Python open files and ask for terminals when they word an error; a child must live to tell it."""
    assert words in failure(server, lines).message


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ("l.syscall(2, b'/etc/passwd', 0)", "open"),
        ("l.syscall(9, 0, 1 << 20, 3, 0x21, -1, 0)", "a shared anonymous mapping"),
        ("l.syscall(9, 0, 1 << 20, 3, 0x122, -1, 0)", "a growing mapping"),
        ("l.syscall(9, 0, 1 << 20, 7, 0x22, -1, 0)", "an executable mapping"),
        ("l.syscall(10, 0, 4096, 4)", "making memory executable"),
        ("l.syscall(0x40000000 + 39)", "the x32 table"),
        ("l.syscall(202, 0, 0, 0)", "futex"),
    ],
)
def test_the_filter_kills(lines: str, what: str, server: OracleServer) -> None:
    found = failure(server, _CTYPES + lines + "\nreturn d")
    assert found.kind is FailureKind.CRASH, what
    assert "SIGSYS" in found.message, what


def test_private_memory_is_still_to_be_had(server: OracleServer) -> None:
    lines = _CTYPES + "l.syscall(9, 0, 1 << 20, 3, 0x22, -1, 0)\nreturn torch.ones(1000, 1000).sum() * 0 + d"
    assert torch.isfinite(ask(server, body(lines))).all()


def test_address_space_is_limited_too(server: OracleServer) -> None:
    """Memory that is only reserved counts nowhere else, and its page tables fill a machine."""
    lines = (
        _CTYPES
        + "l.mmap.restype = c.c_ssize_t\nl.mmap.argtypes = [c.c_void_p, c.c_size_t] + [c.c_int] * 3 + [c.c_long]\n"
    )
    lines += "raise ValueError(str(l.mmap(None, 1 << 38, 1, 0x4022, -1, 0)))"
    assert failure(server, lines).message.endswith("ValueError: -1")


def test_a_loss_that_sleeps_is_blamed_and_not_waited_for(server: OracleServer) -> None:
    started = time.monotonic()
    found = failure(
        server, "torch.os.read(max(range(3, 64), key=torch.os.get_inheritable), 1)\nreturn d", Limits(call_s=0.5)
    )
    assert found.kind in (FailureKind.TIMEOUT, FailureKind.CRASH)
    wait = failure(
        server, f"{_CTYPES}[l.read(n, c.create_string_buffer(1), 1) for n in range(3, 64)]", Limits(call_s=0.5)
    )
    assert wait.kind is FailureKind.TIMEOUT
    assert "slept for" in wait.message
    assert time.monotonic() - started < 20


def test_memory_kept_from_call_to_call_ends_it(server: OracleServer) -> None:
    leak = "torch.leak = torch.__dict__.get('leak', []) + [torch.ones(8 << 20)]\nreturn d"  # 32 MB a call
    found = failure(server, leak, Limits(memory_mb=256), times=100)
    assert found.kind is FailureKind.OUT_OF_MEMORY


def test_the_warm_process_is_replaced_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_FORKS", 5)
    with OracleServer() as own, LossOracle(own, KNOWN["dpo"], PAIRS, PAIRS.required) as held:
        first = held.evaluate(INPUTS, BETA).losses
        assert own._current is not None
        old = own._current.pid
        until = time.monotonic() + 60
        while own._current.pid == old and time.monotonic() < until:
            assert torch.equal(ask(own, KNOWN["dpo"]), first)
        assert own._current.pid != old, "it was not replaced"
        assert torch.equal(held.evaluate(INPUTS, BETA).losses, first)  # the old one keeps what it has
        assert Path(f"/proc/{old}").exists()
        held.close()
        assert not Path(f"/proc/{old}").exists()
        assert torch.equal(held.evaluate(INPUTS, BETA).losses, first)


def test_the_self_test_stops_everything_and_sees_when_it_does_not(server: OracleServer) -> None:
    attempts = self_test(server)
    assert len(attempts) == 7
    assert not_stopped(attempts) is None
    with OracleServer(unsafe_no_sandbox=True) as open_server:
        assert open_server.cage == "none"
        through = not_stopped(self_test(open_server))
    assert through is not None
    assert "a child could open a file" in through
    assert "a child could open a socket" in through


def test_the_self_test_is_patient_where_the_machine_is_busy() -> None:
    """Children that get no time at all at first, as beside heavy work, are not a fault of the cage."""
    seen: dict[int, float] = {}
    stopped: set[int] = set()

    def starve(warm: int, until: float) -> None:
        while (moment := time.monotonic()) < until:
            for child in map(int, Path(f"/proc/{warm}/task/{warm}/children").read_text().split()):
                if moment - seen.setdefault(child, moment) > 0.01:  # in its call by then: the one that loops
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGSTOP)
                        stopped.add(child)
        for child in stopped:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGCONT)

    with OracleServer() as own, ThreadPoolExecutor(1) as beside:
        own.start()
        assert own._current is not None
        starving = beside.submit(starve, own._current.pid, time.monotonic() + 0.4)
        attempts = self_test(own)
        starving.result()
    assert stopped
    assert not_stopped(attempts) is None


@pytest.mark.slow
def test_a_soak_of_two_thousand_children_leaves_nothing(server: OracleServer) -> None:
    endings = [
        KNOWN["dpo"],
        body("raise ValueError('no')"),
        body(_CTYPES + "l.syscall(57)"),
        body("return torch.empty(3 << 30).fill_(1)"),
        body("torch.sys.modules['os']._exit(3)"),
    ]

    def open_things() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/dev/shm"))

    ask(server, KNOWN["dpo"])
    before = open_things()
    for number in range(2000):
        candidate = endings[number % len(endings)]
        try:
            assert torch.isfinite(ask(server, candidate)).all()
        except CandidateError:
            assert candidate is not KNOWN["dpo"]
    assert open_things() == (before[0], before[1])
    assert server._current is not None
    assert server._current.forks <= server_module._FORKS + 200, "the warm process was replaced on the way"
    assert server._current.children == 0
    assert server._retired == []
    pid = server._current.pid
    assert Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii") == ""
