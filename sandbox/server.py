"""The trusted side of the fork server: start it, fork oracle children from it, replace it, end it."""

from __future__ import annotations

import json
import os
import random
import select
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from sandbox import seccomp, zygote
from sandbox.child_spec import ChildSpec
from sandbox.failure import InfrastructureError, NoSandboxError
from sandbox.frames import Frame, new_memory_file
from sandbox.text import one_line

_START_S = 120.0  # importing torch from a cold disk
_ANSWER_S = 30.0
_FORKS = 500  # per warm process: what forking and copying leave behind in it goes with it
_BOOT = (
    "import sys,json;sys.path[:]=json.loads(sys.argv[3]);"
    "from sandbox.zygote import main;main(int(sys.argv[1]),sys.argv[2]=='unsafe')"
)


@dataclass(frozen=True)
class Exit:
    """How a child ended: wait status, whether it had ended before it was killed, its CPU seconds, peak KiB."""

    status: int
    by_itself: bool
    cpu_s: float
    peak_kb: int


@dataclass
class Child:
    """One live oracle child: its pid, the channel that rings, the shared frame, and the warm process it came from.

    `resident_pages`: what it held when it was ready, nearly all of it shared with that process.
    """

    pid: int
    channel: socket.socket
    frame: Frame
    zygote: Zygote
    resident_pages: int

    def ring(self) -> bool:
        """Ask for an answer; whether anybody is there."""
        try:
            return self.channel.send(b"?") == 1
        except OSError:
            return False

    def bell(self) -> bool:
        """Wait for the answer's bell as long as the channel does; False if the child is gone. Raises TimeoutError."""
        try:
            return self.channel.recv(1) == b"!"
        except ConnectionError:
            return False


class OracleServer:
    """A warm process to fork oracle children from. Context manager; thread-safe; one per worker process is enough.

    Starts on first use, is started again if it has died, and is replaced every few hundred children while the old one keeps
    those it has.

    Args:
        unsafe_no_sandbox: run children without the system-call filter, where it cannot be had.
        hash_seed: Python's, in its children: the order of a set of texts depends on it.

    Raises:
        NoSandboxError: this machine cannot confine a child.
        InfrastructureError: the platform is not Linux, the process cannot be started, or it does not answer.
    """

    def __init__(self, unsafe_no_sandbox: bool = False, hash_seed: int = 0) -> None:
        self._unsafe, self._hash_seed = unsafe_no_sandbox, hash_seed
        self._lock = threading.Lock()
        self._current: Zygote | None = None
        self._next: Zygote | None = None  # starting up
        self._retired: list[Zygote] = []  # still have children
        self._apart: OracleServer | None = None

    def __enter__(self) -> OracleServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start now instead of on first use."""
        with self._lock:
            self._ensure()

    @property
    def cage(self) -> str:
        """What children are confined with, e.g. ``seccomp, landlock 7``; ``none`` without the system-call filter."""
        with self._lock:
            return self._ensure().cage

    def apart(self) -> OracleServer:
        """A server whose children share no memory with this one's, made and set going when it is first asked for.

        All children of one warm process have what it has at the same addresses, and hash texts alike. A candidate that
        looks at either gives one answer here and another there. It is closed with this one.
        """
        with self._lock:
            if self._apart is None:
                self._apart = OracleServer(self._unsafe, random.SystemRandom().randrange(1, 1 << 32))
                self._apart._next = self._apart._zygote()
            return self._apart

    def close(self) -> None:
        """End every warm process and the children that they have."""
        with self._lock:
            if self._apart is not None:
                self._apart.close()
                self._apart = None
            for running in (self._current, self._next, *self._retired):
                if running is not None:
                    running.stop()
            self._current, self._next, self._retired = None, None, []

    def fork(self, spec: ChildSpec, frame_bytes: int) -> Child:
        """A confined child with a frame of that size, ready to load a candidate."""
        memory = new_memory_file(frame_bytes)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        frame = Frame(memory, frame_bytes)
        with ExitStack() as sent, ExitStack() as kept:
            sent.callback(os.close, memory)
            sent.callback(theirs.close)
            kept.callback(frame.close)
            kept.callback(ours.close)
            request = {"op": "fork", "frame_bytes": frame_bytes, "limits": asdict(spec.limits), **spec.entry()}
            pid, source = self._fork(request, (memory, theirs.fileno()))
            kept.pop_all()
        child = Child(pid, ours, frame, source, 0)
        ours.settimeout(_ANSWER_S)
        try:
            ready = ours.recv(1)
        except OSError:
            ready = b""
        if ready == zygote.READY:
            child.resident_pages = resident_pages(pid)
            return child
        reason = one_line(frame.read_text(frame.read_header().text_bytes).decode("utf-8", "replace"))
        end = self.end(child)
        if ready == zygote.REFUSED:
            raise NoSandboxError(reason)
        raise InfrastructureError(f"an oracle child did not start (wait status {end.status})")

    def end(self, child: Child, patience_s: float = 0.0) -> Exit:
        """Kill the child's process group, reap it, release its frame. `patience_s`: time for it to end by itself first."""
        child.channel.close()
        child.frame.close()
        with self._lock:
            try:
                answer = child.zygote.ask({"op": "kill", "pid": child.pid, "patience_s": patience_s})
            except InfrastructureError:  # the warm process is gone, and its children with it
                return Exit(9, False, 0.0, 0)
            finally:
                child.zygote.children -= 1
                self._sweep()
        return Exit(**answer)

    def _fork(self, request: dict[str, Any], descriptors: tuple[int, ...]) -> tuple[int, Zygote]:
        with self._lock:
            for attempt in (0, 1):
                source = self._ensure()
                try:
                    answer = source.ask(request, descriptors)
                    break
                except InfrastructureError:
                    source.stop()
                    if attempt:
                        raise
            source.children += 1
            source.forks += 1
            self._replace_in_time(source)
        return answer["pid"], source

    def _zygote(self) -> Zygote:
        return Zygote(self._unsafe, self._hash_seed)

    def _ensure(self) -> Zygote:
        """The warm process to fork from, started if there is none."""
        if self._current is not None and not self._current.alive:
            self._current.stop()
            self._current = None
        if self._current is None:
            starting, self._next = self._next or self._zygote(), None
            with ExitStack() as unready:
                unready.callback(starting.stop)
                starting.await_ready()
                unready.pop_all()
            self._current = starting
        return self._current

    def _replace_in_time(self, current: Zygote) -> None:
        """Start the successor beside a warm process that has forked often; change over once it is ready."""
        if current.forks < _FORKS:
            return
        if self._next is None:
            self._next = self._zygote()
        elif self._next.is_ready():
            self._retired.append(current)
            self._current, self._next = self._next, None
            self._current.await_ready()

    def _sweep(self) -> None:
        """End retired warm processes that have no child left."""
        for old in [z for z in self._retired if not z.children]:
            old.stop()
            self._retired.remove(old)


