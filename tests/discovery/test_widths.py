"""Tables at every width: names and verdicts are whole, nothing runs over, other columns leave first."""

from __future__ import annotations

import itertools
import re
import sqlite3
from pathlib import Path

import pytest
from rich.text import Text

from discovery.cli.tables import (
    add_figure,
    add_name,
    add_note,
    add_text,
    add_word,
    folded,
    name_cell,
    print_table,
    table,
)
from discovery.cli.terminal import stdout_console
from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from tests.support.command import discovery
from tests.support.small_archive import make_archive

WIDTHS = (24, 32, 40, 47, 60, 72, 80, 96, 112, 140)
LONG = "a_long_winded_sigmoid_hinge_logistic_mixture_dc8a2f"
ROWS = (("dpo", "leading baseline"), (LONG, "not separated, NO SANDBOX"), ("Größe_λ", "worse"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_archive(tmp_path_factory.mktemp("archive") / "small.db")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE proposals SET name = ? WHERE name = 'winner'", (LONG,))
        connection.execute("UPDATE campaigns SET end_reason = 'stalled', end_detail = 'the search stalled: all copies'")
    return path


def squeezed(text: str) -> str:
    """Without line breaks, blanks and frames: what a folded name reads as."""
    return re.sub(r"[\s│─]+", "", text)


def columns_of(text: str) -> str:
    """The column of names of each table, folded lines put together again."""
    found, start = [], 0
    for line in text.splitlines():
        header = re.search(r"\b(loss|name|metric)(  |$)", line)
        start = header.start() if header else start
        found.append(re.split(r"\s{2,}", line[start:])[0].strip())
    return "".join(found)


@pytest.mark.parametrize("width", WIDTHS)
def test_names_and_verdicts_are_whole_at_any_width(width: int, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    grid = table("the title")
    add_name(grid, "loss")
    add_word(grid, "id")
    add_figure(grid, "frontier")
    add_word(grid, "verdict")
    add_note(grid, "origin")
    for name, verdict in ROWS:
        grid.add_row(name_cell(name), "0123456789", "0.7473 ± 0.0012", verdict, name_cell("proposed, some model " * 3))
    print_table(stdout_console(), grid, ("origin", "id", "frontier"))
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= width
    folded_names = columns_of(text) if width >= 40 else squeezed(text)
    for name, verdict in ROWS:
        assert name in folded_names
        assert verdict in text if width >= 40 else squeezed(verdict) in squeezed(text)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "command",
    [["leaderboard", "small"], ["candidates"], ["campaigns"], ["stats", "small"], ["compare", "dpo", LONG], ["show", "dpo"],
     ["objectives"], ["evaluators"], ["evaluators", "preference.enumerable"]],
    ids=lambda c: " ".join(c)[:30],
)  # fmt: skip
def test_no_command_runs_over_or_cuts_what_matters(command, width: int, archive: Path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    where = () if command[0] in ("objectives", "evaluators") else ("--archive", archive)
    text = discovery(*command, *where).stdout
    code = re.compile(r"^\s*(def|return|margin|import|[-+@ ]|Next)|\.db|discovery ")  # copied, so never folded
    sources = {
        line for name in ("dpo", "ipo") for line in known_objective(PAIRS.name, name).candidate.source.splitlines()
    }
    over = [line for line in text.splitlines() if len(line) > width and not (code.search(line) or line in sources)]
    assert not over, over
    whole = squeezed(text)
    for name in {"leaderboard": (LONG, "dpo", "ipo"), "candidates": (LONG, "dpo"), "objectives": ("dpo", "simpo")}.get(
        command[0], ()
    ):
        assert name in columns_of(text) or name in whole, (name, text)
    if command[0] == "leaderboard":
        for verdict in ("leading baseline", "baseline", "not separated"):
            assert squeezed(verdict) in whole
    if command[0] in ("leaderboard", "campaigns") and width >= 96:
        assert "the search stalled" in " ".join(text.split())


def test_other_columns_leave_in_their_order_and_come_back(archive: Path, monkeypatch) -> None:
    seen = []
    for width in (140, 96, 80, 60, 48, 44):
        monkeypatch.setenv("COLUMNS", str(width))
        text = discovery("leaderboard", "small", "--archive", archive).stdout
        header = next(line for line in text.splitlines() if line.startswith(("#", "loss")))
        seen.append([c for c in ("origin", "#", "id", "vs dpo [95% simultaneous]", "frontier") if c in header])
    assert seen[0] == ["origin", "#", "id", "vs dpo [95% simultaneous]", "frontier"]
    assert all(len(a) >= len(b) and a[len(a) - len(b) :] == b for a, b in itertools.pairwise(seen))
    assert seen[-2:] == [["frontier"], []]


def test_names_are_folded_at_their_joints() -> None:
    assert folded(Text("hinge_sigmoid_logistic_mix"), 16).plain.split("\n") == ["hinge_sigmoid_", "logistic_mix"]
    assert folded(Text("x" * 20), 8).plain == "xxxxxxxx\nxxxxxxxx\nxxxx"
    assert folded(Text("漢字漢字"), 4).plain == "漢字\n漢字"
    assert folded(Text("short"), 8).plain == "short"
    styled = folded(Text("a_bcdef", style="red"), 4)
    assert styled.plain.replace("\n", "") == "a_bcdef"


def test_sentences_wrap_between_words(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    grid = table()
    add_name(grid, "what")
    add_text(grid, "found")
    grid.add_row("memory", "eleven thousand megabytes are free and this is enough")
    print_table(stdout_console(), grid)
    assert "megabytes" in capsys.readouterr().out
