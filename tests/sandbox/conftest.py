"""One warm fork server for the whole folder; tests that kill it start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sandbox.server import OracleServer


@pytest.fixture(scope="session")
def server() -> Iterator[OracleServer]:
    torch.set_num_threads(1)
    with OracleServer() as running:
        yield running
