import asyncio
import gzip
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from db.messages import Prompt, PromptPart, Reply
from discovery.endpoint import public_url, retry_after_s
from discovery.proposers.openai import OpenAIProposer
from discovery.proposers.testing import ProposerConformance
from discovery.protocols import Plan, ProposerError, Request
from evaluators.options import OptionsError
from evaluators.preference.contract import PAIRS
from tests.support import chat_server
from tests.support.chat_server import (
    ChatServer,
    Exchange,
    Step,
    content,
    distinct_loss,
    error_body,
    raw,
    raw_error,
    redirect,
    refuse_parameter,
    status,
)


async def endless(exchange: Exchange) -> None:
    """Sends as much as is read."""
    exchange.writer.write(b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n")
    while not exchange.server.stopping.is_set():
        exchange.writer.write(b" " * 2**16)
        await exchange.writer.drain()


KEY = "sk-very-secret-key-0123456789"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_LLM_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def proposer_for(base_url: str, **options: Any) -> OpenAIProposer:
    defaults = {
        "base_url": base_url, "model": "stand-in", "api_key_env": "TEST_LLM_KEY", "backoff_s": 0.01, "timeout_s": 5,
        "max_retries": 2,
    }  # fmt: skip
    return OpenAIProposer({**defaults, **options}, PAIRS, seed=1)


def request(index: int = 0) -> Request:
    return Request(Prompt((PromptPart("system", "Answer in JSON."), PromptPart("user", "A loss."))), Plan(index, 77))


def ask(proposer: OpenAIProposer, *requests: Request) -> list[Reply]:
    async def run() -> list[Reply]:
        try:
            return await asyncio.gather(*(proposer.propose(r) for r in requests or [request()]))
        finally:
            await proposer.aclose()

    return asyncio.run(run())


def ask_scripted(*script: Step | None, **options: Any) -> tuple[Reply, ChatServer]:
    with ChatServer(script=script, api_key=KEY) as server:
        (reply,) = ask(proposer_for(server.base_url, **options))
    return reply, server


def refused(step: Step, **options: Any) -> tuple[ProposerError, ChatServer]:
    with ChatServer(always=step, api_key=KEY) as server, pytest.raises(ProposerError) as caught:
        ask(proposer_for(server.base_url, **options))
    message = str(caught.value)
    assert KEY not in message
    assert "\n" not in message
    return caught.value, server


class TestConformance(ProposerConformance):
    repeatable = False
    secrets = (KEY,)

    @pytest.fixture(autouse=True)
    def _server(self):
        with ChatServer(api_key=KEY) as server:
            self.url = server.base_url
            yield

    def make_proposer(self, seed: int = 0, **options: Any) -> OpenAIProposer:
        return proposer_for(self.url, **options)


def test_reply_carries_text_model_tokens_and_the_prompt_went_out() -> None:
    reply, server = ask_scripted(temperature=0.7, send_seed=True, extra_body={"top_k": 5})
    assert reply.text == distinct_loss({}, 0)
    assert reply.model == "stand-in"
    assert (reply.prompt_tokens, reply.completion_tokens) == (5, len(reply.text) // 4)
    assert reply.attempts == 1
    (got,) = server.received
    assert got.messages == [{"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": "A loss."}]
    assert got.headers["authorization"] == f"Bearer {KEY}"
    sent = {k: v for k, v in got.body.items() if k != "messages"}
    assert sent == {
        "model": "stand-in", "temperature": 0.7, "seed": 77, "top_k": 5, "max_tokens": 4096,
        "response_format": {"type": "json_object"},
    }  # fmt: skip


@pytest.mark.parametrize(
    "step",
    [
        status(429), status(429, retry_after="0.01"), status(500), status(502), status(503, retry_after="0"), status(408),
        chat_server.reset, chat_server.truncated, raw(b'{"choices": [{"mess'),
    ],
    ids=["429", "429 retry-after", "500", "502", "503", "408", "reset", "truncated", "invalid JSON"],
)  # fmt: skip
def test_passing_faults_are_retried_and_counted(step: Step) -> None:
    reply, server = ask_scripted(step, step, None)
    assert reply.text == distinct_loss({}, 2)
    assert reply.attempts == 3 == len(server.received)


FAULTS = {
    # name: (step, fatal, said, requests with max_retries=2)
    "429": (status(429, "slow down"), False, "limits the rate", 3),
    "quota": (status(429, "buy more", "insufficient_quota"), True, "no credit", 1),
    "500": (status(500, "oops"), False, "fails (500): oops", 3),
    "503": (status(503), False, "fails (503)", 3),
    "401": (status(401, f"Incorrect API key provided: {KEY}"), True, "TEST_LLM_KEY", 1),
    "403": (status(403, f"region of {KEY}"), True, "TEST_LLM_KEY", 1),
    "404": (status(404, "no such model"), True, "does not know model 'stand-in'", 1),
    "400": (status(400, f"bad top_p {KEY}"), True, "bad top_p ***", 1),
    "prompt too long": (status(400, "too long", "context_length_exceeded"), False, "too long", 1),
    "reset": (chat_server.reset, False, "broke", 3),
    "truncated": (chat_server.truncated, False, "broke", 3),
    "invalid JSON": (raw(b'{"choices": [{"mess'), False, "not JSON", 3),
    "web page": (raw(b"<html>login</html>", "text/html"), False, "/v1", 3),
    "422": (
        error_body(422, {"detail": [{"loc": ["body", "top_p"], "msg": "is too odd"}]}),
        True,
        "body.top_p: is too odd",
        1,
    ),
    "provider's words": (
        error_body(502, {"error": {"message": "no luck", "metadata": {"raw": "overheated"}}}),
        False,
        "(overheated)",
        3,
    ),
    "list of errors": (error_body(503, [{"error": {"message": "asleep"}}]), False, "asleep", 3),
    "nest of errors": (raw_error(500, b"[" * 100_000), False, "fails (500)", 3),
    "page of errors": (raw_error(502, b"<html>" + b"x" * 10**6), False, "fails (502): <html>xx", 3),
    "elsewhere": (
        redirect(307, "http://elsewhere.invalid/v1/chat/completions"),
        True,
        "redirects to http://elsewhere.invalid/v1",
        1,
    ),
    "elsewhere for good": (
        redirect(301, "https://127.0.0.1/x?key=1"),
        True,
        "redirects to https://127.0.0.1/x, which",
        1,
    ),
    "nowhere": (redirect(308, "http://[::1"), True, "redirects to (not a URL)", 1),
    "packed oddly": (raw(b"x", headers="content-encoding: br\r\n"), False, "packs its answers as 'br', unasked", 3),
    "not unpackable": (raw(b"x" * 99, headers="content-encoding: gzip\r\n"), False, "cannot be unpacked", 3),
    "packed bomb": (
        raw(gzip.compress(bytes(2**26)), headers="content-encoding: gzip\r\n"),
        False,
        "more than 4 MiB",
        3,
    ),
    "endless": (endless, False, "more than 4 MiB", 3),
}


@pytest.mark.parametrize(("step", "fatal", "said", "requests"), FAULTS.values(), ids=FAULTS.keys())
def test_lasting_faults(step: Step, fatal: bool, said: str, requests: int) -> None:
    error, server = refused(step)
    assert said in str(error)
    assert error.fatal is fatal
    assert len(server.received) == requests
    assert error.__cause__ is None  # the client's exceptions hold request headers
    assert error.__context__ is None


@pytest.mark.parametrize("step", [chat_server.hang, chat_server.trickle], ids=["silence", "one byte at a time"])
def test_time_out_bounds_the_whole_request(step: Step) -> None:
    started = time.perf_counter()
    error, server = refused(step, timeout_s=0.4, max_retries=1)
    assert "within 0.4 s" in str(error)
    assert not error.fatal
    assert len(server.received) == 2
    assert time.perf_counter() - started < 5


def test_retry_after_is_obeyed() -> None:
    started = time.perf_counter()
    reply, _ = ask_scripted(status(429, retry_after="0.5"), None)
    assert time.perf_counter() - started >= 0.5
    assert reply.latency_s >= 0.5


def test_absurd_retry_after_is_reported_at_once() -> None:
    error, server = refused(status(429, retry_after="86400"))
    assert not error.fatal
    assert len(server.received) == 1


def test_retry_after_forms() -> None:
    assert retry_after_s({"retry-after": "3"}) == 3.0
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, now=1445412420.0) == 60.0
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({}) is None


def test_nobody_there() -> None:
    with socket.socket() as held:  # bound, not listening: connections are refused
        held.bind(("127.0.0.1", 0))
        url = f"http://user:pass-word@127.0.0.1:{held.getsockname()[1]}/v1?token=abc"
        with pytest.raises(ProposerError) as caught:
            ask(proposer_for(url, max_retries=1))
    assert caught.value.fatal
    assert "nobody answers at http://127.0.0.1:" in str(caught.value)
    assert "(2 requests)" in str(caught.value)
    assert "pass-word" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_unknown_host() -> None:
    with pytest.raises(ProposerError, match=r"host name in http://nowhere\.invalid/v1 is unknown") as caught:
        ask(proposer_for("http://nowhere.invalid/v1", max_retries=0))
    assert caught.value.fatal


def test_plain_server_asked_over_tls() -> None:
    with ChatServer() as server, pytest.raises(ProposerError) as caught:
        ask(proposer_for(server.base_url.replace("http:", "https:"), max_retries=0))
    assert "secure" in str(caught.value)
    assert caught.value.fatal


def test_json_mode_is_dropped_once_refused() -> None:
    step = refuse_parameter("response_format", "'response_format' of type json_object is not supported")
    with ChatServer(always=step, api_key=KEY) as server:
        proposer = proposer_for(server.base_url)
        first, second = (ask(proposer, request(0), request(1)) for _ in range(2))
    assert {r.attempts for r in first} == {2}
    assert {r.attempts for r in second} == {1}


def test_json_mode_on_means_on() -> None:
    error, _ = refused(refuse_parameter("response_format", "no response_format here"), json_mode="on")
    assert error.fatal
    reply, server = ask_scripted(json_mode="off")
    assert reply.attempts == 1
    assert "response_format" not in server.received[0].body


def test_newer_models_get_the_newer_length_field() -> None:
    step = refuse_parameter("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    with ChatServer(always=step, api_key=KEY) as server:
        (reply,) = ask(proposer_for(server.base_url, max_tokens=500))
    assert reply.attempts == 2
    assert server.received[1].body["max_completion_tokens"] == 500


def test_cut_off_and_reasoning_replies_are_returned_as_they_are() -> None:
    reply, _ = ask_scripted(content('{"code": "def lo', finish="length"))
    assert reply.text == '{"code": "def lo'
    reply, _ = ask_scripted(content("answer", reasoning_content="long thoughts"))
    assert reply.text == "answer"


def test_huge_reply_is_cut_and_an_echoed_key_is_blanked() -> None:
    reply, _ = ask_scripted(content("x" * 3_000_000))
    assert len(reply.text) == 300_000
    reply, _ = ask_scripted(content(f"your key is {KEY}"))
    assert reply.text == "your key is ***"
    reply, _ = ask_scripted(content("a\ud800b"))
    assert reply.text.encode() == b"a?b"


def test_many_in_flight_at_once() -> None:
    with ChatServer(latency_s=0.5, api_key=KEY) as server:
        replies = ask(proposer_for(server.base_url), *(request(i) for i in range(40)))
    assert server.most_in_flight == 40
    assert len({r.text for r in replies}) == 40


def test_works_on_a_second_event_loop() -> None:
    with ChatServer(api_key=KEY) as server:
        proposer = proposer_for(server.base_url)
        assert ask(proposer)[0].text != ask(proposer)[0].text


def test_local_server_without_a_key_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for none in (None, ""):
        with ChatServer() as server:
            ask(proposer_for(server.base_url, api_key_env=none))
        assert server.received[0].headers["authorization"] == "Bearer no-key"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": ""}, "needs the option 'model'"),
        ({"api_key_env": "UNSET_VARIABLE"}, "UNSET_VARIABLE is not set"),
        ({"api_key_env": KEY}, "NAME of an environment variable"),
        ({"api_key_env": "AKIA" + "X" * 60}, "NAME of an environment variable"),
        ({"base_url": "localhost:8000"}, "is not a URL"),
        ({"base_url": "ftp://h/v1"}, "is not a URL"),
        ({"base_url": "http://u:hunter2@h:99999/v1"}, "is not a URL"),
        ({"json_mode": "yes"}, "auto, on, off"),
        ({"timeout_s": 0}, "timeout_s must be positive"),
        ({"max_retries": -1}, "not negative"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temprature": 1.0}, "did you mean 'temperature'"),
    ],
)
def test_bad_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionsError) as caught:
        proposer_for(**{"base_url": "http://localhost:1/v1", **options})
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    for secret in (KEY, "AKIAX", "hunter2"):
        assert secret not in message


