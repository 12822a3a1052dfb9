"""A real Ray cluster of two nodes on this machine, as people make one with `ray start`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support import processes
from tests.support.command_runs import ROOT

CPUS = 2  # of each node


class Cluster:
    """Head and node with folders of their own. Context manager; ends what it started, by process id.

    Attributes:
        address: what `workers.ray_address` takes.
        home: the home folder of the account that started it; holds the token, if there is one.
    """

    def __init__(self, token: str | None = None, nodes: int = 2) -> None:
        self._nodes = nodes
        self._folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # a socket's path has 107 characters
        self.home = self._folder / "home"
        (self.home / ".ray").mkdir(parents=True)
        if token is not None:
            (self.home / ".ray" / "auth_token").write_text(token)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Cluster:
        common = ["--num-cpus", str(CPUS), "--object-store-memory", "80000000", "--disable-usage-stats"]
        self._ray("--head", "--port", str(self.port), "--include-dashboard=false", "--temp-dir", self._tmp, *common)
        for _ in range(self._nodes - 1):
            self._ray("--address", self.address, *common)
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _tmp(self) -> str:
        return str(self._folder / "r")

    def kill_node(self) -> None:
        """The node that is not the head, with everything on it, as when a machine is switched off."""
        self._kill("--raylet_socket_name", "raylet.1")

    def kill_head(self) -> None:
        """The head's control store."""
        self._kill("gcs/gcs_server", "")

    def _kill(self, mark: str, also: str) -> None:
        for pid in self._pids():
            line = processes.command_line(pid)
            if mark in line and f"{also} " in line:
                os.kill(pid, signal.SIGKILL)
                return
        raise AssertionError(f"no process {mark} {also}")

    def _pids(self) -> list[int]:
        return [pid for pid in processes.pids() if pid != os.getpid() and self._tmp in processes.command_line(pid)]

    def _ray(self, *arguments: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        environment |= {"HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        if (self.home / ".ray" / "auth_token").exists():
            environment["RAY_AUTH_MODE"] = "token"
        command = [str(Path(sys.executable).with_name("ray")), "start", *arguments]
        started = subprocess.run(
            command, env=environment, cwd=self._folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert started.returncode == 0, started.stdout + started.stderr


@contextmanager
def foreign_traces() -> Iterator[dict[str, str]]:
    """An environment in which a cluster seems to be up: a variable names one, and an old file another."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    try:
        (folder / "ray").mkdir()
        (folder / "ray" / "ray_current_cluster").write_text("127.0.0.1:6555")
        yield {"RAY_TMPDIR": str(folder), "RAY_ADDRESS": "127.0.0.1:6556"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
