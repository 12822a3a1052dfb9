"""The processes that a Ray cannot live without, and whether they still run.

When one of them is killed, Ray waits a minute for it and then ends the driver without a word of ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_VITAL = ("gcs_server", "raylet")
_BLAMED = ("dashboard_agent", "runtime_env_agent", "raylet", "gcs_server", "log_monitor", "monitor")
_TAIL_BYTES = 20_000


def vital_processes() -> dict[int, str]:
    """Names by process id of those that this process has started."""
    ours = os.getpid()
    return {pid: n for pid, n, parent, state in _all() if parent == ours and n in _VITAL and state not in "ZX"}


def node_process(raylet_socket: str) -> dict[int, str]:
    """Name by process id of the raylet behind that socket on this machine, whoever started it."""
    mark = f"--raylet_socket_name={raylet_socket}".encode()
    found = {}
    for pid, name, _, state in _all():
        if name == "raylet" and state not in "ZX":
            with suppress(OSError):
                if mark in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    found[pid] = name
    return found


def first_dead(vital: dict[int, str]) -> str | None:
    """The name of one that runs no more; None if all are there."""
    there = {pid for pid, name, _, state in _all() if vital.get(pid) == name and state not in "ZX"}
    return next((name for pid, name in vital.items() if pid not in there), None)


def last_words(folder: Path, driver: int) -> str:
    """The last line of a traceback in the logs of a driver's session; empty if there is none.

    Args:
        folder: where Ray keeps its sessions.
        driver: the process id of who started it.
    """
    sessions = sorted(folder.glob(f"session_*_{driver}"), key=lambda s: s.name)
    for name in _BLAMED if sessions else ():
        for path in (sessions[-1] / "logs" / f"{name}{ending}" for ending in (".err", ".out", ".log")):
            with suppress(OSError):
                text = path.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace")
                lines = [line for line in text.splitlines() if line.strip()]
                if "Traceback" in text and lines:
                    return lines[-1]
    return ""


def _all() -> Iterator[tuple[int, str, int, str]]:
    """Id, name, parent and state of every process."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            head, _, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        yield int(pid), head.partition("(")[2], int(parent), state
