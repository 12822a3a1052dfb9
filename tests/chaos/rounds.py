"""One round: a campaign that is struck at random moments, resumed each time, and checked in the end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import processes
from tests.support.campaigns import kept
from tests.support.chat_server import ChatServer
from tests.support.command import TRACEBACK
from tests.support.command_runs import Command
from tests.support.interrupted import SLOTS, campaign, check_exact

QUIET_S = (0.5, 5.0)  # between two strikes
LATE = 0.75  # share of runs that are left alone until Ray is up, when there is more than a driver to kill
PATIENCE_S = 240.0  # a run that nobody strikes any more has ended by then
ATTEMPTS = 50  # at a trial; however often its workers are killed, it is not given up
# what is struck -> how a process of it is known
VICTIMS: Mapping[str, str] = {
    "driver": "discovery run",
    "worker": "ray::TrialWorker",
    "checker": "ray::CheckWorker",
    "raylet": "raylet/raylet",
    "control store": "gcs/gcs_server",
}
DATABASE = "database"


@dataclass
class Round:
    """What one round works with, and what has happened in it."""

    folder: Path
    archive: str
    name: str
    seed: int
    strikes: int
    strike_database: Callable[[], None] | None = None
    struck: list[str] = field(default_factory=list)
    runs: int = 0

    def play(self) -> None:
        """Raises AssertionError with what was broken."""
        draw = random.Random(self.seed)
        with ChatServer(latency_s=0.2) as server:
            plan = campaign(
                self.folder, server, 0.2, name=self.name, archive=self.archive, workers={"max_attempts": ATTEMPTS}
            )
            while not self._run(plan, draw):
                assert self.runs <= self.strikes + 1, "it stops although nothing is struck"
            lost = SLOTS * len(self.struck)  # a strike at Ray takes all workers with it
            check_exact(kept(self.archive, self.name), server, self.runs - 1, lost)

    def _run(self, plan: Mapping[str, object], draw: random.Random) -> bool:
        """Start or resume the campaign, strike while it runs; whether it finished."""
        self.runs += 1
        with Command(self.folder, plan) as run:
            late = draw.random() < LATE
            while late and run.look() and "is ready" not in run.text():
                time.sleep(0.05)
            while self._lives(run, draw.uniform(*QUIET_S)) and len(self.struck) < self.strikes:
                self._strike(run, draw)
            code = run.end(PATIENCE_S)
            left = run.left()
            assert left == [], f"left over: {left}"
            assert TRACEBACK not in run.text(), run.text()
            if code in (1, 2):
                errors = [line for line in run.text().splitlines() if line.startswith("error: ")]
                assert len(errors) == 1, run.text()
            # 2: the database was away when the run began, as it is where the URL is wrong
            away = code == 2 and self.strike_database is not None and "no database answers" in run.text()
            assert code in (0, 1, -signal.SIGKILL) or away, f"exit code {code}: {run.text()}"
            return code == 0

    def _lives(self, run: Command, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (lives := run.look()) and time.monotonic() < end:
            time.sleep(0.05)
        return lives

    def _strike(self, run: Command, draw: random.Random) -> None:
        """Kill something that is there."""
        there = {
            name: sorted(p for p in run.seen if mark in processes.command_line(p)) for name, mark in VICTIMS.items()
        }
        victim = draw.choice([*(name for name in there if there[name]), *([DATABASE] if self.strike_database else [])])
        if victim == DATABASE:
            assert self.strike_database is not None
            self.strike_database()
        else:
            with suppress(ProcessLookupError):
                os.kill(draw.choice(there[victim]), signal.SIGKILL)
        self.struck.append(victim)
