"""Filters, comparisons, lineages, statistics and following, through the command line on a real archive."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from db.archive import Archive
from db.testing_values import TASK, proposal, report
from discovery.browse.campaign_stats import campaign_stats
from discovery.browse.following import Follower
from discovery.cli.braille import drawn
from discovery.cli.csv_text import cell
from evaluators.base import Metric, Timings, TrialReport
from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.failure import Failure, FailureKind
from tests.support.command import discovery, discovery_process, script
from tests.support.small_archive import CRASHED, WINNER, make_archive
from tests.support.small_archive import TASK as SMALL_TASK

DPO, IPO = (known_objective(PAIRS.name, name).candidate for name in ("dpo", "ipo"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive") / "small.db")


@pytest.fixture(scope="module")
def curved(tmp_path_factory) -> Path:
    """Three generations with stored loss curves and scores, and one that nobody has measured."""
    path = tmp_path_factory.mktemp("curved") / "curved.db"
    with Archive(path, create=True) as stored:
        campaign = stored.start_campaign("curved", {}, task=TASK, metric="score", higher_is_better=True).id
        parents: tuple[str, ...] = ()
        for index in range(4):
            made = proposal(index, parents=parents)
            unread = replace(made, name="", thought="", candidate=None, gate=None, probe=None)
            stored.record_verdict(stored.record_reply(campaign, unread), made)
            assert made.candidate is not None
            parents = (*parents, made.candidate.id)
            for seed in range(3 if index < 3 else 0):
                trial = stored.ensure_trial(campaign, made.candidate.id, TASK.id, seed)
                attempt = stored.start_attempt(trial.id, "w")
                stored.finish_trial(trial.id, attempt, report(seed, 0.25 * (index % 2) + 0.125 * seed))
    return path


def made(index: int) -> Candidate:
    candidate = proposal(index).candidate
    assert candidate is not None
    return candidate


def ids(archive: Path, *arguments: str) -> list[str]:
    ended = discovery("candidates", *arguments, "--archive", archive, "--json")
    assert ended.code == 0, ended.stderr
    return [e["id"] for e in json.loads(ended.stdout)]


def test_candidates_are_chosen_and_ordered(archive):
    assert ids(archive, "--where", "frontier > 0.7") == [WINNER.id, DPO.id]
    assert ids(archive, "--where", "frontier/base <= 0.6 or failure == 'NON_FINITE'") == [IPO.id, CRASHED.id]
    assert ids(archive, "--proposer", "library", "--sort", "score:asc") == [IPO.id, DPO.id]
    assert ids(archive, "--sort", "frontier/base", "--limit", "2", "--offset", "1") == [DPO.id, IPO.id]
    text = discovery("candidates", "--where", "frontier/base > 0", "--limit", "2", "--archive", archive).stdout
    assert "1 to 2 of 3; more follow: --offset 2" in text
    assert "frontier/base" in text.splitlines()[1]
    assert "only 3 match" in discovery("candidates", "--status", "ranked", "--offset", "9", "--archive", archive).stdout


def test_csv_is_harmless_in_a_spreadsheet(archive):
    ended = discovery("candidates", "--sort", "frontier/base", "--archive", archive, "--csv")
    rows = list(csv.DictReader(io.StringIO(ended.stdout)))
    assert [r["name"] for r in rows[:3]] == ["winner", "dpo", "ipo"]
    assert (float(rows[0]["score"]), float(rows[0]["frontier/base"]), rows[3]["score"]) == (0.875, 0.875, "")
    assert "\x1b" not in ended.stdout
    (campaign,) = csv.DictReader(io.StringIO(discovery("campaigns", "--archive", archive, "--csv").stdout))
    assert (campaign["name"], campaign["leader_id"]) == ("small", WINNER.id)
    for formula in ("=1+1", "+1", "-1", "@sum", "\t=1", "\x1b=1", "\n=cmd|' /C calc'!A0"):
        assert cell(formula).startswith("'")
    assert [cell(v) for v in ("a-1", -1.5, True, None, float("nan"))] == ["a-1", "-1.5", "True", "", ""]


def test_what_is_mistyped_is_one_line(archive):
    for arguments, said in (
        (["candidates", "--where", "frontier >"], "at character 11"),
        (["candidates", "--where", "frontire > 1"], "did you mean 'frontier'?"),
        (["candidates", "--sort", "frontire"], "did you mean 'frontier'?"),
        (["candidates", "--sort", "frontier:down"], "--sort does not know 'down'"),
        (["candidates", "--json", "--csv"], "exclude each other"),
        (["compare", WINNER.short_id], "two or more"),
        (["compare", WINNER.short_id, WINNER.id], "two or more different"),
        (["compare", WINNER.short_id, "ffffffffff"], "ffffffffff"),
        (["lineage", "ffffffffff"], "ffffffffff"),
        (["stats", "smal"], "did you mean 'small'?"),
        (["tail", "smal"], "did you mean 'small'?"),
    ):
        ended = discovery(*arguments, "--archive", archive)
        assert (ended.code, ended.stdout) == (2, ""), arguments
        assert said in ended.error


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    "arguments",
    [["compare", WINNER.short_id, CRASHED.short_id, DPO.short_id], ["lineage", DPO.short_id, "--children"],
     ["lineage", CRASHED.short_id], ["stats", "small"], ["tail", "small"],
     ["show", WINNER.short_id, "--prompt", "--reply"]],
)  # fmt: skip
def test_hostile_text_is_harmless_everywhere(arguments, width, archive, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = discovery(*arguments, "--archive", archive)
    assert coloured.code == 0, coloured.stderr
    assert "\x1b[2J" not in coloured.stdout
    assert "\u202e" not in coloured.stdout
    monkeypatch.delenv("FORCE_COLOR")
    plain = discovery(*arguments, "--archive", archive)
    assert "\x1b" not in plain.stdout
    if arguments[0] != "tail":
        assert json.loads(discovery(*arguments, "--archive", archive, "--json").stdout)


def test_show_gives_intervals_the_curve_and_the_conversation(archive, curved):
    text = discovery("show", WINNER.short_id, "--prompt", "--reply", "--archive", archive).stdout
    for fact in ("95% interval", "0.8750 to 0.8750", "Prompt, user", "Number 2.", "the raw reply"):
        assert fact in text
    assert "Prompt" not in discovery("show", WINNER.short_id, "--archive", archive).stdout
    assert "nobody was asked" in discovery("show", DPO.short_id, "--prompt", "--archive", archive).stdout
    drawing = discovery("show", made(1).short_id, "--archive", curved).stdout
    assert "Loss against the margin" in drawing
    assert any("\u2801" <= c <= "\u28ff" for c in drawing)
    values = json.loads(discovery("show", made(1).short_id, "--archive", curved, "--json").stdout)
    assert values["curve"]["margins"] == [-8, 8]
    assert values["curve"]["slopes"] == [0.75 / 16] * 2


def test_compare_pairs_common_seeds_and_shows_the_diff(curved):
    ended = discovery("compare", made(0).short_id, made(1).short_id, "--archive", curved, "--json")
    values = json.loads(ended.stdout)
    (other,) = values["others"]
    (measured,) = other["measured"]
    assert (measured["ranks"], measured["seeds"]) == (True, [0, 1, 2])
    assert [(m["metric"], m["ranks"]) for m in measured["metrics"]] == [("score", True), ("kl", False)]
    difference = measured["metrics"][0]["difference"]
    assert (difference["mean"], difference["low"], difference["n"]) == (0.25, 0.25, 3)
    assert (difference["verdict"], measured["metrics"][1]["difference"]["verdict"]) == ("better", "better")
    assert "+    return -policy_chosen * 2" in other["diff"].splitlines()
    assert len(values["curves"]) == 2
    text = discovery("compare", made(0).short_id, made(1).short_id, made(3).short_id, "--archive", curved).stdout
    assert "-    return -policy_chosen * 1" in text
    assert "no seed was finished by both" in text
    assert "Loss against the margin" in text


def test_compare_pairs_by_world_on_the_seeds_that_rank_in_the_campaign_that_has_both(tmp_path):
    path = make_archive(tmp_path / "small.db")
    with Archive(path) as stored:
        first = stored.campaign("small")
        started = {"task": SMALL_TASK, "metric": "frontier", "higher_is_better": True, "seeds": (0, 1)}
        campaign = stored.start_campaign("small", {"seed": 1}, **started).id
        for candidate, score in ((WINNER, 0.5), (DPO, 0.25)):
            values = [score, *(score + (w - 1.5) / 8 for w in range(4))]
            names = ["frontier", *(f"frontier/world {w}" for w in range(4))]
            for seed in (7, 8):  # outside of the ranking
                metrics = tuple(Metric(n, v, True, "") for n, v in zip(names, values, strict=True))
                trial = stored.ensure_trial(campaign, candidate.id, first.ranking.task_id, seed)
                done = TrialReport(seed, metrics, {}, Timings(0, 0, 0, 0), "cpu", 1, {}, 1.0, 1)
                stored.finish_trial(trial.id, stored.start_attempt(trial.id, "w"), done)
        stored.finish_campaign(campaign, "finished")
        newer = stored.start_campaign("newer", {}, **started).id
        known = stored.proposal_of(DPO.id, "small")
        stored.record_known(newer, replace(known, index=0))
    text = discovery("compare", DPO.short_id, WINNER.short_id, "--archive", path, "--json").stdout
    values = json.loads(text)
    (other,) = values["others"]
    assert (values["first"]["campaign"], other["campaign"]) == ("small", "small")
    assert [(m["ranks"], m["fresh"], m["seeds"]) for m in other["measured"]] == [
        (True, False, [0, 1]), (False, True, [7, 8]),
    ]  # fmt: skip
    ranking, fresh = (m["metrics"][0] for m in other["measured"])
    assert (ranking["mean"], ranking["first_mean"]) == (0.875, 0.78125)  # as the leaderboard has them
    assert (fresh["mean"], fresh["difference"]["mean"], fresh["difference"]["n"]) == (0.5, 0.25, 8)
    for width in ("60", "80", "120"):
        shown = discovery_process(
            "compare", DPO.short_id, WINNER.short_id, "--archive", path, environment={"COLUMNS": width}
        ).stdout
        assert "frontier " in shown
        assert "in small" in shown
        assert "preference.enumerable, seeds 7, 8, which the search never saw" in " ".join(shown.split())
        assert "+0.2500 [+0.2500, +0.2500]" in shown


def test_lineage_is_a_tree_both_ways(curved):
    text = discovery("lineage", made(2).short_id, "--archive", curved).stdout
    assert [line.lstrip("│├└─ ").partition(" (")[0] for line in text.splitlines()[1:]] == [
        "loss 2", "loss 0", "loss 1", "loss 0",
    ]  # fmt: skip
    assert text.count("see above") == 1
    below = discovery("lineage", made(2).short_id, "--children", "--archive", curved).stdout.partition("made from it")[
        2
    ]
    assert "loss 3" in below
    assert "accepted" in below
    values = json.loads(discovery("lineage", made(1).short_id, "--children", "--archive", curved, "--json").stdout)
    assert sorted(m["name"] for m in values["members"]) == ["loss 0", "loss 1", "loss 2", "loss 3"]
    assert [made(0).id, made(1).id] in values["edges"]


def test_stats_count_what_became_of_proposals(archive, curved):
    with Archive(archive) as stored:
        found = campaign_stats(stored, "small")
    (one,) = found.proposers
    assert (one.proposer, one.model, one.proposals, one.accepted, one.ranked) == ("openai", "a-model", 3, 2, 1)
    assert (one.success_rate, one.tokens_per_accepted) == (1 / 3, 1800)
    assert (dict(found.check_failures), dict(found.training_failures)) == ({"STATIC": 1}, {"NON_FINITE": 1})
    (cpu, unknown) = found.devices
    assert (cpu.device, cpu.trials, unknown.device, unknown.trials) == ("cpu", 8, "unknown", 1)  # one failed
    assert found.device_hours == (cpu.seconds + unknown.seconds) / 3600 > 0
    assert [s.candidate_id for s in found.leaders] == [WINNER.id]
    assert [s.name for s in found.baselines] == ["dpo", "ipo"]
    with Archive(curved) as stored:
        assert [s.name for s in campaign_stats(stored, "curved").leaders] == ["loss 0", "loss 1"]
    text = discovery("stats", "small", "--archive", archive).stdout
    for fact in ("33%", "3,000 in, 600 out; 1,800 per accepted", "no prices", "STATIC 1", " in 8 trials"):
        assert fact in text


def test_duplicates_are_counted_as_trials_saved(tmp_path):
    with Archive(tmp_path / "a.db", create=True) as stored:
        campaign = stored.start_campaign("c", {}, task=TASK, metric="score", higher_is_better=True, seeds=(0, 1, 2)).id
        for index, failure in enumerate([None, Failure(FailureKind.DUPLICATE, "twin")]):
            whole = proposal(index, failure=failure)
            stored.record_verdict(stored.record_reply(campaign, replace(whole, candidate=None, failure=None)), whole)
        trial = stored.ensure_trial(campaign, made(0).id, TASK.id, 0)
        stored.finish_trial(trial.id, stored.start_attempt(trial.id, "w"), report(0, 0.5))
        found = campaign_stats(stored, campaign)
    assert (found.copies.total, found.trials_saved) == (1, 3)
    assert found.hours_saved == pytest.approx(3 * found.device_hours)
    assert found.device_hours > 0


def test_tail_of_a_finished_campaign_ends(archive):
    ended = discovery("tail", "small", "--lines", "2", "--archive", archive)
    assert ended.code == 0
    lines = ended.stdout.splitlines()
    assert "refused" in lines[1]
    assert lines[-3:] == [
        f"leads so far: winner ({WINNER.short_id}) frontier 0.8750",
        "small: finished, 8 trials done",
        "the reason was not recorded",
    ]
    events = [json.loads(x) for x in discovery("tail", "small", "--archive", archive, "--json").stdout.splitlines()]
    assert [e["event"] for e in events][-3:] == ["verdict", "leader", "end"]


@pytest.mark.parametrize("last", [0, 1, 3, 100])
def test_following_tells_each_happening_once_from_the_last_few_on(archive, tmp_path, last):
    path = make_archive(tmp_path / "small.db")
    with Archive(path) as stored:
        before = stored.happenings("small")
        follower = Follower(stored, "small", last)
        assert list(follower.look().happenings) == before[max(len(before) - last, 0) :]
        assert follower.look().happenings == ()
        started = {"task": SMALL_TASK, "metric": "frontier", "higher_is_better": True, "seeds": (0, 1)}
        campaign = stored.start_campaign("small", {"seed": 1}, **started).id
        trial = stored.ensure_trial(campaign, WINNER.id, stored.campaign("small").ranking.task_id, 77)
        stored.fail_trial(trial.id, stored.start_attempt(trial.id, "w"), Failure(FailureKind.CRASH, "x"), final=True)
        stored.finish_campaign(campaign, "finished")
        news = follower.look()
        assert ([h.seed for h in news.happenings], news.leader, news.is_over) == ([77], None, True)
        assert follower.look().happenings == ()


@pytest.mark.parametrize("ends_by", ["itself", "its driver's death", "ctrl-c"])
def test_tail_follows_what_another_process_writes(tmp_path, ends_by):
    path = tmp_path / "live.db"
    with Archive(path, create=True) as stored:
        campaign = stored.start_campaign("live", {}, task=TASK, metric="score", higher_is_better=True).id
        command = [script(), "tail", "live", "--every", "0.1", "--archive", path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            whole = proposal(0)
            stored.record_verdict(stored.record_reply(campaign, replace(whole, candidate=None)), whole)
            assert "accepted loss 0" in running.stdout.readline()
            time.sleep(0.3)  # several looks, which tell it no second time
            trial = stored.ensure_trial(campaign, made(0).id, TASK.id, 7)
            stored.finish_trial(trial.id, stored.start_attempt(trial.id, "w"), report(7, 0.5))
            assert "seed 7: 0.5000" in running.stdout.readline()
            assert "leads so far: loss 0" in running.stdout.readline()
            if ends_by == "itself":
                stored.finish_campaign(campaign, "finished")
                assert running.stdout.readline() == "live: finished, 1 trials done\n"
                assert running.stdout.readline() == "the reason was not recorded\n"
            elif ends_by == "its driver's death":
                stored.close()
                last = running.stdout.readline()
                assert last == "live: abandoned, 1 trials done\n"
                assert "its driver was killed and left no reason" in running.stdout.readline()
            else:
                running.send_signal(signal.SIGINT)
            assert running.stderr is not None
            assert (running.stdout.read(), running.stderr.read()) == ("", "")  # `communicate` loses what is buffered
    assert running.returncode == (130 if ends_by == "ctrl-c" else 0)


def test_curves_are_drawn_within_their_frame():
    lines = drawn([[1.0, 0.0], [0.0, 0.0, 0.0]], 4, 2)
    assert [line.plain for line in lines] == ["⠑⢄⠀⠀", "⣀⣀⣑⣄"]
    assert [len(line.plain) for line in drawn([[2.0, 2.0]], 10, 3)] == [10] * 3
