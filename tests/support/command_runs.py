"""`discovery run` in a process of its own that can be killed, with an eye on everything it starts."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support import processes
from tests.support.command import script

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Command:
    """One `discovery run`, in a process group of its own, as a terminal would start it. Context manager."""

    folder: Path
    settings: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)
    output: str = ""

    def __enter__(self) -> Command:
        path = self.folder / "campaign.yaml"
        path.write_text(yaml.safe_dump(dict(self.settings)))
        self._mark = f"COMMAND_MARK_{time.monotonic_ns()}"
        own = {
            name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")
        }  # of a Ray started here
        environment = {**own, "PYTHONPATH": str(ROOT), self._mark: "1", **self.environment}
        self._out = (self.folder / "output.txt").open("w+")
        self._process = subprocess.Popen(
            [script(), "run", path], stdout=self._out, stderr=self._out, env=environment, start_new_session=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._out.close()
        processes.left_after(self.seen, 0)

    def look(self) -> bool:
        """Remember the processes that it has now; whether it still runs."""
        self.seen.update(processes.family(self._mark))
        return self._process.poll() is None

    def wait_for(self, true: Callable[[], bool], timeout_s: float = 120) -> None:
        """Wait for a moment of the run, which must come before its end."""
        end = time.monotonic() + timeout_s
        while not true():
            assert self.look(), f"ended early:\n{self.text()}"
            assert time.monotonic() < end, f"did not come to it:\n{self.text()}"
            time.sleep(0.05)
        self.look()

    def signal(self, number: int) -> None:
        """To the whole group, as Ctrl-C is."""
        os.killpg(self._process.pid, number)

    def signal_alone(self, number: int) -> None:
        """To the command, not to what it has started."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """The command alone, without warning."""
        self.look()
        self._process.kill()

    def end(self, timeout_s: float = 180) -> int:
        """Its exit code."""
        give_up = time.monotonic() + timeout_s
        while self.look():
            assert time.monotonic() < give_up, f"does not end:\n{self.text()}"
            time.sleep(0.1)
        return self._process.returncode

    def left(self, timeout_s: float = 10) -> list[str]:
        """What is still running of all that it started."""
        return processes.left_after(self.seen, timeout_s)

    def text(self) -> str:
        return (self.folder / "output.txt").read_text()
