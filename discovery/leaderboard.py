"""The end of a campaign: each stage's ranking, with paired differences to the leading baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from db.archive import Archive
from db.measurements import values_by_world
from db.records import Entry, Result, Score, TrialRecord
from discovery.contest import competes
from discovery.statistics import Comparison, Row, leaderboard
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

    Where the evaluator reports the metric per world (``metric/world``), differences pair by (seed, world).

    Raises:
        ArchiveError: the archive cannot be read.
    """
    results = archive.results(campaign, stage.task.id, stage.metric, stage.seeds)
    entries = []
    for entry in archive.entries(campaign):
        result = results.get(entry.candidate.id, Result({}))
        if result.failure is None and len(result.by_seed) == len(stage.seeds):
            score = Score(stage.metric, stage.higher_is_better, result.by_seed)
            entries.append(replace(entry, score=score, failure=None))
    baselines = [e for e in entries if e.origin == "known"]
    shown = [row.entry for row in leaderboard(entries, baselines, TOP)]
    values = {}
    for entry in shown:
        trials = archive.trials(entry.candidate.id, campaign=campaign, task=stage.task.id)
        if finer := values_by_world(trials, stage.metric, stage.seeds):
            values[entry.candidate.id] = finer
    rows = leaderboard(shown, baselines, TOP, Comparison(effect, values=values))
    return StageBoard(stage.key, stage.metric, stage.higher_is_better, stage.seeds, fresh, rows, effect, values)


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
