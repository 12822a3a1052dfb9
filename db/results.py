"""What candidates' trials of one task gave, many candidates at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from db.convert import failure_of
from db.models import metrics, trials
from db.records import Result, Score
from sandbox.failure import Failure

_OUTCOME = (
    trials.c.candidate_id,
    trials.c.seed,
    trials.c.failure_kind,
    trials.c.failure_message,
    metrics.c.value,
    metrics.c.higher_is_better,
)


def load_results(
    connection: Connection,
    campaign: int,
    task_id: str,
    metric: str,
    seeds: Sequence[int] | None,
    only: Sequence[str] | None = None,
) -> tuple[dict[str, Result], bool]:
    """Results by candidate, and whether higher is better. `seeds`, `only`: None for all."""
    values = sa.and_(metrics.c.trial_id == trials.c.id, metrics.c.name == metric)
    query = (
        sa.select(*_OUTCOME)
        .select_from(trials.outerjoin(metrics, values))
        .where(
            trials.c.campaign_id == campaign,
            trials.c.task_id == task_id,
            trials.c.status.in_(("done", "failed")),
        )
        .order_by(trials.c.candidate_id, trials.c.seed)
    )
    if only is not None:
        query = query.where(trials.c.candidate_id.in_(only))
    wanted = None if seeds is None else set(seeds)
    by_seed: dict[str, dict[int, float]] = defaultdict(dict)
    failed: dict[str, Failure] = {}
    higher = True
    for row in connection.execute(query).mappings():
        candidate, seed, failure = row["candidate_id"], row["seed"], failure_of(row)
        if wanted is not None and seed not in wanted:
            continue
        if failure is not None:
            failed[candidate] = failure
        elif row["value"] is not None:
            by_seed[candidate][seed] = row["value"]
            higher = row["higher_is_better"]
    return {c: Result(by_seed[c], failed.get(c)) for c in dict.fromkeys([*by_seed, *failed])}, higher


def load_worlds(
    connection: Connection,
    campaign: int,
    task_id: str,
    metric: str,
    seeds: Sequence[int] | None,
    only: Sequence[str] | None = None,
) -> dict[str, dict[tuple[int, str], float]]:
    """A metric's values by candidate, then by seed and world in the order of the reports (``metric/world``).

    `seeds`, `only`: None for all.
    """
    prefix = metric + "/"
    query = (
        sa.select(trials.c.candidate_id, trials.c.seed, metrics.c.name, metrics.c.value)
        .select_from(trials.join(metrics, metrics.c.trial_id == trials.c.id))
        .where(
            trials.c.campaign_id == campaign,
            trials.c.task_id == task_id,
            trials.c.status == "done",
            metrics.c.name.startswith(prefix, autoescape=True),
        )
        .order_by(trials.c.candidate_id, trials.c.seed, metrics.c.position)
    )
    if only is not None:
        query = query.where(trials.c.candidate_id.in_(only))
    wanted = None if seeds is None else set(seeds)
    found: dict[str, dict[tuple[int, str], float]] = defaultdict(dict)
    for candidate, seed, name, value in connection.execute(query):
        if name.startswith(prefix) and (wanted is None or seed in wanted):  # LIKE may ignore case
            found[candidate][seed, name.removeprefix(prefix)] = value
    return dict(found)


def scores_of(metric: str, found: Mapping[str, Result], higher: bool) -> dict[str, Score]:
    """Of those without a failed seed."""
    return {c: Score(metric, higher, r.by_seed) for c, r in found.items() if r.by_seed and r.failure is None}
