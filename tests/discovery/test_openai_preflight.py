"""What can be told of an endpoint before anything is started."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from discovery.protocols import ProposerError
from tests.discovery.test_openai_proposer import KEY, proposer_for
from tests.support import chat_server
from tests.support.chat_server import ChatServer, Step, content, raw, status


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_LLM_KEY", KEY)


def preflight(server: ChatServer, **options: Any) -> None:
    async def run() -> None:
        proposer = proposer_for(server.base_url, **options)
        try:
            await proposer.preflight()
        finally:
            await proposer.aclose()

    asyncio.run(run())


def test_preflight_asks_for_no_completion_where_the_model_is_listed() -> None:
    with ChatServer(api_key=KEY, always=status(500)) as server:
        preflight(server)
        assert server.received == []


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (status(404, "no such model", "model_not_found"), "does not know model 'unlisted'"),
        (status(403, "not yours"), "forbids"),
        (raw(b"<html>hello</html>", "text/html"), "not as a chat endpoint"),
        (raw(b'{"response": "hi"}'), "not as a chat endpoint"),
        (raw(b'{"error": {"type": "authentication_error", "message": "no"}}'), "refuses the key"),
    ],
)
def test_preflight_tells_what_no_request_can_get_past(step: Step, said: str) -> None:
    with ChatServer(api_key=KEY, always=step) as server, pytest.raises(ProposerError, match=said) as caught:
        preflight(server, model="unlisted")
    assert caught.value.fatal
    assert len(server.received) == 1


def test_preflight_tells_of_a_wrong_key_and_of_nobody_there() -> None:
    with ChatServer(api_key="another-key") as server, pytest.raises(ProposerError, match="TEST_LLM_KEY"):
        preflight(server)
    with pytest.raises(ProposerError, match="nobody answers"):
        preflight(server)  # closed by now


@pytest.mark.parametrize(
    "step",
    [
        status(400, "max_tokens is too small"),
        status(429),
        status(503),
        content(None),
        chat_server.reset,
        raw(b"[" * 9000),
        None,
    ],
)
def test_preflight_lets_odd_servers_pass(step: Step | None) -> None:
    with ChatServer(api_key=KEY, always=step) as server:
        preflight(server, model="unlisted")


def test_preflight_does_not_wait_for_a_slow_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery.proposers.openai.PREFLIGHT_S", 0.3)
    with ChatServer(api_key=KEY, always=chat_server.hang) as server:
        preflight(server, model="unlisted")
