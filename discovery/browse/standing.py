"""Where a campaign stands, from what its archive holds alone: whoever made it does not choose what is imported here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from db.measurements import TrialKey
from db.records import CampaignRecord
from discovery.contest import contest_of
from discovery.effects import effect_in, sections
from discovery.leaderboard import Board, stage_board
from discovery.trials import Stage

if TYPE_CHECKING:
    from db.archive import Archive
    from db.session import CampaignRef


def board(archive: Archive, campaign: CampaignRef) -> Board:
    """The leaderboards of the search and of each promotion, as the run showed them at its end. Raises ArchiveError.

    A promotion is known by its trials: those on one task, on seeds that the search does not rank by, of the same losses.
    """
    record = archive.campaign(campaign)
    stages = []
    for number, stage in enumerate([_search(archive, record), *_promotions(archive, record)]):
        stages.append(stage_board(archive, record.id, stage, _effect(record, stage, number), fresh=number > 0))
    return Board(record.name, tuple(stages), contest_of(archive, record.id))


def _search(archive: Archive, record: CampaignRecord) -> Stage:
    ranking = record.ranking
    seeds = ranking.seeds if ranking.seeds is not None else archive.seeds(record.id, ranking.task_id)
    return Stage("search", archive.task(ranking.task_id).task, ranking.metric, ranking.higher_is_better, tuple(seeds))


def _promotions(archive: Archive, record: CampaignRecord) -> Iterator[Stage]:
    """In the order in which they began."""
    by_seed: dict[tuple[str, int], list[TrialKey]] = defaultdict(list)
    for key in archive.beyond_ranking(record.id):
        by_seed[key.task_id, key.seed].append(key)
    groups: dict[tuple[str, frozenset[str]], list[int]] = defaultdict(list)
    for (task, seed), keys in by_seed.items():  # in the order of their first trials
        groups[task, frozenset(k.candidate_id for k in keys)].append(seed)
    for number, ((task, candidates), seeds) in enumerate(groups.items(), 1):
        metric = _metric(archive, record, task, next(iter(candidates)))
        if metric is not None:
            yield Stage(f"promotion {number}", archive.task(task).task, *metric, tuple(sorted(seeds)))


def _metric(archive: Archive, record: CampaignRecord, task: str, candidate: str) -> tuple[str, bool] | None:
    """Name and direction: what the settings name, if the task reports it, else its first; None while nothing is done."""
    done = next((t for t in archive.trials(candidate, record.id, task) if t.status == "done" and t.metrics), None)
    if done is None:
        return None
    wanted = [section.get("metric") for section in sections(record)[1:]]
    chosen = next((m for m in done.metrics if m.name in wanted), done.metrics[0])
    return chosen.name, chosen.higher_is_better


def _effect(record: CampaignRecord, stage: Stage, number: int) -> float:
    found = sections(record)
    return effect_in(found[number] if number < len(found) else {}, stage.task.evaluator, stage.metric)
