"""`discovery leaderboard`: where a campaign stands, as `discovery run` shows it at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from discovery.browse.intervals import stage_worlds
from discovery.cli.archives import opened
from discovery.cli.board import difference_header, difference_text, print_board, versus_of
from discovery.cli.listings import entry_values
from discovery.cli.tables import add_figure, add_name, name_cell, print_table, table
from discovery.cli.terminal import number, print_end, print_json, stdout_console
from discovery.contest import PRIVILEGED, UNLIKE
from sandbox.text import one_line

if TYPE_CHECKING:
    from discovery.browse.campaign_stats import End
    from discovery.leaderboard import Board, StageBoard


def leaderboard(archive: str | None, campaign: str, as_json: bool, regimes: bool = False) -> None:
    """Raises OptionsError, ArchiveError."""
    from discovery.browse.campaign_stats import campaign_end
    from discovery.browse.standing import board

    with opened(archive) as stored:
        end, found = campaign_end(stored, campaign), board(stored, campaign)
    record = end.campaign
    if as_json:
        print_json(
            {
                "campaign": record.name,
                "status": record.status,
                "about_privileged": found.about_privileged,
                **end_values(end),
                "stages": board_values(found),
            }
        )
        return
    console = stdout_console()
    console.print(Text(f"campaign {one_line(record.name, 60)}: {one_line(record.status, 30)}", "bold"))
    print_end(console, end)
    print_board(console, found)
    for stage in found.stages if regimes else ():
        _print_worlds(console, stage)


def _print_worlds(console: Console, stage: StageBoard) -> None:
    """Each loss in each world: the mean over seeds, and the difference to the leading baseline there, paired by seed.

    That each interval speaks for itself is said: of a hundred, five miss.
    """
    console.print()
    title = f"{one_line(stage.title, 60)}: {stage.metric} by world"
    if not stage.values:
        console.print(Text(f"{title}: the evaluator reports none", style="dim"))
        return
    versus = versus_of(stage)
    grid = table(f"{title}, each 95% interval by itself")
    add_name(grid, "loss")
    add_name(grid, "world")
    difference = difference_header(versus, "95%")
    for header in ("mean", difference):
        add_figure(grid, header)
    if len(versus) > 1:
        add_name(grid, "vs", least=8)
    for one in stage_worlds(stage):
        compared = "" if one.difference is None else difference_text(one.difference, wide=False)
        compared += "" if one.alike or not compared else f", {UNLIKE}"
        beside = [name_cell(one.versus or "")] if len(versus) > 1 else []
        name = name_cell(one.name + (f" ({PRIVILEGED})" if one.privileged else ""))
        grid.add_row(name, name_cell(one.world), number(one.mean), compared, *beside)
    print_table(console, grid, (difference,))


def end_values(end: End) -> dict[str, Any]:
    """Why a campaign ended and how many of its proposals were copies, as JSON values."""
    return {"ended": end.campaign.ended, "proposals": end.proposals, "copies": end.copies}


def board_values(board: Board) -> list[dict[str, Any]]:
    """All stages, as JSON values."""
    return [_stage_values(stage) for stage in board.stages]


def _stage_values(stage: StageBoard) -> dict[str, Any]:
    worlds = stage_worlds(stage)
    return {
        "title": stage.title,
        "metric": stage.metric,
        "higher_is_better": stage.higher_is_better,
        "seeds": stage.seeds,
        "fresh": stage.fresh,
        "rows": [
            {
                "rank": row.rank,
                "mean": row.mean,
                "is_baseline": row.is_baseline,
                "versus": row.versus,
                "alike": row.alike,
                "difference": row.difference,
                "worlds": [w for w in worlds if w.candidate_id == row.entry.candidate.id],
                **entry_values(row.entry),
            }
            for row in stage.rows
        ],
    }
