"""One driver per campaign, with real processes: the second is refused, or follows a first that is silent."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.campaigns import kept
from tests.support.chat_server import ChatServer
from tests.support.command import TRACEBACK
from tests.support.command_runs import Command
from tests.support.interrupted import campaign, check_exact, started


def folders(folder: Path) -> tuple[Path, Path]:
    """One per driver, for its configuration and output."""
    pair = folder / "first", folder / "second"
    for each in pair:
        each.mkdir()
    return pair


def test_a_second_driver_is_refused_in_one_line(tmp_path: Path) -> None:
    one, two = folders(tmp_path)
    with ChatServer() as server:
        plan = campaign(tmp_path, server, seconds=0.5)
        with Command(one, plan) as first:
            first.wait_for(lambda: "starting Ray" in first.text())
            with Command(two, plan) as second:
                assert second.end() == 2, second.text()
                assert "error: the campaign 'small' is being driven by process" in second.text()
                assert "starting Ray" not in second.text()
                assert TRACEBACK not in second.text()
            first.wait_for(lambda: started(tmp_path) >= 1)
            assert kept(tmp_path / "archive.db").status == "running"
        assert kept(tmp_path / "archive.db").status == "abandoned"


@pytest.mark.slow
def test_a_driver_that_was_stopped_and_replaced_stores_nothing_more(tmp_path: Path) -> None:
    one, two = folders(tmp_path)
    with ChatServer(latency_s=0.2) as server:
        plan = campaign(tmp_path, server)
        with Command(one, plan) as first:
            first.wait_for(lambda: started(tmp_path) >= 3 and len(server.received) >= 2)
            first.signal_alone(signal.SIGSTOP)
            with Command(two, plan) as second:
                assert second.end() == 0, second.text()
                assert "drove this campaign and is silent" in " ".join(second.text().split())
            found = kept(tmp_path / "archive.db")
            check_exact(found, server, stops=1)
            first.signal_alone(signal.SIGCONT)
            assert first.end(60) == 1, first.text()
            assert "was taken over by process" in first.text()
            assert TRACEBACK not in first.text()
            assert first.left() == []
        assert kept(tmp_path / "archive.db") == found
