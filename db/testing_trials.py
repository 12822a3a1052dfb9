"""What the suites of `Archive` share, and what an archive promises about trials."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from db.archive import Archive, ArchiveError
from db.arrays import kept_arrays
from db.records import CampaignRecord, Proposal
from db.testing_values import OTHER_TASK, TASK, proposal, report
from evaluators.base import Task
from sandbox.candidate import Candidate
from sandbox.failure import Failure, FailureKind


class ArchiveSuite:
    """Making an archive and filling it, whatever database is behind it."""

    def make_archive(self, tmp_path: Path) -> Archive:
        """A new, empty archive."""
        raise AssertionError("a conformance test says how to make its archive")

    @pytest.fixture
    def archive(self, tmp_path: Path) -> Iterator[Archive]:
        with self.make_archive(tmp_path) as archive:
            yield archive

    def start(self, archive: Archive, name: str = "first", **changes: Any) -> CampaignRecord:
        settings: dict[str, Any] = {"task": TASK, "metric": "score", "higher_is_better": True, **changes}
        return archive.start_campaign(name, settings.pop("config", {"seed": 1}), **settings)

    def store(self, archive: Archive, campaign: int, made: Proposal) -> Candidate:
        """Store a proposal the way a driver does: the reply, then the verdict."""
        unread = replace(made, name="", thought="", candidate=None, gate=None, probe=None, failure=None)
        archive.record_verdict(archive.record_reply(campaign, unread), made)
        assert made.candidate is not None
        return made.candidate

    def train(self, archive: Archive, campaign: int, candidate: Candidate, task: Task = TASK, **scores: float) -> None:
        """Finish a trial for each ``s<seed>=score``."""
        for seed, score in scores.items():
            trial = archive.ensure_trial(campaign, candidate.id, task.id, int(seed[1:]))
            archive.finish_trial(trial.id, archive.start_attempt(trial.id, "w"), report(int(seed[1:]), score))


class TrialConformance(ArchiveSuite):
    """A trial is recorded exactly once, whatever becomes of its attempts."""

    def test_a_trial_is_made_once(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        candidate = self.store(archive, campaign, proposal(0))
        first = archive.ensure_trial(campaign, candidate.id, TASK.id, 7)
        again = archive.ensure_trial(campaign, candidate.id, TASK.id, 7)
        assert first == again
        assert (first.status, first.attempts, first.evaluator) == ("pending", 0, "test.task")

    def test_a_finished_trial_comes_back_whole(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        candidate = self.store(archive, campaign, proposal(0))
        arrays = {
            "frontier/points": np.linspace(0, 1, 12).reshape(2, 6),
            "file": np.arange(3),
            "flat": np.array(2, "f4"),
        }
        trial = archive.ensure_trial(campaign, candidate.id, TASK.id, 7)
        archive.finish_trial(trial.id, archive.start_attempt(trial.id, "w"), report(7, 0.5, **arrays))
        (read,) = archive.trials(candidate.id, campaign=campaign, task=TASK.id)
        assert (read.status, read.attempts, read.seed) == ("done", 1, 7)
        assert read.metrics == report(7, 0.5).metrics
        assert read.details["timings"]["train_s"] == 1.5
        assert read.details["versions"] == {"torch": "2.13.0"}
        loaded = archive.arrays(trial.id)
        kept = kept_arrays(arrays)
        assert loaded.keys() == kept.keys() == arrays.keys()
        for name, values in kept.items():
            assert loaded[name].dtype == values.dtype
            assert np.array_equal(loaded[name], values)
        assert archive.trials(candidate.id, campaign=campaign, task=OTHER_TASK.id) == []

    def test_a_trial_cannot_be_finished_twice(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        candidate = self.store(archive, campaign, proposal(0))
        self.train(archive, campaign, candidate, s0=0.5)
        (trial,) = archive.trials(candidate.id)
        for late in (1, 2):
            with pytest.raises(ArchiveError, match="is done after 1 attempts"):
                archive.finish_trial(trial.id, late, report(0, 0.9))
        with pytest.raises(ArchiveError, match="cannot be started"):
            archive.start_attempt(trial.id, "w")
        assert archive.trials(candidate.id) == [trial]

    def test_a_lost_attempt_is_tried_again_and_cannot_report_late(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        candidate = self.store(archive, campaign, proposal(0))
        trial = archive.ensure_trial(campaign, candidate.id, TASK.id, 0)
        lost = archive.start_attempt(trial.id, "w1")
        archive.fail_trial(trial.id, lost, Failure(FailureKind.INFRASTRUCTURE, "node gone"), final=False)
        assert archive.ensure_trial(campaign, candidate.id, TASK.id, 0).status == "pending"
        second = archive.start_attempt(trial.id, "w2")
        with pytest.raises(ArchiveError, match="cannot be ended as attempt 1"):
            archive.finish_trial(trial.id, lost, report(0, 0.1))
        archive.finish_trial(trial.id, second, report(0, 0.2))
        (read,) = archive.trials(candidate.id)
        assert (second, read.attempts, read.metrics[0].value) == (2, 2, 0.2)
        assert archive.totals(campaign).attempts == 2

    def test_running_trials_are_released_on_resume(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        candidate = self.store(archive, campaign, proposal(0))
        self.train(archive, campaign, candidate, s0=0.5)
        trial = archive.ensure_trial(campaign, candidate.id, TASK.id, 1)
        archive.start_attempt(trial.id, "w")
        self.start(archive)
        assert [t.status for t in archive.trials(candidate.id)] == ["done", "pending"]
        assert archive.start_attempt(trial.id, "w") == 2
        assert archive.reset_running(campaign) == 1
        assert archive.reset_running(campaign) == 0

    def test_running_trials_are_listed_with_their_worker_and_present_attempt(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        candidate = self.store(archive, campaign, proposal(0))
        self.train(archive, campaign, candidate, s0=0.5)
        trial = archive.ensure_trial(campaign, candidate.id, TASK.id, 1)
        archive.start_attempt(trial.id, "first")
        archive.reset_running(campaign)
        assert archive.running(campaign) == []
        archive.start_attempt(trial.id, "second")
        (found,) = archive.running(campaign)
        assert (found.candidate_id, found.seed, found.worker) == (candidate.id, 1, "second")

    def test_a_trial_needs_its_candidate_and_task(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        candidate = self.store(archive, campaign, proposal(0))
        with pytest.raises(ArchiveError, match="does not know the task"):
            archive.ensure_trial(campaign, candidate.id, OTHER_TASK.id, 0)
        with pytest.raises(ArchiveError):
            archive.ensure_trial(campaign, "00" * 32, TASK.id, 0)
        assert archive.totals(campaign).trials == {}

    def test_what_the_machine_lost_is_reopened_on_resume(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        unlucky, faulty = (self.store(archive, campaign, proposal(i)) for i in range(2))
        for candidate, kind in ((unlucky, FailureKind.INFRASTRUCTURE), (faulty, FailureKind.CRASH)):
            self.train(archive, campaign, candidate, s0=0.5)
            trial = archive.ensure_trial(campaign, candidate.id, TASK.id, 1)
            archive.fail_trial(trial.id, archive.start_attempt(trial.id, "w"), Failure(kind, "gone"), final=True)
        assert [e.status for e in archive.entries(campaign)] == ["failed", "failed"]
        self.start(archive)
        assert [(e.name, e.status) for e in archive.entries(campaign)] == [("loss 0", "ranked"), ("loss 1", "failed")]
        again = archive.ensure_trial(campaign, unlucky.id, TASK.id, 1)
        assert (again.status, again.failure) == ("pending", None)
        assert archive.start_attempt(again.id, "w") == 2

    def test_a_trial_without_the_sandbox_marks_its_candidate(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        one, other = (self.store(archive, campaign, proposal(i)) for i in range(2))
        trial = archive.ensure_trial(campaign, one.id, TASK.id, 0)
        lost = archive.start_attempt(trial.id, "w", unconfined=True)
        archive.fail_trial(trial.id, lost, Failure(FailureKind.INFRASTRUCTURE, "gone"), final=False)
        archive.finish_trial(trial.id, archive.start_attempt(trial.id, "w"), report(0, 0.5))
        self.train(archive, campaign, other, s0=0.4)
        assert {e.name: e.unconfined for e in archive.entries(campaign)} == {"loss 0": True, "loss 1": False}
        assert archive.campaigns()[0].unconfined == 1
        assert archive.entry(one.id).unconfined
