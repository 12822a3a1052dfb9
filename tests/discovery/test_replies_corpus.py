"""Every kind of reply in the corpus comes to what it must, in the parser and through a real server and client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest

from db.messages import Reply
from discovery.proposers.openai import OpenAIProposer
from discovery.protocols import ProposerError
from discovery.replies import ReplyError, parse_reply
from sandbox.candidate import normalise_source
from tests.discovery.replies_bodies import BODIES, Body
from tests.discovery.replies_corpus import FUNCTION, NAME, PARAMETERS, TEXTS, THOUGHT, Text
from tests.discovery.test_openai_proposer import proposer_for, request
from tests.support.chat_server import ChatServer, Exchange


@pytest.mark.parametrize("case", TEXTS.values(), ids=TEXTS.keys())
def test_an_answer_is_read(case: Text) -> None:
    if case.code is None:
        with pytest.raises(ReplyError) as caught:
            parse_reply(case.text, FUNCTION, PARAMETERS)
        assert case.said in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    idea = parse_reply(case.text, FUNCTION, PARAMETERS)
    assert normalise_source(idea.code) == normalise_source(case.code)
    if case.full:
        assert (idea.name, idea.thought) == (NAME, THOUGHT)


def test_names_of_the_corpus_are_kinds() -> None:
    assert len({case.text for case in TEXTS.values()}) == len(TEXTS)
    assert len(TEXTS) + len(BODIES) >= 150


class Sender:
    """A server that sends what it is told, and counts."""

    body: Body

    async def __call__(self, exchange: Exchange) -> None:
        payload = self.body.payload
        sent = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        await exchange.send(200, sent, self.body.kind)


@pytest.fixture(scope="module")
def sender() -> Iterator[tuple[Sender, ChatServer]]:
    sends = Sender()
    with ChatServer(always=sends) as server:
        yield sends, server


def asked(proposer: OpenAIProposer) -> Reply:
    async def run() -> Reply:
        try:
            return await proposer.propose(request())
        finally:
            await proposer.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_is_read(body: Body, sender: tuple[Sender, ChatServer]) -> None:
    sends, server = sender
    sends.body, before, started = body, len(server.received), time.process_time()
    proposer = proposer_for(server.base_url, api_key_env=None, max_retries=1, backoff_s=0.0)
    if body.fault:
        with pytest.raises(ProposerError) as caught:
            asked(proposer)
        assert body.fault in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
        assert caught.value.fatal is not body.retried
        assert len(server.received) - before == (2 if body.retried else 1)
    else:
        reply = asked(proposer)
        assert reply.text == body.text
        assert body.problem in (reply.problem or "")
        assert (reply.problem is None) == (not body.problem)
        assert (reply.prompt_tokens, reply.completion_tokens) == body.usage
        assert reply.model.startswith(("stand-in", "mmm"))
        assert len(reply.model) <= 200
    assert time.process_time() - started < 3.0  # the server's work is in it


def test_what_failed_requests_were_billed_is_kept(sender: tuple[Sender, ChatServer]) -> None:
    sends, server = sender
    sends.body = BODIES["failed: billed"]
    with pytest.raises(ProposerError) as caught:
        asked(proposer_for(server.base_url, api_key_env=None, max_retries=2, backoff_s=0.0))
    billed = caught.value.billed
    assert billed is not None
    assert (billed.prompt_tokens, billed.completion_tokens, billed.attempts) == (9000, 120, 3)
    sends.body = BODIES["failed: overloaded"]
    with pytest.raises(ProposerError) as caught:
        asked(proposer_for(server.base_url, api_key_env=None, max_retries=2, backoff_s=0.0))
    assert caught.value.billed is None
