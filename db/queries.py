"""Reading campaigns, proposals, trials and arrays."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection, RowMapping

from db import lease as leasing
from db.arrays import ARRAYS_SCHEMA, BROKEN, fingerprint_table, unpack_arrays
from db.convert import candidate_of, failure_of, fingerprint_of, gate_of, probe_of, reply_of
from db.endings import ending_of
from db.errors import ArchiveError
from db.messages import Prompt, PromptPart
from db.models import (
    campaigns,
    candidates,
    metrics,
    prompt_links,
    prompt_parts,
    proposal_parents,
    proposals,
    requests,
    standings,
    tasks,
    trial_arrays,
    trials,
)
from db.records import CampaignRecord, Proposal, TaskRecord, Totals, TrialRecord
from db.session import CHUNK, CampaignRef, Session, now, ranking_of
from evaluators.base import Metric, Provenance, Task


class Queries(Session):
    """Reading everything but ranked listings. Each call is one consistent snapshot and raises ArchiveError."""

    def campaigns(self) -> list[CampaignRecord]:
        """All campaigns with their counts, oldest first."""
        with self._read() as connection:
            return _campaign_records(connection, sa.true())

    def campaign(self, ref: CampaignRef) -> CampaignRecord:
        """One campaign by id or name; an unknown one raises ArchiveError with the nearest name."""
        with self._read() as connection:
            return _campaign_records(connection, campaigns.c.id == self._campaign(connection, ref))[0]

    def task(self, task_id: str) -> TaskRecord:
        """A task with its data's provenance and what preparing it measured."""
        with self._read() as connection:
            row = connection.execute(sa.select(tasks).where(tasks.c.id == task_id)).mappings().first()
        if row is None:
            raise ArchiveError(f"{self.url} does not know the task {task_id}")
        data = Provenance(row["source"], row["licence"], row["data_sha256"])
        return TaskRecord(Task(row["evaluator"], row["version"], row["options"], data), row["facts"] or {})

    def proposals(self, campaign: CampaignRef) -> list[Proposal]:
        """All proposals of a campaign by index. Prompts are loaded for those not judged; for others see `prompt`."""
        with self._read() as connection:
            where = proposals.c.campaign_id == self._campaign(connection, campaign)
            return _load_proposals(connection, where, with_prompts=proposals.c.state == "replied")

    def open_proposals(self, campaign: CampaignRef) -> list[Proposal]:
        """Replies that were stored but not judged when the driver stopped, by index."""
        with self._read() as connection:
            where = sa.and_(
                proposals.c.campaign_id == self._campaign(connection, campaign), proposals.c.state == "replied"
            )
            return _load_proposals(connection, where, with_prompts=sa.true())

    def proposal_of(self, candidate_id: str, campaign: CampaignRef | None = None) -> Proposal:
        """The proposal that a candidate's entry stands for, with prompt and reply; None means its newest campaign."""
        with self._read() as connection:
            ours = None if campaign is None else self._campaign(connection, campaign)
            found = self._candidate(connection, candidate_id, ours)
            query = sa.select(standings.c.proposal_id).where(standings.c.candidate_id == found)
            if ours is not None:
                query = query.where(standings.c.campaign_id == ours)
            row = connection.execute(query.order_by(standings.c.campaign_id.desc()).limit(1)).first()
            if row is None:
                raise ArchiveError(f"candidate {found[:10]} has no proposal in campaign {campaign!r} of {self.url}")
            return _load_proposals(connection, proposals.c.id == row.proposal_id, with_prompts=sa.true())[0]

    def prompt(self, proposal_id: int) -> Prompt | None:
        """What a proposal's proposer was sent; None if nobody was asked."""
        with self._read() as connection:
            query = sa.select(proposals.c.prompt_id).where(proposals.c.id == proposal_id)
            row = connection.execute(query).first()
            if row is None:
                raise ArchiveError(f"{self.url} has no proposal {proposal_id}")
            return None if row.prompt_id is None else _load_prompts(connection, [row.prompt_id])[row.prompt_id]

    def parameters(self, candidate_id: str) -> tuple[str, ...]:
        """The contract inputs that a candidate reads, as the gate found them; empty if it never passed the gate."""
        with self._read() as connection:
            query = sa.select(candidates.c.parameters).where(candidates.c.id == candidate_id)
            row = connection.execute(query).first()
        if row is None:
            raise ArchiveError(f"{self.url} has no candidate {candidate_id!r}")
        return tuple(row.parameters)

    def trials(
        self, candidate_id: str, campaign: CampaignRef | None = None, task: str | None = None
    ) -> list[TrialRecord]:
        """A candidate's trials with their metrics, by campaign, evaluator, task and seed."""
        with self._read() as connection:
            where = [trials.c.candidate_id == candidate_id]
            if campaign is not None:
                where.append(trials.c.campaign_id == self._campaign(connection, campaign))
            if task is not None:
                where.append(trials.c.task_id == task)
            return _load_trials(connection, sa.and_(*where))

    def arrays(self, trial_id: int) -> dict[str, NDArray[Any]]:
        """A trial's arrays by name; empty if it reported none. What each holds is in its evaluator's `arrays_doc`.

        Where a trial was stored with less than its evaluator reported (`db.arrays.kept_arrays`), ``NAME.at`` says which
        points of the last axis of ``NAME`` are there.
        """
        with self._read() as connection:
            row = connection.execute(sa.select(trial_arrays).where(trial_arrays.c.trial_id == trial_id)).first()
        if row is None:
            return {}
        if row.schema != ARRAYS_SCHEMA:
            raise ArchiveError(f"the arrays of trial {trial_id} have schema {row.schema}; this program reads 1")
        try:
            return unpack_arrays(row.data)
        except BROKEN as error:
            raise ArchiveError(
                f"the arrays of trial {trial_id} of {self.url} are damaged, or none: restore a backup"
            ) from error

    def fingerprints(self, campaign: CampaignRef) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Ids of a campaign's accepted candidates and their fingerprints, (candidates, rows, columns) float64.

        Rows and columns are the same for all candidates of one contract. NaN marks a non-finite entry.
        """
        with self._read() as connection:
            rows = connection.execute(
                sa.select(candidates.c.id, candidates.c.fingerprint, candidates.c.fingerprint_rows)
                .join(standings, standings.c.candidate_id == candidates.c.id)
                .where(
                    standings.c.campaign_id == self._campaign(connection, campaign),
                    standings.c.status != "refused",
                    candidates.c.fingerprint.is_not(None),
                )
                .order_by(standings.c.number)
            ).all()
            tables = [fingerprint_table(r.fingerprint, r.fingerprint_rows) for r in rows]
            return tuple(r.id for r in rows), np.stack(tables) if tables else np.empty((0, 0, 0))

    def totals(self, campaign: CampaignRef) -> Totals:
        """What a campaign cost and where it went."""
        with self._read() as connection:
            ours = self._campaign(connection, campaign)
            failures: dict[str, int] = defaultdict(int)
            asked = connection.execute(
                sa.select(
                    proposals.c.failure_kind,
                    sa.func.count().label("all"),
                    sa.func.count().filter(proposals.c.state == "replied").label("unjudged"),
                    sa.func.coalesce(sa.func.sum(proposals.c.prompt_tokens), 0).label("prompt_tokens"),
                    sa.func.coalesce(sa.func.sum(proposals.c.completion_tokens), 0).label("completion_tokens"),
                    sa.func.sum(proposals.c.reply_cost).label("cost"),
                )
                .where(proposals.c.campaign_id == ours)
                .group_by(proposals.c.failure_kind)
            ).all()
            accepted = connection.execute(
                sa.select(sa.func.count()).where(standings.c.campaign_id == ours, standings.c.status != "refused")
            ).scalar_one()
            in_training = sa.select(trials.c.failure_kind, sa.func.count().label("all")).where(
                trials.c.campaign_id == ours, trials.c.status == "failed"
            )
            for row in (*asked, *connection.execute(in_training.group_by(trials.c.failure_kind))):
                if row.failure_kind is not None:
                    failures[row.failure_kind] += int(row.all)
            by_status = sa.select(trials.c.status, sa.func.count(), sa.func.sum(trials.c.attempts))
            counts = connection.execute(by_status.where(trials.c.campaign_id == ours).group_by(trials.c.status)).all()
            statuses = {str(name): int(count) for name, count, _ in counts}
            most = sa.func.coalesce(sa.func.sum(requests.c.prompt_tokens + requests.c.completion_tokens), 0)
            dearest = sa.func.coalesce(sa.func.sum(requests.c.cost), 0.0)
            lost = sa.select(sa.func.count(), most, dearest).where(requests.c.campaign_id == ours, requests.c.lost)
            lost_requests, lost_tokens, lost_cost = connection.execute(lost).one()
            return Totals(
                proposals=sum(int(a.all) for a in asked),
                unjudged=sum(int(a.unjudged) for a in asked),
                accepted=int(accepted),
                prompt_tokens=sum(int(a.prompt_tokens) for a in asked),
                completion_tokens=sum(int(a.completion_tokens) for a in asked),
                attempts=sum(int(tried) for _, _, tried in counts),
                failures=dict(failures),
                trials=statuses,
                lost_requests=int(lost_requests),
                lost_tokens=int(lost_tokens),
                cost=None if all(a.cost is None for a in asked) else sum(a.cost or 0.0 for a in asked),
                lost_cost=float(lost_cost),
            )


def chunks(ids: Iterable[Any]) -> Iterable[Sequence[Any]]:
    """Pieces small enough for one IN list."""
    every = list(ids)
    return (every[i : i + CHUNK] for i in range(0, len(every), CHUNK))


def load_parents(connection: Connection, proposal_ids: Iterable[int]) -> Mapping[int, tuple[str, ...]]:
    """Parents by proposal id, in order."""
    found: dict[int, list[str]] = defaultdict(list)
    table = proposal_parents.c
    for some in chunks(proposal_ids):
        query = sa.select(table.proposal_id, table.parent_id).where(table.proposal_id.in_(some))
        for row in connection.execute(query.order_by(table.proposal_id, table.position)):
            found[row.proposal_id].append(row.parent_id)
    return {proposal: tuple(parents) for proposal, parents in found.items()}


def _campaign_records(connection: Connection, where: sa.ColumnElement[bool]) -> list[CampaignRecord]:
    def count(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
        query = sa.select(sa.func.count()).select_from(table).where(table.c.campaign_id == campaigns.c.id, *conditions)
        return query.correlate(campaigns).scalar_subquery()

    query = sa.select(
        campaigns,
        tasks.c.evaluator,
        count(proposals).label("proposals"),
        count(standings, standings.c.status != "refused").label("candidates"),
        count(trials, trials.c.status == "done").label("trials_done"),
        count(trials, trials.c.status == "failed").label("trials_failed"),
        count(standings, standings.c.unconfined).label("unconfined"),
    ).join(tasks, tasks.c.id == campaigns.c.task_id)
    rows = connection.execute(query.where(where).order_by(campaigns.c.id)).mappings()
    same = ("id", "name", "config", "evaluator", "created_at", "finished_at")
    counts = ("proposals", "candidates", "trials_done", "trials_failed", "unconfined")
    return [
        CampaignRecord(
            ranking=ranking_of(r),
            status=_status(connection, r),
            ended=ending_of(r["end_reason"], r["end_detail"]),
            **{name: r[name] for name in same + counts},
        )
        for r in rows.all()
    ]


def _status(connection: Connection, campaign: RowMapping) -> str:
    """The stored one, unless it says that somebody drives the campaign and nobody does."""
    if campaign["status"] != "running":
        return str(campaign["status"])
    lease = leasing.find(connection, campaign["id"])
    if lease is None or lease.is_free:
        return "abandoned"
    return "silent" if lease.is_silent(now()) else "running"


def _load_prompts(connection: Connection, ids: Iterable[int]) -> dict[int, Prompt]:
    parts: dict[int, list[PromptPart]] = {i: [] for i in ids}
    for some in chunks(parts):
        query = (
            sa.select(prompt_links.c.prompt_id, prompt_parts.c.role, prompt_parts.c.text)
            .join(prompt_parts, prompt_parts.c.sha256 == prompt_links.c.part_sha256)
            .where(prompt_links.c.prompt_id.in_(some))
            .order_by(prompt_links.c.prompt_id, prompt_links.c.position)
        )
        for row in connection.execute(query):
            parts[row.prompt_id].append(PromptPart(row.role, row.text))
    return {i: Prompt(tuple(p)) for i, p in parts.items()}


_CANDIDATE = (
    candidates.c.contract,
    candidates.c.source,
    candidates.c.source_bytes,
    candidates.c.gate,
    candidates.c.probe,
    candidates.c.fingerprint,
    candidates.c.fingerprint_rows,
)


def _load_proposals(
    connection: Connection, where: sa.ColumnElement[bool], with_prompts: sa.ColumnElement[bool]
) -> list[Proposal]:
    joined = proposals.outerjoin(candidates, candidates.c.id == proposals.c.candidate_id)
    query = sa.select(proposals, *_CANDIDATE).select_from(joined).where(where).order_by(proposals.c.number)
    rows = connection.execute(query).mappings().all()
    parents = load_parents(connection, [r["id"] for r in rows])
    wanted = connection.execute(
        sa.select(proposals.c.id, proposals.c.prompt_id).where(where, with_prompts, proposals.c.prompt_id.is_not(None))
    ).all()
    texts = _load_prompts(connection, {w.prompt_id for w in wanted})
    prompts_of = {w.id: texts[w.prompt_id] for w in wanted}
    return [_proposal(r, parents.get(r["id"], ()), prompts_of.get(r["id"])) for r in rows]


def _proposal(row: RowMapping, parents: tuple[str, ...], prompt: Prompt | None) -> Proposal:
    same = ("origin", "proposer", "name", "thought", "repair_of", "duplicate_of", "id", "created_at")
    has_candidate = row["candidate_id"] is not None
    return Proposal(
        index=row["number"],
        parents=parents,
        prompt=prompt,
        reply=reply_of(row),
        candidate=candidate_of(row) if has_candidate else None,
        gate=gate_of(row["gate"], row["contract"]) if has_candidate else None,
        probe=probe_of(row["probe"], fingerprint_of(row)),
        failure=failure_of(row),
        judged=row["state"] == "judged",
        **{name: row[name] for name in same},
    )


def _load_trials(connection: Connection, where: sa.ColumnElement[bool]) -> list[TrialRecord]:
    query = sa.select(trials, tasks.c.evaluator).join(tasks, tasks.c.id == trials.c.task_id).where(where)
    # sorted here: SQLite would rather read all trials of the campaign in order
    order = operator.itemgetter("campaign_id", "evaluator", "task_id", "seed", "id")
    rows = sorted(connection.execute(query).mappings(), key=order)
    values: dict[int, list[Metric]] = defaultdict(list)
    for some in chunks(r["id"] for r in rows):
        found = sa.select(metrics).where(metrics.c.trial_id.in_(some)).order_by(metrics.c.trial_id, metrics.c.position)
        for m in connection.execute(found):
            values[m.trial_id].append(Metric(m.name, m.value, m.higher_is_better, m.unit, m.stderr))
    same = ("id", "candidate_id", "task_id", "evaluator", "seed", "status", "attempts")
    return [
        TrialRecord(
            metrics=tuple(values.get(r["id"], ())),
            failure=failure_of(r),
            details=r["details"] or {},
            **{name: r[name] for name in same},
        )
        for r in rows
    ]
