"""The system-call filter of an oracle child: what is not on the list ends the process. x86-64 only.

A classic BPF program over `struct seccomp_data` (nr, arch, instruction pointer, six 64-bit arguments), see seccomp(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

# name -> number on x86-64. Each is here because honest losses die without it, or because it can only hurt its caller.
ALLOWED = {
    "read": 0,  # the channel: the only descriptor there is
    "write": 1,
    "munmap": 11,  # memory: bounded by RLIMIT_DATA
    "brk": 12,
    "mremap": 25,
    "madvise": 28,
    "sched_yield": 24,  # while it waits for the next call
    "clock_gettime": 228,  # only where the kernel cannot answer without a system call
    "exit_group": 231,
}
_MMAP, _MPROTECT = 9, 10  # allowed too, but not with every argument
_IOCTL = 16  # answered "not a terminal": torch asks when it words a TypeError, and an honest mistake is no attack

_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000  # the x32 table has other calls behind the same numbers
_NR, _ARCH, _ARGUMENT_2, _ARGUMENT_3 = 0, 4, 32, 40  # offsets; the low half of an argument comes first
_PROT_EXEC = 0x4
_MAP_SHARED, _MAP_GROWSDOWN, _MAP_HUGETLB = 0x1, 0x100, 0x40000  # none of them counts as RLIMIT_DATA
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _NOT_A_TERMINAL = 0x7FFF0000, 0x80000000, 0x00050000 | errno.ENOTTY
_SYS_SECCOMP, _SET_MODE_FILTER, _GET_ACTION_AVAIL = 317, 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def supported_architecture() -> bool:
    """Whether the numbers above are this machine's. Others are refused until they can be tested."""
    return platform.machine() in ("x86_64", "AMD64") and struct.calcsize("P") == 8


def program() -> bytes:
    """The filter as an array of `struct sock_filter`.

    Arguments are looked at for mmap (no shared, growing or huge-page mapping: they evade the memory limit; nothing
    executable) and mprotect (nothing executable).
    """
    lines: list[tuple[int, int | str, int | str, int]] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 0, "kill", _ARCH_X86_64),
        (_LOAD, 0, 0, _NR),
        (_AT_LEAST, "kill", 0, _X32_BIT),
        *((_EQUAL, "allow", 0, number) for number in ALLOWED.values()),
        (_EQUAL, "ioctl", 0, _IOCTL),
        (_EQUAL, "mprotect", 0, _MPROTECT),
        (_EQUAL, 0, "kill", _MMAP),
        (_LOAD, 0, 0, _ARGUMENT_3),
        (_ANY_BIT, "kill", 0, _MAP_SHARED | _MAP_GROWSDOWN | _MAP_HUGETLB),
    ]
    labels = {name: len(lines) + at for name, at in (("mprotect", 0), ("allow", 2), ("kill", 3), ("ioctl", 4))}
    lines += [
        (_LOAD, 0, 0, _ARGUMENT_2),
        (_ANY_BIT, "kill", 0, _PROT_EXEC),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_RETURN, 0, 0, _NOT_A_TERMINAL),
    ]

    def jump(to: int | str, at: int) -> int:
        return to if isinstance(to, int) else labels[to] - at - 1

    return b"".join(
        struct.pack("<HBBI", code, jump(true, at), jump(false, at), value)
        for at, (code, true, false, value) in enumerate(lines)
    )


def available() -> str | None:
    """Why no filter can be installed here as far as can be seen without trying; None if it looks possible."""
    if not supported_architecture():
        return f"the system-call filter is written for x86-64, this is {platform.machine()}"
    action = ctypes.c_uint32(_KILL_PROCESS)
    if _libc.syscall(_SYS_SECCOMP, _GET_ACTION_AVAIL, 0, ctypes.byref(action)) != 0:
        return f"seccomp: {os.strerror(ctypes.get_errno())}"
    return None


def install(compiled: bytes) -> None:
    """Filter this thread for good. `no_new_privs` must be set.

    Raises:
        OSError: another architecture, or the kernel or a container refuses.
    """
    if not supported_architecture():
        raise OSError(0, f"the system-call filter is written for x86-64, this is {platform.machine()}")
    given = _Program(len(compiled) // 8, compiled)
    if _libc.syscall(_SYS_SECCOMP, _SET_MODE_FILTER, 0, ctypes.byref(given)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"seccomp: {os.strerror(error)}")