def test_unusable_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("ключ-секрет", "two words"):
        monkeypatch.setenv("TEST_LLM_KEY", value)
        with pytest.raises(OptionsError, match="TEST_LLM_KEY") as caught:
            proposer_for("http://localhost:1/v1")
        assert value not in str(caught.value)


def test_key_stays_out_of_logs_and_pickles(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with ChatServer(script=[status(500, f"key {KEY}")], api_key=KEY) as server:
        proposer = proposer_for(server.base_url)
        ask(proposer)
    assert "asking again" in caplog.text
    assert KEY not in caplog.text
    with pytest.raises(TypeError):
        pickle.dumps(proposer)


def test_redacted_urls() -> None:
    assert public_url("https://u:p@host:8443/v1?key=1#x") == "https://host:8443/v1"
    assert public_url("http://[::1]:80/v1") == "http://[::1]:80/v1"
    assert "p@" not in public_url("u:p@host/v1")


def test_importing_the_proposer_imports_no_client() -> None:
    code = "import sys, discovery.proposers.openai as o; print('openai' in sys.modules, 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert run.stdout.split() == ["False", "False"]


def test_stand_in_runs_as_a_process() -> None:
    command = [sys.executable, "-m", "tests.support.chat_server", "--port", "0", "--latency", "0.01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            texts = [r.text for r in ask(proposer_for(url), request(0), request(1))]
        finally:
            process.terminate()
    assert len({json.loads(t)["code"] for t in texts}) == 2
