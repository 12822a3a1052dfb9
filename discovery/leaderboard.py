"""The end of a campaign: each stage's ranking, with paired differences to the leading baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from db.archive import Archive
from db.measurements import is_mean_of
from db.records import Entry, EntryFilter, Score, TrialRecord
from discovery.ranking import Comparison, Row, leaderboard
from discovery.simultaneous import family_of
from discovery.statistics import ALONE, Family, pairs_of
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
    """All stages: the search first, then the promotions."""

    campaign: str
    stages: tuple[StageBoard, ...]

    @property
    def leader(self) -> Entry | None:
        """The candidate with the leading mean of the last stage that ranked one, baselines aside; it need not be better."""
        for stage in reversed(self.stages):
            for row in stage.rows:
                if not row.is_baseline:
                    return row.entry
        return None


def stage_board(archive: Archive, campaign: int, stage: Stage, effect: float, fresh: bool) -> StageBoard:
    """Rank what was measured at one stage.

    Where the evaluator reports the metric per world (``metric/world``) and the metric is their mean, differences pair by
    (seed, world). What was promoted is few and is judged by itself on fresh seeds; a search compares all that it has tried.

    Raises:
        ArchiveError: the archive cannot be read.
    """
    values = _Values.at(archive, campaign, stage)
    entries = []
    for entry in archive.entries(campaign):
        if (by_seed := values.by_seed.get(entry.candidate.id)) is not None:
            score = Score(stage.metric, stage.higher_is_better, by_seed)
            entries.append(replace(entry, score=score, failure=None))
    baselines = [e for e in entries if e.origin == "known"]
    rows = leaderboard(entries, baselines, Comparison(effect, values.by_world, joint=not fresh), TOP)
    shown = {row.entry.candidate.id for row in rows}
    finer = {one: found for one, found in values.by_world.items() if one in shown}
    return StageBoard(stage.key, stage.metric, stage.higher_is_better, stage.seeds, fresh, rows, effect, finer)


def stage_family(archive: Archive, campaign: int, stage: Stage, fresh: bool) -> Family:
    """What the differences of a stage's leaderboard share: how wide the interval of one of them is wherever it is shown.

    Raises:
        ArchiveError: the archive cannot be read.
    """
    values = _Values.at(archive, campaign, stage)
    known = [e.candidate.id for e in archive.entries(campaign, EntryFilter(origin="known"))]
    sign = 1 if stage.higher_is_better else -1
    means = {k: sign * Score(stage.metric, True, values.by_seed[k]).mean for k in known if k in values.by_seed}
    if not means:
        return ALONE
    leading = max(means, key=means.__getitem__)
    others = (one for one in values.by_seed if one != leading)
    columns = [pairs_of(*values.of(one, leading)) for one in others]
    return family_of(columns, joint=not fresh) if columns else ALONE


@dataclass(frozen=True)
class _Values:
    """Of every candidate that has finished all of a stage's seeds: by seed, and by seed and world where it has worlds."""

    by_seed: Mapping[str, Mapping[int, float]]
    by_world: Mapping[str, Mapping[tuple[int, str], float]]

    @classmethod
    def at(cls, archive: Archive, campaign: int, stage: Stage) -> _Values:
        results = archive.results(campaign, stage.task.id, stage.metric, stage.seeds)
        whole = {
            one: result.by_seed
            for one, result in results.items()
            if result.failure is None and len(result.by_seed) == len(stage.seeds)
        }
        worlds = archive.worlds(campaign, stage.task.id, stage.metric, stage.seeds)
        return cls(whole, {one: v for one, v in worlds.items() if one in whole and is_mean_of(whole[one], v)})

    def of(self, one: str, other: str) -> tuple[Mapping[Any, float], Mapping[Any, float]]:
        """What a difference of two candidates pairs."""
        if one in self.by_world and other in self.by_world:
            return self.by_world[one], self.by_world[other]
        return self.by_seed[one], self.by_seed[other]


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
