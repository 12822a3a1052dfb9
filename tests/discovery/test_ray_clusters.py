"""Clusters that `ray start` made: joined with their token, nodes and heads that die, and those that are not ours."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
import yaml

from tests.support.campaigns import EVALUATOR, kept, settings
from tests.support.chat_server import ChatServer
from tests.support.clusters import Cluster, foreign_traces
from tests.support.command import TRACEBACK, discovery_process
from tests.support.command_runs import ROOT, Command
from tests.support.interrupted import PROPOSALS, campaign, check_exact, started

TOKEN = "0123456789abcdef" * 4


@pytest.mark.slow
def test_a_campaign_on_two_nodes_with_a_token_and_none_without(tmp_path: Path) -> None:
    """The smallest campaign on a cluster: three slots need both nodes."""
    with Cluster(TOKEN) as cluster, ChatServer() as server:
        workers = {"ray_address": cluster.address, "trial_slots": 5, "cpus_per_trial": 1}
        plan = campaign(tmp_path, server, seconds=0.2, workers=workers)
        plan |= {"budget": {"candidates": 0}, "promotions": [], "baselines": ["dpo", "hinge", "ipo"]}
        with Command(tmp_path, plan, {"HOME": str(tmp_path)}) as run:
            assert run.end() == 1
            (error,) = [line for line in run.text().splitlines() if line.startswith("error: ")]
            assert "asks for a token; copy ~/.ray/auth_token" in error
            assert "InvalidAuthToken" not in run.text()  # Ray says it twenty times
        with Command(tmp_path, plan, {"HOME": str(cluster.home)}) as run:
            assert run.end() == 0, run.text()
            assert "has room for 3 of 5 trial_slots (4 CPUs, 0 GPUs on 2 nodes)" in run.text()
        found = kept(tmp_path / "archive.db")
        assert {t.status for t in found.trials.values()} == {"done"}
        assert len(found.trials) == 6


def test_a_mode_that_asks_for_a_token_where_there_is_none_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as anybody:
        address = f"127.0.0.1:{anybody.getsockname()[1]}"
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings(tmp_path, workers={"ray_address": address})))
        around = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "Token", "RAY_AUTH_TOKEN": "", "PYTHONPATH": str(ROOT)}
        ended = discovery_process("run", tmp_path / "c.yaml", environment=around)
    assert ended.code == 1
    assert "RAY_AUTH_MODE is token, and there is none here; copy ~/.ray/auth_token" in ended.error


@pytest.mark.slow
def test_a_killed_node_costs_attempts_and_one_line_each(tmp_path: Path) -> None:
    with Cluster() as cluster, ChatServer(latency_s=0.2) as server:
        plan = campaign(tmp_path, server, seconds=0.5, workers={"ray_address": cluster.address, "trial_slots": 3})
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text(TOKEN)  # left by a Ray of one's own: this cluster asks for none
        with Command(tmp_path, plan, {"HOME": str(tmp_path)}) as run:
            run.wait_for(lambda: started(tmp_path) >= 4)
            cluster.kill_node()
            assert run.end(400) == 0, run.text()
            assert "node" not in [line[:4] for line in run.text().splitlines()]
            for words in ("heartbeats", "raylet", "(pid", "Possible reasons", TRACEBACK):
                assert words not in run.text()
            lost = [line for line in run.text().splitlines() if "node has died" in line]
        assert 0 < len(lost) <= 3
        assert "heartbeats" in (tmp_path / "small.log").read_text()  # what Ray has to say is there
        check_exact(kept(tmp_path / "archive.db"), server, stops=0, lost=3)


@pytest.mark.slow
def test_a_killed_head_ends_it_in_one_line_within_seconds_and_it_goes_on_elsewhere(tmp_path: Path) -> None:
    with ChatServer(latency_s=0.2) as server:
        with Cluster(TOKEN) as cluster:
            plan = campaign(tmp_path, server, seconds=0.5, workers={"ray_address": cluster.address})
            with Command(tmp_path, plan, {"HOME": str(cluster.home)}) as run:
                run.wait_for(lambda: started(tmp_path) >= 4)
                cluster.kill_head()
                before = time.monotonic()
                assert run.end() == 1, run.text()
                assert time.monotonic() - before < 45  # Ray itself waits for a minute
                assert run.text().splitlines()[-1].startswith("error: the head of the Ray cluster has died")
                assert "GCS" not in run.text()
        plan = campaign(tmp_path, server, seconds=0.0)
        with Command(tmp_path, plan) as run:
            assert run.end() == 0, run.text()
        check_exact(kept(tmp_path / "archive.db"), server, stops=1)
        assert len(kept(tmp_path / "archive.db").accepted) == PROPOSALS


def test_a_cluster_that_is_up_or_long_gone_is_nobodys_business(tmp_path: Path) -> None:
    """By a variable and by the file that `ray start` leaves; nothing is joined that the configuration does not name."""
    plan = settings(
        tmp_path,
        objective={"evaluator": EVALUATOR, "seeds": 1, "options": {"folder": str(tmp_path)}},
        budget={"candidates": 0},
    )
    (tmp_path / "campaign.yaml").write_text(yaml.safe_dump(plan))
    with foreign_traces() as environment:
        ended = discovery_process(
            "run", tmp_path / "campaign.yaml", environment={"PYTHONPATH": str(ROOT), **environment}, timeout_s=240
        )
    assert ended.code == 0, ended.stderr
    assert len(kept(tmp_path / "archive.db").trials) == 2


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://127.0.0.1:10001", "goes through Ray's client: make this machine a node"),
        ("127.0.0.1", "takes HOST:PORT or auto"),
        ("local", "leave it out for a Ray on this machine alone"),
        ("127.0.0.1:99999", "takes HOST:PORT or auto"),
    ],
)
def test_addresses_that_cannot_be_joined_are_refused_before_anything_starts(
    tmp_path: Path, address: str, said: str
) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings(tmp_path, workers={"ray_address": address})))
    ended = discovery_process("run", tmp_path / "c.yaml", environment={"PYTHONPATH": str(ROOT)})
    assert ended.code == 2
    assert said in ended.error


def test_nobody_there_is_one_line_and_not_a_wait(tmp_path: Path) -> None:
    plan = settings(tmp_path, workers={"ray_address": "127.0.0.1:9"})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(plan))
    before = time.monotonic()
    ended = discovery_process(
        "run", tmp_path / "c.yaml", environment={"PYTHONPATH": str(ROOT), "HOME": os.environ.get("HOME", "/")}
    )
    assert ended.code == 1
    assert "nobody answers there; start it with `ray start --head`" in ended.error
    assert time.monotonic() - before < 60
