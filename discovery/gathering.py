"""Gathering what is known about one loss, from an archive or from the library of known objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from db.measurements import by_measurement, paired_values
from db.records import CampaignRecord, Entry, EntryFilter, TrialRecord
from discovery.browse.intervals import limits_of, metric_interval
from discovery.contest import alike
from discovery.dossier import Comparison, Dossier, Measurement
from discovery.effects import effect_of
from discovery.leaderboard import stage_family, stage_score
from discovery.statistics import Family, paired_difference
from discovery.trials import Stage
from evaluators.objectives import Objective
from sandbox.contract import Contract
from sandbox.gate import check_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from db.archive import Archive


def of_known(objective: Objective, contract: Contract) -> Dossier:
    """A known objective, as the library has it."""
    entry = Entry(
        objective.candidate, objective.name, objective.summary, "known", "library", "", privileged=objective.privileged
    )
    return Dossier(entry, contract, check_source(objective.candidate, contract))


def of_archived(archive: Archive, entry: Entry, contract: Contract) -> Dossier:
    """What an archive knows about an entry of it. Raises ArchiveError."""
    candidate, campaign = entry.candidate, archive.campaign(entry.campaign)
    proposal = archive.proposal_of(candidate.id, entry.campaign)
    trials = archive.trials(candidate.id, campaign=entry.campaign)
    lineage = archive.lineage(candidate.id, entry.campaign)
    return Dossier(
        entry=entry,
        contract=contract,
        gate=replace(check_source(candidate, contract), notes=proposal.gate.notes if proposal.gate else ()),
        probe=proposal.probe,
        proposal=proposal,
        campaign=campaign,
        trials=tuple(trials),
        tasks={task: archive.task(task) for task in dict.fromkeys(t.task_id for t in trials)},
        lineage=tuple(a for a in lineage if a.depth > 0),
        measurements=tuple(_measurements(archive, campaign, entry, trials)),
    )


def _measurements(
    archive: Archive, campaign: CampaignRecord, loss: Entry, trials: Sequence[TrialRecord]
) -> Sequence[Measurement]:
    """One per task and set of seeds, those that rank first."""
    baselines = archive.entries(campaign.id, EntryFilter(origin="known"))
    known = [e for e in baselines if e.candidate.id != loss.candidate.id]
    theirs = {e.candidate.id: archive.trials(e.candidate.id, campaign=campaign.id) for e in known}
    found = []
    for measured in by_measurement(trials, campaign.ranking):
        task, group = measured.task_id, measured.trials
        stage = _stage(archive, task, group, campaign.ranking.metric)
        score = None if stage is None else stage_score(group, stage)
        if stage is None or score is None:
            continue
        effect = effect_of(campaign, stage.task.evaluator, measured.ranks, stage.metric, leads=True)
        family = stage_family(archive, campaign.id, stage, fresh=not measured.ranks)
        versus = []
        for entry in known:
            other = [t for t in theirs[entry.candidate.id] if t.task_id == task]
            compared = _compared(entry, other, group, stage, effect, family)
            versus += [replace(compared, alike=alike(loss, entry))] if compared is not None else []
        mean = metric_interval(group, stage.metric, limits_of(stage.task.evaluator))
        versus.sort(key=lambda c: (not c.alike, -c.mean if stage.higher_is_better else c.mean))
        found.append(
            Measurement(stage.task.evaluator, task, measured.ranks, measured.fresh, score, mean, tuple(versus))
        )
    return found


def _stage(archive: Archive, task: str, trials: Sequence[TrialRecord], metric: str) -> Stage | None:
    """What was measured: the ranking metric where the task reports it, else its first; None if nothing finished."""
    done = [t for t in trials if t.status == "done" and t.metrics]
    if not done or any(t.status == "failed" for t in trials):
        return None
    names = [m.name for m in done[0].metrics]
    found = next(m for m in done[0].metrics if m.name == (metric if metric in names else names[0]))
    seeds = tuple(sorted(t.seed for t in done))
    return Stage("export", archive.task(task).task, found.name, found.higher_is_better, seeds)


def _compared(
    entry: Entry,
    theirs: Sequence[TrialRecord],
    ours: Sequence[TrialRecord],
    stage: Stage,
    effect: float,
    family: Family,
) -> Comparison | None:
    """The loss against one baseline on the seeds that both have, with an interval as wide as on the leaderboard."""
    common = {t.seed for t in theirs if t.status == "done"} & set(stage.seeds)
    failed = any(t.status == "failed" and t.seed in stage.seeds for t in theirs)
    narrowed = replace(stage, seeds=tuple(s for s in stage.seeds if s in common))
    a, b = stage_score(ours, narrowed), stage_score(theirs, narrowed)
    if not common or failed or a is None or b is None:
        return None
    pairs = paired_values(ours, theirs, stage.metric, narrowed.seeds)
    difference = paired_difference(*pairs, stage.higher_is_better, effect, family)
    return Comparison(entry.name, entry.candidate.id, b.mean, difference)


def array_summaries(arrays: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, object]]:
    """Shape, type and range of arrays: what a text can hold of them."""
    import numpy as np

    found: dict[str, dict[str, object]] = {}
    for name, values in arrays.items():
        said: dict[str, object] = {"shape": list(values.shape), "dtype": str(values.dtype)}
        if values.size and np.issubdtype(values.dtype, np.number):
            finite = values[np.isfinite(values)]
            said["not_finite"] = int(values.size - finite.size)
            if finite.size:
                said |= {"min": float(finite.min()), "max": float(finite.max()), "mean": float(finite.mean())}
        found[name] = said
    return found
