"""What can go wrong at a chat endpoint, in one line each: who is at fault, whether asking again helps, what to do.

Knows the official client's exceptions by their attributes, so it imports nothing of it.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from discovery.protocols import ProposerError
from sandbox.text import one_line

MAX_TEXT_CHARS = 300_000  # of a reply that is kept; the parser refuses less
_SHORTEST_KEY = 6  # a shorter "key" is a placeholder, and replacing it would garble texts


class Secret:
    """A key that shows itself to nobody: not in `repr`, not in a traceback's locals, not in a pickle."""

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Secret(***)" if self.value else "Secret(none)"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")

    def redact(self, text: str) -> str:
        return text.replace(self.value, "***") if len(self.value) >= _SHORTEST_KEY else text


@dataclass(frozen=True)
class Wire:
    """What messages about an endpoint name: its redacted URL, the model, the key's variable; and what they never show."""

    where: str
    model: str
    variable: str | None
    key: Secret = field(repr=False)

    def redact(self, text: str) -> str:
        return self.key.redact(text)


@dataclass(frozen=True)
class Fault:
    """One failed request. `wait_s` is what the server asked for, None if it did not say."""

    message: str
    retry: bool
    fatal: bool
    status: int = 0
    wait_s: float | None = None

    @property
    def short(self) -> str:
        return one_line(self.message, 120)


def valid_url(url: str) -> bool:
    """Whether it is an http(s) URL with a host and, if any, a legal port."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"[\s\x00-\x20]", url)


def public_url(url: str) -> str:
    """Scheme, host, port and path: user, password, query and fragment are dropped."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(not a URL)"
    if not parts.hostname:
        return one_line(re.sub(r"[^/]*@", "", url.split("?")[0]), 100)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return one_line(f"{parts.scheme}://{host}{port}{parts.path}", 200)


def retry_after_s(headers: Any, now: float | None = None) -> float | None:
    """Seconds a server asks to wait: `retry-after-ms`, or `Retry-After` as seconds or an HTTP date. None if unsaid."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = str(headers.get(name) or "").strip()
        if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
            return float(value) * scale
    try:
        date = email.utils.parsedate_to_datetime(value)
        return max(0.0, date.timestamp() - (time.time() if now is None else now))
    except (ValueError, OverflowError, OSError):
        return None


def fault_of(error: Exception, wire: Wire, timeout_s: float) -> Fault:
    """Judge an exception of the official client, a TimeoutError, or a ValueError from reading the body."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return _status_fault(error, status, wire)
    kinds = {type(e).__name__ for e in [error, *_causes(error)]}
    if isinstance(error, TimeoutError) or any("Timeout" in k for k in kinds):
        return Fault(f"{wire.where} did not answer within {timeout_s:g} s; raise proposer.timeout_s", True, False)
    if "gaierror" in kinds or any("Name or service not known" in str(e) for e in _causes(error)):
        return Fault(f"the host name in {wire.where} is unknown; check proposer.base_url and the network", True, True)
    if any("SSL" in k for k in kinds):
        return Fault(f"no secure connection to {wire.where}; check its certificate, or http against https", False, True)
    if "ConnectError" in kinds or "ConnectionRefusedError" in kinds:
        message = f"nobody answers at {wire.where}; start the server or correct proposer.base_url"
        return Fault(message, True, True)
    if isinstance(error, ValueError) and "UnsupportedProtocol" not in kinds:
        return Fault(f"{wire.where} sent a body that is not JSON", True, False)
    if kinds & {"InvalidURL", "UnsupportedProtocol", "LocalProtocolError"}:
        return Fault(f"{wire.where} cannot be asked; correct proposer.base_url", False, True)
    return Fault(f"the connection to {wire.where} broke before the answer was complete", True, False)


def _status_fault(error: Exception, status: int, wire: Wire) -> Fault:
    said = wire.redact(_said(error))
    headers = getattr(getattr(error, "response", None), "headers", {})
    variable = wire.variable or "no key (proposer.api_key_env is null)"
    body = f"{getattr(error, 'code', '')} {said}".lower()
    if status == 401:  # the server's words often quote a part of the key
        return Fault(f"{wire.where} refuses the key from {variable} (401); check that key", False, True, status)
    if status == 403:
        return Fault(f"{wire.where} forbids this with the key from {variable} (403): {said}", False, True, status)
    if status == 404:
        message = f"{wire.where} does not know model {wire.model!r}, or lacks /v1 at its end (404): {said}"
        return Fault(message, False, True, status)
    if status == 402 or (status == 429 and "insufficient_quota" in body):
        return Fault(f"no credit left at {wire.where} ({status}): {said}", False, True, status)
    if status == 429:
        message = f"{wire.where} limits the rate (429): {said}; lower proposer concurrency or raise max_retries"
        return Fault(message, True, False, status, retry_after_s(headers))
    if status in (408, 409) or status >= 500:
        return Fault(f"{wire.where} fails ({status}): {said}", True, False, status, retry_after_s(headers))
    # a prompt that is too long or disliked says nothing about the next one
    about_prompt = status == 413 or any(k in body for k in ("context_length", "context length", "content_filter"))
    return Fault(f"{wire.where} refuses the request ({status}): {said}", False, not about_prompt, status)


def _said(error: Exception) -> str:
    """The server's own words, on one line."""
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    if not message and isinstance(body, dict) and isinstance(body.get("error"), dict):
        message = body["error"].get("message")
    message = message or (body if isinstance(body, str) else None) or getattr(error, "message", "")
    return one_line(str(message), 200) or "no reason given"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(12):
        seen = seen.__cause__ or seen.__context__ if seen else None
        if seen is None:
            return
        yield seen


def text_of(completion: Any, wire: Wire) -> str:
    """The answer's text.

    Raises:
        ProposerError: fatal for something that is not a chat completion; not fatal for an empty, filtered or refused answer.
    """
    if isinstance(completion, str) or not hasattr(completion, "choices"):
        raise ProposerError(
            f"{wire.where} answers, but not as a chat endpoint; does proposer.base_url need /v1 at its end?", fatal=True
        )
    choices = completion.choices
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    content = getattr(message, "content", None)
    finish = getattr(choice, "finish_reason", None)
    if isinstance(content, str) and content.strip() and finish != "content_filter":
        return content[:MAX_TEXT_CHARS].encode("utf-8", "replace").decode()  # lone surrogates cannot be stored
    if finish == "content_filter":
        reason = "the answer was stopped by a content filter"
    elif isinstance(refusal := getattr(message, "refusal", None), str) and refusal:
        reason = f"the model refused: {one_line(refusal, 150)}"
    elif finish == "length":
        reason = "the model used all its tokens before answering; raise proposer.max_tokens"
    else:
        reason = "the answer is empty"
    raise ProposerError(wire.redact(f"{wire.where}: {reason}"), fatal=False)
