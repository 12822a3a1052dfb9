"""Writing trials and their attempts. One transaction per call; a trial is recorded exactly once."""

from __future__ import annotations

import math
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from db.arrays import ARRAYS_SCHEMA, pack_arrays
from db.convert import failure_columns, trial_details
from db.errors import ArchiveError
from db.models import attempts, metrics, tasks, trial_arrays, trials
from db.records import TrialRecord
from db.session import Session, new_id, now
from db.standings import rescore
from evaluators.base import TrialReport
from sandbox.failure import Failure, FailureKind


class TrialWrites(Session):
    """A trial's life: pending, running, then done or failed; or pending again after a lost attempt."""

    def ensure_trial(self, campaign: int, candidate_id: str, task_id: str, seed: int) -> TrialRecord:
        """The trial of this candidate, task and seed in the campaign, made if there is none (idempotent).

        Raises:
            ArchiveError: it cannot be stored; the campaign, candidate and task must be stored before.
        """
        where = sa.and_(
            trials.c.campaign_id == campaign,
            trials.c.task_id == task_id,
            trials.c.candidate_id == candidate_id,
            trials.c.seed == seed,
        )
        with self._write() as connection:
            row = connection.execute(sa.select(trials).where(where)).mappings().first()
            evaluator = connection.execute(sa.select(tasks.c.evaluator).where(tasks.c.id == task_id)).scalar()
            if evaluator is None:
                raise ArchiveError(f"{self.url} does not know the task {task_id}: record it first", fault=True)
            if row is not None:
                failure = None
                if row["failure_kind"]:
                    failure = Failure(FailureKind(row["failure_kind"]), row["failure_message"])
                return TrialRecord(
                    row["id"], candidate_id, task_id, evaluator, seed, row["status"], row["attempts"], failure=failure
                )
            inserted = connection.execute(
                sa.insert(trials).values(
                    campaign_id=campaign,
                    task_id=task_id,
                    candidate_id=candidate_id,
                    seed=seed,
                    status="pending",
                    attempts=0,
                    created_at=now(),
                )
            )
            trial_id = new_id(inserted)
        return TrialRecord(trial_id, candidate_id, task_id, evaluator, seed, "pending", 0)

    def start_attempt(self, trial_id: int, worker: str) -> int:
        """Note that a pending trial starts on a worker; returns the attempt's number, from 1.

        Raises:
            ArchiveError: it cannot be stored, or the trial is running, done or failed.
        """
        with self._write() as connection:
            started = connection.execute(
                sa.update(trials)
                .where(trials.c.id == trial_id, trials.c.status == "pending")
                .values(status="running", attempts=trials.c.attempts + 1)
            )
            if started.rowcount != 1:
                raise self._wrong_state(connection, trial_id, "started")
            number = int(connection.execute(sa.select(trials.c.attempts).where(trials.c.id == trial_id)).scalar_one())
            connection.execute(
                sa.insert(attempts).values(trial_id=trial_id, number=number, worker=worker, started_at=now())
            )
        return number

    def finish_trial(self, trial_id: int, attempt: int, report: TrialReport) -> None:
        """Store a successful trial: metrics, arrays, how it was measured, and the candidate's new score.

        Raises:
            ArchiveError: it cannot be stored, or this attempt is not running (it has been recorded, or given up).
            ValueError: an array of the report holds Python objects.
        """
        arrays = pack_arrays(report.arrays) if report.arrays else None  # outside the transaction: it takes a while
        with self._write() as connection:
            self._end(connection, trial_id, attempt, None, {"status": "done", "details": trial_details(report)})
            rows = [
                {
                    "trial_id": trial_id,
                    "name": metric.name,
                    "position": position,
                    "value": float(metric.value),
                    "higher_is_better": metric.higher_is_better,
                    "unit": metric.unit,
                    "stderr": float(metric.stderr)
                    if metric.stderr is not None and math.isfinite(metric.stderr)
                    else None,
                }
                for position, metric in enumerate(report.metrics)
            ]
            if rows:
                connection.execute(sa.insert(metrics), rows)
            if arrays is not None:
                connection.execute(sa.insert(trial_arrays).values(trial_id=trial_id, schema=ARRAYS_SCHEMA, data=arrays))
            self._rescore(connection, trial_id)

    def fail_trial(self, trial_id: int, attempt: int, failure: Failure, final: bool) -> None:
        """Store a failed attempt. `final` ends the trial; otherwise it is pending again.

        Raises:
            ArchiveError: it cannot be stored, or this attempt is not running (it has been recorded, or given up).
        """
        changes = {"status": "failed", **failure_columns(failure)} if final else {"status": "pending"}
        with self._write() as connection:
            self._end(connection, trial_id, attempt, failure, changes)
            if final:
                self._rescore(connection, trial_id)

    def _end(
        self, connection: Connection, trial_id: int, attempt: int, failure: Failure | None, changes: dict[str, Any]
    ) -> None:
        """Close the attempt and change the trial, if and only if this attempt is the one that runs."""
        moment = now()
        if changes["status"] != "pending":
            changes = {**changes, "finished_at": moment}
        ended = connection.execute(
            sa.update(trials)
            .where(trials.c.id == trial_id, trials.c.status == "running", trials.c.attempts == attempt)
            .values(changes)
        )
        if ended.rowcount != 1:
            raise self._wrong_state(connection, trial_id, f"ended as attempt {attempt}")
        connection.execute(
            sa.update(attempts)
            .where(attempts.c.trial_id == trial_id, attempts.c.number == attempt)
            .values(ended_at=moment, **failure_columns(failure))
        )

    def _rescore(self, connection: Connection, trial_id: int) -> None:
        columns = (trials.c.campaign_id, trials.c.task_id, trials.c.candidate_id, trials.c.seed)
        trial = connection.execute(sa.select(*columns).where(trials.c.id == trial_id)).one()
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
