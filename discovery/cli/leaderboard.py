"""`discovery leaderboard`: where a campaign stands, as `discovery run` shows it at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from discovery.cli.archives import opened
from discovery.cli.board import print_board
from discovery.cli.listings import entry_values
from discovery.cli.terminal import print_json, stdout_console
from evaluators.options import OptionsError
from sandbox.text import one_line

if TYPE_CHECKING:
    from discovery.leaderboard import Board


def leaderboard(archive: str | None, campaign: str, as_json: bool) -> None:
    """Raises OptionsError, ConfigError, ArchiveError."""
    from discovery.config import make_config
    from discovery.measured import board_of, measured

    with opened(archive) as stored:
        record = stored.campaign(campaign)
        if "objective" not in record.config:
            raise OptionsError(
                f"{one_line(campaign, 80)} has no settings of a campaign, as a collection of imported losses has none"
            )
        stages = measured(make_config(record.config, source=f"the settings of {one_line(campaign, 80)}"))
        board = board_of(stored, record.id, record.name, stages)
    if as_json:
        print_json({"campaign": record.name, "status": record.status, "stages": board_values(board)})
    else:
        print_board(stdout_console(), board)


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
