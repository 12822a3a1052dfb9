"""The fork server: a clean process with torch imported and warmed, from which oracle children are forked in milliseconds.

Started by `exec`, never by fork: a Ray worker and the driver have threads. It reads requests from one inherited socket,
owns its children until they are reaped (so that a pid cannot be reused under the parent), and kills all of them when
the socket closes. It holds no secret and runs no candidate code.
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from sandbox.contract import ScalarInput, TensorInput
from sandbox.limits import Limits

if TYPE_CHECKING:
    from sandbox.confine import Cage
    from sandbox.frames import Frame

# The environment of the zygote and its children, with PYTHONHASHSEED. Nothing of the parent's passes: it holds API keys.
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "LC_ALL": "C.UTF-8",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
READY, REFUSED = b"!", b"x"  # a child's first byte: confined, or why not is in the frame
_MAX_MESSAGE = 64 * 1024
_LOOK_S = 2.0  # between looks at whether the parent is still there


def send(channel: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """One JSON message, with descriptors attached. Raises OSError when the other side is gone."""
    data = json.dumps(message).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    channel.sendmsg([data], rights)


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next message and its descriptors. Raises EOFError when the other side is gone."""
    space = socket.CMSG_LEN(4 * array.array("i").itemsize)
    data, rights, _, _ = channel.recvmsg(_MAX_MESSAGE, space, socket.MSG_CMSG_CLOEXEC)
    if not data:
        raise EOFError
    descriptors = array.array("i")
    for _, _, raw in rights:
        descriptors.frombytes(raw[: len(raw) - len(raw) % descriptors.itemsize])
    return json.loads(data), list(descriptors)


def main(channel_descriptor: int, unsafe: bool) -> NoReturn:
    """Serve until the channel closes. Entry point of the exec'd process; `unsafe`: children without the filter."""
    import gc

    parent = os.getppid()
    import torch

    from sandbox import child, confine, frames, huge_pages  # noqa: F401 - children find them imported

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    child.warm()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the command, which closes the channel
    confine.hide()
    cage = confine.build_cage(unsafe)
    gc.collect()
    gc.freeze()
    huge_pages.collapse()
    channel = socket.socket(fileno=channel_descriptor)
    send(channel, {"ready": torch.__version__, "cage": cage.describe()})
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 2)  # stderr was kept for a failed start only; children must not fill that pipe
    os.close(nowhere)
    _Server(channel, parent, cage).run()
    os._exit(0)


class _Server:
    def __init__(self, channel: socket.socket, parent: int, cage: Cage) -> None:
        self.channel, self.parent, self.cage = channel, parent, cage
        self.children: set[int] = set()

    def run(self) -> None:
        operations = {"fork": self._fork, "kill": self._kill}
        while os.getppid() == self.parent:
            # not PR_SET_PDEATHSIG: that fires when the *thread* which started this process ends. The look at the parent
            # is for a fork of it that still holds the channel open.
            if not select.select([self.channel], [], [], _LOOK_S)[0]:
                continue
            try:
                request, descriptors = receive(self.channel)
            except (EOFError, ConnectionError):
                break
            send(self.channel, operations[request["op"]](request, descriptors))
        for pid in list(self.children):
            self._reap(pid)

    def _fork(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        threads = len(os.listdir("/proc/self/task"))
        if threads != 1:  # a fork would copy only one of them, with the others' locks held
            return {"error": f"{threads} threads in the fork server"}
        pid = os.fork()
        if pid == 0:
            _become_child(request, descriptors, self.cage)
        for descriptor in descriptors:
            os.close(descriptor)
        self.children.add(pid)
        return {"pid": pid}

    def _kill(self, request: dict[str, Any], _: list[int]) -> dict[str, Any]:
        pid = request["pid"]
        if pid not in self.children:
            return {"error": f"no child {pid}"}
        return self._reap(pid, request["patience_s"])

    def _reap(self, pid: int, patience_s: float = 0.0) -> dict[str, Any]:
        """Kill the child's whole group and wait for it: how it ended and the CPU seconds it used.

        A dying process closes its channel a little before it can be waited for: `patience_s` lets it get there.
        """
        give_up = time.monotonic() + patience_s
        while not (ended := _has_ended(pid)) and time.monotonic() < give_up:
            time.sleep(0.001)
        for target in (os.killpg, os.kill):  # the group may not exist yet, or no longer; the pid is ours until wait4
            try:
                target(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        _, status, usage = os.wait4(pid, 0)
        self.children.discard(pid)
        cpu_s = usage.ru_utime + usage.ru_stime
        return {"status": status, "by_itself": ended, "cpu_s": cpu_s, "peak_kb": usage.ru_maxrss}


def _has_ended(pid: int) -> bool:
    """Whether a child waits to be reaped; leaves it so, which keeps its pid and group from being reused."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _become_child(request: dict[str, Any], descriptors: list[int], cage: Cage) -> NoReturn:
    """In the fork: map the frame, confine, serve. Leaves only by os._exit."""
    from sandbox import child, confine, packed
    from sandbox.frames import Frame

    try:
        memory, channel = descriptors
        frame = Frame(memory, request["frame_bytes"])
        sys.stdout = sys.stderr = None  # a print goes nowhere; its descriptor will be closed
        entry = packed.Entry(
            request["function"],
            tuple(TensorInput(name, "", 0, 0, grad, dtype) for name, dtype, grad in request["tensors"]),
            tuple(ScalarInput(name, "", 0, ()) for name in request["scalars"]),
            request["elementwise"],
            request["mapped"],
            request["module"],
        )
        try:
            confine.confine(Limits(**request["limits"]), channel, cage)
        except OSError as error:
            _refuse(channel, frame, error)
        sys.addaudithook(child.refuse_early)
        os.write(channel, READY)
        child.serve(channel, frame, entry)
    except BaseException:  # noqa: BLE001 - the sandbox border: nothing may unwind into the server's loop
        os._exit(70)
    os._exit(0)


def _refuse(channel: int, frame: Frame, error: OSError) -> NoReturn:
    """Tell the trusted side what could not be applied."""
    from sandbox.frames import Header, Op, Status

    text = frame.write_text(str(error.strerror or error).encode("utf-8", "replace"))
    frame.write_header(Header(Op.LOAD, Status.CRASH, 0, 0, 0, text, 0))
    os.write(channel, REFUSED)
    os._exit(71)
