"""Writing trials and their attempts. One transaction per call; a trial is recorded exactly once."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from db.arrays import ARRAYS_SCHEMA, kept_arrays, pack_arrays
from db.convert import failure_columns, failure_of, metric_columns, trial_details
from db.errors import ArchiveError
from db.models import attempts, metrics, standings, tasks, trial_arrays, trials
from db.plain_sql import bound, insert_plain, read, run_plain
from db.records import TrialRecord, TrialStatus
from db.session import Session, new_id, now
from db.standings import rescore
from evaluators.base import TrialReport
from sandbox.failure import Failure

# Built once: making a statement costs several times as much as running it, and these run for every trial.
_THIS = sa.and_(
    trials.c.campaign_id == sa.bindparam("campaign"),
    trials.c.task_id == sa.bindparam("task"),
    trials.c.candidate_id == sa.bindparam("candidate"),
    trials.c.seed == sa.bindparam("of_seed"),
)
_FIND = sa.select(
    trials.c.id, trials.c.status, trials.c.attempts, trials.c.failure_kind, trials.c.failure_message
).where(_THIS)
_EVALUATOR = sa.select(tasks.c.evaluator).where(tasks.c.id == sa.bindparam("task"))
_START = (
    sa.update(trials)
    .where(trials.c.id == sa.bindparam("trial"), trials.c.status == "pending")
    .values(status="running", attempts=trials.c.attempts + 1)
    .returning(trials.c.attempts, trials.c.campaign_id, trials.c.candidate_id)
)
_MARK = (
    sa.update(standings)
    .where(standings.c.campaign_id == sa.bindparam("campaign"), standings.c.candidate_id == sa.bindparam("candidate"))
    .values(unconfined=sa.true())
)
_CLOSE = (
    sa.update(attempts)
    .where(
        attempts.c.trial_id == sa.bindparam("trial"),
        attempts.c.number == sa.bindparam("attempt"),
        attempts.c.ended_at.is_(None),
    )
    .values(
        ended_at=sa.bindparam("moment"),
        failure_kind=sa.bindparam("new_kind"),
        failure_message=sa.bindparam("new_message"),
    )
    .returning(attempts.c.started_at)
)
_END = (
    sa.update(trials)
    .where(
        trials.c.id == sa.bindparam("trial"),
        trials.c.status == "running",
        trials.c.attempts == sa.bindparam("attempt"),
    )
    .values(
        status=sa.bindparam("new_status"),
        details=sa.bindparam("new_details"),
        failure_kind=sa.bindparam("new_kind"),
        failure_message=sa.bindparam("new_message"),
        finished_at=sa.bindparam("moment"),
        device=sa.func.coalesce(sa.bindparam("on", type_=sa.Text), trials.c.device),
        seconds=trials.c.seconds + sa.bindparam("took"),
    )
    .returning(trials.c.campaign_id, trials.c.task_id, trials.c.candidate_id, trials.c.seed)
)
_ADD_TRIAL, _ADD_ATTEMPT = sa.insert(trials), sa.insert(attempts)
_ADD_METRICS, _ADD_ARRAYS = sa.insert(metrics), sa.insert(trial_arrays)


class TrialWrites(Session):
    """A trial's life: pending, running, then done or failed; or pending again after a lost attempt."""

    def ensure_trial(self, campaign: int, candidate_id: str, task_id: str, seed: int) -> TrialRecord:
        """The trial of this candidate, task and seed in the campaign, made if there is none (idempotent).

        Raises:
            ArchiveError: it cannot be stored; the campaign, candidate and task must be stored before.
        """
        self.require_lease(campaign)
        wanted = {"campaign": campaign, "task": task_id, "candidate": candidate_id, "of_seed": seed}
        with self._write() as connection:
            evaluator = connection.execute(_EVALUATOR, {"task": task_id}).scalar()
            if evaluator is None:
                raise ArchiveError(f"{self.url} does not know the task {task_id}: record it first", fault=True)
            row = connection.execute(_FIND, wanted).mappings().first()
            if row is not None:
                return TrialRecord(
                    row["id"], candidate_id, task_id, evaluator, seed, row["status"], row["attempts"],
                    failure=failure_of(row),
                )  # fmt: skip
            new = {
                "campaign_id": campaign,
                "task_id": task_id,
                "candidate_id": candidate_id,
                "seed": seed,
                "status": "pending",
                "attempts": 0,
                "created_at": now(),
            }
            trial_id = new_id(connection.execute(_ADD_TRIAL, new))
        return TrialRecord(trial_id, candidate_id, task_id, evaluator, seed, "pending", 0)

    def start_attempt(self, trial_id: int, worker: str, unconfined: bool = False) -> int:
        """Note that a pending trial starts on a worker; returns the attempt's number, from 1.

        `unconfined`: without the sandbox. The candidate is marked for good, whatever comes of the attempt.

        Raises:
            ArchiveError: it cannot be stored, or the trial is running, done or failed.
        """
        with self._write() as connection:
            row = connection.execute(_START, {"trial": trial_id}).first()
            if row is None:
                raise self._wrong_state(connection, trial_id, "started")
            self.require_lease(row.campaign_id)
            started = {"trial_id": trial_id, "number": row.attempts, "worker": worker, "started_at": now()}
            connection.execute(_ADD_ATTEMPT, started | {"unconfined": unconfined})
            if unconfined:
                connection.execute(_MARK, {"campaign": row.campaign_id, "candidate": row.candidate_id})
        return int(row.attempts)

    def finish_trial(self, trial_id: int, attempt: int, report: TrialReport) -> None:
        """Store a successful trial: metrics, arrays, how it was measured, and the candidate's new score.

        Of the arrays, what `db.arrays.kept_arrays` leaves is stored, unless the archive was opened with `all_arrays`.

        Raises:
            ArchiveError: it cannot be stored, or this attempt is not running (it has been recorded, or given up).
            ValueError: an array of the report holds Python objects.
        """
        kept = report.arrays if self._all_arrays else kept_arrays(report.arrays)
        arrays = pack_arrays(kept) if kept else None  # outside the transaction: it takes a while
        rows = [metric_columns(trial_id, position, metric) for position, metric in enumerate(report.metrics)]
        with self._write() as connection:
            trial = self._end(connection, trial_id, attempt, "done", details=trial_details(report))
            if rows:
                insert_plain(connection, _ADD_METRICS, rows)
            if arrays is not None:
                stored = {"trial_id": trial_id, "schema": ARRAYS_SCHEMA, "data": arrays}
                connection.execute(_ADD_ARRAYS, stored)
            self._rescore(connection, trial)

    def fail_trial(self, trial_id: int, attempt: int, failure: Failure, final: bool) -> None:
        """Store a failed attempt. `final` ends the trial; otherwise it is pending again.

        Raises:
            ArchiveError: it cannot be stored, or this attempt is not running (it has been recorded, or given up).
        """
        with self._write() as connection:
            trial = self._end(connection, trial_id, attempt, "failed" if final else "pending", failure)
            if final:
                self._rescore(connection, trial)

    def _end(
        self,
        connection: Connection,
        trial_id: int,
        attempt: int,
        status: TrialStatus,
        failure: Failure | None = None,
        details: dict[str, Any] | None = None,
    ) -> sa.Row[Any]:
        """Close the attempt and change the trial, if and only if this attempt is the one that runs."""
        moment, said = now(), failure_columns(failure)
        closed = {
            "trial": trial_id,
            "attempt": attempt,
            "new_kind": said["failure_kind"],
            "new_message": bound(connection, attempts.c.failure_message, said["failure_message"]),
            "moment": bound(connection, attempts.c.ended_at, moment),
        }
        started = read(connection, attempts.c.started_at, run_plain(connection, _CLOSE, closed).scalar())
        if started is None:
            raise self._wrong_state(connection, trial_id, f"ended as attempt {attempt}")
        changes = {
            **closed,
            "new_status": status,
            "new_details": bound(connection, trials.c.details, details),
            "on": None if details is None else bound(connection, trials.c.device, details["device"]),
            "took": max((moment - started).total_seconds(), 0.0),
        }
        if status == "pending":  # what was wrong is the attempt's
            changes |= {"new_kind": None, "new_message": None, "moment": None}
        trial = run_plain(connection, _END, changes).first()
        if trial is None:
            raise self._wrong_state(connection, trial_id, f"ended as attempt {attempt}")
        self.require_lease(trial.campaign_id)
        return trial

    def _rescore(self, connection: Connection, trial: sa.Row[Any]) -> None:
        if trial.campaign_id not in self._rankings:
            self._rankings[trial.campaign_id] = self._ranking(connection, trial.campaign_id)
        ranking = self._rankings[trial.campaign_id]
        counts = ranking.seeds is None or trial.seed in ranking.seeds
        if trial.task_id == ranking.task_id and counts:
            rescore(connection, trial.campaign_id, trial.candidate_id, ranking)

    def _wrong_state(self, connection: Connection, trial_id: int, wanted: str) -> ArchiveError:
        row = connection.execute(sa.select(trials.c.status, trials.c.attempts).where(trials.c.id == trial_id)).first()
        state = "does not exist" if row is None else f"is {row.status} after {row.attempts} attempts"
        return ArchiveError(f"trial {trial_id} of {self.url} cannot be {wanted}: it {state}", fault=True)
