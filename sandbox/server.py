"""The trusted side of the fork server: start it, fork oracle children from it, end them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from sandbox import zygote
from sandbox.child_spec import ChildSpec
from sandbox.failure import InfrastructureError
from sandbox.frames import Frame, new_memory_file

_START_S = 120.0  # importing torch from a cold disk
_ANSWER_S = 30.0
_BOOT = "import sys,json;sys.path[:]=json.loads(sys.argv[2]);from sandbox.zygote import main;main(int(sys.argv[1]))"


@dataclass(frozen=True)
class Exit:
    """How a child ended: wait status, whether it had ended before it was killed, its CPU seconds, peak KiB."""

    status: int
    by_itself: bool
    cpu_s: float
    peak_kb: int


@dataclass
class Child:
    """One live oracle child: its pid, the channel that rings, the shared frame."""

    pid: int
    channel: socket.socket
    frame: Frame


class OracleServer:
    """A warm process to fork oracle children from. Context manager; thread-safe; one per worker process is enough.

    Starts on first use and is started again if it has died.

    Raises:
        InfrastructureError: the platform is not Linux, the process cannot be started, or it does not answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

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

    def close(self) -> None:
        """End the server and every child it has."""
        with self._lock:
            self._stop()

    def fork(self, spec: ChildSpec, frame_bytes: int) -> Child:
        """A confined child with a frame of that size, ready to load a candidate."""
        memory = new_memory_file(frame_bytes)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        frame = Frame(memory, frame_bytes)
        try:
            request = {"op": "fork", "frame_bytes": frame_bytes, "limits": asdict(spec.limits), **spec.entry()}
            answer = self._ask(request, (memory, theirs.fileno()))
        except BaseException:
            ours.close()
            frame.close()
            raise
        finally:
            theirs.close()
            os.close(memory)
        child = Child(answer["pid"], ours, frame)
        ours.settimeout(_ANSWER_S)
        try:
            ready = ours.recv(1)
        except OSError:
            ready = b""
        if not ready:
            end = self.end(child)
            raise InfrastructureError(f"an oracle child could not confine itself (wait status {end.status})")
        return child

    def end(self, child: Child, patience_s: float = 0.0) -> Exit:
        """Kill the child's process group, reap it, release its frame. `patience_s`: time for it to end by itself first."""
        child.channel.close()
        child.frame.close()
        try:
            answer = self._ask({"op": "kill", "pid": child.pid, "patience_s": patience_s}, restart=False)
        except InfrastructureError:  # the server is gone, and its children with it
            return Exit(9, False, 0.0, 0)
        return Exit(**answer)

    def _ask(self, message: dict[str, Any], descriptors: tuple[int, ...] = (), restart: bool = True) -> dict[str, Any]:
        with self._lock:
            for attempt in (0, 1):
                if restart:
                    self._ensure()
                if self._channel is None:
                    raise InfrastructureError("the oracle fork server is not running")
                try:
                    zygote.send(self._channel, message, descriptors)
                    answer, _ = zygote.receive(self._channel)
                    break
                except (OSError, EOFError) as error:
                    self._stop()
                    if attempt or not restart:
                        raise InfrastructureError(f"the oracle fork server is gone: {error!r}") from error
        if "error" in answer:
            raise InfrastructureError(f"oracle fork server: {answer['error']}")
        return answer

    def _ensure(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._stop()
        if sys.platform != "linux":
            raise InfrastructureError("candidates run on Linux only; use the container recipe in docs/platforms.md")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = [p for p in sys.path if p]
        if (
            root := str(Path(__file__).resolve().parent.parent)
        ) not in path:  # in it, it must not come before the stdlib
            path.insert(0, root)
        command = [sys.executable, "-I", "-c", _BOOT, str(theirs.fileno()), json.dumps(path)]
        environment = dict(zygote.ENVIRONMENT)
        if "LD_LIBRARY_PATH" in os.environ:  # some torch builds find their libraries only through it
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        self._process = subprocess.Popen(
            command,
            env=environment,
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )
        theirs.close()
        self._channel = ours
        self._await_ready()

    def _await_ready(self) -> None:
        process, channel = self._process, self._channel
        assert process is not None
        assert channel is not None
        channel.settimeout(_START_S)
        try:
            zygote.receive(channel)
        except (OSError, EOFError) as error:
            process.kill()
            _, stderr = process.communicate()
            last = stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            self._stop()
            raise InfrastructureError(f"the oracle fork server did not start: {last or error!r}") from error
        channel.settimeout(_ANSWER_S)

    def _stop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            try:
                self._process.wait(timeout=2.0)  # it kills its children and leaves when the channel closes
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stderr is not None:
                self._process.stderr.close()
            self._process = None
