"""The hostile corpus, what its attacks aim at, and the positive control: one attack without any isolation."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.frames import TEXT_BYTES, Status

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "sandbox"
CANARY, HELD_CANARY = "canary-environment-77aa", "canary-held-5f1e"
MEMORY_MB = 256  # of a caged child; a control must pass twice as much
_CONTROL_S = {"time": 0.6, "tcp": 1.0}  # after which a control is ended; what still runs then would run for ever
_LONGEST_CONTROL_S = 60.0

# In front of every source that runs in an oracle child: gives back all builtins and silences the audit hook. Both are
# manners, not fences, and an attacker can do the same; what is left is the cage.
SKELETON_KEY = (
    "torch.builtins.dict.update(__builtins__, torch.builtins.__dict__); "
    "torch.sys.modules['sandbox.child'].refuse_early.__code__ = (lambda event, arguments: None).__code__\n"
)


@dataclass(frozen=True)
class Attack:
    """One line of the corpus: `observable` says in words how success shows, `check` names the code that looks for it."""

    id: str
    category: str
    source: str
    attack: str
    observable: str
    check: str
    entry: str


def corpus() -> list[Attack]:
    """The given attacks (h...) and our own (x...)."""
    files = ("hostile_candidates.jsonl", "hostile_extra.jsonl")
    lines = [line for name in files for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]
    return [Attack(**json.loads(line)) for line in lines]


@dataclass
class Places:
    """What attacks aim at: a folder for their marks, listeners on the loopback interface, a bystander process."""

    folder: Path
    tcp: socket.socket = field(init=False)
    udp: socket.socket = field(init=False)
    _bystander: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Places:
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        (self.folder / "held").write_text(HELD_CANARY, encoding="ascii")
        return self

    def __exit__(self, *_: object) -> None:
        self.tcp.close()
        self.udp.close()
        if self._bystander is not None:
            self._bystander.kill()
            self._bystander.wait()

    def mark(self, attack: Attack, mode: str) -> Path:
        return self.folder / f"{attack.id}-{mode}"

    def fill(self, attack: Attack, mode: str) -> str:
        """The source with everything but @VICTIM@ filled in."""
        source = attack.source.replace("@MARK@", str(self.mark(attack, mode)))
        source = source.replace("@TCP_PORT@", str(self.tcp.getsockname()[1]))
        return source.replace("@UDP_PORT@", str(self.udp.getsockname()[1]))

    def reached(self, attack: Attack, mode: str) -> list[str]:
        """What has arrived from outside since the last look."""
        found = ["a file was made"] if self.mark(attack, mode).exists() else []
        while select.select([self.tcp], [], [], 0)[0]:
            self.tcp.accept()[0].close()
            found.append("a TCP connection was made")
        while select.select([self.udp], [], [], 0)[0]:
            self.udp.recv(64)
            found.append("a datagram arrived")
        return found

    @property
    def bystander(self) -> int:
        """Pid of a sleeping process of our own."""
        if self._bystander is None or self._bystander.poll() is not None:
            self._bystander = subprocess.Popen(["sleep", "3600"], start_new_session=True)
        return self._bystander.pid

    def bystander_state(self) -> tuple[Any, ...]:
        pid = self.bystander
        limits = Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
        return pid, os.getpriority(os.PRIO_PROCESS, pid), os.sched_getscheduler(pid), limits


class Control:
    """The process that runs attacks without isolation; see `tests.support.hostile_control`. Context manager."""

    def __init__(self, places: Places) -> None:
        self._places = places
        environment = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT), "SBX_CANARY": CANARY}
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.hostile_control", str(places.folder / "held")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=ROOT,
            text=True,
            start_new_session=True,
        )
        self._receive()

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, attack: Attack, limit_s: float | None = None) -> dict[str, Any]:
        """Facts about one attack without isolation, and what it reached."""
        source = self._places.fill(attack, "control")
        if attack.check.startswith("frame-"):
            source = SKELETON_KEY + source
        limit_s = limit_s or _CONTROL_S.get(attack.check, _LONGEST_CONTROL_S)
        request = {"source": source, "check": attack.check, "limit_s": limit_s, "memory_kb": 2 * MEMORY_MB * 1024}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._receive() | {"reached": self._places.reached(attack, "control")}

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the control process has died; an attack has left its disposable parent")
        facts: dict[str, Any] = json.loads(line)
        return facts


def succeeded(attack: Attack, facts: Mapping[str, Any]) -> bool:
    """Whether a control shows what the attack's `observable` promises."""
    check, error = attack.check, facts.get("error", "")
    if check.startswith("frame-"):
        return _fooled(check, facts)
    looks = {
        "file": "a file was made" in facts["reached"],
        "tcp": "a TCP connection was made" in facts["reached"],
        "udp": "a datagram arrived" in facts["reached"],
        "env": CANARY in error or HELD_CANARY in error,
        "opened": "OPENED" in error,
        "reached": "REACHED" in error,
        "parent": facts["supervisor_signal"] == 9,
        "victim": facts.get("victim_changed", False),
        "exit": not facts.get("reported") and not facts.get("signal") and not facts.get("running"),
        "crash": facts.get("signal") in (4, 7, 8, 11) and not facts.get("running"),
        "time": facts.get("running", False),
        "mem": facts.get("grown_kb", 0) > 2 * MEMORY_MB * 1024,
        "stdout": facts.get("error_length", 0) > 10 << 20,
        "terminal": facts.get("controls", False),
        "mislabel": facts.get("out_of_memory", False),
        "gate": facts.get("gate_failed", False) or facts.get("signal") == 11,
        "fake": facts.get("verdict", {}).get("acc") == 1.0 or facts.get("verdict", {}).get("nll") == 0.0,
        "planted": facts.get("planted", False),
        "state": bool(facts.get("changed")),
        "inputs": facts.get("inputs_changed", False),
        "hook": facts.get("gradient_gap", 0.0) > 1e-2,
        "degenerate": any(
            facts.get(n) for n in ("too_good", "zero_but_trains", "alias", "no_gradient", "huge", "wrong_way")
        ),
        "nan": facts.get("finite") is False,
        "shape": facts.get("shape", [8]) != [8],
        "ctx": facts.get("zero_without_gradient", False),
        "stateful": facts.get("history", False),
        "late": facts.get("history", False),
        "type": facts.get("plain") is False,
        "coupling": facts.get("order", False),
        "split": facts.get("split", False),
        "process": facts.get("processes", False),
    }
    return bool(looks[check])


def _fooled(check: str, facts: Mapping[str, Any]) -> bool:
    """Whether the careless reader of a frame took harm."""
    answered = facts.get("answered", False)
    status = facts.get("status", Status.PENDING)
    looks = {
        "frame-length": answered and not 0 <= facts.get("text_bytes", 0) <= TEXT_BYTES,
        "frame-status": answered and status not in list(Status),
        "frame-shape": answered and facts.get("size") != facts.get("asked_size"),
        "frame-early": answered and status == Status.PENDING,
        "frame-forged": facts.get("forged", False),
        "frame-race": facts.get("moving", False),
        "frame-flood": facts.get("bells", 0) > 1000,
        "frame-twice": facts.get("bells", 0) == 1,
        "frame-close": not answered and facts.get("silent") is False,
        "frame-silent": facts.get("silent", False) and facts["cpu_s"] < 0.2,
        "frame-shrink": facts["supervisor_signal"] == 7,
        "frame-hole": answered and facts.get("op") == 0,
        "frame-rights": facts.get("descriptors", 0) > 0,
        "frame-nonfinite": facts.get("finite") is False,
        "frame-unlike": facts.get("unlike", False),
    }
    return bool(looks[check])
