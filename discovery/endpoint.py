"""What can go wrong at a chat endpoint, in one line each: who is at fault, whether asking again helps, what to do.

Knows the official client's exceptions by their attributes, so it imports nothing of it.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from sandbox.text import one_line

_SHORTEST_KEY = 6  # a shorter "key" is a placeholder, and replacing it would garble texts
_SAID_CHARS = 300
_STATUS_WORDS = {
    "rate_limit": 429, "rate limit": 429, "too_many": 429, "quota": 429, "resource_exhausted": 429, "throttl": 429,
    "api_key": 401, "authentication": 401, "unauthor": 401, "permission": 403, "not_found": 404, "context_length": 400,
    "invalid_request": 400, "bad_request": 400, "invalid_argument": 400, "overloaded": 503, "unavailable": 503,
    "timeout": 504,
}  # fmt: skip


class UnfitAnswerError(Exception):
    """A response that is not read further. The message completes "the endpoint ..."; `fatal` as in ProposerError."""

    def __init__(self, message: str, *, fatal: bool) -> None:
        super().__init__(message)
        self.fatal = fatal


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
class Usage:
    """Tokens that a server says it has counted; None where it does not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(_sum(a, b) for a, b in zip(self._both, other._both, strict=True)))

    def __bool__(self) -> bool:
        return self._both != (None, None)

    @property
    def _both(self) -> tuple[int | None, int | None]:
        return self.prompt_tokens, self.completion_tokens


def _sum(first: int | None, second: int | None) -> int | None:
    return second if first is None else first + (second or 0)


@dataclass(frozen=True)
class Fault:
    """One failed request.

    Attributes:
        retry: asking again may help.
        fatal: no request can succeed, as far as this one shows.
        status: of HTTP, also where it stood in a body that came as a success; 0 if there was none.
        wait_s: what the server asked for, None if it did not say.
        foreign: what answered is no chat endpoint, or somebody answered in its place.
        usage: what was billed for it all the same.
    """

    message: str
    retry: bool
    fatal: bool
    status: int = 0
    wait_s: float | None = None
    foreign: bool = False
    usage: Usage = Usage()

    @property
    def short(self) -> str:
        return one_line(self.message, 120)

    @property
    def about_question(self) -> bool:
        """Whether it speaks of this request alone, and not of the key, the model or the way there."""
        return 400 <= self.status < 500 and self.status not in (401, 402, 403, 404)


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


def fault_of(error: Exception, wire: Wire, timeout_s: float, proxy: str | None = None) -> Fault:
    """Judge an exception of the official client, or a TimeoutError. `proxy`: the variable that names one, if any."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        headers = getattr(getattr(error, "response", None), "headers", {})
        return status_fault(status, said_in(getattr(error, "body", None)), wire, retry_after_s(headers))
    chain = [error, *_causes(error)]
    unfit = next((e for e in chain if isinstance(e, UnfitAnswerError)), None)
    if unfit is not None:
        return Fault(f"{wire.where} {unfit}", not unfit.fatal, unfit.fatal)
    kinds = {type(e).__name__ for e in chain}
    if isinstance(error, TimeoutError) or any("Timeout" in k for k in kinds):
        return Fault(f"{wire.where} did not answer within {timeout_s:g} s; raise proposer.timeout_s", True, False)
    if any("SSL" in k for k in kinds):
        return Fault(f"no secure connection to {wire.where}; check its certificate, or http against https", False, True)
    if kinds & {"InvalidURL", "UnsupportedProtocol", "LocalProtocolError"}:
        return Fault(f"{wire.where} cannot be asked; correct proposer.base_url", False, True)
    return _unreachable(chain, kinds, wire, proxy)


def _unreachable(chain: list[BaseException], kinds: set[str], wire: Wire, proxy: str | None) -> Fault:
    if proxy is not None and kinds & {"ConnectError", "ConnectionRefusedError", "gaierror", "ProxyError"}:
        message = f"{wire.where} cannot be reached through the proxy of {proxy}; correct or unset it, or set NO_PROXY"
        return Fault(message, True, True)
    if "gaierror" in kinds or any("Name or service not known" in str(e) for e in chain):
        return Fault(f"the host name in {wire.where} is unknown; check proposer.base_url and the network", True, True)
    if "ConnectError" in kinds or "ConnectionRefusedError" in kinds:
        message = f"nobody answers at {wire.where}; start the server or correct proposer.base_url"
        return Fault(message, True, True)
    return Fault(f"the connection to {wire.where} broke before the answer was complete", True, False)


@dataclass(frozen=True)
class Said:
    """A server's own words about an error, on one line, and the codes it gave: ``429``, ``rate_limit_exceeded``."""

    text: str
    codes: tuple[str, ...] = ()


