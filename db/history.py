"""What happened in a campaign: outcomes by proposer, time on machines, scores and events in the order of time."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from db.convert import failure_of, privileged_of
from db.measurements import TrialKey
from db.models import attempts, campaigns, metrics, proposals, standings, tasks, trials
from db.records import DeviceTime, Happening, OutcomeCount, RunningTrial, Scored
from db.session import CampaignRef, Session
from sandbox.failure import FailureKind


class Histories(Session):
    """Reading what happened. Each call is one consistent snapshot and raises ArchiveError."""

    def outcomes(self, campaign: CampaignRef) -> list[OutcomeCount]:
        """All judged proposals, known objectives among them, counted by what they have in common."""
        columns = (
            proposals.c.proposer,
            proposals.c.reply_model.label("model"),
            proposals.c.origin,
            proposals.c.failure_kind.label("failure"),
            _copies().label("copies"),
            standings.c.status,
        )
        sums = (
            sa.func.count().label("count"),
            sa.func.coalesce(sa.func.sum(proposals.c.prompt_tokens), 0).label("prompt_tokens"),
            sa.func.coalesce(sa.func.sum(proposals.c.completion_tokens), 0).label("completion_tokens"),
            sa.func.sum(proposals.c.reply_cost).label("cost"),
        )
        mine = standings.c.proposal_id == proposals.c.id
        with self._read() as connection:
            ours_id = self._campaign(connection, campaign)
            ours = proposals.c.campaign_id == ours_id
            twins = sa.and_(_TWIN.c.campaign_id == ours_id, _TWIN.c.candidate_id == proposals.c.duplicate_of)
            query = sa.select(*columns, *sums).select_from(proposals.outerjoin(standings, mine).outerjoin(_TWIN, twins))
            query = query.where(ours, proposals.c.state == "judged").group_by(*columns).order_by(*columns)
            rows = connection.execute(query).mappings().all()
        tokens = ("prompt_tokens", "completion_tokens")
        return [OutcomeCount(**{**r, **{name: int(r[name]) for name in tokens}}) for r in rows]

    def device_times(self, campaign: CampaignRef) -> list[DeviceTime]:
        """How long trials held a worker, over all tasks, those that failed or were lost among them."""
        with self._read() as connection:
            # by status first, as the index has them
            query = sa.select(trials.c.status, trials.c.device, sa.func.count(), sa.func.sum(trials.c.seconds))
            query = query.where(trials.c.campaign_id == self._campaign(connection, campaign))
            rows = connection.execute(query.group_by(trials.c.status, trials.c.device)).all()
        ended: dict[str, int] = defaultdict(int)
        seconds: dict[str, float] = defaultdict(float)
        for status, device, count, took in rows:
            ended[device or "unknown"] += count if status in ("done", "failed") else 0
            seconds[device or "unknown"] += took
        return [DeviceTime(device, ended[device], seconds[device]) for device in sorted(seconds) if seconds[device]]

    def scored(self, campaign: CampaignRef) -> list[Scored]:
        """All ranked candidates in the order in which the last of their seeds was measured."""
        named = (
            standings.c.candidate_id, proposals.c.name, standings.c.origin, standings.c.proposer, standings.c.score,
            standings.c.privileged,
        )  # fmt: skip
        with self._read() as connection:
            query = (
                sa.select(standings.c.measured_at.label("at"), *named)
                .join_from(standings, proposals, proposals.c.id == standings.c.proposal_id)
                .where(standings.c.campaign_id == self._campaign(connection, campaign))
                .where(standings.c.measured_at.is_not(None), standings.c.score.is_not(None))
                .order_by(standings.c.measured_at, standings.c.number)
            )
            return [Scored(*row[:-1], privileged=privileged_of(row.privileged)) for row in connection.execute(query)]

    def running(self, campaign: CampaignRef) -> list[RunningTrial]:
        """Trials that are running, the longest first."""
        of_it = sa.and_(
            standings.c.campaign_id == trials.c.campaign_id, standings.c.candidate_id == trials.c.candidate_id
        )
        now = sa.and_(attempts.c.trial_id == trials.c.id, attempts.c.number == trials.c.attempts)
        with self._read() as connection:
            query = (
                sa.select(
                    trials.c.candidate_id, proposals.c.name, trials.c.seed, tasks.c.evaluator, attempts.c.worker,
                    attempts.c.started_at.label("since"),
                )
                .join_from(trials, attempts, now)
                .join(tasks, tasks.c.id == trials.c.task_id)
                .join(standings, of_it)
                .join(proposals, proposals.c.id == standings.c.proposal_id)
                .where(trials.c.campaign_id == self._campaign(connection, campaign), trials.c.status == "running")
                .order_by(attempts.c.started_at, trials.c.id)
            )  # fmt: skip
            return [RunningTrial(**r) for r in connection.execute(query).mappings()]

    def seeds(self, campaign: CampaignRef, task_id: str) -> tuple[int, ...]:
        """Seeds on which anything was tried on a task, in order."""
        with self._read() as connection:
            ours = trials.c.campaign_id == self._campaign(connection, campaign), trials.c.task_id == task_id
            query = sa.select(trials.c.seed).where(*ours).distinct().order_by(trials.c.seed)
            return tuple(connection.execute(query).scalars())

    def beyond_ranking(self, campaign: CampaignRef) -> list[TrialKey]:
        """Trials that the campaign does not rank by, on other tasks or seeds, in the order in which they were made."""
        with self._read() as connection:
            ours = self._campaign(connection, campaign)
            ranking = self._ranking(connection, ours)
            ranks = trials.c.task_id == ranking.task_id
            if ranking.seeds is not None:
                ranks &= trials.c.seed.in_(ranking.seeds)
            query = sa.select(trials.c.task_id, trials.c.seed, trials.c.candidate_id)
            rows = connection.execute(
                query.where(trials.c.campaign_id == ours, ~ranks).order_by(trials.c.id)
            ).mappings()
            return [TrialKey(**row) for row in rows]

    def happenings(self, campaign: CampaignRef, since: datetime | None = None, limit: int = 1000) -> list[Happening]:
        """The newest `limit` verdicts and as many trials that ended, of those from `since` on, in the order of time."""
        with self._read() as connection:
            ours = self._campaign(connection, campaign)
            found = [
                Happening(**_common(row), key=f"verdict {row['id']}")
                for row in connection.execute(_verdicts(ours, since, limit)).mappings()
            ]
            for row in connection.execute(_ended(ours, since, limit)).mappings():
                of_trial = {name: row[name] for name in ("seed", "value", "evaluator")}
                of_trial |= {"privileged": privileged_of(row["privileged"])}
                metric = None if row["ranks"] else row["metric"]
                found.append(Happening(**_common(row), **of_trial, metric=metric, key=f"trial {row['id']}"))
        return sorted(found, key=lambda h: (h.at, h.key))


_TWIN = standings.alias("twin")  # of a duplicate: the candidate of the same campaign that it is a copy of


def _copies() -> sa.ColumnElement[str | None]:
    """``own`` for a copy of a loss that was proposed or imported before, ``known`` for one of a known loss."""
    own = sa.and_(_TWIN.c.candidate_id.is_not(None), _TWIN.c.origin != "known")
    is_copy = proposals.c.failure_kind == str(FailureKind.DUPLICATE)
    return sa.case((~is_copy, None), (proposals.c.failure_kind.is_(None), None), (own, "own"), else_="known")


def _common(row: RowMapping) -> dict[str, Any]:
    same = ("at", "candidate_id", "name", "origin", "proposer")
    return {name: row[name] for name in same} | {"failure": failure_of(row)}


def _verdicts(campaign: int, since: datetime | None, limit: int) -> sa.Select[Any]:
    at = proposals.c.judged_at
    query = sa.select(
        at.label("at"), proposals.c.id, proposals.c.candidate_id, proposals.c.name, proposals.c.origin,
        proposals.c.proposer, proposals.c.failure_kind, proposals.c.failure_message,
    ).where(proposals.c.campaign_id == campaign, proposals.c.state == "judged")  # fmt: skip
    query = query if since is None else query.where(at >= since)
    return query.order_by(at.desc(), proposals.c.id.desc()).limit(limit)


def _ended(campaign: int, since: datetime | None, limit: int) -> sa.Select[Any]:
    at = trials.c.finished_at
    ranking, first = metrics.alias("ranking"), metrics.alias("first")
    ranks = sa.and_(trials.c.task_id == campaigns.c.task_id, ranking.c.name.is_not(None))
    of_it = sa.and_(standings.c.campaign_id == trials.c.campaign_id, standings.c.candidate_id == trials.c.candidate_id)
    query = (
        sa.select(
            at.label("at"), trials.c.id, trials.c.candidate_id, proposals.c.name, proposals.c.origin,
            proposals.c.proposer, trials.c.seed, trials.c.failure_kind, trials.c.failure_message, tasks.c.evaluator,
            standings.c.privileged,
            sa.func.coalesce(ranking.c.value, first.c.value).label("value"),
            sa.func.coalesce(ranking.c.name, first.c.name).label("metric"), ranks.label("ranks"),
        )
        .join_from(trials, campaigns, campaigns.c.id == trials.c.campaign_id)
        .join(tasks, tasks.c.id == trials.c.task_id)
        .join(standings, of_it)
        .join(proposals, proposals.c.id == standings.c.proposal_id)
        .outerjoin(ranking, sa.and_(ranking.c.trial_id == trials.c.id, ranking.c.name == campaigns.c.metric))
        .outerjoin(first, sa.and_(first.c.trial_id == trials.c.id, first.c.position == 0))
        .where(trials.c.campaign_id == campaign, trials.c.status.in_(("done", "failed")), at.is_not(None))
    )  # fmt: skip
    query = query if since is None else query.where(at >= since)
    return query.order_by(at.desc(), trials.c.id.desc()).limit(limit)
