"""Asking before a command takes much longer than its words suggest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from db.archive import Archive, ArchiveError
from evaluators.options import OptionsError

if TYPE_CHECKING:
    from discovery.config import CampaignConfig

ASK_FROM_S = 600.0  # a trial by itself takes seconds to minutes: who waits ten minutes wants to know
ASK_FROM_TRIALS = 2_000  # all known objectives on 20 seeds are 840
ASK_FROM_SEEDS = 100  # of one loss; how many losses a campaign tries is what its budget is there to say


def require_consent(what: str, yes: bool, instead: str = "fewer --seeds") -> None:
    """Go on if `yes` was given or a person at a terminal says so.

    Args:
        what: what would be done and what it takes, one line.
        yes: whether `--yes` was given.
        instead: what to give for less.

    Raises:
        OptionsError: nobody can be asked, or the answer is no.
    """
    if yes:
        return
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        raise OptionsError(f"{what}; give --yes to do it, or {instead}")
    if not typer.confirm(f"{what}. Go on?", default=False, err=True):
        raise OptionsError(f"not done; give {instead}")


def require_consent_to_run(config: CampaignConfig, baselines: int, yes: bool) -> None:
    """Ask before a campaign whose seeds make it long, unless the same was run before.

    Args:
        config: its settings.
        baselines: how many known losses its search measures.
        yes: whether `--yes` was given.

    Raises:
        OptionsError: nobody can be asked, or the answer is no.
    """
    ahead = _long_stages(config, baselines)
    if ahead and not _was_run(config):
        require_consent(f"{config.name}: {'; '.join(ahead)}", yes, "fewer seeds")


def _long_stages(config: CampaignConfig, baselines: int) -> list[str]:
    """What each stage takes that has very many seeds."""
    candidates = config.budget.candidates
    stages = [("the search", baselines + (candidates or 0), len(config.objective.seed_list))]
    stages += [
        (f"promotion {i}", p.top + len(p.baselines), len(p.seed_list)) for i, p in enumerate(config.promotions, 1)
    ]
    return [
        f"{losses:,} losses on {seeds:,} seeds each in {stage} are {losses * seeds:,} trials"
        if losses
        else f"{seeds:,} seeds in {stage} are as many trials for each loss"
        for stage, losses, seeds in stages
        if seeds > ASK_FROM_SEEDS and max(losses, 1) * seeds > ASK_FROM_TRIALS
    ]


def _was_run(config: CampaignConfig) -> bool:
    """Whether the archive has the campaign with the same losses and seeds to measure: who resumes it has agreed."""
    try:
        with Archive(config.archive) as archive:
            stored = {c.name: c.config for c in archive.campaigns()}.get(config.name, {})
    except ArchiveError:  # there is none yet; what else may be wrong with it is said when it is opened for writing
        return False
    public = config.public()
    same = all(stored.get(section) == public[section] for section in ("objective", "baselines", "promotions"))
    return same and stored.get("budget", {}).get("candidates") == config.budget.candidates
