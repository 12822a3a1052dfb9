"""Counts and lengths are looked at before any work is done: what is too much is refused at once, in one line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import discovery
from tests.support.dashboard import Running, ask, dashboard
from tests.support.small_archive import CRASHED, WINNER, make_archive

A, B = WINNER.short_id, CRASHED.short_id
SOON = 2.0  # seconds, on a busy machine


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("counts") / "small.db")


@pytest.fixture(scope="module")
def running(archive: Path) -> Iterator[Running]:
    with dashboard(archive) as found:
        ask(found, "/")  # the first page loads what all need
        yield found


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        (f"/compare?{'&'.join([f'id={A}'] * 2_000)}", 400, "at most 12"),
        (f"/compare?{'&'.join(f'id={i:010x}' for i in range(2_000))}", 400, "at most 12"),
        (f"/compare?id={A}&id={A}", 400, "two or more different"),
        (f"/compare?id={A}&id={'a' * 10_000}", 400, "at most 64"),
        (f"/compare?id={A}&id={B}&campaign={'c' * 10_000}", 400, "at most 300"),
        (f"/candidate/{'a' * 10_000}", 400, "at most 64"),
        (f"/candidate/{'a' * 10_000}/lineage", 400, "at most 64"),
        (f"/candidate/{A}/export/{'a' * 10_000}", 400, "at most 100"),
        (f"/campaign?name={'a' * 10_000}", 400, "at most 300"),
        (f"/campaign/live?name={'a' * 10_000}", 400, "at most 300"),
        (f"/pareto?campaign=small&x={'a' * 10_000}", 400, "at most 300"),
        (f"/candidates?{'&'.join(['col=frontier'] * 2_000)}", 400, "at most 50"),
        (f"/candidates?where={'+or+'.join(['frontier>1'] * 60)}", 400, "more than 20 comparisons"),
        (f"/candidates?where={'a' * 10_000}", 400, "at most 2000"),
        (f"/candidates?search={'a' * 1_500}", 400, "may have 1,000"),
        (f"/candidates?sort={'a' * 10_000}", 400, "at most 2000"),
        ("/candidates?page=" + "9" * 5_000, 400, "page"),
        ("/candidates?page=-1", 400, "page"),
    ],
)
def test_too_much_in_an_address_is_refused_at_once(path: str, status: int, said: str, running: Running) -> None:
    started = time.monotonic()
    answer = ask(running, path)
    assert time.monotonic() - started < SOON
    assert answer.status == status
    assert said in answer.text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["compare", *[A] * 2_000], "12 can be compared"),
        (["compare", *[f"{i:08x}" for i in range(2_000)]], "12 can be compared"),
        (["compare", A, A], "two or more different"),
        (["show", "a" * 100_000], "has no candidate"),
        (["candidates", "--search", "a" * 100_000], "may have 1,000"),
        (["candidates", "--where", "a" * 100_000], "may have 1000"),
        (["candidates", "--where", " or ".join(["kl > 1"] * 60)], "more than 20 comparisons"),
        (["candidates", "--sort", "a" * 100_000], "there is no"),
        (["candidates", "--campaign", "a" * 100_000], "has no campaign"),
        (["candidates", "--limit", "9" * 4_000], "limit"),
        (["tail", "small", "--lines", str(10**12)], "lines"),
        (["stats", "a" * 100_000], "has no campaign"),
    ],
)
def test_too_much_on_the_command_line_is_refused_at_once(given: list[str], said: str, archive: Path) -> None:
    started = time.monotonic()
    ended = discovery(*given, "--archive", archive)
    assert time.monotonic() - started < SOON
    assert ended.code == 2
    assert said in ended.error
    assert len(ended.error) < 1_100


def test_as_many_as_may_be_compared_are_compared(archive: Path) -> None:
    assert discovery("compare", A, B, "--archive", archive).code == 0
