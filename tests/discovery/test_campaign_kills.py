"""A campaign that is killed or interrupted goes on where it stopped, exactly, and leaves no process behind."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from db.endings import Reason
from tests.support import processes
from tests.support.campaigns import kept
from tests.support.chat_server import ChatServer
from tests.support.command_runs import Command
from tests.support.interrupted import campaign, check_exact, started


@pytest.mark.slow
def test_killed_in_the_search_and_in_a_promotion(tmp_path: Path) -> None:
    with ChatServer(latency_s=0.2) as server:
        plan = campaign(tmp_path, server)
        with Command(tmp_path, plan) as run:
            run.wait_for(lambda: len(server.received) >= 3)
            run.kill()
            assert run.end() == -signal.SIGKILL
            assert len(run.seen) > 5
            assert run.left() == []
        killed = kept(tmp_path / "archive.db")
        assert (killed.status, killed.ended) == ("abandoned", None)
        with Command(tmp_path, plan) as run:
            run.wait_for(lambda: started(tmp_path, variant=1) >= 4)
            run.kill()
            assert run.end() == -signal.SIGKILL
            assert run.left() == []
        with Command(tmp_path, plan) as run:
            assert run.end() == 0, run.text()
            assert run.left() == []
        check_exact(kept(tmp_path / "archive.db"), server, stops=2)


@pytest.mark.slow
def test_ctrl_c_ends_soon_and_the_same_command_resumes(tmp_path: Path) -> None:
    with ChatServer(latency_s=0.2) as server:
        with Command(tmp_path, campaign(tmp_path, server, seconds=20.0)) as run:
            run.wait_for(lambda: started(tmp_path) >= 2)
            before = time.monotonic()
            run.signal(signal.SIGINT)
            run.signal(signal.SIGINT)  # a launcher that signals the process and its group
            assert run.end() == 130
            assert time.monotonic() - before < 10
            assert run.left() == []
            assert "interrupted" in run.text()
            assert "Traceback" not in run.text()
        found = kept(tmp_path / "archive.db")
        assert found.status == "interrupted"
        assert found.ended is not None
        assert found.ended.reason is Reason.INTERRUPTED
        assert "during: search" in found.ended.detail
        assert {t.status for t in found.trials.values()} <= {"pending", "done"}
        with Command(tmp_path, campaign(tmp_path, server, seconds=0.0)) as run:
            assert run.end() == 0, run.text()
        check_exact(kept(tmp_path / "archive.db"), server, stops=1)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["while Ray starts", "in a trial"])
def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, moment: str) -> None:
    with ChatServer() as server, Command(tmp_path, campaign(tmp_path, server, seconds=60.0)) as run:
        if moment == "in a trial":
            run.wait_for(lambda: started(tmp_path) >= 2)
        else:
            run.wait_for(lambda: "starting Ray" in run.text() and len(run.seen) >= 3)
        run.signal(signal.SIGINT)
        run.look()
        time.sleep(1.1)
        before = time.monotonic()
        run.signal(signal.SIGINT)
        assert run.end() == 130
        assert time.monotonic() - before < 2
        assert run.left() == []


@pytest.mark.slow
def test_ctrl_c_while_ray_starts(tmp_path: Path) -> None:
    with ChatServer() as server, Command(tmp_path, campaign(tmp_path, server)) as run:
        run.wait_for(lambda: "starting Ray" in run.text() and len(run.seen) >= 3)
        run.signal(signal.SIGINT)
        assert run.end(30) == 130
        assert run.left() == []
        assert "Traceback" not in run.text()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments(tmp_path: Path, seed: int) -> None:
    draw, stops = random.Random(seed), 0
    with ChatServer(latency_s=0.2) as server:
        # fewer attempts than kills: those that a kill cut off do not count
        plan = campaign(tmp_path, server, seconds=0.1, workers={"max_attempts": 2})
        for _ in range(6):
            with Command(tmp_path, plan) as run:
                run.wait_for(lambda: "is ready" in run.text())
                give_up = time.monotonic() + draw.uniform(0.0, 15.0)
                while run.look() and time.monotonic() < give_up:
                    time.sleep(0.05)
                if not run.look():
                    break
                run.kill()
                stops += 1
                run.end()
                assert run.left() == []
        with Command(tmp_path, plan) as run:
            assert run.end() == 0, run.text()
        check_exact(kept(tmp_path / "archive.db"), server, stops)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["gcs/gcs_server", "raylet/raylet"])
def test_ray_that_is_killed_while_it_starts_ends_it_in_one_line(tmp_path: Path, victim: str) -> None:
    with ChatServer() as server:
        plan = campaign(tmp_path, server)
        with Command(tmp_path, plan) as run:
            found: list[int] = []

            def comes_up() -> bool:
                found.extend(p for p in run.seen if victim in processes.command_line(p))
                return bool(found)

            run.wait_for(comes_up)
            time.sleep(0.6)  # it has been seen by then
            os.kill(found[0], signal.SIGKILL)
            before = time.monotonic()
            assert run.end(120) == 1, run.text()
            assert time.monotonic() - before < 30, run.text()  # Ray itself waits for a minute
            errors = [line for line in run.text().splitlines() if line.startswith("error: ")]
            assert len(errors) == 1, run.text()
            assert "run the same command again" in errors[0] or "cannot start Ray" in errors[0]
            assert run.left() == []
        with Command(tmp_path, plan) as run:
            assert run.end() == 0, run.text()
        check_exact(kept(tmp_path / "archive.db"), server, stops=1)
