"""The benchmarks at a tiny size: what they ask still works on what they make up."""

from __future__ import annotations

import json

import pytest

from benchmarks import coverage, headroom
from benchmarks.archive import main


def test_the_archive_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--candidates", "60", "--trials", "20", "--rounds", "1", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert {row["unit"] for row in rows} == {"ms", "1/s"}
    assert all(row["value"] > 0 for row in rows)
    assert len({row["what"] for row in rows}) == len(rows) > 10


def test_the_coverage_benchmark_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "LOSSES", (1, 5))
    coverage.main(["--rounds", "2", "--json"])
    boards, promotions, anytime, regimes, spreads = json.loads(capsys.readouterr().out).values()
    assert {row["method"] for row in boards} == {"max-T", "Holm"}
    assert all(0 <= share <= 1 for row in boards for share in row["together"].values())
    assert all(row["wider"]["1"] == pytest.approx(1) and row["wider"]["5"] > 1 for row in boards)
    assert {row["worlds"] for row in promotions} == {1, 10}
    assert all(row["at_any_time"] < row["each_its_own"] for row in anytime)
    assert {row["seeds"] for row in regimes} == {2, 4, 20}
    assert spreads[0]["half_width"]["4"] is None
    coverage.main(["--rounds", "1"])
    assert capsys.readouterr().out.count("\n|---") == 5


def test_looking_after_every_seed_is_wrong_too_often_without_an_interval_for_it() -> None:
    """For normal differences: over 9% say "better" of nothing if each look believes its own interval."""
    normal = [row for row in coverage.anytime(40) if row.noise.startswith("normal")]
    assert all(row.at_any_time <= 0.05 for row in normal)
    assert all(row.each_its_own / 2 > 0.09 for row in normal)  # better, or worse


def test_the_headroom_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """In few steps and samples: what the network reaches is above 0 and below 1; more steps reach more."""
    small = ["--seeds", "1", "--regimes", "judge,near_copies", "--samples", "40"]
    found = []
    for steps in ("2", "12"):
        headroom.main([*small, "--steps", steps, "--json"])
        found.append(json.loads(capsys.readouterr().out))
    assert [*found[0]] == ["judge", "near_copies", "mean"]
    for few, more in zip(found[0].values(), found[1].values(), strict=True):
        assert 0 < few["network"] < more["network"] < 1
        assert 0 <= few["data"] < 1
        assert few["data"] == more["data"]
    headroom.main([*small, "--steps", "1"])
    assert "| near_copies | 0." in capsys.readouterr().out
