"""`discovery leaderboard`: where a campaign stands, as `discovery run` shows it at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from discovery.cli.archives import opened
from discovery.cli.board import print_board
from discovery.cli.listings import entry_values
from discovery.cli.terminal import print_json, stdout_console

if TYPE_CHECKING:
    from discovery.leaderboard import Board


def leaderboard(archive: str | None, campaign: str, as_json: bool) -> None:
    """Raises OptionsError, ArchiveError."""
    from discovery.browse.standing import board

    with opened(archive) as stored:
        record, found = stored.campaign(campaign), board(stored, campaign)
    if as_json:
        print_json({"campaign": record.name, "status": record.status, "stages": board_values(found)})
    else:
        print_board(stdout_console(), found)


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
