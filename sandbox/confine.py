"""What a child does to itself before it looks at candidate code. Standard library and ctypes only, Linux on x86-64.

In this order: an own session and process group, death with its parent, resource limits, no descriptor but the channel, no
capability, not dumpable, no new privileges, Landlock, and last the system-call filter. Needs no root, no user namespace
and no container. What each layer is for is in docs/security.md.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from dataclasses import dataclass

from sandbox import landlock, seccomp
from sandbox.limits import Limits

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_SYS_CAPSET = 126
_CAPABILITIES_3 = 0x20080522
_MB = 1024 * 1024
_READ_ONLY_MB = (
    64  # address space that is reserved and never written; without a limit its page tables alone fill a machine
)

# loaded in the zygote, before any descriptor is closed or limit set
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Cage:
    """What a machine's children are confined with, found out once in the zygote.

    Attributes:
        landlock: ABI version, 0 where the kernel has none.
        filter: the compiled system-call filter; empty only where `--unsafe-no-sandbox` was given.
    """

    landlock: int
    filter: bytes

    def describe(self) -> str:
        """For archives and listings: ``seccomp, landlock 7``, ``seccomp`` or ``none``."""
        if not self.filter:
            return UNCONFINED
        return f"seccomp, landlock {self.landlock}" if self.landlock else "seccomp"


UNCONFINED = "none"


def build_cage(unsafe: bool = False) -> Cage:
    """The strongest cage there is here. `unsafe` leaves the system-call filter out, and nothing else."""
    return Cage(landlock.abi(), b"" if unsafe else seccomp.program())


def confine(limits: Limits, channel: int, cage: Cage) -> None:
    """Give up everything the candidate must not have; only the descriptor `channel` stays open.

    Raises:
        OSError: a measure could not be applied, named in its text; the caller must not run candidate code then.
    """
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    all_bytes, private_bytes = _memory_bytes()
    _limit(resource.RLIMIT_DATA, private_bytes + limits.memory_mb * _MB)
    _limit(resource.RLIMIT_AS, all_bytes + limits.memory_mb * _MB + _READ_ONLY_MB * _MB)
    _limit(resource.RLIMIT_CPU, int(limits.trial_s) + 1)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _drop_capabilities()
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    landlock.restrict(cage.landlock)
    os.closerange(0, channel)
    os.closerange(channel + 1, os.sysconf("SC_OPEN_MAX"))
    _limit(resource.RLIMIT_NOFILE, 0)
    if cage.filter:
        seccomp.install(cage.filter)


def hide() -> None:
    """Not dumpable: another process of the same user can neither trace this one nor read its memory."""
    _prctl(_PR_SET_DUMPABLE, 0)


def _memory_bytes() -> tuple[int, int]:
    """Address space, and what of it RLIMIT_DATA counts (with the stack), now."""
    with open("/proc/self/statm", encoding="ascii") as status:
        pages = status.read().split()
    return int(pages[0]) * resource.getpagesize(), int(pages[5]) * resource.getpagesize()


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        _fail(f"prctl({option})")


def _limit(which: int, value: int) -> None:
    resource.setrlimit(which, (value, value))


def _drop_capabilities() -> None:
    """A child of root keeps root's name and none of its rights. For everybody else this changes nothing."""
    header = struct.pack("<Ii", _CAPABILITIES_3, 0)
    if _libc.syscall(_SYS_CAPSET, header, bytes(24)) != 0:
        _fail("capset")


def _fail(what: str) -> None:
    error = ctypes.get_errno()
    raise OSError(error, f"{what}: {os.strerror(error)}")
