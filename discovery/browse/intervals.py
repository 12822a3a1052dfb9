"""Means of metrics with their intervals, over seeds and by world, within what a metric can be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from db.measurements import is_mean_of, values_by_seed, values_by_world
from db.records import TrialRecord
from discovery.statistics import UNLIMITED, Difference, Limits, mean_interval, paired_difference
from evaluators.base import MetricSpec
from evaluators.options import OptionsError
from evaluators.plugins import load_installed

if TYPE_CHECKING:
    from discovery.leaderboard import StageBoard


@lru_cache(maxsize=32)
def limits_of(evaluator: str) -> Mapping[str, Limits]:
    """What each metric of an evaluator can be at least and at most, by name; nothing for one that is not installed."""
    try:
        return limits_in(load_installed("evaluators", evaluator).metrics)
    except (
        OptionsError,
        ImportError,
        AttributeError,
        TypeError,
    ):  # whoever made the archive had it; its names tell nothing
        return {}


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
class InWorld:
    """A loss of a leaderboard in one world.

    `difference`: to the leading baseline there, paired by seed, with an interval of its own: each speaks for itself, not for
    all regimes of all losses at once. None for the leading baseline.
    """

    candidate_id: str
    name: str
    world: str
    mean: float
    difference: Difference | None


def stage_worlds(stage: StageBoard) -> list[InWorld]:
    """Each ranked loss in each world, in the order of the ranking; empty where the evaluator reports no worlds."""
    versus = next((r.versus for r in stage.rows if r.versus), None)
    leading = next((r.entry.candidate.id for r in stage.rows if r.is_baseline and r.entry.name == versus), "")
    found = []
    for row in stage.rows:
        one = row.entry.candidate.id
        for world, values in _by_world(stage.values.get(one, {})).items():
            theirs = _by_world(stage.values.get(leading, {})).get(world, {})
            compared = None
            if one != leading and values.keys() & theirs.keys():
                compared = paired_difference(values, theirs, stage.higher_is_better, stage.minimum_effect)
            found.append(InWorld(one, row.entry.name, world, math.fsum(values.values()) / len(values), compared))
    return found


def _by_world(values: Mapping[tuple[int, str], float]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for (seed, world), value in values.items():
        found.setdefault(world, {})[seed] = value
    return found
