"""`discovery leaderboard`: where a campaign stands, as `discovery run` shows it at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from discovery.cli.archives import opened
from discovery.cli.board import print_board
from discovery.cli.listings import entry_values
from discovery.cli.terminal import print_end, print_json, stdout_console
from sandbox.text import one_line

if TYPE_CHECKING:
    from discovery.browse.campaign_stats import End
    from discovery.leaderboard import Board


def leaderboard(archive: str | None, campaign: str, as_json: bool) -> None:
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
                **end_values(end),
                "stages": board_values(found),
            }
        )
        return
    console = stdout_console()
    console.print(Text(f"campaign {one_line(record.name, 60)}: {one_line(record.status, 30)}", "bold"))
    print_end(console, end)
    print_board(console, found)


def end_values(end: End) -> dict[str, Any]:
    """Why a campaign ended and how many of its proposals were copies, as JSON values."""
    return {"ended": end.campaign.ended, "proposals": end.proposals, "copies": end.copies}


def board_values(board: Board) -> list[dict[str, Any]]:
    """All stages, as JSON values."""
    return [
        {
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
                    "difference": row.difference,
                    **entry_values(row.entry),
                }
                for row in stage.rows
            ],
        }
        for stage in board.stages
    ]
