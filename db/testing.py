"""The suite that every database behind `Archive` passes. Inherit it and say how to make an archive:

class TestMine(ArchiveConformance):
    def make_archive(self, tmp_path): return Archive(url_of_an_empty_database, create=True)
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from db.archive import Archive, ArchiveError
from db.endings import Ending, Reason
from db.messages import Prompt, PromptPart, Reply
from db.records import EntryFilter
from db.testing_leases import LeaseConformance
from db.testing_trials import TrialConformance
from db.testing_values import CONDITIONS, OTHER_TASK, PARAMETERS, TASK, proposal, same_fingerprint
from sandbox.candidate import Candidate
from sandbox.failure import Failure, FailureKind
from sandbox.reports import GateReport, ProbeReport, Violation


class ArchiveConformance(TrialConformance, LeaseConformance):
    """What an archive promises, whatever database is behind it."""

    # campaigns and tasks

    def test_a_new_campaign_is_listed_with_its_ranking(self, archive: Archive) -> None:
        started = self.start(archive, seeds=(0, 1))
        (listed,) = archive.campaigns()
        assert (listed.id, listed.name, listed.status, listed.evaluator) == (
            started.id,
            "first",
            "running",
            "test.task",
        )
        assert listed.ranking == started.ranking
        assert listed.ranking.seeds == (0, 1)
        assert listed.created_at.utcoffset() is not None
        assert abs((listed.created_at - started.created_at).total_seconds()) < 1e-3
        assert not started.resumed

    def test_the_same_name_resumes_and_reports_changed_settings(self, archive: Archive) -> None:
        first = self.start(archive, config={"seed": 1, "grid": (1, 2)})
        archive.finish_campaign(first.id, "interrupted")
        same = self.start(archive, config={"seed": 1, "grid": (1, 2)})
        assert (same.id, same.resumed, same.previous_config) == (first.id, True, None)
        other = self.start(archive, config={"seed": 2})
        assert other.previous_config == {"seed": 1, "grid": [1, 2]}
        assert archive.campaign("first").config == {"seed": 2}
        assert archive.campaign("first").finished_at is None

    def test_why_a_campaign_ended_is_kept_until_it_goes_on(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        assert archive.campaign(campaign).ended is None
        ending = Ending(Reason.TOKENS, "28,000 of 30,000 tokens")
        archive.finish_campaign(campaign, "finished", ending)
        assert archive.campaign(campaign).ended == ending
        assert self.start(archive).ended is None
        assert archive.campaign(campaign).ended is None
        archive.finish_campaign(campaign, "odd")
        assert archive.campaign(campaign).ended == Ending(Reason.UNRECORDED)

    def test_copies_of_its_own_are_counted_apart_from_copies_of_known_losses(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        copy = Failure(FailureKind.DUPLICATE, "behaves like another")
        known = self.store(archive, campaign, proposal(0, origin="known", proposer="library"))
        own = self.store(archive, campaign, proposal(1))
        for index, twin in enumerate((known.id, own.id, own.id, "dpo"), 2):
            self.store(archive, campaign, proposal(index, failure=copy, duplicate_of=twin))
        self.store(archive, campaign, proposal(6, failure=Failure(FailureKind.CRASH, "no"), proposer="evolve"))
        found = {(c.proposer, c.failure, c.copies): c.count for c in archive.outcomes(campaign) if c.failure}
        assert {key[1:]: n for key, n in found.items()} == {
            ("CRASH", None): 1,
            ("DUPLICATE", "known"): 2,
            ("DUPLICATE", "own"): 2,
        }

    def test_an_unknown_campaign_names_the_nearest(self, archive: Archive) -> None:
        self.start(archive, "imdb")
        with pytest.raises(ArchiveError, match="did you mean 'imdb'"):
            archive.entries("imbd")

    def test_tasks_keep_provenance_and_facts(self, archive: Archive) -> None:
        archive.record_task(TASK, {"accuracy": 0.87})
        archive.record_task(TASK, {"accuracy": 0.88})
        stored = archive.task(TASK.id)
        assert stored.task == TASK
        assert stored.facts == {"accuracy": 0.88}

    # proposals

    def test_a_reply_is_stored_before_its_verdict(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        made = proposal(0, parents=("aa" * 32, "bb" * 32))
        stored = archive.record_reply(campaign, replace(made, candidate=None, gate=None, probe=None, name=""))
        (open_one,) = archive.open_proposals(campaign)
        assert not open_one.judged
        assert (open_one.id, open_one.reply, open_one.prompt) == (stored, made.reply, made.prompt)
        assert open_one.parents == made.parents
        archive.record_verdict(stored, made)
        assert archive.open_proposals(campaign) == []
        with pytest.raises(ArchiveError, match="judged before"):
            archive.record_verdict(stored, made)

    def test_a_judged_proposal_comes_back_whole(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        made = proposal(3, repair_of=2, origin="repaired", parents=("aa" * 32,))
        candidate = self.store(archive, campaign, made)
        read = archive.proposal_of(candidate.short_id)
        assert read.probe is not None
        assert made.probe is not None
        assert read.probe.fingerprint is not None
        assert same_fingerprint(read.probe.fingerprint, made.probe.fingerprint)
        assert (read.probe.fingerprint.conditions, read.probe.fingerprint.single) == (CONDITIONS, True)
        assert read.probe == replace(made.probe, fingerprint=read.probe.fingerprint)
        changed = {"id": 0, "created_at": None, "probe": made.probe}
        assert replace(read, **changed) == made  # type: ignore[arg-type]
        assert archive.parameters(candidate.id) == PARAMETERS
        assert archive.prompt(read.id) == made.prompt

    def test_refusals_keep_their_reasons(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        gate = GateReport((Violation(2, "imports os", "use torch only"),), ())
        failure = Failure(FailureKind.STATIC, "line 2: imports os")
        self.store(archive, campaign, proposal(0, "os", gate=gate, probe=None, failure=failure))
        (read,) = archive.proposals(campaign)
        assert (read.gate, read.failure) == (gate, failure)
        (entry,) = archive.entries(campaign)
        assert (entry.status, entry.failure, entry.score) == ("refused", failure, None)
        assert archive.totals(campaign).failures == {"STATIC": 1}

    def test_a_number_is_given_once_per_campaign(self, archive: Archive) -> None:
        first, second = self.start(archive).id, self.start(archive, "second").id
        archive.record_reply(first, proposal(0, candidate=None))
        archive.record_reply(second, proposal(0, candidate=None))
        with pytest.raises(ArchiveError):
            archive.record_reply(first, proposal(0, candidate=None))
        assert len(archive.proposals(first)) == 1

    def test_hostile_text_is_stored(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        nasty = "a\x00b\ud800c \U0001f600 \u202e"
        source = Candidate("preference.pairs", f"# {nasty}\n")
        probe = ProbeReport(Failure(FailureKind.CRASH, nasty), None, None, {"x": math.nan})
        made = proposal(
            0, candidate=source, name=nasty, thought=nasty, probe=probe, failure=probe.failure,
            reply=Reply(nasty, nasty, 0.1), prompt=Prompt((PromptPart("user", nasty),)),
        )  # fmt: skip
        self.store(archive, campaign, made)
        (read,) = archive.proposals(campaign)
        assert read.candidate == source
        assert read.reply is not None
        assert read.reply.text == read.name == "a\ufffdb\ufffdc \U0001f600 \u202e"
        assert read.probe is not None
        assert math.isnan(read.probe.facts["x"])

    def test_prompts_are_stored_in_parts_once(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        for index in range(3):
            archive.record_reply(campaign, proposal(index, candidate=None))
        same = proposal(2).prompt
        archive.record_reply(campaign, proposal(3, candidate=None, prompt=same))
        with archive._read() as connection:
            count = connection.exec_driver_sql("SELECT count(*) FROM prompt_parts").scalar()
            prompts = connection.exec_driver_sql("SELECT count(*) FROM prompts").scalar()
        assert (count, prompts) == (4, 3)
        assert [p.prompt for p in archive.open_proposals(campaign)][3] == same

    def test_passwords_are_masked(self, archive: Archive) -> None:
        secret, url = "hunter2", "postgresql://me:hunter2@host/db?sslpassword=hunter2"
        campaign = self.start(archive, config={"archive": url, "deep": [{"password": secret}], "key_env": "KEY"}).id
        failure = Failure(FailureKind.INFRASTRUCTURE, f"cannot reach {url}")
        made = proposal(
            0, thought=url, failure=failure, reply=Reply(url, url, 0.1), prompt=Prompt((PromptPart("user", url),))
        )
        self.store(archive, campaign, made)
        everything = repr((archive.campaigns(), archive.proposals(campaign), archive.entries(campaign)))
        everything += repr(archive.prompt(archive.proposals(campaign)[0].id))
        assert secret not in everything
        assert "me:***@host" in everything
        assert "'key_env': 'KEY'" in everything

    # listings

    def test_entries_are_in_leaderboard_order(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        made = [self.store(archive, campaign, proposal(i)) for i in range(5)]
        self.train(archive, campaign, made[0], s0=0.1, s1=0.3)
        self.train(archive, campaign, made[1], s0=0.9, s1=0.7)
        self.train(archive, campaign, made[2], s0=0.99)
        trial = archive.ensure_trial(campaign, made[2].id, TASK.id, 1)
        failure = Failure(FailureKind.NON_FINITE, "NaN at step 3")
        archive.fail_trial(trial.id, archive.start_attempt(trial.id, "w"), failure, final=True)
        refused = proposal(5, failure=Failure(FailureKind.DUPLICATE, "twin"), duplicate_of=made[0].id)
        self.store(archive, campaign, refused)
        entries = archive.entries(campaign)
        assert [e.name for e in entries] == ["loss 1", "loss 0", "loss 3", "loss 4", "loss 2", "loss 5"]
        assert [e.status for e in entries] == ["ranked"] * 2 + ["accepted"] * 2 + ["failed", "refused"]
        assert entries[0].score is not None
        assert entries[0].score.by_seed == {0: 0.9, 1: 0.7}
        assert (entries[4].score, entries[4].failure) == (None, failure)
        assert (entries[4].trials_done, entries[4].trials_failed) == (1, 1)
        assert [e.name for e in archive.top(campaign, 1)] == ["loss 1"]
        for offset in range(7):
            assert archive.entries(campaign, limit=2, offset=offset) == entries[offset : offset + 2]

    def test_lower_can_be_better(self, archive: Archive) -> None:
        campaign = self.start(archive, metric="kl", higher_is_better=False).id
        made = [self.store(archive, campaign, proposal(i)) for i in range(2)]
        self.train(archive, campaign, made[0], s0=0.1)
        self.train(archive, campaign, made[1], s0=0.9)
        assert [e.name for e in archive.top()] == ["loss 1", "loss 0"]
        assert [e.name for e in archive.top(metric="score")] == ["loss 1", "loss 0"]
        with pytest.raises(ArchiveError, match="no trial reports a metric 'scor'; did you mean 'score'"):
            archive.top(metric="scor")

    def test_only_the_named_seeds_and_task_rank(self, archive: Archive) -> None:
        campaign = self.start(archive, seeds=(0, 1)).id
        candidate = self.store(archive, campaign, proposal(0))
        archive.record_task(OTHER_TASK, {})
        self.train(archive, campaign, candidate, s0=0.5, s100=0.9)
        self.train(archive, campaign, candidate, OTHER_TASK, s1=0.8)
        (entry,) = archive.entries(campaign)
        assert entry.score is not None
        assert entry.score.by_seed == {0: 0.5}
        assert archive.scores(campaign, OTHER_TASK.id, "score")[candidate.id].by_seed == {1: 0.8}
        assert archive.scores(campaign, TASK.id, "kl", seeds=[100])[candidate.id].by_seed == {100: 10 - 0.9}
        self.start(archive, seeds=(100,))
        assert archive.entries(campaign)[0].score == archive.scores(campaign, TASK.id, "score", [100])[candidate.id]

    def test_campaigns_keep_their_own_standings(self, archive: Archive) -> None:
        first, second = self.start(archive).id, self.start(archive, "second").id
        candidate = self.store(archive, first, proposal(0))
        assert self.store(archive, second, proposal(4, "-policy_chosen * 1", name="again")) == candidate
        self.train(archive, first, candidate, s0=0.5)
        assert [(e.campaign, e.name, e.status) for e in archive.entries()] == [
            ("second", "again", "accepted"),
            ("first", "loss 0", "ranked"),
        ]
        assert archive.entry(candidate.id[:12]).campaign == "second"
        assert archive.entry(candidate.id[:12], "first").name == "loss 0"

    def test_a_copy_does_not_replace_the_first_but_an_acceptance_replaces_a_refusal(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        lost = Failure(FailureKind.INFRASTRUCTURE, "no worker")
        self.store(archive, campaign, proposal(0, "1", failure=lost, probe=ProbeReport(lost)))
        self.store(archive, campaign, proposal(1, "1", name="second try"))
        twin = Failure(FailureKind.DUPLICATE, "twin")
        self.store(archive, campaign, proposal(2, "1", failure=twin, gate=None, probe=None))
        (entry,) = archive.entries(campaign)
        assert (entry.name, entry.failure, entry.status) == ("second try", None, "accepted")
        ids, table = archive.fingerprints(campaign)
        assert ids == (entry.candidate.id,)
        assert np.array_equal(table[0], np.array([[1.1, np.nan, -2.0], [1e-300, 0.5, 1 / 3]]), equal_nan=True)

    def test_entries_can_be_filtered(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        self.store(archive, campaign, proposal(0, name="100% Steep_loss"))
        archive.record_known(campaign, proposal(1, origin="known", proposer="library", reply=None, prompt=None))
        cases: tuple[tuple[EntryFilter, list[str]], ...] = (
            (EntryFilter(text="STEEP_"), ["100% Steep_loss"]),
            (EntryFilter(text="0% s"), ["100% Steep_loss"]),
            (EntryFilter(text="chosen * 2"), ["loss 1"]),
            (EntryFilter(text="steepXloss"), []),
            (EntryFilter(origin="known"), ["loss 1"]),
            (EntryFilter(proposer="openai"), ["100% Steep_loss"]),
            (EntryFilter(evaluator="test.other"), []),
            (EntryFilter(evaluator="test.task", status="accepted"), ["100% Steep_loss", "loss 1"]),
        )
        for where, names in cases:
            assert [e.name for e in archive.entries(campaign, where)] == names, where

    def test_ids_can_be_shortened(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        made = [self.store(archive, campaign, proposal(i)) for i in range(17)]
        first = sorted(c.id for c in made)[0]
        shared = next(c for c in "0123456789abcdef" if sum(m.id.startswith(c) for m in made) > 1)
        entry = archive.entry(first[:16].upper())
        assert entry.candidate.id == first
        stored = next(proposal(i).probe for i, m in enumerate(made) if m.id == first)
        assert stored is not None
        assert same_fingerprint(entry.fingerprint, stored.fingerprint)
        with pytest.raises(ArchiveError, match="ambiguous"):
            archive.entry(shared)
        with pytest.raises(ArchiveError, match="no candidate"):
            archive.entry("0" * 20)
        for wrong in ("", "%", "xyz", "_"):
            with pytest.raises(ArchiveError, match="no candidate"):
                archive.entry(wrong)

    def test_lineage_goes_back_to_the_roots(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        a, b = (self.store(archive, campaign, proposal(i)) for i in range(2))
        c = self.store(archive, campaign, proposal(2, parents=(a.id, b.id)))
        d = self.store(archive, campaign, proposal(3, parents=(c.id, a.id, "ff" * 32)))
        found = [(x.candidate_id, x.depth) for x in archive.lineage(d.short_id)]
        assert found == [(d.id, 0), (c.id, 1), (a.id, 1), (b.id, 2)]
        assert archive.entry(c.id).parents == (a.id, b.id)

    def test_totals_count_everything(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        candidate = self.store(archive, campaign, proposal(0))
        archive.record_reply(campaign, proposal(1, candidate=None))
        self.train(archive, campaign, candidate, s0=0.5)
        archive.ensure_trial(campaign, candidate.id, TASK.id, 1)
        totals = archive.totals(campaign)
        assert (totals.proposals, totals.unjudged, totals.accepted) == (2, 1, 1)
        assert (totals.prompt_tokens, totals.completion_tokens, totals.attempts) == (2000, 400, 1)
        assert totals.trials == {"done": 1, "pending": 1}
        assert totals.failures == {}
        record = archive.campaign(campaign)
        assert (record.proposals, record.candidates, record.trials_done) == (2, 1, 1)
