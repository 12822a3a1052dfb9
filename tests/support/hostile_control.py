"""Positive controls: attacks without any isolation, in processes that exist to be harmed.

`python -m tests.support.hostile_control HELD_FILE` imports torch once and answers one JSON request per line. For each it
forks a supervisor (which stands for the driver), which forks the trainer that runs the attack; both are killed and reaped
afterwards with all their descendants. Nothing else is ever signalled.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

import torch

from tests.support import hostile_trainer, hostile_twin

_PR_SET_CHILD_SUBREAPER, _PR_SET_PTRACER = 36, 0x59616D61
_HARD_CAP_BYTES = 5 << 30  # of private memory; the attacks that evade this limit take less by themselves
_SLACK_S = 15.0
_TICK_S = 0.005
_libc = ctypes.CDLL(None, use_errno=True)


def main(held: str) -> None:
    """Serve until standard input closes. `held` is a file that stays open, as a careless driver would leave one."""
    descriptor = os.open(held, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # daemons that detach themselves come back to us
    torch.set_num_threads(1)
    hostile_trainer.Trainer(_WARM).step()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        source = request["source"]
        victim = _Victim() if "@VICTIM@" in source else None
        if victim:
            source = source.replace("@VICTIM@", str(victim.pid))
        facts = _supervised(source, request["check"], request["limit_s"], request["memory_kb"])
        if victim:
            facts["victim_changed"] = victim.changed(_SLACK_S if request["check"] == "victim" else 0.0)
        _kill_descendants()
        print(json.dumps(facts), flush=True)


_WARM = """
import torch
def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    return -torch.nn.functional.logsigmoid(beta * (policy_chosen_logps - policy_rejected_logps))
"""


class _Victim:
    """A bystander of the same user, with the same addresses."""

    def __init__(self) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            _allow_tracing()
            while True:
                signal.pause()
        self._before = self._look()

    def changed(self, patience_s: float) -> bool:
        """Dying takes a moment on a busy machine."""
        until = time.monotonic() + patience_s
        while self._look() == self._before and time.monotonic() < until:
            time.sleep(_TICK_S)
        return self._look() != self._before

    def _look(self) -> tuple[Any, ...]:
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return ()
        nice, policy = os.getpriority(os.PRIO_PROCESS, self.pid), os.sched_getscheduler(self.pid)
        return nice, policy, resource.prlimit(self.pid, resource.RLIMIT_NOFILE)


def _allow_tracing() -> None:
    """By any process of this user, also where Yama would allow none."""
    _libc.prctl(_PR_SET_PTRACER, ctypes.c_ulong(2**64 - 1), 0, 0, 0)


def _supervised(source: str, check: str, limit_s: float, memory_kb: int) -> dict[str, Any]:
    """Facts from a supervisor; that it died is a fact too."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        _allow_tracing()
        os.close(reader)
        work = _watch_twin if check.startswith("frame-") else _watch_trainer
        _leave(writer, lambda: work(source, check, limit_s, memory_kb))
    os.close(writer)
    text = _read_all(reader, pid, limit_s + _SLACK_S)
    os.close(reader)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # its group: the trainer too
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    facts: dict[str, Any] = json.loads(text) if text else {}
    return facts | {"supervisor_signal": 0 if text else os.WTERMSIG(status) if os.WIFSIGNALED(status) else -1}


def _leave(writer: int, work: Any) -> NoReturn:
    """Write what `work` returns and end without running anything else."""
    try:
        os.write(writer, json.dumps(work()).encode())
        os._exit(0)
    finally:
        os._exit(70)


def _watch_twin(source: str, check: str, _: float, __: int) -> dict[str, Any]:
    pid, channel, frame = hostile_twin.start()
    return hostile_twin.read(pid, channel, frame, source, check)


def _watch_trainer(source: str, check: str, limit_s: float, memory_kb: int) -> dict[str, Any]:
    """Fork the trainer; end it when it has grown past `memory_kb` or run for `limit_s`."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _become_trainer(writer, source, check)
    os.close(writer)
    facts: dict[str, Any] = {"running": False, "grown_kb": 0}
    base = _footprint_kb(pid)
    until = time.monotonic() + limit_s
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        facts["grown_kb"] = max(facts["grown_kb"], _footprint_kb(pid) - base)
        facts["running"] = time.monotonic() >= until
        if facts["running"] or facts["grown_kb"] > memory_kb:
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(_TICK_S)
    _, status = os.waitpid(pid, 0)
    text = os.read(reader, 1 << 16) if select.select([reader], [], [], 0)[0] else b""
    with suppress(ValueError):  # what died in the middle of a report has not reported
        facts |= json.loads(text)
        facts["reported"] = True
    if os.WIFSIGNALED(status):
        facts["signal"] = os.WTERMSIG(status)
    return facts


def _become_trainer(writer: int, source: str, check: str) -> NoReturn:
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        score.write("1000")  # whatever goes wrong, this process goes first
    cap = int(_status("self")["VmData"]) * 1024 + _HARD_CAP_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        report = hostile_trainer.play(source, check)
        os.write(writer, json.dumps(report).encode())  # smaller than a pipe holds
        if check == "time":
            atexit._run_exitfuncs()
        os._exit(0)
    finally:  # a fork must never return into the server's loop
        os._exit(1)


def _footprint_kb(pid: int) -> int:
    """Resident memory and page tables."""
    found = _status(str(pid))
    return int(found.get("VmRSS", 0)) + int(found.get("VmPTE", 0))


def _status(pid: str) -> dict[str, str]:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            return {line.split(":")[0]: line.split()[1] for line in status if line.startswith("Vm")}
    except (OSError, IndexError):
        return {}


def _read_all(reader: int, writer_pid: int, timeout_s: float) -> bytes:
    """What that process writes until it ends; descendants of it may hold the pipe longer."""
    text, until = b"", time.monotonic() + timeout_s
    ended = False
    while not ended and time.monotonic() < until:
        ended = bool(os.waitid(os.P_PID, writer_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
        while select.select([reader], [], [], 0 if ended else _TICK_S)[0]:
            chunk = os.read(reader, 1 << 16)
            text += chunk
            if not chunk:
                return text
    return text


def _kill_descendants() -> None:
    """End whatever the last request left behind; all of it is ours, for nothing else descends from this process."""
    path = f"/proc/self/task/{os.getpid()}/children"
    until = time.monotonic() + _SLACK_S
    while time.monotonic() < until:
        with open(path, encoding="ascii") as children:
            pids = [int(p) for p in children.read().split()]
        if not pids:
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


if __name__ == "__main__":
    main(sys.argv[1])
