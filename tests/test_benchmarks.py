"""The archive's benchmark at a tiny size: what it asks still works on what it makes up."""

from __future__ import annotations

import json

import pytest

from benchmarks.archive import main


def test_the_archive_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--candidates", "60", "--trials", "20", "--rounds", "1", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert {row["unit"] for row in rows} == {"ms", "1/s"}
    assert all(row["value"] > 0 for row in rows)
    assert len({row["what"] for row in rows}) == len(rows) > 10
