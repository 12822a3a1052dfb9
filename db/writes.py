"""Writing campaigns, tasks and proposals. One transaction per call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from db import lease as leasing
from db.convert import candidate_columns, failure_columns, proposal_columns, report_columns, search_text
from db.endings import NOT_RECORDED, Ending
from db.errors import ArchiveError
from db.messages import Prompt, PromptPart
from db.models import (
    attempts,
    campaigns,
    candidates,
    prompt_links,
    prompt_parts,
    prompts,
    proposal_parents,
    proposal_texts,
    proposals,
    requests,
    tasks,
    trials,
)
from db.records import CampaignRecord, Proposal, Ranking
from db.redact import redact_config, redact_secrets
from db.session import Session, new_id, now, ranking_of
from db.standings import admit, rescore_all
from db.types import plain, storable
from evaluators.base import Task
from sandbox.failure import Failure, FailureKind

_INTERRUPTED = Failure(FailureKind.INFRASTRUCTURE, "interrupted: the campaign stopped before this attempt ended")


class CampaignWrites(Session):
    """Changes that the driver of a campaign makes outside of trials."""

    def start_campaign(
        self,
        name: str,
        config: Mapping[str, Any],
        *,
        task: Task,
        metric: str,
        higher_is_better: bool,
        seeds: Sequence[int] | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> CampaignRecord:
        """Start a campaign, or take up the one of that name, and drive it until `finish_campaign` or `close`.

        Its trials that were interrupted, or lost through our fault or the machine's, become pending again; its questions
        that were on their way are lost.

        A driver that died on this machine, or ended in order, is followed at once. One of another machine that is silent is
        waited for, for `db.lease.LEASE_S` seconds.

        Args:
            name: unique in the archive.
            config: settings as JSON values; passwords in them are masked.
            task, metric, higher_is_better: what ranks its candidates.
            seeds: the seeds whose trials count for the ranking; None for all. Give them where other trials of the
                same task are run too, such as confirmations on fresh seeds.
            tell: hears in one line what is waited for.

        Raises:
            ArchiveError: it cannot be stored, or another driver is at it.
        """
        ranking = Ranking(task.id, metric, higher_is_better, None if seeds is None else tuple(seeds))
        public = plain(redact_config(config))
        values = {
            "config": public,
            "status": "running",
            "task_id": task.id,
            "metric": metric,
            "higher_is_better": higher_is_better,
            "seeds": None if seeds is None else list(seeds),
            "finished_at": None,
            "end_reason": None,
            "end_detail": None,
        }
        ours = any(held.name == name for held in self._held.values())
        judged = self.lease(name) if ours else leasing.await_free(name, lambda: self.lease(name), tell)
        with self._write(shared=True) as connection:
            _store_task(connection, task, None)
            row = connection.execute(sa.select(campaigns).where(campaigns.c.name == name)).mappings().first()
            created = now() if row is None else row["created_at"]
            if row is None:
                new = sa.insert(campaigns).values(name=name, created_at=created, **values)
                campaign = new_id(connection.execute(new))
                epoch = leasing.take(connection, campaign, name, judged, now())
            else:
                campaign = int(row["id"])
                # before anything that the other driver may have locked
                epoch = leasing.take(connection, campaign, name, judged, now())
                connection.execute(sa.update(campaigns).where(campaigns.c.id == campaign).values(values))
                _take_up(connection, campaign, judged, ranking, has_changed=ranking_of(row) != ranking)
        self._hold(campaign, name, epoch)
        self._rankings[campaign] = ranking
        previous = row["config"] if row is not None and row["config"] != public else None
        return CampaignRecord(
            campaign, name, public, "running", ranking, task.evaluator, created,
            resumed=row is not None, previous_config=previous,
            previous_finish=row["finished_at"] if row is not None and row["status"] == "finished" else None,
        )  # fmt: skip

    def finish_campaign(
        self, campaign: int, status: str = "finished", ending: Ending = NOT_RECORDED, at: datetime | None = None
    ) -> None:
        """Record how and why a campaign ended, and drive it no more. It can be taken up again. Raises ArchiveError.

        Args:
            campaign: its id.
            status, ending: how and why.
            at: when; now if not given. Where a campaign was taken up and nothing was left to do, it ended before.
        """
        self.require_lease(campaign)
        with self._write() as connection:
            ended = sa.update(campaigns).where(campaigns.c.id == campaign)
            why = {"end_reason": str(ending.reason), "end_detail": ending.detail}
            connection.execute(ended.values(status=status, finished_at=at or now(), **why))
            _lose_requests(connection, campaign)
            leasing.release(connection, campaign, self._held[campaign].epoch)
        self._let_go(campaign)

    def reset_running(self, campaign: int) -> int:
        """Make trials that were running when the driver stopped pending again; returns how many. Raises ArchiveError."""
        self.require_lease(campaign)
        with self._write() as connection:
            return _release_running(connection, campaign, now())

    def record_task(self, task: Task, facts: Mapping[str, Any]) -> None:
        """Store a task with what preparing it measured; newer facts replace older ones. Raises ArchiveError."""
        with self._write(shared=True) as connection:
            _store_task(connection, task, facts)

    def record_request(
        self, campaign: int, number: int, prompt_tokens: int, completion_tokens: int, cost: float | None = None
    ) -> int:
        """Note a question before it is sent, with the most it can take; returns the request's id. Raises ArchiveError."""
        self.require_lease(campaign)
        values = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "cost": cost,
            "sent_at": now(),
        }
        with self._write() as connection:
            new = sa.insert(requests).values(campaign_id=campaign, number=number, lost=False, **values)
            return new_id(connection.execute(new))

    def close_request(self, request: int) -> None:
        """A question came back without a reply: nothing is counted for it. Raises ArchiveError."""
        with self._write() as connection:
            connection.execute(sa.delete(requests).where(requests.c.id == request))

    def record_reply(self, campaign: int, proposal: Proposal, request: int | None = None) -> int:
        """Store a reply before anything is made of it, with its prompt and parents; returns the proposal's id.

        `request`: from `record_request`, which the reply replaces.

        Raises:
            ArchiveError: it cannot be stored, or the campaign has a proposal of that index already.
        """
        self.require_lease(campaign)
        with self._write(shared=True) as connection:
            if request is not None:
                connection.execute(sa.delete(requests).where(requests.c.id == request))
            return _insert_proposal(connection, campaign, proposal, "replied")

    def record_verdict(self, proposal_id: int, proposal: Proposal) -> None:
        """Store what became of a stored reply: name, thought, candidate, reports, failure.

        Raises:
            ArchiveError: it cannot be stored, there is no such proposal, or it has been judged before.
        """
        with self._write(shared=True) as connection:
            row = connection.execute(
                sa.select(proposals.c.campaign_id, proposals.c.state).where(proposals.c.id == proposal_id)
            ).first()
            if row is None:
                raise ArchiveError(f"{self.url} has no proposal {proposal_id}", fault=True)
            if row.state != "replied":
                raise ArchiveError(f"proposal {proposal_id} of {self.url} has been judged before", fault=True)
            self.require_lease(row.campaign_id)
            _judge(connection, row.campaign_id, proposal_id, proposal)

    def record_known(self, campaign: int, proposal: Proposal) -> int:
        """Store a proposal that nobody was asked for (a known objective, a file) with its verdict; returns its id.

        Raises:
            ArchiveError: it cannot be stored, or the campaign has a proposal of that index already.
        """
        self.require_lease(campaign)
        with self._write(shared=True) as connection:
            proposal_id = _insert_proposal(connection, campaign, proposal, "judged")
            _judge(connection, campaign, proposal_id, proposal)
            return proposal_id


