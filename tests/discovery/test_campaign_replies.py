"""Campaigns whose server gives every second time what nobody can use: they end with right counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from db.archive import Archive
from discovery.browse.campaign_stats import campaign_stats
from discovery.campaign import Campaign
from discovery.progress import Event
from sandbox.failure import FailureKind
from tests.discovery.replies_bodies import completion, error, said
from tests.support.campaigns import EVALUATOR, config, endpoint, kept
from tests.support.chat_server import ChatServer, Exchange, Step, distinct_loss, raw, redirect, status
from tests.support.command import discovery

PROMPT_TOKENS, REPLY_TOKENS = 3000, 500
SPENT = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 4096}
PRICES = {"usd_per_million_prompt_tokens": 10.0, "usd_per_million_completion_tokens": 100.0}


@dataclass
class Alternating:
    """Good answers to even requests; to odd ones what is listed, in turn: a step, or a body and what is billed by it."""

    odd: Sequence[Step | dict[str, Any]]
    billed: list[tuple[int, int]] = field(default_factory=list)
    answers: int = 0
    odd_ones: int = 0

    async def __call__(self, exchange: Exchange) -> None:
        thing: Any = None
        if exchange.number % 2:
            thing = self.odd[self.odd_ones % len(self.odd)]
            self.odd_ones += 1
        if callable(thing):
            await thing(exchange)
            return
        if thing is None:
            usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": REPLY_TOKENS}
            thing = completion(said(distinct_loss({}, exchange.number)), usage=usage)
        self.answers += 1
        self.billed.append((thing["usage"]["prompt_tokens"], thing["usage"]["completion_tokens"]))
        await exchange.send_json(200, thing)

    @property
    def tokens(self) -> int:
        return sum(map(sum, self.billed))

    @property
    def usd(self) -> float:
        return sum(10.0 * asked + 100.0 * answered for asked, answered in self.billed) / 1e6


def objective(folder: Path) -> dict[str, Any]:
    return {"evaluator": EVALUATOR, "seeds": 1, "options": {"folder": str(folder)}}


HOSTILE: list[Step | dict[str, Any]] = [
    completion(said(None), "length", SPENT),
    raw(b"[" * 200_000),
    raw(
        json.dumps(completion(said("x"))).replace('"x"', "[" * 300 + "]" * 300).replace("3000", "1" + "0" * 30).encode()
    ),
    raw(json.dumps({"choices": [{"message": said("x")}] * 100_000}).encode()),
    raw(b" " * (5 * 2**20)),
    raw(b"<html>be right back</html>", "text/html"),
    redirect(307, "http://elsewhere.invalid/"),
    raw(b'{"error": {"code": 429, "message": "slow down"}}'),
    error({"code": 500, "message": "upstream"}, usage=SPENT),
    completion(said(None, refusal="No."), usage=SPENT),
    completion(said(None, tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]), usage=SPENT),
    {**completion(None, usage=SPENT), "choices": []},
    completion(said(json.dumps({"code": "def loss(" + "(" * 50_000})), usage=SPENT),
    status(401),
    status(400, "this prompt is odd"),
]


def test_every_second_request_is_hostile_and_everything_is_counted(tmp_path: Path) -> None:
    answers, said_aloud = Alternating(HOSTILE), []

    def listen(event: Event) -> None:
        said_aloud.append(event.text)

    with ChatServer(always=answers) as server:
        made = config(
            tmp_path, objective=objective(tmp_path), proposer=endpoint(server.base_url, max_retries=2, **PRICES),
            budget={"candidates": len(HOSTILE) + 2, "proposals": 100}, proposals={"in_flight": 1, "max_repairs": 0},
            baselines=["dpo"],
        )  # fmt: skip
        assert Campaign(made, listen).run().status == "finished"
        assert answers.odd_ones >= len(HOSTILE)
    found = kept(tmp_path / "archive.db")
    assert len(found.accepted) == len(HOSTILE) + 2
    assert all(p.judged for p in found.proposals)
    with Archive(tmp_path / "archive.db") as archive:
        stats = campaign_stats(archive, "small")
    # the count of 10^30 is no count; that request's other tokens, and all other counts, are the server's
    beyond = stats.prompt_tokens + stats.completion_tokens - answers.tokens
    assert 0 <= beyond <= 40
    assert stats.usd is not None
    assert stats.usd >= answers.usd
    reasons = [p.failure.message for p in found.asked if p.failure is not None]
    for piece in ("used all its tokens", "the model refused: No.", "called a tool", "the answer is empty"):
        assert any(piece in reason for reason in reasons)
    assert {p.failure.kind for p in found.asked if p.failure is not None} == {FailureKind.STATIC}
    assert all("\n" not in text for text in said_aloud)
    unanswered = [p for p in found.asked if p.name == "unanswered"]
    assert {p.reply.problem is None for p in found.asked if p not in unanswered and p.reply} == {True}
    assert sum("the model refused: No." in text for text in said_aloud) == sum(  # each is said once
        "the model refused: No." in str(p.failure) for p in unanswered
    )
    (model,) = stats.proposers
    assert model.proposals == len(found.asked) > model.accepted


@pytest.mark.slow
@pytest.mark.parametrize("budget", [{"tokens": 30_000}, {"usd": 2.0}], ids=["tokens", "money"])
def test_answers_without_content_use_up_a_budget(tmp_path: Path, budget: dict[str, Any]) -> None:
    answers = Alternating([completion(said(None), "length", SPENT)])
    with ChatServer(always=answers) as server:
        made = config(
            tmp_path, objective=objective(tmp_path), proposer=endpoint(server.base_url, **PRICES),
            budget={"candidates": 1000, **budget}, proposals={"in_flight": 1, "max_repairs": 0}, baselines=["dpo"],
        )  # fmt: skip
        assert Campaign(made).run().status == "finished"
        first = answers.tokens, answers.usd
        assert Campaign(made).run().status == "finished"  # what is stored counts when it is taken up again
    assert (answers.tokens, answers.usd) == first
    with Archive(tmp_path / "archive.db") as archive:
        stats = campaign_stats(archive, "small")
    assert stats.prompt_tokens + stats.completion_tokens == answers.tokens
    assert stats.usd == pytest.approx(answers.usd)
    spent, most = (answers.tokens, 30_000) if "tokens" in budget else (answers.usd, 2.0)
    dearest = sum(SPENT.values()) if "tokens" in budget else (10.0 * PROMPT_TOKENS + 100.0 * 4096) / 1e6
    assert most - dearest <= spent <= most
    (model,) = stats.proposers
    assert model.proposals == answers.answers
    assert model.success_rate == pytest.approx(model.ranked / answers.answers)
    shown = discovery("stats", "small", "--archive", tmp_path / "archive.db").stdout
    assert f"{stats.prompt_tokens:,} in" in shown


@pytest.mark.slow
def test_a_model_that_never_answers_ends_the_search_in_one_line(tmp_path: Path) -> None:
    from discovery.search import SearchError

    async def never(exchange: Exchange) -> None:
        await exchange.send_json(200, completion(said(None), "length", SPENT))

    with ChatServer(always=never) as server:
        made = config(
            tmp_path, objective=objective(tmp_path), proposer=endpoint(server.base_url), budget={"candidates": 5},
            proposals={"in_flight": 2, "max_repairs": 1}, baselines=["dpo"],
        )  # fmt: skip
        with pytest.raises(SearchError, match=r"used all its tokens before answering; raise proposer.max_tokens"):
            Campaign(made).run()
    found = kept(tmp_path / "archive.db")
    assert found.status == "stopped by an error"
    assert len(found.asked) == len(server.received) <= 8
    assert all(p.reply is not None and p.reply.problem and p.reply.completion_tokens == 4096 for p in found.asked)
