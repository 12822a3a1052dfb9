"""Reading a stage's results back from the archive, and choosing what is promoted to the next one."""

from __future__ import annotations

from collections.abc import Mapping

from db.archive import Archive
from db.records import Entry, Result
from discovery.config import PromotionConfig
from discovery.contest import competes, contest_of
from discovery.trials import Stage
from evaluators.objectives import known_objective


def stored_results(archive: Archive, campaign: int, stage: Stage) -> Mapping[str, Result]:
    """What is known at this stage of each candidate that has been tried there, by id."""
    return archive.results(campaign, stage.task.id, stage.metric, stage.seeds)


def promoted(archive: Archive, campaign: int, contract: str, settings: PromotionConfig) -> list[Entry]:
    """The stage's baselines, then the leading ranked candidates that are not baselines, of those that may lead."""
    ranked = [e for e in archive.entries(campaign) if e.score is not None]
    about = contest_of(archive, campaign)
    leading = [e for e in ranked if e.origin != "known" and competes(e, about)][: settings.top]
    wanted = {known_objective(contract, name).candidate.id for name in settings.baselines}
    return [e for e in ranked if e.candidate.id in wanted] + leading
