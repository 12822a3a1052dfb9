"""The processes that a local Ray cannot live without, and whether they still run.

When one of them is killed, Ray waits a minute for it and then ends the driver without a word of ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_VITAL = ("gcs_server", "raylet")


def vital_processes() -> dict[int, str]:
    """Names by process id of those that this process has started."""
    ours = os.getpid()
    return {pid: n for pid, n, parent, state in _all() if parent == ours and n in _VITAL and state not in "ZX"}


def first_dead(vital: dict[int, str]) -> str | None:
    """The name of one that runs no more; None if all are there."""
    there = {pid for pid, name, _, state in _all() if vital.get(pid) == name and state not in "ZX"}
    return next((name for pid, name in vital.items() if pid not in there), None)


def _all() -> Iterator[tuple[int, str, int, str]]:
    """Id, name, parent and state of every process."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            head, _, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        yield int(pid), head.partition("(")[2], int(parent), state
