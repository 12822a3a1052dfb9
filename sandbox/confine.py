"""What a child does to itself before it looks at candidate code. Standard library and ctypes only.

Applied here: an own session and process group, death with its parent, no descriptors but the channel, resource limits,
no new privileges, not dumpable.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal

from sandbox.limits import Limits

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

# loaded in the zygote, before any descriptor is closed or limit set
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")


def die_with_parent() -> None:
    """Be killed when the parent thread that forked this process ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def private_memory_bytes() -> int:
    """What RLIMIT_DATA counts now (VmData of /proc/self/status)."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    raise OSError("no VmData in /proc/self/status")


def confine(limits: Limits, keep: tuple[int, ...]) -> None:
    """Give up everything the candidate must not have. `keep` are the descriptors that stay open, besides 0, 1, 2.

    Raises:
        OSError: a measure could not be applied; the caller must not run candidate code then.
    """
    if os.getpid() != os.getsid(0):
        os.setsid()
    die_with_parent()
    data = private_memory_bytes() + limits.memory_mb * 1024 * 1024
    _close_descriptors(keep)
    cpu = int(limits.trial_s) + 1
    _limit(resource.RLIMIT_DATA, data)
    _limit(resource.RLIMIT_CPU, cpu)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, max(keep) + 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _limit(which: int, value: int) -> None:
    resource.setrlimit(which, (value, value))


def _close_descriptors(keep: tuple[int, ...]) -> None:
    low = 3
    for descriptor in (*sorted(keep), os.sysconf("SC_OPEN_MAX")):
        os.closerange(low, descriptor)
        low = descriptor + 1
