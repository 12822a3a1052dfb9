"""What is misspelt gets the nearest name that there is, in one line, whatever it is the name of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import discovery
from tests.support.small_archive import make_archive


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    make_archive(folder / "small.db")
    (folder / "my_loss.py").write_text("x = 1\n")
    (folder / "quick.yaml").write_text("objective: {evaluator: preference.enumerable}\n")
    return folder


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("leaderbord", "'leaderboard'"),
        ("candidate", "'candidates'"),
        ("objectives shw", "'show'"),
        ("archive chek", "'check'"),
        ("stats small --jsn", "'--json'"),
        ("candidates --wehre x", "'--where'"),
        ("evaluate dpo --seed 3", "'--seeds'"),
        ("objectives bench --markdwon", "'--markdown'"),
        ("stats smal", "'small'"),
        ("leaderboard smal", "'small'"),
        ("tail smal", "'small'"),
        ("show dpo --campaign smal", "'small'"),
        ("candidates --campaign smal", "'small'"),
        ("evaluators preference.enumrable", "'preference.enumerable'"),
        ("evaluate dpo --evaluator preference.enumrable", "'preference.enumerable'"),
        ("evaluate dpo --set stps=3", "'steps'"),
        ("candidates --where fronter>1", "'frontier'"),
        ("candidates --sort fronter", "'frontier'"),
        ("candidates --status rankd", "'ranked'"),
        ("candidates --origin imprted", "'imported'"),
        ("show winnner", "'winner'"),
        ("lineage winnner", "'winner'"),
        ("compare winner ipoo", "'ipo'"),
        ("objectives show dpoo", "'dpo'"),
        ("objectives bench --only dpoo", "'dpo'"),
        ("export dpo --format trll", "'trl'"),
        ("check my_los.py", "my_loss.py'"),
        ("import my_los.py", "my_loss.py'"),
        ("run quik.yaml", "quick.yaml'"),
        ("run quick.yaml --set proposer.kind=evolv", "'evolve'"),
        ("run quick.yaml --set proposer.kind=non", "'none'"),
        ("run quick.yaml --set budgt.candidates=3", "budget"),
        ("run quick.yaml --set objective.metric=fronter", "'frontier'"),
    ],
)
def test_the_nearest_is_named(typed: str, meant: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DISCOVERY_ARCHIVE", str(folder / "small.db"))
    ended = discovery(*typed.split())
    assert (ended.code, ended.stdout) == (2, "")
    assert "did you mean" in ended.error
    assert meant in ended.error


def test_a_misspelt_proposer_is_said_where_nothing_is_found(folder: Path) -> None:
    said = discovery("candidates", "--proposer", "opnai", "--archive", folder / "small.db").stdout
    assert "did you mean 'openai'?" in " ".join(said.split())


def test_what_is_like_nothing_gets_all_there_is() -> None:
    assert "there are: archive, campaigns, candidates" in discovery("xyzzy").error
    assert "--json" in discovery("stats", "small", "--xyzzy").error


def test_a_group_alone_shows_its_commands_on_lines() -> None:
    ended = discovery("archive")
    assert ended.code == 2
    assert any(line.split()[:1] == ["upgrade"] for line in (ended.stdout + ended.stderr).splitlines())
