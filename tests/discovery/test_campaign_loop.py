"""One campaign with everything in it, against a server that misbehaves; the tests look at what it left."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from discovery.campaign import Campaign, CampaignResult
from discovery.progress import Event
from sandbox.failure import FailureKind
from tests.support import processes
from tests.support.campaigns import BASELINES, EVALUATOR, Kept, config, endpoint, kept, reply
from tests.support.chat_server import ChatServer, distinct_loss, status
from tests.support.losses import KNOWN, rescaled

KEY_NAME, KEY = "PLAIN_VARIABLE_NAME", "correct-horse-battery-staple-8471"
PASSWORD_URL = "postgresql://me:hunter2-hunter2@db.example/x"
CANDIDATES = 9
SEEDS = (0, 1)

SOFT = "return F.softplus(-beta * d) + 0.3 * F.softplus(1.0 - beta * d) ** 2"
SQUARE = "return F.softplus(-beta * d) ** 3 + (beta * d - 2.0) ** 2"
QUEUE = [
    "I would rather not say.",
    reply("reads_files", "open('/etc/passwd')\nreturn -d"),
    reply("wrong_shape", "return (beta * d).mean()"),
    json.dumps({"name": "dpo_again", "thought": "", "code": rescaled(KNOWN["dpo"], 2.0).source}),
    reply("twin_one", SOFT),
    reply("twin_two", SOFT.replace("0.3", "0.15 * 2.0"), note="written another way"),
    reply("overflows", SQUARE, note="FAULT wide"),
    reply("unlucky", "return F.softplus(-beta * d) + 0.1 * torch.exp(-0.5 * beta * d)", note="FAULT kill"),
    reply("buggy_task", "return F.softplus(-beta * d) + 0.2 * torch.relu(1.0 - beta * d)", note="FAULT raise"),
    reply("no_metric", "return F.softplus(-beta * d) + 0.4 * torch.relu(2.0 - beta * d)", note="FAULT silent"),
]


@dataclass
class Model:
    """Answers with the queue in order, then with distinct losses. A repair is as bad as before once, for the first."""

    queue: list[str] = field(default_factory=lambda: list(QUEUE))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, body: dict[str, Any], number: int) -> str:
        answers = [m["content"] for m in body["messages"] if m["role"] == "assistant"]
        with self.lock:
            if answers:
                return QUEUE[0] if answers[-1] == QUEUE[0] else distinct_loss(body, 500 + number)
            return self.queue.pop(0) if self.queue else distinct_loss(body, number)


@dataclass(frozen=True)
class Ran:
    folder: Path
    result: CampaignResult
    kept: Kept
    events: list[Event]
    requests: list[list[dict[str, str]]]
    most_in_flight: int
    environments: dict[str, bytes]
    left: list[str]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("campaign")
    mark, environments, events = f"CAMPAIGN_MARK_{time.monotonic_ns()}", {}, []
    seen: dict[int, int] = {}

    def listen(event: Event) -> None:
        events.append(event)
        if event.kind in ("trial", "scored"):
            seen.update(family := processes.family(mark))
            environments.update({processes.command_line(pid): processes.environment(pid) for pid in family})

    with pytest.MonkeyPatch.context() as patch, ChatServer(
        reply=Model(), latency_s=0.15, script=[status(429, retry_after="0"), status(500), None, status(503)], api_key=KEY
    ) as server:  # fmt: skip
        for name, value in (
            (mark, "1"),
            (KEY_NAME, KEY),
            ("SOME_DATABASE", PASSWORD_URL),
            ("OTHER_API_KEY", "sk-other-1"),
        ):
            patch.setenv(name, value)
        again = {"evaluator": EVALUATOR, "top": 2, "baselines": ["dpo"]}
        options = {"folder": str(folder)}
        made = config(
            folder,
            proposer=endpoint(server.base_url, api_key_env=KEY_NAME),
            budget={"candidates": CANDIDATES},
            proposals={"in_flight": 4, "max_repairs": 1},
            promotions=[
                {**again, "options": options},
                {**again, "options": {**options, "variant": 1}, "seeds": [7], "baselines": ["dpo", "ipo"]},
            ],
        )
        result = Campaign(made, listen).run()
        left = processes.left_after(seen, 10)
        requests = [r.messages for r in server.received]
        yield Ran(
            folder, result, kept(folder / "archive.db"), events, requests, server.most_in_flight, environments, left
        )


def test_it_finishes_with_the_budget_used_up_exactly(ran: Ran) -> None:
    assert ran.result.status == ran.kept.status == "finished"
    assert len(ran.kept.accepted) == CANDIDATES
    assert all(p.judged for p in ran.kept.proposals)


def test_several_proposals_were_in_flight_and_never_more_than_allowed(ran: Ran) -> None:
    assert 2 <= ran.most_in_flight <= 4


def test_every_request_that_was_answered_is_one_stored_proposal(ran: Ran) -> None:
    assert len(ran.kept.asked) == len(ran.requests) - 3  # one 429, one 500, one 503
    assert sum(p.reply.attempts - 1 for p in ran.kept.asked if p.reply) == 3
    sent = {json.dumps(m) for m in ran.requests}
    for proposal in ran.kept.asked:
        assert proposal.reply is not None
        assert proposal.reply.text
        assert proposal.reply.latency_s >= 0.15
        assert proposal.prompt is not None
        assert json.dumps(proposal.prompt.messages()) in sent


def test_tokens_are_those_of_the_server(ran: Ran) -> None:
    for p in ran.kept.asked:
        assert p.reply is not None
        assert p.prompt is not None
        assert p.reply.completion_tokens == len(p.reply.text) // 4
        assert p.reply.prompt_tokens == sum(len(m["content"]) for m in p.prompt.messages()) // 4


def test_baselines_come_first_and_on_the_same_seeds(ran: Ran) -> None:
    known = [p for p in ran.kept.proposals if p.origin == "known"]
    assert [p.name for p in known] == [*BASELINES, "ipo"]  # ipo is needed by a promotion
    assert [p.index for p in known] == [0, 1, 2]
    # by when they were handed out: a worker that is still starting begins its first trial late
    order = "SELECT t.candidate_id, t.seed FROM attempts a JOIN trials t ON t.id = a.trial_id ORDER BY a.started_at"
    with contextlib.closing(sqlite3.connect(ran.folder / "archive.db")) as archive:
        handed_out = list(dict.fromkeys(archive.execute(order)))  # attempts after the first are no news
    ids = {p.candidate.id for p in known if p.candidate}
    assert set(handed_out[: 2 * len(known)]) == {(i, s) for i in ids for s in SEEDS}
    unranked = {"overflows", "buggy_task", "no_metric"}
    for proposal in ran.kept.accepted:
        done = {t.seed for t in ran.kept.of(proposal) if t.status == "done"} & set(SEEDS)
        assert (done == set(SEEDS)) is (proposal.name not in unranked)


def test_refusals_say_why(ran: Ran) -> None:
    kinds = {p.name: p.failure.kind for p in ran.kept.asked if p.failure}
    assert kinds["unreadable"] is FailureKind.STATIC
    assert kinds["reads_files"] is FailureKind.STATIC
    assert kinds["wrong_shape"] is FailureKind.CONTRACT
    assert kinds["dpo_again"] is FailureKind.DUPLICATE
    again = ran.kept.named("dpo_again")
    assert again.duplicate_of == "dpo"
    assert "dpo, beta x 2" in str(again.failure)


def test_of_two_twins_one_is_a_duplicate_of_the_other(ran: Ran) -> None:
    one, two = ran.kept.named("twin_one"), ran.kept.named("twin_two")
    refused, accepted = (one, two) if one.failure else (two, one)
    assert accepted.failure is None
    assert refused.failure is not None
    assert refused.failure.kind is FailureKind.DUPLICATE
    assert accepted.candidate is not None
    assert refused.duplicate_of == accepted.candidate.id
    assert accepted.name in refused.failure.message


def test_errors_go_back_word_for_word_and_repairs_are_bounded(ran: Ran) -> None:
    by_index = {p.index: p for p in ran.kept.proposals}
    repaired = {p.repair_of: p for p in ran.kept.asked if p.origin == "repaired"}
    for name in ("reads_files", "wrong_shape", "overflows"):  # refused by gate, by probe; failed in training
        first = ran.kept.named(name)
        repair = repaired[first.index]
        assert repair.prompt is not None
        failure = first.failure or next(t.failure for t in ran.kept.of(first) if t.failure)
        messages = repair.prompt.messages()
        assert failure.message.splitlines()[0] in messages[-1]["content"]
        assert first.reply is not None
        assert messages[-2] == {"role": "assistant", "content": first.reply.text}
    twice_unreadable = [p for p in ran.kept.asked if p.name == "unreadable"]
    assert len(twice_unreadable) == 2
    assert twice_unreadable[1].repair_of == twice_unreadable[0].index
    assert all(by_index[p.repair_of].origin == "proposed" for p in repaired.values() if p.repair_of is not None)


def test_duplicates_are_not_repaired(ran: Ran) -> None:
    duplicates = {p.index for p in ran.kept.asked if p.failure and p.failure.kind is FailureKind.DUPLICATE}
    assert not duplicates & {p.repair_of for p in ran.kept.asked}


def test_a_killed_worker_costs_an_attempt_and_nobody_is_blamed(ran: Ran) -> None:
    unlucky = ran.kept.named("unlucky")
    trials = [t for t in ran.kept.of(unlucky) if t.seed in SEEDS]
    assert [t.status for t in trials] == ["done"] * len(trials)
    assert sorted(t.attempts for t in trials)[-1] == 2
    assert any("lost" in e.text and e.text.startswith("unlucky") for e in ran.events if e.kind == "note")
    assert not any(e.text.startswith("unlucky") for e in ran.events if e.kind == "failed")


@pytest.mark.parametrize(("name", "said"), [("buggy_task", "a bug of the evaluator"), ("no_metric", "no score")])
def test_an_evaluators_faults_are_blamed_on_it_with_file_and_line_and_not_repeated(
    ran: Ran, name: str, said: str
) -> None:
    trials = ran.kept.of(ran.kept.named(name))
    failed = [t for t in trials if t.status == "failed"]
    assert failed
    for trial in failed:
        assert trial.attempts == 1
        assert trial.failure is not None
        assert trial.failure.kind is FailureKind.PLUGIN
        assert said in trial.failure.message
        assert "tests/support/campaigns.py:" in trial.failure.message
    assert not any(name == row.entry.name for row in ran.result.board.stages[0].rows)


def test_a_loss_that_fails_in_training_is_unranked(ran: Ran) -> None:
    trials = ran.kept.of(ran.kept.named("overflows"))
    failed = [t for t in trials if t.status == "failed"]
    assert failed
    assert all(t.attempts == 1 and t.failure and t.failure.kind is FailureKind.NON_FINITE for t in failed)
    assert not any(row.entry.name == "overflows" for row in ran.result.board.stages[0].rows)


def test_later_prompts_show_scores_and_errors(ran: Ran) -> None:
    last = "\n".join(m["content"] for m in ran.requests[-1])
    assert "score 0." in last
    assert "failed: " in last


def test_promotions_measure_the_best_and_the_baselines_on_fresh_seeds(ran: Ran) -> None:
    search, again, other = ran.result.board.stages
    best = [row.entry.candidate.id for row in search.rows if not row.is_baseline][:2]
    for stage, seeds, baselines in ((again, {1000, 1001}, {"dpo"}), (other, {7}, {"dpo", "ipo"})):
        assert stage.fresh
        assert set(stage.seeds) == seeds
        assert {r.entry.name for r in stage.rows if r.is_baseline} == baselines
        assert {r.entry.candidate.id for r in stage.rows if not r.is_baseline} == set(best)
        assert all(set(r.entry.score.by_seed) == seeds for r in stage.rows if r.entry.score)


def test_each_trial_ran_once_but_for_lost_attempts(ran: Ran) -> None:
    starts = (ran.folder / "trials.txt").read_text().splitlines()
    assert len(starts) == ran.kept.attempts
    assert sum(t.attempts for t in ran.kept.trials.values()) == ran.kept.attempts
    assert {t.status for t in ran.kept.trials.values()} == {"done", "failed"}


def test_no_secret_is_left_anywhere(ran: Ran) -> None:
    assert len(ran.environments) > 4  # raylet, gcs, workers, fork servers
    for command, environment in ran.environments.items():
        for secret in (KEY, "hunter2-hunter2", "sk-other-1"):
            assert secret.encode() not in environment, command
    for path in ran.folder.rglob("*"):
        assert KEY.encode() not in (path.read_bytes() if path.is_file() else b""), path


def test_nothing_is_left_running(ran: Ran) -> None:
    assert ran.left == []


def test_the_log_says_where_an_evaluator_failed(ran: Ran) -> None:
    log = (ran.folder / "small.log").read_text()
    assert "LookupError: a bug of the evaluator" in log
    assert "tests/support/campaigns.py:" in log
