"""Keeping each candidate's place in its campaign up to date, within the transaction that changes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from db.convert import failure_columns
from db.models import means, metrics, standings, trials
from db.plain_sql import run_plain
from db.records import Proposal, Ranking
from db.types import RowId

# Built once: making a statement costs several times as much as running it, and these run for every trial.
_OUTCOMES = (
    sa.select(
        trials.c.id, trials.c.seed, trials.c.status, trials.c.failure_kind, trials.c.failure_message, trials.c.finished_at,
        metrics.c.value,
    )
    .select_from(
        trials.outerjoin(metrics, sa.and_(metrics.c.trial_id == trials.c.id, metrics.c.name == sa.bindparam("metric")))
    )
    .where(
        trials.c.campaign_id == sa.bindparam("campaign"),
        trials.c.task_id == sa.bindparam("task"),
        trials.c.candidate_id == sa.bindparam("candidate"),
        sa.or_(trials.c.status == "done", trials.c.status == "failed"),
    )
    .order_by(trials.c.seed)
)  # fmt: skip
_PLACE = (
    sa.update(standings)
    .where(
        standings.c.campaign_id == sa.bindparam("campaign"),
        standings.c.candidate_id == sa.bindparam("candidate"),
        # what the checks refused stays refused: it can have trials only from before, under another verdict
        standings.c.status != "refused",
    )
    .values(
        status=sa.bindparam("new_status"),
        failure_kind=sa.bindparam("new_failure_kind"),
        failure_message=sa.bindparam("new_failure_message"),
        score=sa.bindparam("new_score"),
        sort_key=sa.bindparam("new_sort_key"),
        trials_done=sa.bindparam("new_trials_done"),
        trials_failed=sa.bindparam("new_trials_failed"),
        measured_at=sa.bindparam("new_measured_at"),
    )
    .returning(standings.c.proposal_id)
)
_FORGET = sa.delete(means).where(means.c.proposal_id == sa.bindparam("proposal"))


def averages(trial_ids: Sequence[Any]) -> sa.Select[Any]:
    """Names and means of what these trials report, but not of the parts of metrics (see `db.selection.is_part`)."""
    of_them = sa.and_(metrics.c.trial_id.in_(trial_ids), metrics.c.name.not_like("%/%"))
    return sa.select(metrics.c.name, sa.func.avg(metrics.c.value)).where(of_them).group_by(metrics.c.name)


@lru_cache(maxsize=64)
def _remember(count: int) -> sa.Insert:
    """Stores the means of so many trials."""
    found = averages([sa.bindparam(f"trial_{i}", type_=RowId) for i in range(count)]).add_columns(
        sa.bindparam("proposal", type_=RowId), sa.bindparam("campaign", type_=RowId)
    )
    return sa.insert(means).from_select(["name", "value", "proposal_id", "campaign_id"], found)


def admit(connection: Connection, campaign: int, proposal_id: int, proposal: Proposal) -> None:
    """Enter a judged proposal's candidate; the first proposal of it stays, unless it was refused and this one is not."""
    assert proposal.candidate is not None
    key = _key(campaign, proposal.candidate.id)
    known = connection.execute(sa.select(standings.c.status).where(key)).scalar()
    if known is not None and (known != "refused" or proposal.failure is not None):
        return
    values: dict[str, Any] = {
        "proposal_id": proposal_id,
        "number": proposal.index,
        "origin": proposal.origin,
        "proposer": proposal.proposer,
        "status": "accepted" if proposal.failure is None else "refused",
        "privileged": " ".join(proposal.gate.privileged) if proposal.gate is not None else "",
        **failure_columns(proposal.failure),
    }
    if known is not None:
        connection.execute(sa.update(standings).where(key).values(values))
        return
    values |= {"campaign_id": campaign, "candidate_id": proposal.candidate.id, "trials_done": 0, "trials_failed": 0}
    connection.execute(sa.insert(standings).values(values))


@dataclass(frozen=True)
class Place:
    """What a standing says of its candidate's trials. `trials`: ids of those that the score is the mean of.

    Times are in the database's own form, in which they go back.
    """

    values: Mapping[str, Any]
    trials: Sequence[int]


def place_of(connection: Connection, campaign: int, candidate: str, ranking: Ranking) -> Place:
    """Computed from the trials; holds for any candidate that was not refused."""
    wanted = {"campaign": campaign, "task": ranking.task_id, "candidate": candidate, "metric": ranking.metric}
    rows = run_plain(connection, _OUTCOMES, wanted).all()
    counted = [r for r in rows if ranking.seeds is None or r.seed in ranking.seeds]
    failed = [r for r in counted if r.status == "failed"]
    scored = [r for r in counted if r.status == "done" and r.value is not None]
    score = sum(r.value for r in scored) / len(scored) if scored and not failed else None
    values = {
        "status": "failed" if failed else "accepted" if score is None else "ranked",
        "failure_kind": failed[0].failure_kind if failed else None,
        "failure_message": failed[0].failure_message if failed else None,
        "score": score,
        "sort_key": -score if score is not None and ranking.higher_is_better else score,
        "trials_done": len(counted) - len(failed),
        "trials_failed": len(failed),
        "measured_at": None if score is None else max(r.finished_at for r in scored),
    }
    return Place(values, [] if score is None else [r.id for r in scored])


def rescore(connection: Connection, campaign: int, candidate: str, ranking: Ranking) -> None:
    """Recompute one candidate's score from its trials."""
    place = place_of(connection, campaign, candidate, ranking)
    changed = {f"new_{name}": value for name, value in place.values.items()}
    proposal = run_plain(connection, _PLACE, {"campaign": campaign, "candidate": candidate, **changed}).scalar()
    if proposal is None:
        return
    run_plain(connection, _FORGET, {"proposal": proposal})
    if place.trials:
        ids = {f"trial_{i}": trial for i, trial in enumerate(place.trials)}
        run_plain(connection, _remember(len(ids)), {"proposal": proposal, "campaign": campaign, **ids})


def rescore_all(connection: Connection, campaign: int, ranking: Ranking) -> None:
    """Recompute a whole campaign, after what ranks it has changed."""
    ids = connection.execute(sa.select(standings.c.candidate_id).where(standings.c.campaign_id == campaign)).scalars()
    for candidate in list(ids):
        rescore(connection, campaign, candidate, ranking)


def _key(campaign: int, candidate: str) -> sa.ColumnElement[bool]:
    return sa.and_(standings.c.campaign_id == campaign, standings.c.candidate_id == candidate)
