"""Which processes a command has started, as /proc tells it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def pids() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]


def started(pid: int) -> int | None:
    """Start time in ticks, which with the pid names a process; None if it is gone or a zombie."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] != "Z" else None


def environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def family(mark: str) -> dict[int, int]:
    """Processes whose environment holds the mark, and their descendants (fork servers drop it), with start times.

    This process is left out.
    """
    parents = {pid: int(fields[1]) for pid in pids() if (fields := _stat(pid))}
    ours = {pid for pid in parents if mark.encode() in environment(pid)} - {os.getpid()}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in ours} - ours - {os.getpid()}
        ours |= more
        grown = bool(more)
    return {pid: start for pid in ours if (start := started(pid)) is not None}


def alive(processes: dict[int, int]) -> list[str]:
    """Command lines of those that still run."""
    return [f"{pid} {command_line(pid)[:80]}" for pid, start in processes.items() if started(pid) == start]


def left_after(processes: dict[int, int], timeout_s: float) -> list[str]:
    """Those that still run after waiting for all of them to end."""
    end = time.monotonic() + timeout_s
    while (left := alive(processes)) and time.monotonic() < end:
        time.sleep(0.1)
    for line in left:  # do not leave them to the next test
        with suppress(ProcessLookupError):
            os.kill(int(line.split()[0]), 9)
    return left
