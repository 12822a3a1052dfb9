"""Larger memory pages for the warm process: a fork copies one entry for 2 MiB instead of 512. Only a speed-up."""

from __future__ import annotations

import ctypes

_HUGE = 2 * 1024 * 1024
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25

_libc = ctypes.CDLL(None)


def collapse() -> None:
    """Gather this process's private anonymous memory into huge pages, as far as it is aligned.

    Where the kernel cannot (before Linux 6.1, or switched off) nothing changes.
    """
    with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
        regions = [line.split() for line in maps]
    for fields in regions:
        if fields[1] != "rw-p" or (len(fields) > 5 and fields[5] != "[heap]"):
            continue
        low, high = (int(number, 16) for number in fields[0].split("-"))
        low, high = -(-low // _HUGE) * _HUGE, high // _HUGE * _HUGE
        if high > low:
            where, size = ctypes.c_void_p(low), ctypes.c_size_t(high - low)
            _libc.madvise(where, size, _MADV_HUGEPAGE)
            _libc.madvise(where, size, _MADV_COLLAPSE)
