"""Kinds of body that chat endpoints send with status 200, each with what the proposer must make of it.

Those with an answer, those that were billed without one, and those that are failed requests. All of our own making.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.discovery.replies_corpus import DRAFT, IDEA, JSON


@dataclass(frozen=True)
class Body:
    """What an endpoint sends with status 200.

    Attributes:
        payload: bytes, or a value that is sent as JSON.
        text: of the reply, where there is one.
        problem: a piece of what is said where the reply holds no answer.
        fault: a piece of what is said of a failed request.
        retried: whether a failed request is tried again.
        usage: tokens that are counted.
    """

    payload: Any
    text: str = ""
    problem: str = ""
    fault: str = ""
    retried: bool = True
    usage: tuple[int | None, int | None] = (3000, 40)
    kind: str = "application/json"


USAGE = {"prompt_tokens": 3000, "completion_tokens": 40, "total_tokens": 3040}
HUGE = 10**30


def completion(message: Any, finish: str | None = "stop", usage: Any = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish, "message": message}
    return {
        "id": "x", "object": "chat.completion", "created": 0, "model": "stand-in", "choices": [choice],
        "usage": USAGE if usage is None else usage, **more,
    }  # fmt: skip


def said(content: Any, **message: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **message}


def called(arguments: Any) -> dict[str, Any]:
    return {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "propose", "arguments": arguments}}]}


def error(value: Any, **more: Any) -> dict[str, Any]:
    return {"error": value, **more}


def counted(usage: Any, asked: int | None, answered: int | None) -> Body:
    return Body(completion(said(JSON), usage=usage), JSON, usage=(asked, answered))


_ANSWERS = {
    "plain": Body(completion(said(JSON)), JSON),
    "unknown fields": Body(completion(said(JSON, audio=None, x=[1]), service_tier="x", zzz={"a": []}), JSON),
    "no role": Body(completion({"content": JSON}), JSON),
    "no finish reason": Body(completion(said(JSON), finish=None), JSON),
    "finish reason is a list": Body(completion(said(JSON), finish=["stop"]), JSON),  # type: ignore[arg-type]
    "cut off": Body(completion(said(JSON[:50]), "length"), JSON[:50]),
    "text parts": Body(completion(said([{"type": "text", "text": JSON}])), JSON),
    "several parts": Body(
        completion(said([{"type": "text", "text": JSON[:20]}, {"type": "text", "text": JSON[20:]}])), JSON
    ),
    "parts that are texts": Body(completion(said([JSON])), JSON),
    "parts of other types": Body(
        completion(said([{"type": "image_url"}, 3, None, {"type": "text", "text": JSON}])), JSON
    ),
    "output_text": Body(completion(said([{"type": "output_text", "text": {"value": JSON}}])), JSON),
    "content is an object": Body(completion(said({"text": JSON})), JSON),
    "reasoning beside": Body(completion(said(JSON, reasoning_content=f"Perhaps {DRAFT}")), JSON),
    "in the reasoning": Body(completion(said(None, reasoning_content=JSON)), JSON, problem="empty"),
    "in the reasoning, other name": Body(completion(said("", reasoning=JSON)), JSON, problem="empty"),
    "tool arguments": Body(completion(said(None, **called(JSON)), "tool_calls"), JSON),
    "tool arguments are an object": Body(completion(said(None, **called(IDEA)), "tool_calls"), JSON),
    "function call of old": Body(completion(said(None, function_call={"name": "f", "arguments": JSON})), JSON),
    "tool arguments beside prose": Body(completion(said("I call the tool.", **called(JSON))), JSON),
    "second choice": Body(
        {
            **completion(said(None)),
            "choices": [{"message": said(None)}, {"message": said(JSON), "finish_reason": "stop"}],
        },
        JSON,
    ),
    "older protocol": Body({"choices": [{"text": JSON}], "usage": USAGE}, JSON),
    "error is null": Body(completion(said(JSON), error=None), JSON),
    "error is empty": Body(completion(said(JSON), error={}), JSON),
    "byte order mark": Body(b"\xef\xbb\xbf" + json.dumps(completion(said(JSON))).encode(), JSON),
    "blanks around": Body(b" \r\n" + json.dumps(completion(said(JSON))).encode() + b"\n\n", JSON),
    "a broken byte": Body(json.dumps(completion(said(JSON + "?"))).encode().replace(b"?", b"\xff"), JSON + "\ufffd"),
    "half a surrogate pair": Body(completion(said(JSON + "\ud800")), JSON + "?"),
    "called plain text": Body(completion(said(JSON)), JSON, kind="text/plain"),
    "wrapped in a list": Body([completion(said(JSON))], JSON),
    "no usage": counted({}, None, None),
    "usage is null": Body({**completion(said(JSON)), "usage": None}, JSON, usage=(None, None)),
    "usage is a list": counted([1], None, None),
    "usage is nested": counted({"prompt_tokens": {"a": 1}}, None, None),
    "usage under other names": Body(
        completion(said(JSON), usage={"input_tokens": 7, "output_tokens": 8}), JSON, usage=(7, 8)
    ),
    "usage in total": counted({"prompt_tokens": 7, "total_tokens": 10}, 7, 3),
    "whole floats": Body(
        completion(said(JSON), usage={"prompt_tokens": 7.0, "completion_tokens": 8.0}), JSON, usage=(7, 8)
    ),
    "huge count": counted({**USAGE, "completion_tokens": HUGE}, 3000, 40),
    "huge count alone": counted({"completion_tokens": HUGE}, None, None),
    "huge digits": Body(
        json.dumps(completion(said(JSON), usage={"prompt_tokens": 5}))
        .replace('"prompt_tokens": 5', f'"prompt_tokens": {"9" * 9000}')
        .encode(),
        JSON,
        usage=(None, None),
    ),
    "count below 0": Body(
        completion(said(JSON), usage={"prompt_tokens": 5, "completion_tokens": -1}), JSON, usage=(5, None)
    ),
    "count is true": Body(
        completion(said(JSON), usage={"prompt_tokens": True, "completion_tokens": 8}), JSON, usage=(None, 8)
    ),
    "count is a text": Body(
        completion(said(JSON), usage={"prompt_tokens": "9", "completion_tokens": 8}), JSON, usage=(None, 8)
    ),
    "count is NaN": Body(
        completion(said(JSON), usage={"prompt_tokens": float("nan"), "completion_tokens": 8}), JSON, usage=(None, 8)
    ),
    "count is infinite": Body(
        completion(said(JSON), usage={"prompt_tokens": float("inf"), "completion_tokens": 1.5}),
        JSON,
        usage=(None, None),
    ),
    "many choices": Body({**completion(said(JSON)), "choices": [{"message": said(JSON)}] * 3_000}, JSON),
    "model is a number": Body(completion(said(JSON), model=3), JSON),
    "model is long": Body(completion(said(JSON), model="m" * 10**6), JSON),
    "deep field beside": Body(
        json.dumps(completion(said(JSON)))[:-1].encode() + b', "x": ' + b"[" * 500 + b"]" * 500 + b"}", JSON
    ),
}

_BILLED = {
    "null": Body(completion(said(None)), problem="empty"),
    "blank": Body(completion(said(" \n")), " \n", problem="empty"),
    "no content": Body(completion({"role": "assistant"}), problem="empty"),
    "content is a number": Body(completion(said(3)), problem="empty"),
    "message is null": Body(completion(None), problem="empty"),
    "message is a text": Body(completion("hi"), problem="empty"),
    "all spent on reasoning": Body(completion(said(None), "length"), problem="max_tokens"),
    "all spent on reasoning that is shown": Body(
        completion(said("", reasoning_content="Hm. Let me see."), "length"), problem="max_tokens"
    ),
    "refused": Body(completion(said(None, refusal="I will not")), problem="refused: I will not"),
    "filtered": Body(completion(said(None), "content_filter"), problem="content filter"),
    "filtered half way": Body(completion(said("half a"), "content_filter"), "half a", problem="content filter"),
    "tool without code": Body(completion(said(None, **called('{"q": "dpo"}')), "tool_calls"), problem="called a tool"),
    "no choices": Body({**completion(None), "choices": []}, problem="empty"),
    "choices are null": Body({**completion(None), "choices": None}, problem="empty"),
    "choices are an object": Body({**completion(None), "choices": {"0": 1}}, problem="empty"),
    "choices are numbers": Body({**completion(None), "choices": [1, None, "x"]}, problem="empty"),
    "usage alone": Body({"usage": USAGE}, problem="empty"),
}

_FAILED = {
    "web page": Body(b"<html><body>Log in</body></html>", fault="not as a chat endpoint", kind="text/html"),
    "text": Body(b"OK", fault="not as a chat endpoint", kind="text/plain"),
    "nothing": Body(b"", fault="an empty body"),
    "null": Body(b"null", fault="not as a chat endpoint"),
    "a number": Body(b"7", fault="not as a chat endpoint"),
    "an empty list": Body(b"[]", fault="not as a chat endpoint"),
    "another protocol": Body({"response": "hi"}, fault="not as a chat endpoint"),
    "cut off": Body(b'{"choices": [{"mess', fault="not JSON"),
    "events": Body(
        b'data: {"choices": []}\n\ndata: [DONE]\n\n', fault="not as a chat endpoint", kind="text/event-stream"
    ),
    "nested lists": Body(b"[" * 200_000, fault="nested too deeply"),
    "nested objects": Body(b'{"a":' * 40_000, fault="nested too deeply"),
    "too many values": Body({"choices": [{"message": {}}] * 100_000}, fault="more than 300000 values"),
    "too much": Body(b" " * (5 * 2**20), fault="more than 4 MiB"),
    "rate limit": Body(error({"code": 429, "message": "slow down"}), fault="limits the rate (429): slow down"),
    "rate limit in words": Body(error({"type": "rate_limit_error", "message": "slow"}), fault="limits the rate"),
    "rate limit as text": Body(error({"code": "429", "message": "slow"}), fault="limits the rate"),
    "what is behind it": Body(
        error({"code": 429, "message": "Provider returned error", "metadata": {"raw": "model is busy"}}),
        fault="Provider returned error (model is busy)",
    ),
    "overloaded": Body(error({"type": "overloaded_error", "message": "busy"}), fault="fails (503): busy"),
    "without a code": Body(error("something broke"), fault="fails (500): something broke"),
    "code is a list": Body(error({"code": [1], "message": "odd"}), fault="fails (500): odd"),
    "code is huge": Body(error({"code": HUGE, "message": "odd"}), fault="fails (500): odd"),
    "error is true": Body(error(True), fault="fails (500): no reason given"),
    "error is a nest": Body(b'{"error": ' + b"[" * 400 + b"]" * 400 + b"}", fault="fails (500): no reason given"),
    "detail": Body({"detail": "busy"}, fault="fails (500): busy"),
    "details": Body({"detail": [{"loc": ["body", "model"], "msg": "unknown"}]}, fault="body.model: unknown"),
    "of another server": Body({"object": "error", "message": "loading", "code": 503}, fault="fails (503): loading"),
    "in a list": Body([error({"code": 503, "message": "busy", "status": "UNAVAILABLE"})], fault="fails (503): busy"),
    "in a choice": Body(
        {**completion(None), "choices": [{"error": {"code": 502, "message": "upstream"}}]},
        fault="fails (502): upstream",
    ),
    "billed": Body(error({"code": 500, "message": "oops"}, usage=USAGE), fault="fails (500): oops"),
    "no credit": Body(error({"code": 402, "message": "pay"}), fault="no credit", retried=False),
    "wrong key": Body(
        error({"type": "authentication_error", "message": "bad"}), fault="refuses the key", retried=False
    ),
    "unknown model": Body(
        error({"code": "model_not_found", "message": "no"}), fault="does not know model", retried=False
    ),
    "bad request": Body(
        error({"code": 400, "message": "top_p"}), fault="refuses the request (400): top_p", retried=False
    ),
}
BODIES = {f"{kind}: {name}": case for kind, cases in
          (("answer", _ANSWERS), ("billed", _BILLED), ("failed", _FAILED)) for name, case in cases.items()}  # fmt: skip
