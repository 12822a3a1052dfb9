"""Endpoints that are odd in the middle of a run, want less than is asked, or stand behind somebody else's proxy."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.messages import MAX_TOKENS, Prompt, PromptPart, Reply, token_count
from discovery.answers import Answer, read_answer
from discovery.connection import is_loopback
from discovery.endpoint import Fault, Secret, Wire, said_in, status_in
from discovery.protocols import Plan, ProposerError, Request
from tests.discovery.test_openai_proposer import KEY, ask, proposer_for, request
from tests.support import chat_server
from tests.support.chat_server import (
    ChatServer,
    Exchange,
    Step,
    content,
    distinct_loss,
    error_body,
    raw,
    redirect,
    status,
)

HTML = raw(b"<html>be right back</html>", "text/html")
WIRE = Wire("http://x/v1", "m", "KEY", Secret(KEY))


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_LLM_KEY", KEY)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def in_turn(url: str, requests: list[Request], **options: Any) -> list[Reply | ProposerError]:
    """What one proposer makes of requests, one after the other."""

    async def run() -> list[Reply | ProposerError]:
        proposer, found = proposer_for(url, **options), []
        for one in requests:
            try:
                found.append(await proposer.propose(one))
            except ProposerError as error:
                found.append(error)
        await proposer.aclose()
        return found

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("step", "requests"),
    [(HTML, 2), (status(401), 2), (status(403), 2), (status(404), 2), (redirect(307, "http://elsewhere.invalid/"), 2),
     (raw(b"null"), 2), (chat_server.reset, 2), (status(500), 2)],
    ids=["page", "401", "403", "404", "redirect", "null", "reset", "500"],
)  # fmt: skip
def test_one_odd_answer_after_good_ones_is_asked_again(step: Step, requests: int) -> None:
    with ChatServer(script=[None, None, step]) as server:
        found = in_turn(server.base_url, [request(i) for i in range(4)])
    assert [isinstance(f, Reply) and f.attempts for f in found] == [1, 1, requests, 1]


@pytest.mark.parametrize("step", [status(400, "odd"), status(422, "odd"), status(418)], ids=["400", "422", "418"])
def test_a_refusal_of_one_question_after_good_answers_is_one_lost_reply(step: Step) -> None:
    with ChatServer(script=[None, step]) as server:
        found = in_turn(server.base_url, [request(i) for i in range(3)])
    assert [type(f) for f in found] == [Reply, ProposerError, Reply]
    assert not found[1].fatal  # type: ignore[union-attr]
    with ChatServer(always=step) as server:
        (alone,) = in_turn(server.base_url, [request()])
    assert isinstance(alone, ProposerError)
    assert alone.fatal


@pytest.mark.parametrize(("step", "fatal"), [(status(401), True), (status(404), True), (HTML, False)])
def test_what_is_said_again_and_again_counts_after_all(step: Step, fatal: bool) -> None:
    with ChatServer(script=[None, *[step] * 3]) as server:
        found = in_turn(server.base_url, [request(0), request(1)])
    assert isinstance(found[1], ProposerError)
    assert found[1].fatal is fatal
    with ChatServer(script=[None, *[step] * 3]) as server:
        found = in_turn(server.base_url, [request(0), request(1)], max_retries=0)
    assert isinstance(found[1], ProposerError)
    assert not found[1].fatal


FORMAT = {
    "422 in FastAPI's form": error_body(422, {"detail": [
        {"type": "extra_forbidden", "loc": ["body", "response_format"], "msg": "Extra inputs are not permitted"}]}),
    "422": status(422, "json_object is unknown"),
    "500": status(500, "unsupported response_format"),
    "501": status(501, "JSON mode is not implemented"),
    "503, grammar": status(503, "failed to parse grammar"),
    "400 in a 200": raw(b'{"error": {"code": 400, "message": "response_format is not supported"}}'),
}  # fmt: skip


@pytest.mark.parametrize("refusal", FORMAT.values(), ids=FORMAT.keys())
def test_json_mode_is_left_out_however_it_is_refused(refusal: Step) -> None:
    async def step(exchange: Exchange) -> None:
        await (refusal if "response_format" in exchange.request.body else exchange.server.answer)(exchange)

    with ChatServer(always=step) as server:
        found = in_turn(server.base_url, [request(0), request(1)], max_retries=0)
    assert [isinstance(f, Reply) and f.attempts for f in found] == [2, 1]


def test_a_failing_server_that_names_no_format_is_asked_for_json_again() -> None:
    with ChatServer(script=[status(500, "invalid json from upstream")]) as server:
        in_turn(server.base_url, [request(0)])
        assert all("response_format" in r.body for r in server.received)


ROLES = {
    "chat template": (400, "System role not supported"),
    "template that alternates": (500, "Conversation roles must alternate user/assistant/user/assistant/..."),
    "value": (400, "Unsupported value: 'messages[0].role' does not support 'system' with this model."),
    "instruction": (400, "Developer instruction is not enabled for models/gemma"),
    "message": (422, "this model takes no system messages"),
}


@pytest.mark.parametrize(("code", "said"), ROLES.values(), ids=ROLES.keys())
def test_a_model_without_a_system_role_gets_its_text_from_the_user(code: int, said: str) -> None:
    async def step(exchange: Exchange) -> None:
        roles = [m["role"] for m in exchange.request.messages]
        await (status(code, said) if "system" in roles else exchange.server.answer)(exchange)

    repair = Prompt(
        tuple(PromptPart(r, t) for r, t in (("system", "S"), ("user", "U"), ("assistant", "A"), ("user", "V")))
    )  # type: ignore[arg-type]
    with ChatServer(always=step) as server:
        found = in_turn(server.base_url, [request(0), Request(repair, Plan(1, 1))], max_retries=0)
        messages = [r.messages for r in server.received]
    assert [isinstance(f, Reply) and f.attempts for f in found] == [2, 1]
    assert messages[1] == [{"role": "user", "content": "Answer in JSON.\n\nA loss."}]
    assert messages[2] == [
        {"role": "user", "content": "S\n\nU"}, {"role": "assistant", "content": "A"}, {"role": "user", "content": "V"}
    ]  # fmt: skip


def test_a_server_that_refuses_everything_in_turn_is_asked_until_nothing_is_left() -> None:
    async def step(exchange: Exchange) -> None:
        body = exchange.request.body
        if "response_format" in body:
            await status(400, "no response_format")(exchange)
        elif any(m["role"] == "system" for m in body["messages"]):
            await status(400, "no system role")(exchange)
        else:
            await status(400, "no system role, no response_format, no max_completion_tokens")(exchange)

    with ChatServer(always=step) as server:
        (found,) = in_turn(server.base_url, [request(0)])
        assert len(server.received) == 4
    assert isinstance(found, ProposerError)
    assert found.fatal


def test_a_redirect_on_the_same_host_that_keeps_the_question_is_followed() -> None:
    async def step(exchange: Exchange) -> None:
        await redirect(308, "/v1/chat/completions?x=1")(exchange)

    with ChatServer(script=[step]) as server:
        (found,) = in_turn(server.base_url, [request()])
    assert isinstance(found, ProposerError)  # the stand-in has one address, without a query
    assert "no route POST /v1/chat/completions?x=1" in str(found)


def test_a_packed_answer_is_unpacked() -> None:
    import gzip
    import json

    async def step(exchange: Exchange) -> None:
        packed = gzip.compress(json.dumps(exchange.completion("hello")).encode())
        await exchange.send(200, packed, headers="content-encoding: gzip\r\n")
        assert exchange.request.headers["accept-encoding"] == "identity"

    with ChatServer(script=[step]) as server:
        (found,) = ask(proposer_for(server.base_url))
    assert found.text == "hello"


def test_many_answers_billed_without_content_add_up() -> None:
    failed = raw(b'{"error": {"code": 500}, "usage": {"prompt_tokens": 10, "completion_tokens": 1}}')
    with ChatServer(script=[failed, failed, content(None)]) as server:
        (found,) = ask(proposer_for(server.base_url))
    assert (found.prompt_tokens, found.completion_tokens, found.attempts) == (25, 2, 3)
    assert found.problem


# what the environment says


def closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http", "socks5", "socks9", "nonsense"])
def test_an_endpoint_on_this_machine_is_asked_directly(name: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, f"{scheme}://127.0.0.1:{closed_port()}")
    with ChatServer() as server:
        (found,) = ask(proposer_for(server.base_url))
    assert found.text == distinct_loss({}, 0)


ENVIRONMENTS = {
    "proxy": ("http_proxy", "http://127.0.0.1:9", ["the proxy of http_proxy", "NO_PROXY"]),
    "proxy in capitals": ("ALL_PROXY", "http://127.0.0.1:9", ["the proxy of ALL_PROXY", "NO_PROXY"]),
    "SOCKS proxy": ("ALL_PROXY", "socks5://me:hunter2@127.0.0.1:9", ["ALL_PROXY=socks5://127.0.0.1:9", "socksio"]),
    "odd proxy": ("http_proxy", "ftp://127.0.0.1:9", ["http_proxy=ftp://127.0.0.1:9", "no usable proxy"]),
    "proxy without a port": ("http_proxy", "http://[::1", ["http_proxy", "no usable proxy"]),
    "no certificate file": ("SSL_CERT_FILE", "/nowhere/ca.pem", ["SSL_CERT_FILE=/nowhere/ca.pem", "correct or unset"]),
    "wrong certificate file": ("SSL_CERT_FILE", __file__, ["SSL_CERT_FILE=", "correct or unset"]),
}


@pytest.mark.parametrize(("name", "value", "says"), ENVIRONMENTS.values(), ids=ENVIRONMENTS.keys())
def test_what_the_environment_breaks_is_one_line(
    name: str, value: str, says: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ProposerError) as caught:
        ask(proposer_for("http://models.invalid/v1", max_retries=0))
    message = str(caught.value)
    assert caught.value.fatal
    assert "\n" not in message
    assert "hunter2" not in message
    for piece in says:
        assert piece in message


def test_certificates_of_the_environment_count_on_this_machine_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(ProposerError, match="SSL_CERT_FILE"):
        ask(proposer_for("https://localhost:9/v1", max_retries=0))


def test_which_hosts_are_this_machine() -> None:
    ours = (
        "http://127.0.0.1:1/v1",
        "http://localhost/v1",
        "http://[::1]:80/v1",
        "http://127.9.9.9",
        "http://a.localhost.",
    )
    assert all(is_loopback(url) for url in ours)
    others = ("http://10.0.0.1/v1", "http://localhost.example/v1", "http://127.0.0.1.example/", "http://example")
    assert not any(is_loopback(url) for url in others)


# whatever comes

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(
            ["choices", "message", "content", "usage", "error", "detail", "text", "tool_calls", "function", "arguments",
             "code", "type", "metadata", "raw", "loc", "msg", "refusal", "finish_reason", "prompt_tokens", "total_tokens"]
        ), inner, max_size=6),
    max_leaves=30,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(_JSON)
def test_any_body_is_an_answer_or_a_fault(value: Any) -> None:
    import json

    found = read_answer(json.dumps(value).encode(), WIRE)
    assert isinstance(found, (Answer, Fault))
    shown = found.problem if isinstance(found, Answer) else found.message
    assert "\n" not in (shown or "")
    assert len(shown or "") < 600
    assert 400 <= status_in(said_in(value)) < 600
    for count in (found.usage.prompt_tokens, found.usage.completion_tokens):
        assert count is None or 0 <= count <= MAX_TOKENS


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_fault(value: bytes) -> None:
    assert isinstance(read_answer(value, WIRE), (Answer, Fault))


def test_a_reply_of_any_proposer_holds_what_a_database_can() -> None:
    odd = Reply("x" * 400_000, "m" * 999, float("nan"), 10**30, -1, attempts=-(10**30), problem="a\nb" * 999)
    assert (len(odd.text), len(odd.model), odd.latency_s) == (300_000, 200, 0.0)
    assert (odd.prompt_tokens, odd.completion_tokens, odd.attempts) == (None, None, 1)
    assert odd.problem is not None
    assert len(odd.problem) <= 400
    assert "\n" not in odd.problem
    assert [token_count(v) for v in (0, 7.0, MAX_TOKENS)] == [0, 7, MAX_TOKENS]
    assert not any(token_count(v) for v in (MAX_TOKENS + 1, -1, 0.5, float("inf"), float("nan"), True, "3", None, [1]))
