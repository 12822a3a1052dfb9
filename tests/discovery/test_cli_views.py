"""What a running campaign looks like, and its leaderboard."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from db.records import Entry, Score
from discovery.cli.board import print_board
from discovery.cli.terminal import duration, number, signed
from discovery.cli.views import EVENTS_SHOWN, LiveView, PlainView, comparisons, panel
from discovery.json_values import plain
from discovery.leaderboard import Board, StageBoard
from discovery.progress import Event, Progress, Running
from discovery.ranking import Comparison, leaderboard
from sandbox.candidate import Candidate
from sandbox.contract import Conditions
from sandbox.reports import Fingerprint, ProbeReport

HOSTILE = "[bold red]x[/]\x1b[2J\u202e\nsecond line"


def busy() -> Progress:
    progress = Progress(stage="search", metric="loss_value", higher_is_better=False)
    progress.trials_done, progress.trials_waiting, progress.proposals_in_flight = 17, 4, 3
    progress.proposals, progress.accepted, progress.candidates_budget = 20, 6, 12
    progress.prompt_tokens, progress.completion_tokens = 123456, 789
    progress.running = {0: Running(HOSTILE, "search", 3, time.monotonic())}
    progress.failures.update({"STATIC": 2, "DUPLICATE": 7})
    progress.baselines = {"dpo": Score("loss_value", False, {0: 0.5}), "ipo": Score("loss_value", False, {0: 0.375})}
    progress.leader = ("good_one", Score("loss_value", False, {0: 0.25}))
    return progress


def drawn(progress: Progress, events: list[Event], width: int, uses_llm: bool = True) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(panel(progress, events, "demo", uses_llm))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [50, 80, 120, 200])
def test_the_panel_shows_everything_within_the_width(width):
    text = drawn(busy(), [Event("refused", HOSTILE)] * EVENTS_SHOWN, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert not set(text) & {"\x1b", "\u202e"}
    flat = " ".join(text.replace("│", " ").split())
    for fact in (
        "17 done, 1 running, 4 waiting",
        "20 made, 3 in flight, 6 of 12 accepted",
        "123,456 in",
        "DUPLICATE 7",
    ):
        assert fact in flat
    assert "good_one loss_value 0.2500" in flat
    assert "[bold red]x" in flat


def test_differences_are_positive_where_the_candidate_is_better():
    assert comparisons(busy()) == "ipo +0.1250, dpo +0.2500"


def test_before_any_candidate_is_scored_the_baselines_are_shown():
    progress = busy()
    progress.leader = None
    assert "baselines: dpo 0.5000, ipo 0.3750" in drawn(progress, [], 80)
    assert comparisons(progress) == ""


def test_no_llm_is_said_in_the_panel():
    assert "no LLM in use" in drawn(busy(), [], 80, uses_llm=False)


def test_plain_lines_are_one_per_event_and_harmless():
    out = io.StringIO()
    view = PlainView(Console(file=out, width=40))
    view.watch(busy())
    with view:
        view(Event("trial", "dpo seed 0: loss_value 0.5"))
        view(Event("scored", "good_one: leads so far"))
        view(Event("refused", HOSTILE * 30))
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    assert "(17 done" in lines[0]
    assert "against baselines: ipo +0.1250" in lines[2]
    assert "\x1b" not in out.getvalue()


def test_the_live_view_leaves_the_cursor_visible_and_its_last_state_on_the_screen():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    view = LiveView(console, "demo", uses_llm=False)
    view.watch(busy())
    with view:
        view(Event("note", "some news"))
        assert out.getvalue().rfind("\x1b[?25h") > out.getvalue().rfind("\x1b[?25l")
    assert "some news" in out.getvalue()


def test_numbers_and_durations_read_well():
    assert [number(v) for v in (0.0, 0.75161, -2.0, 123456.0, 1e-7)] == [
        "0.0000",
        "0.7516",
        "-2.0000",
        "1.2e+05",
        "1.0e-07",
    ]
    assert signed(0.01) == "+0.0100"
    assert signed(-0.01) == "-0.0100"
    assert [duration(s) for s in (0.2, 59.4, 59.6, 185, 7385)] == ["0 s", "59 s", "1:00", "3:05", "2:03:05"]


def test_json_values_have_no_nan():
    assert plain({"a": (float("nan"), float("inf"), 1.5), 2: Score("m", True, {3: 0.5})}) == {
        "a": [None, None, 1.5],
        "2": {"metric": "m", "higher_is_better": True, "by_seed": {"3": 0.5}},
    }


def test_no_json_holds_the_secret_that_losses_are_compared_by():
    """`discovery show --json` writes a probe's report whole; the same goes for whatever prints one."""
    found = Fingerprint(((0.5,),), Conditions(seed=918273645, batch=7), (1.0,), (0.0,))
    report = ProbeReport(fingerprint=found)
    assert plain(report)["fingerprint"]["conditions"] == {"batch": 7, "scales": []}
    assert "918273645" not in f"{plain(report)} {report!r} {found.conditions}"


def entry(name: str, values: list[float], origin: str) -> Entry:
    score = Score("loss_value", False, dict(enumerate(values)))
    return Entry(Candidate("c", f"# {name}"), name, "", origin, "evolve", "run", score=score)


def board(unit_per_seed: int) -> Board:
    entries = [
        entry("dpo", [0.5, 0.4, 0.6], "known"),
        *(entry(f"m{i}", [0.1 * i, 0.3, 0.2], "proposed") for i in (1, 2)),
    ]
    finer = {
        e.candidate.id: {(s, w): v + 0.01 * w * s for s, v in e.score.by_seed.items() for w in range(unit_per_seed)}
        for e in entries
    }
    rows = leaderboard(entries, entries[:1], Comparison(0.0, finer if unit_per_seed > 1 else None), 10)
    return Board("run", (StageBoard("search", "loss_value", False, (0, 1, 2), False, rows),))


@pytest.mark.parametrize(
    ("unit_per_seed", "said"), [(1, "over 3 pairs by seed)"), (4, "over 12 pairs by seed and world)")]
)
def test_the_board_says_what_its_intervals_rest_on(unit_per_seed, said):
    console = Console(width=80, file=io.StringIO(), color_system=None)
    print_board(console, board(unit_per_seed))
    lines = console.file.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    text = " ".join(" ".join(lines).split())
    assert said in text
    assert "simultaneous: with 95% confidence all of a table hold at once, 2 (by " in text
    assert "confirm on fresh ones" in text
