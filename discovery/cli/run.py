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
from discovery.cli.leaderboard import board_values, end_values
from discovery.cli.platforms import NO_SANDBOX, allow_local_plugins, require_linux
from discovery.cli.tables import key_values
from discovery.cli.terminal import print_end, print_json, stderr_console, stdout_console, words
from discovery.contest import PRIVILEGED

if TYPE_CHECKING:
    from discovery.browse.campaign_stats import End
    from discovery.campaign import CampaignResult
    from discovery.config import CampaignConfig

_EXIT_CODES = {"interrupted": INTERRUPTED}
_ENDINGS = {
    "finished": "finished",
    "interrupted": "interrupted; everything so far is stored",
}


@dataclass(frozen=True)
class Afterwards:
    """What comes after a campaign: a file for the leading loss of the last stage; the leaderboard as JSON on stdout."""

    leader_to: Path | None = None
    as_json: bool = False


def run(
    path: Path,
    archive: str | None,
    settings: Sequence[str],
    afterwards: Afterwards,
    unsafe_no_sandbox: bool = False,
    yes: bool = False,
) -> int:
    """Run the campaign of a file; returns the exit code. `yes`: do not ask before what takes long.

    Raises:
        OptionsError, ArchiveError, SearchError, InfrastructureError: from the configuration and the campaign.
        ExportError, OSError: the leading loss could not be written.
    """
    require_linux("run")
    allow_local_plugins(path)
    config = configuration(path, archive, settings)
    from db.archive import Archive
    from discovery.browse.campaign_stats import campaign_end
    from discovery.campaign import Campaign
    from discovery.cli.board import print_board, print_commands
    from discovery.cli.consent import require_consent_to_run
    from discovery.cli.views import LiveView, PlainView, View
    from discovery.search import SearchError

    view: View | None = None
    campaign = Campaign(config, lambda event: view(event) if view is not None else None, unsafe_no_sandbox)
    require_consent_to_run(config, len(campaign.baselines), yes)
    console = (
        stderr_console() if afterwards.as_json else stdout_console()
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
    with Archive(config.archive) as stored:
        end = campaign_end(stored, result.campaign)
    print_end(console, end)
    for line in result.changes if console.is_terminal else ():  # a live view shows the last few events only
        console.print(words(line, "yellow", 1000))
    print_board(console, result.board)
    print_commands(console, next_commands(config, result, sys.argv))
    if afterwards.as_json:
        print_json(_as_values(result, end))
    if afterwards.leader_to is not None:
        _write_leader(console, config, result, afterwards.leader_to)
    return _EXIT_CODES.get(result.status, 0)


def _write_leader(console: Console, config: CampaignConfig, result: CampaignResult, path: Path) -> None:
    """The leading loss as a file, or why there is none."""
    leader = result.board.leader
    if result.status != "finished" or leader is None:
        none = f"no loss besides baselines is ranked{_apart(result)}"
        why = none if result.status == "finished" else "the campaign has not finished"
        console.print(words(f"nothing was written to {path}: {why}"))
        return
    from discovery.cli.export import Target, Wanted, export

    export(config.archive, Wanted(leader.candidate.id, leader.campaign), Target(path, force=True))


def _apart(result: CampaignResult) -> str:
    """What may not lead although it is ranked; empty if nothing is."""
    made = [row for stage in result.board.stages for row in stage.rows if not row.is_baseline]
    kind = "losses that see labels alone" if result.board.about_privileged else f"{PRIVILEGED} losses"
    return f", apart from {kind}, which do not lead here" if made else ""


def _as_values(result: CampaignResult, end: End) -> dict[str, Any]:
    """How a campaign ended, as JSON values."""
    return {
        "campaign": result.campaign,
        "archive": result.archive,
        "status": result.status,
        **end_values(end),
        "about_privileged": result.board.about_privileged,
        "changes": result.changes,
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
            "then", words(f"the leading {promotion.top} and {', '.join(promotion.baselines)} on {promotion.evaluator}")
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
    leader = result.board.leader
    if leader is not None:
        short = leader.candidate.short_id
        commands.append((f"discovery show {short}{archive}", "the leading loss: code, idea, scores"))
        commands.append((f"discovery export {short} -o loss.py{archive}", "the same as a file"))
    commands.append((f"discovery candidates --campaign {config.name}{archive}", "all of them"))
    return commands
