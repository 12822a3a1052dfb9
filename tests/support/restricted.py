"""Running this program where a kernel or a container offers less: behind a filter of system calls, or as another user."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LANDLOCK = (444, 445, 446)
SECCOMP = (317,)
NAMESPACES = (272, 308)  # unshare, setns
NEW_CALLS = (435,)  # clone3, which containers answer with "no such call"
# What Docker's default profile refuses a container without capabilities, by x86-64 number: keys, modules, mounts, time,
# swap, tracing by perf and bpf, NUMA policy, namespaces, io_uring, ...
CONTAINER = (
    *NAMESPACES, 134, 135, 139, 153, 154, 155, 156, 159, 163, 164, 165, 166, 167, 168, 169, 172, 173, 174, 175, 176, 177,
    178, 179, 180, 212, 227, 237, 238, 239, 246, 248, 249, 250, 256, 279, 298, 303, 304, 305, 312, 313, 320, 321, 323,
    425, 426, 427, 428, 429, 430, 431, 432, 433, 442,
)  # fmt: skip
_NOBODY = 65534


def deny(calls: Mapping[int, int]) -> None:
    """Make these system calls of this process fail with these error numbers, for good."""
    load, equal, give_back, allow, fail = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000
    lines = [(load, 0, 0, 0)]
    for call, error in calls.items():
        lines += [(equal, 0, 1, call), (give_back, 0, 0, fail | error)]
    lines.append((give_back, 0, 0, allow))
    compiled = b"".join(struct.pack("<HBBI", *line) for line in lines)

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    program = Program(len(lines), compiled)
    assert libc.syscall(317, 1, 0, ctypes.byref(program)) == 0, os.strerror(ctypes.get_errno())


def denied(*groups: Iterable[int], missing: Iterable[int] = ()) -> dict[int, int]:
    """`groups` are refused (EPERM), `missing` do not exist (ENOSYS)."""
    return {c: errno.EPERM for g in groups for c in g} | dict.fromkeys(missing, errno.ENOSYS)


def run_restricted(
    arguments: list[str], calls: Mapping[int, int], timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """This interpreter with these arguments, behind `deny(calls)`, which what it starts inherits."""
    wrapper = (
        "import json,os,sys; from tests.support.restricted import deny;"
        "deny({int(k): v for k, v in json.loads(sys.argv[1]).items()});"
        "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    )
    command = [sys.executable, "-c", wrapper, json.dumps(calls), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=_environment(), timeout=timeout_s)


def run_as_nobody(arguments: list[str], timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """The same as an ordinary user, who sees the interpreter and this folder wherever they are. Needs root."""
    wrapper = (
        "import json,os,sys; from tests.support.restricted import become_nobody;"
        "become_nobody(); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", wrapper, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=_environment(), timeout=timeout_s)


def become_nobody() -> None:
    """Give up root. Folders that only root may pass are replaced, for this process alone, by ones that anybody may."""
    needed = {Path(sys.base_prefix), Path(sys.prefix).resolve(), ROOT}
    blocked: dict[Path, set[Path]] = {}
    for path in needed:
        for above in reversed(path.parents):
            if not above.stat().st_mode & 0o001:
                blocked.setdefault(above, set()).add(path)
                break
    if blocked:
        assert ctypes.CDLL(None).unshare(0x20000) == 0  # CLONE_NEWNS: mounts of our own
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for above, paths in blocked.items():
        held = {path: os.open(path, os.O_PATH) for path in paths}
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(above)], check=True)
        for path, descriptor in held.items():
            path.mkdir(parents=True)
            source = f"/proc/self/fd/{descriptor}".encode()  # the folder that is hidden now
            assert ctypes.CDLL(None).mount(source, str(path).encode(), None, 4096, None) == 0  # MS_BIND
            os.close(descriptor)
    os.setgroups([])
    os.setgid(_NOBODY)
    os.setuid(_NOBODY)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/tmp", "COLUMNS": "200"}
