"""Means of metrics with their intervals, over seeds and by world, within what a metric can be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from db.measurements import Trials, is_mean_of, values_by_seed, values_by_world
from db.records import CampaignRecord, Entry, EntryFilter, TrialRecord
from discovery.contest import alike
from discovery.effects import effect_of, metrics_of
from discovery.statistics import UNLIMITED, Difference, Limits, mean_interval, paired_difference
from evaluators.base import MetricSpec

if TYPE_CHECKING:
    from db.archive import Archive
    from discovery.leaderboard import StageBoard


def limits_of(evaluator: str) -> Mapping[str, Limits]:
    """What each metric of an evaluator can be at least and at most, by name; nothing for one that is not installed."""
    return limits_in(metrics_of(evaluator).values())


def limits_in(metrics: Iterable[MetricSpec]) -> Mapping[str, Limits]:
    """The same of metrics at hand."""
    return {
        m.name: (-math.inf if m.lower is None else m.lower, math.inf if m.upper is None else m.upper) for m in metrics
    }


def metric_interval(trials: Sequence[TrialRecord], metric: str, limits: Mapping[str, Limits]) -> Difference:
    """Mean of a metric over finished trials: by seed and world where it is the mean of worlds, else by seed."""
    total = values_by_seed(trials, metric)
    worlds = values_by_world(trials, metric)
    return mean_interval(worlds if is_mean_of(total, worlds) else total, limits.get(metric, UNLIMITED))


def by_world(trials: Sequence[TrialRecord], metric: str, limits: Mapping[str, Limits]) -> dict[str, Difference]:
    """Mean of a metric over seeds in each world, with its interval, in the order of the reports; empty without worlds."""
    values = _by_world(values_by_world(trials, metric))
    return {w: mean_interval(v, limits.get(f"{metric}/{w}", UNLIMITED)) for w, v in values.items()}


@dataclass(frozen=True)
class Regime:
    """A loss in one world by itself.

    Attributes:
        world: its name.
        mean: over seeds, with its interval.
        difference: to `versus` there, paired by seed; None for that baseline itself or without a common seed.
    """

    world: str
    mean: Difference
    difference: Difference | None


@dataclass(frozen=True)
class Regimes:
    """A measurement of a loss by world. Each interval speaks for itself, not for all regimes at once.

    Attributes:
        evaluator, metric: what was measured: the metric that ranks, or the report's first.
        versus: the name of the leading baseline, of the loss's kind if there is one (`discovery.contest`).
        rows: in the order of the reports; empty where the evaluator reports no worlds.
    """

    evaluator: str
    metric: str
    versus: str | None
    rows: tuple[Regime, ...]


def regimes_of(archive: Archive, record: CampaignRecord, loss: Entry, group: Trials) -> Regimes | None:
    """One measurement of a candidate by world; None while no trial of it is finished. Raises ArchiveError."""
    done = [t for t in group.trials if t.status == "done" and t.metrics]
    if not done:
        return None
    named = {m.name: m.higher_is_better for m in done[0].metrics}
    evaluator, ranks = done[0].evaluator, record.ranking.metric
    metric = ranks if ranks in named else next(iter(named))
    means, ours = by_world(done, metric, limits_of(evaluator)), _by_world(values_by_world(done, metric))
    versus, theirs = _leading(archive, record, loss, group, metric) if means else (None, {})
    effect = effect_of(record, evaluator, group.ranks, metric, leads=True)
    compared = {w: _beside(ours[w], theirs.get(w, {}), named[metric], effect) for w in means}
    return Regimes(evaluator, metric, versus, tuple(Regime(w, mean, compared[w]) for w, mean in means.items()))


def _leading(
    archive: Archive, record: CampaignRecord, loss: Entry, group: Trials, metric: str
) -> tuple[str | None, dict[str, dict[int, float]]]:
    """The leading baseline that was measured there as well, of the loss's kind if there is one, and its values by world."""
    seeds = [t.seed for t in group.trials if t.status == "done"]
    baselines = archive.entries(record.id, EntryFilter(status="ranked", origin="known"))
    for known in sorted(baselines, key=lambda b: not alike(loss, b)):
        if known.candidate.id == loss.candidate.id:
            return None, {}
        values = archive.worlds(record.id, group.task_id, metric, seeds, [known.candidate.id])
        if known.candidate.id in values:
            return known.name, _by_world(values[known.candidate.id])
    return None, {}


@dataclass(frozen=True)
class InWorld:
    """A loss of a leaderboard in one world.

    Attributes:
        difference: to what it is compared with on the leaderboard, paired by seed, with an interval of its own: each speaks
            for itself, not for all regimes of all losses at once. None for a leading baseline.
        versus, alike: as on the leaderboard.
        privileged: the inputs that tell it more than labels do.
    """

    candidate_id: str
    name: str
    world: str
    mean: float
    difference: Difference | None
    versus: str | None = None
    alike: bool = True
    privileged: tuple[str, ...] = ()


def stage_worlds(stage: StageBoard) -> list[InWorld]:
    """Each ranked loss in each world, in the order of the ranking; empty where the evaluator reports no worlds."""
    baselines = {r.entry.name: r.entry.candidate.id for r in stage.rows if r.is_baseline}
    found = []
    for row in stage.rows:
        one, leading = row.entry.candidate.id, baselines.get(row.versus or "", "")
        for world, values in _by_world(stage.values.get(one, {})).items():
            theirs = _by_world(stage.values.get(leading, {})).get(world, {})
            compared = _beside(values, theirs, stage.higher_is_better, stage.minimum_effect)
            mean = math.fsum(values.values()) / len(values)
            kind = (row.versus, row.alike, row.entry.privileged)
            found.append(InWorld(one, row.entry.name, world, mean, compared, *kind))
    return found


def _beside(
    ours: Mapping[int, float], theirs: Mapping[int, float], higher_is_better: bool, effect: float
) -> Difference | None:
    if not ours.keys() & theirs.keys():
        return None
    return paired_difference(ours, theirs, higher_is_better, effect)


def _by_world(values: Mapping[tuple[int, str], float]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for (seed, world), value in values.items():
        found.setdefault(world, {})[seed] = value
    return found
