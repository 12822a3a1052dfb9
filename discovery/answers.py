"""Chat completions as servers send them: text, reason and usage out of a body of which nothing is believed.

The official client's models are not used: they take seconds over a large body, and fail over an odd one. Everything here
is bounded by the size of the body and the number of values in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.messages import MAX_REPLY_TEXT, token_count
from discovery.endpoint import Fault, Usage, Wire, said_in, status_fault, status_in
from sandbox.text import one_line

MAX_VALUES = 300_000  # in one body: a reader takes a microsecond or two for each
_MAX_CHOICES = 16  # that are looked at
_MAX_PARTS = 500  # of one message
_DEFINES = re.compile(r"def\s{1,9}\w{1,60}\s{0,9}\(")


@dataclass(frozen=True)
class Answer:
    """A completion. `problem`: one line that says why the model gave no answer; `text` is then what else it wrote."""

    text: str
    problem: str | None
    model: str | None
    usage: Usage


def read_answer(payload: bytes, wire: Wire) -> Answer | Fault:
    """The completion in a body that came with a success status; or the fault that stands in its place."""
    body = _parsed(payload, wire)
    if isinstance(body, Fault):
        return body
    usage = usage_of(body.get("usage"))
    listed = body.get("choices")
    choices = [c for c in listed[:_MAX_CHOICES] if isinstance(c, Mapping)] if isinstance(listed, list) else []
    answers = [_of_choice(choice, wire) for choice in choices]
    model = body.get("model")
    named = one_line(model, 200) if isinstance(model, str) else ""
    text, problem = next(((t, p) for t, p in answers if p is None), answers[0] if answers else ("", None))
    failed = next((c for c in choices if c.get("error")), None) or _error_in(body)
    if failed is not None and (problem is not None or not text):
        said = said_in(failed)
        found = status_fault(status_in(said), said, wire)
        return Fault(found.message, found.retry, found.fatal, found.status, usage=usage)
    if not isinstance(listed, list) and not usage:
        return _foreign(wire)
    if not text and problem is None:
        problem = _said(wire, "the answer is empty")
    return Answer(text, problem, named or None, usage)


def usage_of(value: Any) -> Usage:
    """Token counts under OpenAI's names or Anthropic's; what is no count is left out."""
    if not isinstance(value, Mapping):
        return Usage()
    asked, answered = (
        next((n for name in names if (n := token_count(value.get(name))) is not None), None)
        for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
    )
    total = token_count(value.get("total_tokens"))
    if answered is None and total is not None and total >= (asked or 0):
        answered = total - (asked or 0)
    return Usage(asked, answered)


def _parsed(payload: bytes, wire: Wire) -> Mapping[str, Any] | Fault:
    text = payload.decode("utf-8-sig", "replace")
    if not text.strip():
        return Fault(f"{wire.where} sent an empty body", True, False)
    if not text.lstrip().startswith(("{", "[")):
        return _foreign(wire)
    if sum(map(text.count, "[{,")) > MAX_VALUES:
        return Fault(f"{wire.where} sent more than {MAX_VALUES} values for one answer", True, False)
    try:
        body = json.loads(text, strict=False, parse_int=_whole)
    except RecursionError:
        return Fault(f"{wire.where} sent a body that is nested too deeply", True, False)
    except ValueError:
        return Fault(f"{wire.where} sent a body that is not JSON", True, False)
    if isinstance(body, list):  # one endpoint wraps its errors so
        body = body[0] if body else None
    return body if isinstance(body, Mapping) else _foreign(wire)


def _whole(digits: str) -> int | None:
    """A whole number; nothing here is counted with more digits, and reading them takes quadratic time."""
    return int(digits) if len(digits) <= 30 else None


def _foreign(wire: Wire) -> Fault:
    message = f"{wire.where} answers, but not as a chat endpoint; does proposer.base_url need /v1 at its end?"
    return Fault(message, True, False, foreign=True)


def _error_in(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The body, if it is about an error: the status of the response said otherwise."""
    is_error = body.get("error") or ("choices" not in body and (body.get("detail") or body.get("object") == "error"))
    return body if is_error else None


def _of_choice(choice: Mapping[str, Any], wire: Wire) -> tuple[str, str | None]:
    """A choice's text, and why it is none. Of all fields that may hold text the first one with code is taken."""
    message, finish = choice.get("message"), choice.get("finish_reason")
    if not isinstance(message, Mapping):
        message = {"content": choice.get("text")}  # of the older completions protocol
    content, called = _joined(message.get("content")), _arguments(message)
    reasoning = next((r for n in ("reasoning_content", "reasoning") if (r := _joined(message.get(n)))), "")
    tried = (content, *called) if content.strip() else (*called, reasoning)
    found = next((t for t in tried if _DEFINES.search(t)), content)
    text = wire.redact(found[:MAX_REPLY_TEXT].encode("utf-8", "replace").decode())  # lone surrogates cannot be stored
    refusal = _joined(message.get("refusal"))
    if finish == "content_filter":
        return text, _said(wire, "the answer was stopped by a content filter")
    if content.strip():
        return text, None
    if refusal.strip():
        return text, _said(wire, f"the model refused: {one_line(refusal, 150)}")
    if finish == "length":
        return text, _said(wire, "the model used all its tokens before answering; raise proposer.max_tokens")
    if called:
        return text, None if _DEFINES.search(text) else _said(wire, "the model called a tool instead of answering")
    return text, _said(wire, "the answer is empty")


def _joined(value: Any) -> str:
    """Text, or the texts of a list of parts."""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    found: list[str] = []
    for part in parts[:_MAX_PARTS]:
        text = part.get("text") if isinstance(part, Mapping) else part
        text = text.get("value") if isinstance(text, Mapping) else text
        if isinstance(text, str):
            found.append(text)
    return "".join(found)


def _arguments(message: Mapping[str, Any]) -> list[str]:
    """What the model wanted to hand to tools, in the present form and in the one before it."""
    calls = message.get("tool_calls")
    every = [c.get("function") for c in calls[:_MAX_PARTS] if isinstance(c, Mapping)] if isinstance(calls, list) else []
    given = [f.get("arguments") for f in (*every, message.get("function_call")) if isinstance(f, Mapping)]
    return [text for g in given if g and (text := _as_text(g))]


def _as_text(given: Any) -> str:
    if not isinstance(given, Mapping):
        return given if isinstance(given, str) else ""
    try:
        return json.dumps(given)
    except RecursionError:
        return ""


def _said(wire: Wire, reason: str) -> str:
    return wire.redact(f"{wire.where}: {reason}")
