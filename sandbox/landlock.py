"""Landlock: no file, no TCP port, no signal and no abstract socket outside, even if a system call got through.

An empty ruleset that handles everything the kernel knows forbids all of it; see landlock(7).
"""

from __future__ import annotations

import ctypes
import os
import struct

_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_ASK_VERSION = 1
# access rights of the file system by the ABI that brought them: execute ... make_sym; refer; truncate; ioctl_dev
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NEWEST_KNOWN = 6
_NET = 0b11  # bind and connect TCP, from ABI 4
_SCOPES = 0b11  # abstract unix sockets and signals, from ABI 6

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The kernel's Landlock version; 0 where there is none or it is switched off."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)))


def restrict(version: int) -> None:
    """Forbid everything that this version can forbid. `no_new_privs` must be set. Does nothing for version 0.

    Raises:
        OSError: the kernel refuses although it has the version.
    """
    if version < 1:
        return
    level = min(version, _NEWEST_KNOWN)
    fields = [(1 << _FILE_RIGHTS[min(level, max(_FILE_RIGHTS))]) - 1]
    fields += [_NET] if level >= 4 else []
    fields += [_SCOPES] if level >= 6 else []
    attributes = struct.pack(f"<{len(fields)}Q", *fields)
    ruleset = _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        _fail("landlock_create_ruleset")
    try:
        if _libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
            _fail("landlock_restrict_self")
    finally:
        os.close(ruleset)


def _fail(what: str) -> None:
    error = ctypes.get_errno()
    raise OSError(error, f"{what}: {os.strerror(error)}")