class Zygote:
    """One warm process and its channel. Not thread-safe: its server's lock guards it."""

    def __init__(self, unsafe: bool, hash_seed: int = 0) -> None:
        """Start it; `await_ready` before use. Raises InfrastructureError or NoSandboxError."""
        if sys.platform != "linux":
            raise InfrastructureError("candidates run on Linux only; use the container recipe in docs/platforms.md")
        reason = None if unsafe else seccomp.available()
        if reason is not None:
            raise NoSandboxError(reason)
        self.children = self.forks = 0
        self.cage = ""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                # not -I: it would ignore the hash seed; of what it ignores besides, the environment below has nothing
                [
                    sys.executable,
                    "-s",
                    "-P",
                    "-c",
                    _BOOT,
                    str(theirs.fileno()),
                    "unsafe" if unsafe else "",
                    _import_path(),
                ],
                env=_environment() | {"PYTHONHASHSEED": str(hash_seed)},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def is_ready(self) -> bool:
        """Whether `await_ready` would return (or fail) at once."""
        return bool(select.select([self._channel], [], [], 0)[0])

    def await_ready(self) -> None:
        """Wait until it can fork; nothing to wait for the second time. Raises InfrastructureError with its last words."""
        if self.cage:
            return
        self._channel.settimeout(_START_S)
        try:
            answer, _ = zygote.receive(self._channel)
        except (OSError, EOFError) as error:
            self._process.kill()
            _, stderr = self._process.communicate()
            last = stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise InfrastructureError(
                f"the oracle fork server did not start: {one_line(last) or repr(error)}"
            ) from error
        self._channel.settimeout(_ANSWER_S)
        self.cage = answer["cage"]

    def ask(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises InfrastructureError."""
        try:
            zygote.send(self._channel, message, descriptors)
            answer, _ = zygote.receive(self._channel)
        except (OSError, EOFError) as error:
            raise InfrastructureError(f"the oracle fork server is gone: {error!r}") from error
        if "error" in answer:
            raise InfrastructureError(f"oracle fork server: {answer['error']}")
        return answer

    def stop(self) -> None:
        """End it and its children. Idempotent."""
        self._channel.close()
        try:
            self._process.wait(timeout=2.0)  # it kills its children and leaves when the channel closes
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()


def resident_pages(pid: int) -> int:
    """Pages of memory that a process holds now, shared ones included; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1])
    except (OSError, IndexError):
        return 0


def activity(pid: int) -> tuple[float, str]:
    """User and system time of a process so far, and its state (R, S, D, T, ...); 0 and "" if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return 0.0, ""
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK")), fields[0]


def _import_path() -> str:
    path = [p for p in sys.path if p]
    root = str(Path(__file__).resolve().parent.parent)
    if root not in path:  # where it is in the path, it must not come before the standard library
        path.insert(0, root)
    return json.dumps(path)


def _environment() -> dict[str, str]:
    environment = dict(zygote.ENVIRONMENT)
    if "LD_LIBRARY_PATH" in os.environ:  # some torch builds find their libraries only through it
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return environment
