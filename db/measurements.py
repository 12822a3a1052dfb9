"""A candidate's trials as measurements: by task and set of seeds, and what differences between candidates pair."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from db.records import Ranking, TrialRecord


@dataclass(frozen=True)
class TrialKey:
    """Which trial of a campaign."""

    task_id: str
    seed: int
    candidate_id: str


@dataclass(frozen=True)
class Trials:
    """One measurement of a candidate. `ranks`: the search ranked by it; `fresh`: the search's task on seeds it never saw."""

    task_id: str
    ranks: bool
    fresh: bool
    trials: tuple[TrialRecord, ...]


def by_measurement(trials: Iterable[TrialRecord], ranking: Ranking) -> list[Trials]:
    """A candidate's trials by task and set of seeds: what ranks first, then fresh seeds of that task, then other tasks."""
    groups: dict[tuple[str, bool], list[TrialRecord]] = {}
    for trial in trials:
        ranks = trial.task_id == ranking.task_id and (ranking.seeds is None or trial.seed in ranking.seeds)
        groups.setdefault((trial.task_id, ranks), []).append(trial)
    order = sorted(groups, key=lambda g: (not g[1], g[0] != ranking.task_id))
    return [
        Trials(task, ranks, task == ranking.task_id and not ranks, tuple(groups[task, ranks])) for task, ranks in order
    ]


def values_by_world(
    trials: Iterable[TrialRecord], metric: str, seeds: Sequence[int] | None = None
) -> dict[tuple[int, str], float]:
    """A metric's values by seed and world in finished trials, where they report it per world (``metric/world``).

    `seeds`: those that count; None for all.
    """
    prefix = metric + "/"
    return {
        (t.seed, m.name.removeprefix(prefix)): m.value
        for t in _counted(trials, seeds)
        for m in t.metrics
        if m.name.startswith(prefix)
    }


def values_by_seed(trials: Iterable[TrialRecord], metric: str, seeds: Sequence[int] | None = None) -> dict[int, float]:
    """The same of the metric itself."""
    return {t.seed: m.value for t in _counted(trials, seeds) for m in t.metrics if m.name == metric}


def paired_values(
    ours: Sequence[TrialRecord], theirs: Sequence[TrialRecord], metric: str, seeds: Sequence[int]
) -> tuple[Mapping[Any, float], Mapping[Any, float]]:
    """What a difference of two candidates pairs: values by seed and world if the metric is their mean, else by seed."""
    x, y = (values_by_world(trials, metric, seeds) for trials in (ours, theirs))
    of_x, of_y = (values_by_seed(trials, metric, seeds) for trials in (ours, theirs))
    return (x, y) if is_mean_of(of_x, x) and is_mean_of(of_y, y) else (of_x, of_y)


def is_mean_of(total: Mapping[int, float], worlds: Mapping[tuple[int, str], float]) -> bool:
    """Whether each seed's value is the plain mean of the same worlds: then the worlds say how sure it is."""
    parts: dict[int, dict[str, float]] = {}
    for (seed, world), value in worlds.items():
        parts.setdefault(seed, {})[world] = value
    return (
        bool(total)
        and parts.keys() == total.keys()
        and len({frozenset(p) for p in parts.values()}) == 1
        and all(math.isclose(math.fsum(p.values()) / len(p), total[s], abs_tol=1e-9) for s, p in parts.items())
    )


def _counted(trials: Iterable[TrialRecord], seeds: Sequence[int] | None) -> Iterable[TrialRecord]:
    return (t for t in trials if t.status == "done" and (seeds is None or t.seed in seeds))
