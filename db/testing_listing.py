"""What an archive promises about filters, orders, pages and relatives, whatever database is behind it."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from db.archive import Archive
from db.filters import FilterError
from db.records import EntryFilter, Sort
from db.testing_trials import ArchiveSuite
from db.testing_values import OTHER_TASK, TASK, proposal, report
from evaluators.base import Metric
from sandbox.failure import Failure, FailureKind


class ListingConformance(ArchiveSuite):
    """Six losses: 0 to 2 are ranked, 3 has no trial, 4 failed on a seed, 5 was refused. `kl` is 10 minus `score`."""

    def fill(self, archive: Archive, name: str = "first") -> int:
        campaign = self.start(archive, name, seeds=(0, 1)).id
        archive.record_task(OTHER_TASK, {})
        made = [self.store(archive, campaign, proposal(i)) for i in range(5)]
        self.train(archive, campaign, made[0], s0=0.25, s1=0.75, s100=99.0)
        self.train(archive, campaign, made[1], s0=0.75, s1=1.0)
        self.train(archive, campaign, made[2], s0=0.5, s1=0.5)
        self.train(archive, campaign, made[2], OTHER_TASK, s0=77.0)
        self.train(archive, campaign, made[4], s0=0.875)
        trial = archive.ensure_trial(campaign, made[4].id, archive.campaign(campaign).ranking.task_id, 1)
        failure = Failure(FailureKind.TIMEOUT, "too slow")
        archive.fail_trial(trial.id, archive.start_attempt(trial.id, "w"), failure, final=True)
        twin = Failure(FailureKind.DUPLICATE, "twin")
        self.store(archive, campaign, proposal(5, failure=twin, duplicate_of=made[0].id, proposer="evolve"))
        return campaign

    @pytest.mark.parametrize(
        ("where", "found"),
        [
            ("score > 0.5", "1"),
            ("0.5 <= score", "102"),
            ("kl < 9.25", "1"),
            ("kl == 9.5", "02"),
            ("kl != 9.5", "1"),
            ("not kl < 9.25", "023" + "45"),
            ("kl > 0 and (number == 0 or number == 3)", "0"),
            ("number >= 4 or score > 0.5", "145"),
            ("status == 'failed'", "4"),
            ("failure == 'DUPLICATE'", "5"),
            ("failure != 'DUPLICATE'", "4"),
            ("trials_done == 1 and trials_failed == 1", "4"),
            ("proposer == 'evolve'", "5"),
            ("model == 'a-model' and tokens == 1200 and name == 'loss 2'", "2"),
            ("origin == 'known'", ""),
            ("campaign != 'first'", ""),
            ("created > '2020-01-01' and created < '2999-12-31 23:59'", "102345"),
            ("created < '2020-01-01T00:00:00+02:00'", ""),
        ],
    )
    def test_expressions_choose_entries(self, archive: Archive, where: str, found: str) -> None:
        campaign = self.fill(archive)
        page = archive.page(campaign, EntryFilter(where=where))
        assert "".join(e.name[-1] for e in page.entries) == found
        assert archive.page(campaign, EntryFilter(where=where), limit=1).total == page.total == len(found)

    @pytest.mark.parametrize(
        ("where", "said"),
        [
            ("skore > 1", "there is no 'skore'; did you mean 'score'"),
            ("1 == 1", "character 6"),
            ("kl < 'three'", "kl is compared with a number"),
            ("status == 3", "status is compared with a text"),
            ("status == 'rankd'", "did you mean 'ranked'"),
            ("name < 'x'", "name is a text"),
            ("created == '2026-01-01'", "created is a time: compare"),
            ("created > 'yesterday'", "is no time; write"),
        ],
    )
    def test_wrong_expressions_are_explained(self, archive: Archive, where: str, said: str) -> None:
        campaign = self.fill(archive)
        with pytest.raises(FilterError, match=said) as caught:
            archive.entries(campaign, EntryFilter(where=where))
        assert not caught.value.fault

    def test_before_anything_is_measured_any_metric_is_known(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        self.store(archive, campaign, proposal(0))
        assert archive.metrics(campaign) == ()
        assert archive.page(campaign, EntryFilter(where="anything > 1")).total == 0
        assert archive.page(campaign, EntryFilter(where="not anything > 1"), sort=Sort("anything")).total == 1

    @pytest.mark.parametrize(
        ("sort", "found"),
        [
            (Sort("score"), "102345"),
            (Sort("score", descending=False), "021345"),
            (Sort("kl"), "102345"),
            (Sort("kl", descending=True), "021345"),
            (Sort("number", descending=True), "543210"),
            (Sort("name"), "012345"),
            (Sort("failure", descending=True), "450123"),
        ],
    )
    def test_entries_come_in_a_chosen_order_in_pages(self, archive: Archive, sort: Sort, found: str) -> None:
        campaign = self.fill(archive)
        for offset in range(8):
            page = archive.page(campaign, limit=2, offset=offset, sort=sort)
            assert "".join(e.name[-1] for e in page.entries) == found[offset : offset + 2]
            assert page.total == 6
        assert archive.page(campaign, EntryFilter(status="ranked"), sort=sort).total == 3

    def test_campaigns_are_chosen_from_together(self, archive: Archive) -> None:
        first, second = self.fill(archive), self.fill(archive, "second")
        self.start(archive, "second", seeds=(0,))
        assert archive.page(where=EntryFilter(where="kl < 9.25")).total == 2
        found = archive.page(second, EntryFilter(where="kl == 9.125"))  # its failed seed does not count any more
        assert [e.name for e in found.entries] == ["loss 4"]
        both = archive.page(sort=Sort("kl"), limit=4)
        assert [(e.campaign, e.name) for e in both.entries] == [
            ("second", "loss 4"),
            ("first", "loss 1"),
            ("second", "loss 1"),
            ("second", "loss 2"),
        ]
        assert both.total == 12
        assert archive.page(first).total == 6
        with pytest.raises(FilterError, match="there is no 'kll'"):
            archive.page(sort=Sort("kll"))

    def test_metrics_and_means_are_those_that_rank(self, archive: Archive) -> None:
        campaign = self.fill(archive)
        assert [(m.name, m.higher_is_better) for m in archive.metrics(campaign)] == [("score", True), ("kl", False)]
        ids = {e.name[-1]: e.candidate.id for e in archive.entries(campaign)}
        assert archive.means(campaign, ["kl", "score"]) == {
            ids["0"]: {"kl": 9.5, "score": 0.5},
            ids["1"]: {"kl": 9.125, "score": 0.875},
            ids["2"]: {"kl": 9.5, "score": 0.5},
        }
        assert archive.means(campaign, ["kl"], [ids["1"], ids["4"]]) == {ids["1"]: {"kl": 9.125}}

    def test_descendants_are_followed_to_the_last(self, archive: Archive) -> None:
        campaign = self.start(archive).id
        a, b = (self.store(archive, campaign, proposal(i)) for i in range(2))
        c = self.store(archive, campaign, proposal(2, parents=(a.id, b.id)))
        d = self.store(archive, campaign, proposal(3, parents=(c.id, a.id)))
        other = self.start(archive, "second").id
        self.store(archive, other, proposal(4, parents=(b.id,)))
        self.train(archive, campaign, d, s0=0.5)
        assert [(x.candidate_id, x.depth) for x in archive.descendants(b.short_id, campaign)] == [
            (b.id, 0), (c.id, 1), (d.id, 2),
        ]  # fmt: skip
        last = archive.descendants(a.id, campaign)[-1]
        assert (last.candidate_id, last.status, last.score, last.parents) == (d.id, "ranked", 0.5, (c.id, a.id))

    # what happened

    def test_outcomes_are_counted_by_proposer_and_fate(self, archive: Archive) -> None:
        campaign = self.fill(archive)
        counts = {(o.proposer, o.failure, o.status): o for o in archive.outcomes(campaign)}
        assert {key: o.count for key, o in counts.items()} == {
            ("openai", None, "ranked"): 3,
            ("openai", None, "accepted"): 1,
            ("openai", None, "failed"): 1,
            ("evolve", "DUPLICATE", "refused"): 1,
        }
        ranked = counts["openai", None, "ranked"]
        assert (ranked.model, ranked.origin, ranked.prompt_tokens, ranked.completion_tokens) == (
            "a-model", "proposed", 3000, 600,
        )  # fmt: skip

    def test_recorded_times_are_summed_by_device(self, archive: Archive) -> None:
        before = time.monotonic()
        campaign = self.fill(archive)
        times = {t.device: t for t in archive.device_times(campaign)}
        assert (times["cpu"].trials, times["unknown"].trials) == (9, 1)  # a failure reports no device
        assert 0 < sum(t.seconds for t in times.values()) < time.monotonic() - before  # they ran one after the other

    def test_an_attempt_that_was_cut_off_counts_as_device_time(self, archive: Archive) -> None:
        campaign = self.start(archive, "first", seeds=(0,)).id
        made = self.store(archive, campaign, proposal(0))
        archive.start_attempt(archive.ensure_trial(campaign, made.id, TASK.id, 0).id, "w")
        assert archive.device_times(campaign) == []
        archive.reset_running(campaign)
        (lost,) = archive.device_times(campaign)
        assert (lost.device, lost.trials) == ("unknown", 0)
        assert lost.seconds > 0

    def test_scores_are_in_the_order_of_time(self, archive: Archive) -> None:
        campaign = self.fill(archive)
        assert [(s.name, s.score) for s in archive.scored(campaign)] == [
            ("loss 0", 0.5), ("loss 1", 0.875), ("loss 2", 0.5),
        ]  # fmt: skip
        times = [s.at for s in archive.scored(campaign)]
        assert times == sorted(times)
        assert times[0].utcoffset() is not None

    def test_results_are_those_of_finished_and_failed_seeds(self, archive: Archive) -> None:
        campaign = self.fill(archive)
        waiting = archive.entries(campaign, EntryFilter(where="number == 3"))[0].candidate
        archive.start_attempt(archive.ensure_trial(campaign, waiting.id, TASK.id, 0).id, "w")
        found = archive.results(campaign, TASK.id, "score", (0, 1))
        names = {e.candidate.id: e.name for e in archive.entries(campaign)}
        assert {names[c]: (dict(r.by_seed), str(r.failure or "")) for c, r in found.items()} == {
            "loss 0": ({0: 0.25, 1: 0.75}, ""),
            "loss 1": ({0: 0.75, 1: 1.0}, ""),
            "loss 2": ({0: 0.5, 1: 0.5}, ""),
            "loss 4": ({0: 0.875}, "TIMEOUT: too slow"),
        }
        everything = archive.results(campaign, TASK.id, "score")
        assert sorted(next(r.by_seed for c, r in everything.items() if names[c] == "loss 0")) == [0, 1, 100]
        assert [dict(r.by_seed) for r in archive.results(campaign, OTHER_TASK.id, "score").values()] == [{0: 77.0}]

    def test_values_by_world_are_those_of_the_metric_and_of_finished_seeds(self, archive: Archive) -> None:
        campaign = self.start(archive, "worlds", seeds=(0, 1)).id
        made = [self.store(archive, campaign, proposal(i)) for i in range(2)]
        self.train(archive, campaign, made[0], s0=0.25)
        for seed, values in {0: {"b": 0.5, "a": 1.0}, 1: {"b": 0.75, "a": 1.5}, 7: {"b": 9.0}}.items():
            parts = [Metric(f"score/{world}", value, True, "") for world, value in values.items()]
            others = [Metric(f"{name}/b", -1.0, True, "") for name in ("Score", "score_b", "scores", "s%ore")]
            found = replace(report(seed, 1.0), metrics=(*report(seed, 1.0).metrics, *others, *parts))
            trial = archive.ensure_trial(campaign, made[1].id, TASK.id, seed)
            archive.finish_trial(trial.id, archive.start_attempt(trial.id, "w"), found)
        waiting = archive.ensure_trial(campaign, made[1].id, TASK.id, 5)
        archive.start_attempt(waiting.id, "w")
        assert archive.worlds(campaign, TASK.id, "score", (0, 1)) == {
            made[1].id: {(0, "b"): 0.5, (0, "a"): 1.0, (1, "b"): 0.75, (1, "a"): 1.5}
        }
        assert list(archive.worlds(campaign, TASK.id, "score")[made[1].id])[-1] == (7, "b")
        assert [w for _, w in archive.worlds(campaign, TASK.id, "score", (0,))[made[1].id]] == ["b", "a"]
        assert archive.worlds(campaign, TASK.id, "score", only=[made[0].id]) == {}
        assert archive.worlds(campaign, TASK.id, "s_ore") == archive.worlds(campaign, OTHER_TASK.id, "score") == {}

    @pytest.mark.parametrize("few", [2_000, 0])
    def test_a_text_is_found_wherever_it_stands(
        self, archive: Archive, monkeypatch: pytest.MonkeyPatch, few: int
    ) -> None:
        monkeypatch.setattr("db.text_search._FEW", few)
        campaign = self.start(archive).id
        thoughts = (
            "a*b [c] d?e",
            "100%_of/it",
            "STRASSE \u0130 \u1e9e",
            "\U0001f600\U0001f601\U0001f602",
            'it\'s "q" \\n',
        )
        for i, thought in enumerate(thoughts):
            self.store(archive, campaign, proposal(i, thought=thought))
        texts = {
            e.name: "\n".join((e.name, e.thought, e.candidate.source)).casefold() for e in archive.entries(campaign)
        }
        pieces = {t[i : i + n] for t in thoughts for n in (1, 2, 3, 5, 99) for i in range(len(t))}
        for piece in sorted(pieces | {"*b [c] d?", "a*c", "[a-z]", "%", "___", "loss", "stra\u00dfe", "nothing of it"}):
            found = archive.page(campaign, EntryFilter(text=piece))
            expected = [name for name, text in texts.items() if piece.casefold() in text]
            assert ([e.name for e in found.entries], found.total) == (expected, len(expected)), piece

    def test_trials_that_do_not_rank_are_told_apart(self, archive: Archive) -> None:
        campaign = self.fill(archive)
        names = {e.candidate.id: e.name for e in archive.entries(campaign)}
        found = [(k.task_id, k.seed, names[k.candidate_id]) for k in archive.beyond_ranking(campaign)]
        assert found == [(TASK.id, 100, "loss 0"), (OTHER_TASK.id, 0, "loss 2")]
        assert archive.seeds(campaign, TASK.id) == (0, 1, 100)

    def test_happenings_are_told_from_a_moment_on(self, archive: Archive) -> None:
        campaign = self.fill(archive)
        found = archive.happenings(campaign)
        assert len([h for h in found if h.seed is None]) == 6
        ended = [h for h in found if h.seed is not None]
        assert [h.value for h in ended] == [0.25, 0.75, 99.0, 0.75, 1.0, 0.5, 0.5, 77.0, 0.875, None]
        assert str(ended[-1].failure) == "TIMEOUT: too slow"
        assert [(h.metric, h.evaluator) for h in ended if h.value in (0.25, 77.0)] == [
            (None, "test.task"), ("score", "test.other"),
        ]  # fmt: skip
        assert archive.happenings(campaign, since=found[-2].at) == found[-2:]
        assert {h.key for h in archive.happenings(campaign, limit=1)} == {found[-1].key, ended[-1].key}