def _store_task(connection: Connection, task: Task, facts: Mapping[str, Any] | None) -> None:
    known = connection.execute(sa.select(tasks.c.id).where(tasks.c.id == task.id)).scalar()
    if known is None:
        connection.execute(
            sa.insert(tasks).values(
                id=task.id,
                evaluator=task.evaluator,
                version=task.version,
                options=task.options,
                source=task.provenance.source,
                licence=task.provenance.licence,
                data_sha256=task.provenance.sha256,
                facts=facts,
                created_at=now(),
            )
        )
    elif facts is not None:
        connection.execute(sa.update(tasks).where(tasks.c.id == task.id).values(facts=facts))


def _insert_proposal(connection: Connection, campaign: int, proposal: Proposal, state: str) -> int:
    prompt = None if proposal.prompt is None else _store_prompt(connection, proposal.prompt)
    values = proposal_columns(proposal) | {"campaign_id": campaign, "state": state, "prompt_id": prompt}
    inserted = connection.execute(sa.insert(proposals).values(**values, created_at=now()))
    proposal_id = new_id(inserted)
    if proposal.parents:
        links = [
            {"proposal_id": proposal_id, "position": i, "parent_id": parent}
            for i, parent in enumerate(proposal.parents)
        ]
        connection.execute(sa.insert(proposal_parents), links)
    return proposal_id


