"""The end of a campaign: each stage's ranking, with paired differences to the leading baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from db.archive import Archive
from db.measurements import is_mean_of
from db.records import Entry, Score, TrialRecord
from discovery.contest import competes
from discovery.ranking import Comparison, Row, columns_of, leaderboard, leading_of_each_kind, shown
from discovery.simultaneous import MOST, family_of
from discovery.statistics import ALONE, Family
from discovery.trials import Stage

TOP = 10


@dataclass(frozen=True)
class StageBoard:
    """One stage's ranking.

    Attributes:
        fresh: the search never saw these seeds or this task.
        minimum_effect: what counts as no difference.
        values: what differences pair, per (seed, world), by candidate id; without those whose evaluator reports no worlds.
    """

    title: str
    metric: str
    higher_is_better: bool
    seeds: tuple[int, ...]
    fresh: bool
    rows: tuple[Row, ...]
    minimum_effect: float = 0.0
    values: Mapping[str, Mapping[tuple[int, str], float]] = field(default_factory=dict)

    @property
    def family(self) -> Family:
        """The differences that the intervals hold for at once."""
        return next((row.difference.family for row in self.rows if row.difference is not None), ALONE)


@dataclass(frozen=True)
class Board:
    """All stages: the search first, then the promotions. `about_privileged`: whether such losses lead it."""

    campaign: str
    stages: tuple[StageBoard, ...]
    about_privileged: bool = False

    @property
    def leader(self) -> Entry | None:
        """The candidate with the leading mean of the last stage that ranked one, baselines aside; it need not be better.

        Of those that may lead: see `discovery.contest`.
        """
        for stage in reversed(self.stages):
            for row in stage.rows:
                if not row.is_baseline and competes(row.entry, self.about_privileged):
                    return row.entry
        return None


def stage_board(archive: Archive, campaign: int, stage: Stage, effect: float, fresh: bool) -> StageBoard:
    """Rank what was measured at one stage.

    Where the evaluator reports the metric per world (``metric/world``) and the metric is their mean, differences pair by
    (seed, world). What was promoted is few and is judged by itself on fresh seeds; a search compares all that it has tried.

    Raises:
        ArchiveError: the archive cannot be read.
    """
    whole = _complete(archive, campaign, stage)
    entries, baselines = _scored(archive, campaign, stage, whole)
    seen = [e.candidate.id for e in shown(entries, baselines, TOP)]
    finer = _by_world(archive, campaign, stage, whole, seen if len(whole) > MOST else None)
    rows = leaderboard(entries, baselines, Comparison(effect, finer, joint=not fresh), TOP)
    values = {one: finer[one] for one in seen if one in finer}
    return StageBoard(stage.key, stage.metric, stage.higher_is_better, stage.seeds, fresh, rows, effect, values)


def stage_family(archive: Archive, campaign: int, stage: Stage, fresh: bool) -> Family:
    """What the differences of a stage's leaderboard share: how wide the interval of one of them is wherever it is shown.

    Raises:
        ArchiveError: the archive cannot be read.
    """
    whole = _complete(archive, campaign, stage)
    entries, baselines = _scored(archive, campaign, stage, whole)
    if not baselines or len(entries) < 2:
        return ALONE
    if len(entries) > MOST:
        return family_of([], others=len(entries) - leading_of_each_kind(baselines))
    comparison = Comparison(0.0, _by_world(archive, campaign, stage, whole))
    return family_of(list(columns_of(entries, baselines, comparison).values()), joint=not fresh)


def _scored(
    archive: Archive, campaign: int, stage: Stage, whole: Mapping[str, Mapping[int, float]]
) -> tuple[list[Entry], list[Entry]]:
    """All that have finished a stage, with their scores there, and those of them that are baselines."""
    entries = []
    for entry in archive.entries(campaign):
        if (by_seed := whole.get(entry.candidate.id)) is not None:
            score = Score(stage.metric, stage.higher_is_better, by_seed)
            entries.append(replace(entry, score=score, failure=None))
    return entries, [e for e in entries if e.origin == "known"]


def _complete(archive: Archive, campaign: int, stage: Stage) -> dict[str, Mapping[int, float]]:
    """The values by seed of every candidate that has finished all of a stage's seeds, by id."""
    results = archive.results(campaign, stage.task.id, stage.metric, stage.seeds)
    return {
        one: result.by_seed
        for one, result in results.items()
        if result.failure is None and len(result.by_seed) == len(stage.seeds)
    }


def _by_world(
    archive: Archive,
    campaign: int,
    stage: Stage,
    whole: Mapping[str, Mapping[int, float]],
    only: Sequence[str] | None = None,
) -> dict[str, Mapping[tuple[int, str], float]]:
    """Their values by seed and world, of those whose metric is the mean of its worlds. `only`: of these; None for all."""
    found = archive.worlds(campaign, stage.task.id, stage.metric, stage.seeds, only)
    return {one: values for one, values in found.items() if one in whole and is_mean_of(whole[one], values)}


def stage_score(trials: Iterable[TrialRecord], stage: Stage) -> Score | None:
    """The score over all of the stage's seeds; None while one is missing or has failed."""
    done = {
        t.seed: next(m.value for m in t.metrics if m.name == stage.metric)
        for t in trials
        if t.status == "done" and t.seed in stage.seeds
    }
    if len(done) < len(stage.seeds):
        return None
    return Score(stage.metric, stage.higher_is_better, done)
