"""Reading a stage's results back from the archive, and choosing what is promoted to the next one."""

from __future__ import annotations

from db.archive import Archive
from db.records import Entry
from discovery.config import PromotionConfig
from discovery.trials import Result, Stage
from evaluators.objectives import known_objective


def stored_result(archive: Archive, campaign: int, candidate: str, stage: Stage) -> Result:
    """What is known of a candidate at this stage: values of the finished seeds, and a failure if one seed failed."""
    by_seed: dict[int, float] = {}
    failure = None
    for trial in archive.trials(candidate, campaign=campaign, task=stage.task.id):
        if trial.seed not in stage.seeds:  # another stage measures the same task on other seeds
            continue
        if trial.status == "done":
            by_seed[trial.seed] = next(m.value for m in trial.metrics if m.name == stage.metric)
        elif trial.status == "failed":
            failure = trial.failure
    return Result(by_seed, failure)


def promoted(archive: Archive, campaign: int, contract: str, settings: PromotionConfig) -> list[Entry]:
    """The stage's baselines, then the best ranked candidates that are not baselines."""
    ranked = [e for e in archive.entries(campaign) if e.score is not None]
    best = [e for e in ranked if e.origin != "known"][: settings.top]
    wanted = {known_objective(contract, name).candidate.id for name in settings.baselines}
    return [e for e in ranked if e.candidate.id in wanted] + best
