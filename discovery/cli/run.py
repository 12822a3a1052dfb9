"""`discovery run`: announce, watch, rank, and say what to type next."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from discovery.cli.archives import VARIABLE, option_for
from discovery.cli.border import INTERRUPTED
from discovery.cli.leaderboard import board_values
from discovery.cli.platforms import NO_SANDBOX, allow_local_plugins, require_linux
from discovery.cli.tables import key_values
from discovery.cli.terminal import print_json, stderr_console, stdout_console, words

if TYPE_CHECKING:
    from discovery.campaign import CampaignResult
    from discovery.config import CampaignConfig

_EXIT_CODES = {"interrupted": INTERRUPTED}
_ENDINGS = {
    "finished": "finished",
    "interrupted": "interrupted; everything so far is stored",
}


@dataclass(frozen=True)
class Ending:
    """What comes after a campaign: a file for the best loss of the last stage; the leaderboard as JSON on stdout."""

    best_to: Path | None = None
    as_json: bool = False


def run(
    path: Path, archive: str | None, settings: Sequence[str], ending: Ending, unsafe_no_sandbox: bool = False
) -> int:
    """Run the campaign of a file; returns the exit code.

    Raises:
        OptionsError, ArchiveError, SearchError, InfrastructureError: from the configuration and the campaign.
        ExportError, OSError: the best loss could not be written.
    """
    require_linux("run")
    allow_local_plugins()
    config = configuration(path, archive, settings)
    from discovery.campaign import Campaign
    from discovery.cli.board import print_board, print_commands
    from discovery.cli.views import LiveView, PlainView, View
    from discovery.search import SearchError

    view: View | None = None
    campaign = Campaign(config, lambda event: view(event) if view is not None else None, unsafe_no_sandbox)
    console = (
        stderr_console() if ending.as_json else stdout_console()
    )  # nothing is printed before the settings are known to be good
    console.print(Text(f"Campaign {config.name}", style="bold"))
    announce(console, config)
    if not campaign.uses_llm:
        console.print(words(without_llm(config)), style="yellow")
    if unsafe_no_sandbox:
        console.print(NO_SANDBOX)
    console.print(Text("Ctrl-C stops it; the same command resumes.", style="dim"))
    view = LiveView(console, config.name, campaign.uses_llm) if console.is_terminal else PlainView(console)
    view.watch(campaign.progress)
    try:
        with view:
            result = campaign.run()
    except SearchError as error:
        if error.board is not None:
            print_board(console, error.board)
        raise
    console.print()
    console.print(Text(f"Campaign {result.campaign}: {_ENDINGS.get(result.status, result.status)}.", style="bold"))
    print_board(console, result.board)
    print_commands(console, next_commands(config, result, sys.argv))
    if ending.as_json:
        print_json(_as_values(result))
    if ending.best_to is not None and result.status == "finished" and result.board.best is not None:
        from discovery.cli.export import Target, Wanted, export

        best = result.board.best
        export(config.archive, Wanted(best.candidate.id, best.campaign), Target(ending.best_to, force=True))
    return _EXIT_CODES.get(result.status, 0)


def _as_values(result: CampaignResult) -> dict[str, Any]:
    """How a campaign ended, as JSON values."""
    return {
        "campaign": result.campaign,
        "archive": result.archive,
        "status": result.status,
        "stages": board_values(result.board),
    }


def configuration(path: Path, archive: str | None, settings: Sequence[str]) -> CampaignConfig:
    """The file with `--set` and `--archive`; where it names no archive, $DISCOVERY_ARCHIVE counts. Raises ConfigError."""
    from discovery.config import load_config

    config = load_config(path, [*settings, *_archive_setting(archive)])
    variable = os.environ.get(VARIABLE)
    if variable and "archive" not in config.model_fields_set:
        config = load_config(path, [*settings, *_archive_setting(variable)])
    return config


def _archive_setting(archive: str | None) -> list[str]:
    return [] if archive is None else [f"archive={json.dumps(archive)}"]


def announce(console: Console, config: CampaignConfig) -> None:
    """What will run, where it is kept."""
    objective = config.objective
    grid = key_values()
    grid.add_row("archive", words(config.public()["archive"]))
    grid.add_row("log", words(str(Path(config.log_dir) / f"{config.name}.log")))
    seeds = ", ".join(str(s) for s in objective.seed_list[:10]) + (", ..." if len(objective.seed_list) > 10 else "")
    grid.add_row("evaluator", words(f"{objective.evaluator}, {objective.metric or 'primary metric'}, seeds {seeds}"))
    for promotion in config.promotions:
        grid.add_row(
            "then", words(f"the best {promotion.top} and {', '.join(promotion.baselines)} on {promotion.evaluator}")
        )
    grid.add_row("proposer", words(config.proposer.kind))
    budget = {k: v for k, v in config.budget.model_dump().items() if v is not None}
    grid.add_row("budget", ", ".join(f"{name} {value:,}" for name, value in budget.items()))
    console.print(grid)


def without_llm(config: CampaignConfig) -> str:
    """Said plainly, so that nobody takes the results for a language model's."""
    from evaluators.plugins import load_plugin

    if config.proposer.kind == "evolve":
        return "No LLM in use: losses are mutated and recombined from known ones."
    return f"No LLM in use: {load_plugin('proposers', config.proposer.kind).summary}."


def next_commands(config: CampaignConfig, result: CampaignResult, typed: Sequence[str]) -> list[tuple[str, str]]:
    """What to type next. A password is never repeated: its archive is named by an environment variable."""
    from db.redact import redact_secrets

    archive = option_for(config.archive, result.archive)
    commands = []
    if result.status != "finished":
        commands.append((shlex.join(["discovery", *(redact_secrets(a) for a in typed[1:])]), "go on where it stopped"))
    best = result.board.best
    if best is not None:
        commands.append((f"discovery show {best.candidate.short_id}{archive}", "code, idea and scores of the best"))
        commands.append((f"discovery export {best.candidate.short_id} -o best.py{archive}", "the best as a file"))
    commands.append((f"discovery candidates --campaign {config.name}{archive}", "all of them"))
    return commands
