"""Campaigns that cannot go on say so in one line, keep what is stored, and are taken up again."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.archive import Archive, ArchiveError
from db.messages import Prompt, PromptPart, Reply
from discovery.browse.campaign_stats import CampaignStats, campaign_stats
from discovery.campaign import Campaign
from discovery.cli.terminal import dollars
from discovery.config import BudgetConfig, make_config
from discovery.config_errors import ConfigError
from discovery.ledger import Ledger
from discovery.progress import Event
from discovery.proposers.replay import recorded_line
from discovery.protocols import Prices
from discovery.room import Node, Pools, fit
from discovery.search import SearchError
from evaluators.base import Resources
from evaluators.options import OptionsError
from sandbox.failure import InfrastructureError
from tests.support.campaigns import EVALUATOR, config, endpoint, kept, reply, settings
from tests.support.chat_server import ChatServer, distinct_loss, status
from tests.support.command import discovery

FULL = "CREATE TRIGGER full BEFORE INSERT ON attempts BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
INF = math.inf
ONE_SLOT = {"workers": {"trial_slots": 1}, "proposals": {"in_flight": 1, "max_repairs": 1}, "baselines": ["dpo"]}


def objective(folder: Path) -> dict[str, Any]:
    return {"evaluator": EVALUATOR, "seeds": 1, "options": {"folder": str(folder)}}


def run_refused(folder: Path, proposer: dict[str, Any], stored: Sequence[str] = ()) -> str:
    """Run into a SearchError; `stored` names what the archive holds then."""
    with pytest.raises(SearchError) as caught:
        Campaign(
            config(folder, objective=objective(folder), proposer=proposer, budget={"candidates": 2}, **ONE_SLOT)
        ).run()
    message = str(caught.value)
    assert "\n" not in message
    ranked = [row.entry.name for row in caught.value.board.stages[0].rows] if caught.value.board else []
    assert sorted(ranked) == sorted(stored)  # what was measured until then is shown
    found = kept(folder / "archive.db")
    assert found.status == "stopped by an error"
    assert [p.name for p in found.proposals] == list(stored)
    assert [t.status for t in found.trials.values()] == ["done"] * len(stored)  # what was accepted is trained first
    return message


@pytest.mark.slow
def test_a_wrong_key_ends_it_in_one_line_and_the_right_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ChatServer(api_key="right-key-right-key") as server:
        proposer = endpoint(server.base_url, api_key_env="SOME_KEY")
        monkeypatch.setenv("SOME_KEY", "wrong-key-wrong-key")
        message = run_refused(tmp_path, proposer)
        assert "SOME_KEY" in message
        assert "wrong-key" not in message
        monkeypatch.setenv("SOME_KEY", "right-key-right-key")
        made = config(tmp_path, objective=objective(tmp_path), proposer=proposer, budget={"candidates": 2}, **ONE_SLOT)
        assert Campaign(made).run().status == "finished"
    found = kept(tmp_path / "archive.db")
    assert len(found.accepted) == 2
    changed = {
        "other seeds": {"objective": {**objective(tmp_path), "seeds": 2}},
        "other options": {"objective": {**objective(tmp_path), "options": {"variant": 3}}},
    }
    for said, changes in changed.items():
        with pytest.raises(OptionsError, match=f"started with {said}.*give this one another name"):
            Campaign(config(tmp_path, **changes)).run()
    assert kept(tmp_path / "archive.db") == found
    assert len(found.trials) == 3
    assert found.status == "finished"


@pytest.mark.slow
def test_an_unknown_model_or_nobody_there_ends_it_in_one_line(tmp_path: Path) -> None:
    with ChatServer(always=status(404, "The model `stand-in` does not exist", "model_not_found")) as server:
        url = server.base_url
        assert "stand-in" in run_refused(tmp_path, endpoint(url, model="other"))  # not listed, so a word is tried
        assert "stand-in" in run_refused(tmp_path, endpoint(url), stored=["dpo"])  # listed, refused when asked
    assert url in run_refused(tmp_path, endpoint(url, max_retries=0), stored=["dpo"])  # closed by now


def recorded(folder: Path) -> list[Any]:
    """What a replayed campaign leaves, without times."""
    found = kept(folder / "archive.db")
    return [
            (p.index, p.origin, p.repair_of, p.name, p.candidate and p.candidate.id, str(p.failure), p.parents,
             sorted((t.seed, t.metrics[0].value) for t in found.of(p)))
            for p in found.proposals
        ]  # fmt: skip


async def _run_inside_a_loop(campaign: Campaign) -> str:
    return campaign.run().status


@pytest.mark.slow
def test_a_recording_replays_alike_and_in_a_notebook_too(tmp_path: Path) -> None:
    replies = [
        Reply(reply("bad", "import os\nreturn d"), "m", 0.1, 5, 6),
        Reply(distinct_loss({}, 1), "m", 0.1, 5, 6),
        Reply(distinct_loss({}, 2), "m", 0.1, 5, 6),
    ]
    lines = [recorded_line(r, i) for i, r in enumerate(replies)]
    lines.insert(1, recorded_line(Reply(distinct_loss({}, 7), "m", 0.1), 0, attempt=1))
    recording = tmp_path / "recording.jsonl"
    recording.write_text("\n".join(lines))
    left = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        made = config(
            folder, objective=objective(folder), budget={"proposals": 10},
            proposer={"kind": "replay", "path": str(recording)}, **ONE_SLOT,
        )  # fmt: skip
        ended = Campaign(made).run().status if name == "first" else asyncio.run(_run_inside_a_loop(Campaign(made)))
        assert ended == "finished"
        left.append(recorded(folder))
    assert left[0] == left[1]
    assert [entry[3] for entry in left[0]] == ["dpo", "bad", "mixture_7", "mixture_1", "mixture_2"]
    assert left[0][2][1:3] == ("repaired", 1)


@pytest.mark.slow
def test_an_archive_that_fails_in_the_middle_ends_it_in_one_line(tmp_path: Path) -> None:
    def break_it(event: Event) -> None:
        if event.kind == "accepted":
            with sqlite3.connect(tmp_path / "archive.db") as connection:
                connection.execute(FULL)

    with ChatServer() as server:
        made = config(tmp_path, objective=objective(tmp_path), proposer=endpoint(server.base_url), **ONE_SLOT)
        with pytest.raises(ArchiveError, match="no disk space left") as caught:
            Campaign(made, break_it).run()
        assert "\n" not in str(caught.value)
        with sqlite3.connect(tmp_path / "archive.db") as connection:
            connection.execute("DROP TRIGGER full")
        assert Campaign(made).run().status == "finished"
    assert len(kept(tmp_path / "archive.db").accepted) == 3


@pytest.mark.slow
def test_a_worker_that_is_lost_while_it_prepares_is_replaced_and_at_the_third_time_it_ends(tmp_path: Path) -> None:
    def run(kills: int) -> list[str]:
        folder = tmp_path / str(kills)
        folder.mkdir()
        said: list[str] = []
        task = {**objective(folder), "options": {"folder": str(folder), "kills": kills}}
        made = config(folder, **{**ONE_SLOT, "objective": task, "budget": {"candidates": 0}})
        Campaign(made, lambda event: said.append(event.text)).run()
        return said

    assert sum("lost (the worker process died), again" in text for text in run(2)) == 2
    with pytest.raises(InfrastructureError, match=r"^preparing search: the worker process died$"):
        run(3)


@pytest.mark.slow
def test_wall_time_ends_proposing_and_the_rest_is_trained_and_promoted(tmp_path: Path) -> None:
    slow = {"evaluator": EVALUATOR, "seeds": 1, "options": {"folder": str(tmp_path), "seconds": 2.0}}
    promotion = {**slow, "seeds": [7], "top": 1, "baselines": ["dpo"]}
    said = []
    with ChatServer() as server:
        made = config(
            tmp_path, objective=slow, proposer=endpoint(server.base_url), promotions=[promotion],
            budget={"candidates": 1000, "wall_s": 20.0}, **ONE_SLOT,
        )  # fmt: skip
        result = Campaign(made, lambda event: said.append(event.text)).run()
        asked = len(server.received)
    found = kept(tmp_path / "archive.db")
    assert result.status == found.status == "finished"
    assert len(found.asked) == asked < 100
    assert {t.status for t in found.trials.values()} == {"done"}
    assert all(found.of(p) for p in found.accepted)
    assert [r.entry.name for r in result.board.stages[1].rows if r.is_baseline] == ["dpo"]
    assert not found.accepted or any("budget.wall_s is used up" in text for text in said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": {"evaluator": EVALUATOR, "metric": "scre"}}, "did you mean 'score'"),
        ({"objective": {"evaluator": EVALUATOR, "options": {"second": 1}}}, "did you mean 'seconds'"),
        ({"budget": {"candidates": None, "tokens": 1000}}, "may never end a search"),
        ({"objective": {"evaluator": "no.such:Evaluator"}}, "cannot load"),
        ({"proposer": {"kind": "openai", "model": "m", "api_key_env": "NOT_SET_ANYWHERE"}}, "NOT_SET_ANYWHERE"),
    ],
)
def test_bad_settings_are_refused_before_anything_starts(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises((OptionsError, ConfigError), match=said) as caught:
        Campaign(make_config(settings(tmp_path, **changes)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "archive.db").exists()


@pytest.mark.parametrize(
    ("slots", "checks", "wanted", "nodes", "found", "said"),
    [
        (2, 1, Resources(1, 0.5, 100), [Node(INF, 1, INF)], (2, 1), ""),
        (2, 1, Resources(1, 1, 100), [Node(INF, 1, INF)], (1, 1), "room for 1 of 2 trial_slots (1 GPUs on 1 node"),
        (8, 1, Resources(1, 0, 100), [Node(INF, 0, INF)], (8, 1), ""),  # a machine of our own: cores are shared
        (4, 2, Resources(1, 0, 100), [Node(2, 0, 9e3), Node(2, 0, 9e3)], (2, 2), "2 of 4 trial_slots (4 CPUs"),
        (4, 9, Resources(2, 0, 100), [Node(2, 0, 9e3), Node(2, 0, 9e3)], (1, 1), "1 of 4 trial_slots and 1 of 9 probe_w"),
        (4, 1, Resources(0.5, 0.25, 100), [Node(1, 0, 9e3), Node(2, 1, 9e3)], (2, 1), "2 of 4 trial_slots"),
        (3, 1, Resources(1, 0, 4000), [Node(4, 0, 9000.0)], (2, 1), "2 of 3 trial_slots"),
    ],
)  # fmt: skip
def test_slots_are_fitted_to_what_there_is(
    slots: int, checks: int, wanted: Resources, nodes: list[Node], found: tuple[int, int], said: str
) -> None:
    fitted = fit(Pools(slots, checks, None, wanted), nodes)
    assert (fitted.trial_slots, fitted.check_workers) == found
    assert said in fitted.said
    assert bool(fitted.said) == bool(said)


@pytest.mark.parametrize(
    ("pools", "nodes", "said"),
    [
        (Pools(2, 1, None, Resources(1, 1, 9)), [Node(INF, 0, INF)], r"^no GPU here: .*\(device: cuda\); set device: cpu"),
        (Pools(2, 1, None, Resources(1, 2, 9)), [Node(INF, 1, INF)], r"^only 1 GPUs here: "),
        (
            Pools(2, 1, None, Resources(1, 0.5, 9), gpus_are_set=True), [Node(INF, 0, INF)],
            r"^workers.gpus_per_trial is 0.5, and this machine has 0; lower it",
        ),
        (Pools(2, 1, "h:1", Resources(4, 0, 9)), [Node(2, 0, 99), Node(2, 0, 99)], r"cluster at h:1 has no room"),
        (Pools(2, 1, "h:1", Resources(1, 0, 9)), [], r"0 GPUs on 0 nodes"),
    ],
)  # fmt: skip
def test_what_no_slot_fits_on_is_an_error_and_not_a_wait(pools: Pools, nodes: list[Node], said: str) -> None:
    with pytest.raises(OptionsError, match=said):
        fit(pools, nodes)


def paid(total: int) -> Reply:
    return Reply("", "m", 0.1, total, 0)


def test_token_budgets_count_what_is_in_flight() -> None:
    ledger = Ledger(BudgetConfig(candidates=None, tokens=1000))
    assert ledger.has_room()
    ledger.in_flight = 1
    assert not ledger.has_room()  # nobody knows yet what a reply takes
    ledger.pay(paid(300))
    ledger.in_flight = 0
    assert ledger.has_room()
    ledger.in_flight = 1
    assert ledger.has_room()
    ledger.in_flight = 2
    assert not ledger.has_room()
    assert ledger.has_room_for_repair()
    ledger.pay(paid(350))
    ledger.in_flight = 1
    assert ledger.has_room_for_repair()
    ledger.pay(paid(1))
    assert not ledger.has_room_for_repair()


@given(
    st.floats(0, 100), st.floats(0, 100), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=20)
)
def test_money_is_what_the_tokens_cost(asked: float, answered: float, replies: list[tuple[int, int]]) -> None:
    ledger = Ledger(BudgetConfig(candidates=None, usd=1), prices=Prices(asked, answered))
    prompt, cents = Prompt((PromptPart("user", "p"),)), Fraction(0)
    for tokens in replies:
        reply = Reply("", "m", 0.1, *tokens)
        ledger.pay(replace(reply, cost=ledger.cost(reply, prompt)))
        cents += (Fraction(asked) * tokens[0] + Fraction(answered) * tokens[1]) / 10**6
    assert ledger.usd == pytest.approx(float(cents), rel=1e-9)
    assert ledger.has_room() == (ledger.usd + ledger._dearest_usd <= 1 if ledger._dearest_usd else ledger.usd < 1)


def test_money_budgets_count_what_is_in_flight() -> None:
    ledger = Ledger(BudgetConfig(candidates=None, usd=1.0))
    ledger.in_flight = 1
    assert not ledger.has_room()  # nobody knows yet what a reply costs
    ledger.pay(Reply("", "m", 0.1, 1, 1, cost=0.4))
    ledger.in_flight = 0
    assert ledger.has_room()
    ledger.in_flight = 1
    assert not ledger.has_room()
    ledger.lose(0, 0.7)  # may have been paid for by an earlier run
    ledger.in_flight = 0
    assert not ledger.has_room()


def test_device_hours_count_the_trials_that_are_still_to_run() -> None:
    ledger = Ledger(BudgetConfig(candidates=None, device_hours=1.0))
    assert ledger.has_room(trials=1000)  # nobody knows yet what a trial takes
    ledger.trained(1200.0)
    ledger.trained(2400.0, attempts=5)  # of an earlier run: 600 s each on average, nothing is left
    assert ledger.has_room(trials=0)
    assert not ledger.has_room(trials=1)
    ledger = Ledger(BudgetConfig(candidates=None, device_hours=1.0))
    ledger.trained(900.0, attempts=2)
    assert ledger.has_room(trials=6)
    assert ledger.has_room_for_repair(trials=6)
    assert not ledger.has_room(trials=7)
    assert not ledger.has_room_for_repair(trials=7)


@pytest.mark.slow
def test_device_hours_end_a_search_and_more_of_them_go_on(tmp_path: Path) -> None:
    slow = {"evaluator": EVALUATOR, "seeds": 2, "options": {"folder": str(tmp_path), "seconds": 0.5}}
    with ChatServer() as server:

        def run(seconds: float) -> CampaignStats:
            budget = {"candidates": None, "device_hours": seconds / 3600}
            made = config(tmp_path, objective=slow, proposer=endpoint(server.base_url), budget=budget, **ONE_SLOT)
            assert Campaign(made).run().status == "finished"
            with Archive(tmp_path / "archive.db") as archive:
                return campaign_stats(archive, made.name)

        first = run(6.0)
        trials = sum(d.trials for d in first.devices)
        mean = 3600 * first.device_hours / trials
        # it ends where another candidate would not fit, at what a trial took on average by then
        assert 6.0 - 3 * mean < 3600 * first.device_hours < 6.0 + 2 * mean
        second = run(12.0)
    assert 6.0 < 3600 * second.device_hours < 12.0 + 2 * mean
    assert sum(d.trials for d in second.devices) > trials


def test_a_money_budget_without_prices_is_refused(tmp_path: Path) -> None:
    made = config(tmp_path, proposer=endpoint("http://127.0.0.1:9/v1"), budget={"usd": 1.0})
    with pytest.raises(OptionsError, match=r"needs the model's prices: set usd_per_million_prompt_tokens"):
        Campaign(made)


@pytest.mark.slow
def test_money_ends_a_search_and_more_of_it_goes_on(tmp_path: Path) -> None:
    prices = {"usd_per_million_prompt_tokens": 1000.0, "usd_per_million_completion_tokens": 2000.0}
    with ChatServer() as server:

        def run(usd: float) -> CampaignStats:
            asked = endpoint(server.base_url, **prices)
            budget = {"candidates": None, "usd": usd}
            made = config(tmp_path, objective=objective(tmp_path), proposer=asked, budget=budget, **ONE_SLOT)
            assert Campaign(made).run().status == "finished"
            with Archive(tmp_path / "archive.db") as archive:
                return campaign_stats(archive, made.name)

        first = run(20.0)
        assert first.usd is not None
        replies = [p.reply for p in kept(tmp_path / "archive.db").proposals if p.reply is not None]
        costs = [(1000 * (r.prompt_tokens or 0) + 2000 * (r.completion_tokens or 0)) / 1e6 for r in replies]
        assert first.usd == pytest.approx(sum(costs))
        assert first.usd <= 20.0 < first.usd + 2 * max(costs)  # it ends where the next may be too dear
        second = run(40.0)
        assert second.usd is not None
        assert first.usd < second.usd <= 40.0
    shown = discovery("stats", "small", "--archive", tmp_path / "archive.db").stdout
    assert f"{dollars(second.usd)}; " in shown


def test_tokens_that_the_endpoint_does_not_count_are_estimated() -> None:
    ledger = Ledger(BudgetConfig(candidates=None, tokens=1000))
    ledger.pay(Reply("r" * 400, "m", 0.1), Prompt((PromptPart("user", "p" * 800),)))
    assert ledger.tokens == 300
    ledger.pay(Reply("r" * 400, "m", 0.1))
    assert ledger.tokens == 300


def test_questions_count_at_their_most_while_nobody_knows_what_came_of_them() -> None:
    ledger = Ledger(BudgetConfig(candidates=None, tokens=1000))
    prompt = Prompt((PromptPart("user", "p" * 800),))
    assert ledger.most(prompt, 300) == (200, 300)
    ledger.pay(paid(450))
    assert ledger.most(prompt, None) == (200, 450)
    ledger.lose(101, 0.0)
    assert ledger.tokens == 551
    assert not ledger.has_room()  # one more may be as dear as the dearest reply


def test_numbers_lost_with_an_earlier_run_are_asked_again() -> None:
    ledger = Ledger(BudgetConfig(candidates=None, proposals=6))
    for number, is_question in ((0, False), (1, False), (2, True), (4, False), (5, True)):
        ledger.restore(number, is_question)
    ledger.baselines |= {"dpo", "hinge"}
    assert ledger.proposals == 3
    taken = [ledger.take_question() for _ in range(3)]
    assert taken == [3, 6, 7]
    assert [ledger.question_index(n) for n in (2, 3, 5, 6, 7)] == [0, 1, 2, 3, 4]
    assert not ledger.has_room()
