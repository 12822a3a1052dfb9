"""Candidates are parsed in several threads at once."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import sandbox.gate
from sandbox.syntax import parse


@pytest.fixture
def busy_collector() -> Iterator[None]:
    """A collector that runs often and gives way to other threads each time."""

    def give_way(_phase: str, _info: dict[str, int]) -> None:
        time.sleep(0.0001)

    thresholds = gc.get_threshold()
    gc.callbacks.append(give_way)
    gc.set_threshold(50)
    yield
    gc.set_threshold(*thresholds)
    gc.callbacks.remove(give_way)


@pytest.mark.usefixtures("busy_collector")
def test_threads_parse_while_the_collector_gives_way() -> None:
    """Plain `ast.parse` ends in a SystemError here within a few attempts on Python 3.11."""
    source = Path(sandbox.gate.__file__).read_text()
    barrier = threading.Barrier(4)

    def work(_: int) -> list[int]:
        barrier.wait(timeout=30)
        return [len(parse(source).body) for _ in range(3)]

    with ThreadPoolExecutor(4) as pool:
        lengths = [n for found in pool.map(work, range(4)) for n in found]
    assert len(lengths) == 12
    assert len(set(lengths)) == 1
