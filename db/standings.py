"""Keeping each candidate's place in its campaign up to date, within the transaction that changes it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from db.convert import failure_columns
from db.models import metrics, standings, trials
from db.records import Proposal, Ranking


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
        **failure_columns(proposal.failure),
    }
    if known is not None:
        connection.execute(sa.update(standings).where(key).values(values))
        return
    values |= {"campaign_id": campaign, "candidate_id": proposal.candidate.id, "trials_done": 0, "trials_failed": 0}
    connection.execute(sa.insert(standings).values(values))


def rescore(connection: Connection, campaign: int, candidate: str, ranking: Ranking) -> None:
    """Recompute one candidate's score from its trials."""
    values = sa.and_(metrics.c.trial_id == trials.c.id, metrics.c.name == ranking.metric)
    rows = connection.execute(
        sa.select(trials.c.seed, trials.c.status, trials.c.failure_kind, trials.c.failure_message, metrics.c.value)
        .select_from(trials.outerjoin(metrics, values))
        .where(
            trials.c.campaign_id == campaign,
            trials.c.task_id == ranking.task_id,
            trials.c.candidate_id == candidate,
            trials.c.status.in_(("done", "failed")),
        )
        .order_by(trials.c.seed)
    ).all()
    counted = [r for r in rows if ranking.seeds is None or r.seed in ranking.seeds]
    failed = [r for r in counted if r.status == "failed"]
    scores = [r.value for r in counted if r.status == "done" and r.value is not None]
    score = sum(scores) / len(scores) if scores and not failed else None
    turned = None if score is None else (-score if ranking.higher_is_better else score)
    changed = {
        "status": "failed" if failed else "accepted" if score is None else "ranked",
        "failure_kind": failed[0].failure_kind if failed else None,
        "failure_message": failed[0].failure_message if failed else None,
        "score": score,
        "sort_key": turned,
        "trials_done": len(counted) - len(failed),
        "trials_failed": len(failed),
    }
    # what the checks refused stays refused: it can have trials only from before, under another verdict
    where = sa.and_(_key(campaign, candidate), standings.c.status != "refused")
    connection.execute(sa.update(standings).where(where).values(changed))


def rescore_all(connection: Connection, campaign: int, ranking: Ranking) -> None:
    """Recompute a whole campaign, after what ranks it has changed."""
    ids = connection.execute(sa.select(standings.c.candidate_id).where(standings.c.campaign_id == campaign)).scalars()
    for candidate in list(ids):
        rescore(connection, campaign, candidate, ranking)


def _key(campaign: int, candidate: str) -> sa.ColumnElement[bool]:
    return sa.and_(standings.c.campaign_id == campaign, standings.c.candidate_id == candidate)