def said_in(body: Any) -> Said:
    """What an error body says, in the forms of OpenAI, FastAPI, OpenRouter, Gemini and vLLM."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, Mapping):
        return Said((one_line(body, _SAID_CHARS) if isinstance(body, str) else "") or "no reason given")
    error = body.get("error")
    inner = error if isinstance(error, Mapping) else body
    texts = [_words(value) for value in (inner.get("message"), error, body.get("message"), body.get("detail"))]
    metadata = inner.get("metadata")
    raw = _words(metadata.get("raw")) if isinstance(metadata, Mapping) else ""
    text = next((t for t in texts if t), "") or "no reason given"
    codes = [inner.get(name) for name in ("code", "type", "status")]
    return Said(
        one_line(f"{text} ({raw})" if raw else text, _SAID_CHARS),
        tuple(one_line(str(c), 60).lower() for c in codes if isinstance(c, (str, int)) and len(str(c)) < 99),
    )


def _words(value: Any) -> str:
    """A text, or the messages in a list of problems, each after the place it is about."""
    if isinstance(value, str):
        return one_line(value, _SAID_CHARS)
    if isinstance(value, Mapping):
        place = value.get("loc")
        where = ".".join(str(p)[:40] for p in place[:6]) if isinstance(place, list) else ""
        text = next(
            (one_line(v, _SAID_CHARS) for v in (value.get("msg"), value.get("message")) if isinstance(v, str)), ""
        )
        return f"{where}: {text}" if where and text else text
    if isinstance(value, list):
        return "; ".join(filter(None, (_words(v) for v in value[:3] if not isinstance(v, list))))
    return ""


def status_in(said: Said) -> int:
    """The HTTP status that an error means where it came as a success; 500 where its codes say nothing."""
    for code in said.codes:
        if re.fullmatch(r"[45]\d\d", code):
            return int(code)
        for word, status in _STATUS_WORDS.items():
            if word in code:
                return status
    return 500


def status_fault(status: int, words: Said, wire: Wire, wait_s: float | None = None) -> Fault:
    """What an error status means."""
    said = wire.redact(words.text)
    variable = wire.variable or "no key (proposer.api_key_env is null)"
    about = " ".join((*words.codes, said)).lower()
    if status == 401:  # the server's words often quote a part of the key
        return Fault(f"{wire.where} refuses the key from {variable} (401); check that key", False, True, status)
    if status == 403:
        return Fault(f"{wire.where} forbids this with the key from {variable} (403): {said}", False, True, status)
    if status == 404:
        message = f"{wire.where} does not know model {wire.model!r}, or lacks /v1 at its end (404): {said}"
        return Fault(message, False, True, status)
    if status == 402 or (status == 429 and "insufficient_quota" in about):
        return Fault(f"no credit left at {wire.where} ({status}): {said}", False, True, 402)
    if status == 429:
        message = f"{wire.where} limits the rate (429): {said}; lower proposer concurrency or raise max_retries"
        return Fault(message, True, False, status, wait_s)
    if status in (408, 409) or status >= 500:
        return Fault(f"{wire.where} fails ({status}): {said}", True, False, status, wait_s)
    # a prompt that is too long or disliked says nothing about the next one
    about_prompt = status == 413 or any(k in about for k in ("context_length", "context length", "content_filter"))
    return Fault(f"{wire.where} refuses the request ({status}): {said}", False, not about_prompt, status)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(12):
        seen = seen.__cause__ or seen.__context__ if seen else None
        if seen is None:
            return
        yield seen
