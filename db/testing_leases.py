"""What an archive promises about drivers: one at a time, nothing stored by one that was replaced, no question forgotten."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from db import lease
from db.archive import Archive, ArchiveError
from db.testing_trials import ArchiveSuite
from db.testing_values import TASK, proposal, report
from sandbox.failure import Failure, FailureKind

DRIVER = """
import sys, time
from db.archive import Archive
from db.testing_values import TASK

archive = Archive(sys.argv[1])
archive.start_campaign("first", {}, task=TASK, metric="score", higher_is_better=True)
print("driving", flush=True)
time.sleep(600)
"""


def again(archive: Archive) -> Archive:
    """The same archive, opened as another process would."""
    return Archive(archive._target.url.render_as_string(hide_password=False))


def stop_heart(archive: Archive, campaign: int) -> None:
    """As if the driver's process had been stopped, or its machine had lost the network."""
    archive._held[campaign].heart.stop()


class LeaseConformance(ArchiveSuite):
    """A campaign has one driver at a time."""

    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, seconds in (("BEAT_S", 0.05), ("LEASE_S", 1.0), ("_LOOK_S", 0.02)):
            monkeypatch.setattr(lease, name, seconds)

    def test_a_second_driver_is_refused_while_the_first_lives(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        with again(archive) as other:
            with pytest.raises(ArchiveError, match=r"'first' is being driven by process \d+ on .* UTC: wait") as caught:
                self.start(other)
            assert not caught.value.fault
            assert "\n" not in str(caught.value)
            assert other.lease("first") is not None
            assert other.lease("nobody's") is None
            self.start(other, "second")
        archive.record_reply(campaign, proposal(0, candidate=None))

    def test_a_driver_that_ended_in_order_is_followed_at_once(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        archive.finish_campaign(campaign, "interrupted")
        with again(archive) as other:
            assert self.start(other, tell=pytest.fail).resumed  # closed without an end
        assert self.start(archive, tell=pytest.fail).resumed

    def test_a_killed_driver_is_followed_at_once(self, archive: Archive) -> None:
        url = archive._target.url.render_as_string(hide_password=False)
        with subprocess.Popen([sys.executable, "-c", DRIVER, url], stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "driving\n"
            assert archive.campaign("first").status == "running"
            driver.kill()
            driver.wait()
            assert [c.status for c in archive.campaigns()] == ["abandoned"]
            assert self.start(archive, tell=pytest.fail).resumed

    def test_a_driver_that_is_not_heard_is_shown_as_silent(
        self, archive: Archive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        campaign = self.start(archive).id
        stop_heart(archive, campaign)
        assert archive.campaign(campaign).status == "running"
        monkeypatch.setattr(lease, "SILENT_S", 0.0)
        assert archive.campaign(campaign).status == "silent"
        archive.finish_campaign(campaign, "finished")
        assert archive.campaign(campaign).status == "finished"

    def test_a_replaced_driver_stores_nothing(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        candidate = self.store(archive, campaign, proposal(0))
        trial = archive.ensure_trial(campaign, candidate.id, TASK.id, 0)
        attempt = archive.start_attempt(trial.id, "w")
        unread = archive.record_reply(campaign, proposal(1, candidate=None))
        stop_heart(archive, campaign)
        heard: list[str] = []
        failure = Failure(FailureKind.INFRASTRUCTURE, "gone")
        late: list[Callable[[], object]] = [
            lambda: archive.record_reply(campaign, proposal(2, candidate=None)),
            lambda: archive.record_request(campaign, 2, 1, 1),
            lambda: archive.close_request(1),
            lambda: archive.record_verdict(unread, proposal(1)),
            lambda: archive.record_known(campaign, proposal(3)),
            lambda: archive.record_task(TASK, {"late": 1.0}),
            lambda: archive.ensure_trial(campaign, candidate.id, TASK.id, 1),
            lambda: archive.start_attempt(trial.id, "w"),
            lambda: archive.finish_trial(trial.id, attempt, report(0, 0.9)),
            lambda: archive.fail_trial(trial.id, attempt, failure, final=True),
            lambda: archive.reset_running(campaign),
            lambda: archive.finish_campaign(campaign, "finished"),
            lambda: self.start(archive, config={"seed": 2}),
        ]
        with again(archive) as other:
            self.start(other, tell=heard.append)
            assert "drove this campaign and is silent" in heard[0]
            before = (other.campaign("first"), other.totals("first"), other.trials(candidate.id), other.task(TASK.id))
            for write in late:
                with pytest.raises(ArchiveError, match="'first' was taken over by process") as caught:
                    write()
                assert caught.value.fault
            archive.close()  # lets go of nothing that is not its own
            held = other.lease("first")
            assert held is not None
            assert (held.held, held.epoch) == (True, 2)
            after = (other.campaign("first"), other.totals("first"), other.trials(candidate.id), other.task(TASK.id))
            assert after == before
            assert other.start_attempt(trial.id, "w") == 2

    def test_a_heart_finds_that_it_was_replaced(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        stop_heart(archive, campaign)
        with again(archive) as other:
            self.start(other)
            held = archive._held[campaign]
            archive._hold(campaign, held.name, held.epoch)  # it wakes
            heart = archive._held[campaign].heart
            heart._thread.join(10)
            assert heart.replaced
            with pytest.raises(ArchiveError, match="was taken over"):
                archive.require_lease(campaign)

    def test_of_two_that_wait_one_takes_over(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        stop_heart(archive, campaign)
        with again(archive) as one, again(archive) as other:
            refused: list[str] = []

            def follow(session: Archive) -> None:
                try:
                    self.start(session)
                except ArchiveError as error:
                    refused.append(str(error))

            waiting = [threading.Thread(target=follow, args=(session,)) for session in (one, other)]
            for thread in waiting:
                thread.start()
            for thread in waiting:
                thread.join()
            assert len(refused) == 1
            assert "is being driven by" in refused[0]

    def test_only_a_driver_writes_to_a_campaign(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        candidate = self.store(archive, campaign, proposal(0))
        trial = archive.ensure_trial(campaign, candidate.id, TASK.id, 0)
        with again(archive) as other:
            with pytest.raises(ArchiveError, match="not driven from here"):
                other.start_attempt(trial.id, "w")
            with pytest.raises(ArchiveError, match="not driven from here"):
                other.record_known(campaign, proposal(1))
            other.record_task(TASK, {"accuracy": 0.5})
        assert archive.trials(candidate.id)[0].attempts == 0

    def test_questions_on_their_way_are_counted_at_their_most(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        answered, refused, _ = (archive.record_request(campaign, n, 100 + n, 4096, 0.5) for n in range(3))
        archive.record_reply(campaign, proposal(0, candidate=None), answered)
        archive.close_request(refused)
        totals = archive.totals(campaign)
        assert (totals.lost_requests, totals.lost_tokens) == (0, 0)
        self.start(archive)
        archive.record_request(campaign, 2, 50, 10)
        archive.finish_campaign(campaign, "interrupted")
        totals = archive.totals(campaign)
        assert (totals.lost_requests, totals.lost_tokens) == (2, 102 + 4096 + 60)
        assert totals.lost_cost == 0.5  # nobody knew the price of the other one
        assert totals.cost == 0.25
        assert (totals.proposals, totals.prompt_tokens) == (1, 1000)