def _store_prompt(connection: Connection, prompt: Prompt) -> int:
    """The prompt's id; parts that are stored already are linked, not stored again."""
    # cleaned first, so that the hashes are those of what is stored
    parts = [PromptPart(p.role, redact_secrets(storable(p.text))) for p in prompt.parts]
    whole = Prompt(tuple(parts)).sha256
    known = connection.execute(sa.select(prompts.c.id).where(prompts.c.sha256 == whole)).scalar()
    if known is not None:
        return int(known)
    by_hash = {p.sha256: p for p in parts}
    column = prompt_parts.c.sha256
    stored = set(connection.execute(sa.select(column).where(column.in_(by_hash))).scalars())
    new = [{"sha256": h, "role": p.role, "text": p.text} for h, p in by_hash.items() if h not in stored]
    if new:
        connection.execute(sa.insert(prompt_parts), new)
    prompt_id = new_id(connection.execute(sa.insert(prompts).values(sha256=whole)))
    links = [{"prompt_id": prompt_id, "position": i, "part_sha256": p.sha256} for i, p in enumerate(parts)]
    if links:
        connection.execute(sa.insert(prompt_links), links)
    return prompt_id


def _judge(connection: Connection, campaign: int, proposal_id: int, proposal: Proposal) -> None:
    if proposal.candidate is not None:
        _store_candidate(connection, proposal)
    values = {
        "state": "judged",
        "name": proposal.name,
        "thought": proposal.thought,
        "candidate_id": None if proposal.candidate is None else proposal.candidate.id,
        "duplicate_of": proposal.duplicate_of,
        "judged_at": now(),
        **failure_columns(proposal.failure),
    }
    connection.execute(sa.update(proposals).where(proposals.c.id == proposal_id).values(values))
    if proposal.candidate is not None:
        text = search_text(proposal.name, proposal.thought, proposal.candidate.source)
        connection.execute(sa.insert(proposal_texts).values(proposal_id=proposal_id, text=text))
        admit(connection, campaign, proposal_id, proposal)


def _store_candidate(connection: Connection, proposal: Proposal) -> None:
    """Insert the candidate, or renew its reports: the latest check speaks, unless it was our machine that failed."""
    candidate, probe = proposal.candidate, proposal.probe
    assert candidate is not None
    known = connection.execute(sa.select(candidates.c.id).where(candidates.c.id == candidate.id)).scalar()
    reports = report_columns(proposal.gate, probe)
    if known is None:
        values = {"parameters": [], **candidate_columns(candidate), **reports}
        connection.execute(sa.insert(candidates).values(**values, created_at=now()))
        return
    lost = probe is not None and probe.failure is not None and not probe.failure.kind.candidates_fault
    if reports and not lost:
        connection.execute(sa.update(candidates).where(candidates.c.id == candidate.id).values(reports))


def _lose_requests(connection: Connection, campaign: int) -> None:
    """Nobody waits any more for the questions that are on their way."""
    connection.execute(sa.update(requests).where(requests.c.campaign_id == campaign).values(lost=True))


def _take_up(
    connection: Connection, campaign: int, judged: leasing.Lease | None, ranking: Ranking, has_changed: bool
) -> None:
    """What the last driver left open is closed, lost or tried again. Its last sign of life is when its attempts ended."""
    _release_running(connection, campaign, now() if judged is None else judged.beat_at)
    _lose_requests(connection, campaign)
    if _reopen_lost(connection, campaign) or has_changed:
        rescore_all(connection, campaign, ranking)


def _release_running(connection: Connection, campaign: int, ended: datetime) -> int:
    """Close the attempts that run, as far as anybody knows until then, and make their trials pending."""
    running = sa.and_(trials.c.campaign_id == campaign, trials.c.status == "running")
    open_attempts = connection.execute(
        sa.select(attempts.c.trial_id, attempts.c.number, attempts.c.started_at)
        .join(trials, trials.c.id == attempts.c.trial_id)
        .where(running, attempts.c.ended_at.is_(None))
    ).all()
    for trial, number, started in open_attempts:
        until = max(ended, started)  # a driver may start an attempt after its heart's last beat
        took = (until - started).total_seconds()
        of_it = sa.and_(attempts.c.trial_id == trial, attempts.c.number == number)
        connection.execute(sa.update(attempts).where(of_it).values(ended_at=until, **failure_columns(_INTERRUPTED)))
        connection.execute(sa.update(trials).where(trials.c.id == trial).values(seconds=trials.c.seconds + took))
    return int(connection.execute(sa.update(trials).where(running).values(status="pending")).rowcount)


def _reopen_lost(connection: Connection, campaign: int) -> int:
    """Trials that failed through no fault of the candidate get another chance."""
    lost = sa.and_(
        trials.c.campaign_id == campaign,
        trials.c.status == "failed",
        trials.c.failure_kind.in_([str(kind) for kind in FailureKind if not kind.candidates_fault]),
    )
    again = {"status": "pending", "failure_kind": None, "failure_message": None, "finished_at": None}
    return int(connection.execute(sa.update(trials).where(lost).values(again)).rowcount)
