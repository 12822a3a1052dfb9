"""The connection to a chat endpoint: what may come back over it, from whom, and through which proxy.

A server is not trusted with our memory or our prompts: bodies are cut off while they are read, packed ones are unpacked
within the same limit, and a redirect to another host is refused.
"""

from __future__ import annotations

import importlib
import ipaddress
import os
import urllib.request
import zlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from discovery.endpoint import UnfitAnswerError, public_url
from discovery.protocols import ProposerError
from sandbox.text import one_line

MAX_BODY_BYTES = 4 * 2**20
MAX_ERROR_BYTES = 2**16  # of the body of an error status: only its words are read, and the rest is left
_ANY_HEADER = 47  # zlib reads its own header or gzip's
_PROXIES = ("https_proxy", "http_proxy", "all_proxy")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def make_client(base_url: str, key: str, timeout_s: float) -> Any:
    """The official client over a connection with limits. Nothing is retried: that is done, and counted, by who asks.

    An endpoint on this machine is asked directly, whatever proxy the environment names.

    Raises:
        ProposerError: fatal; the environment names a proxy or certificates that cannot be used.
    """
    import openai

    http = _http_module(openai)
    options: dict[str, Any] = {
        "timeout": timeout_s,
        "event_hooks": {"response": [_Inspection(http.AsyncByteStream)]},
        "headers": {"accept-encoding": "identity"},
    }
    try:
        if is_loopback(base_url):
            options |= {"trust_env": False, "verify": http.create_ssl_context()}
        connection = openai.DefaultAsyncHttpxClient(**options)
    except (ImportError, OSError, ValueError, http.InvalidURL) as error:
        raise ProposerError(_unusable(error), fatal=True) from None
    return openai.AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0, timeout=timeout_s, http_client=connection)


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine by name or address."""
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_variable(url: str) -> str | None:
    """The environment variable whose proxy a URL is asked through, if any."""
    parts = urlsplit(url)
    if is_loopback(url) or urllib.request.proxy_bypass_environment(parts.hostname or ""):  # type: ignore[attr-defined]
        return None
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        found = next((n for n in (name, name.upper()) if os.environ.get(n)), None)
        if found is not None:
            return found
    return None


def _http_module(openai: Any) -> Any:
    """What the client talks over: `httpx` up to its second major version, `httpx2` since. Both have what is used here."""
    return importlib.import_module(openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0])


def _unusable(error: Exception) -> str:
    """Why no connection can be set up, from the environment's part in it."""
    proxies = [n for p in _PROXIES for n in (p, p.upper()) if os.environ.get(n)]
    certificates = [n for n in _CERTIFICATES if os.environ.get(n)]
    if isinstance(error, OSError) and certificates:
        named = " and ".join(f"{n}={one_line(os.environ[n], 100)}" for n in certificates)
        return f"no certificates can be read from {named}; correct or unset it"
    if proxies:
        what = (
            "a SOCKS proxy, which needs `pip install socksio`" if isinstance(error, ImportError) else "no usable proxy"
        )
        shown = " and ".join(f"{n}={public_url(os.environ[n])}" for n in proxies)
        return f"{shown} names {what}; correct or unset it, or set NO_PROXY to the endpoint's host"
    return f"no connection can be set up: {one_line(str(error), 150)}"


class _Inspection:
    """Looks at every response before anything of its body is read, and before a redirect is followed."""

    def __init__(self, base: type) -> None:
        # a class of the library that is in use: it insists on its own kind of stream
        self._stream = type("LimitedStream", (_Limited, base), {})

    async def __call__(self, response: Any) -> None:
        if response.has_redirect_location:
            _check_redirect(response)
        encoding = response.headers.get("content-encoding", "identity").strip().lower() or "identity"
        if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise UnfitAnswerError(f"packs its answers as {one_line(encoding, 30)!r}, unasked", fatal=False)
        if encoding != "identity":
            del response.headers["content-encoding"]
        response.stream = self._stream(response.stream, encoding != "identity", response.status_code >= 400)


class _Limited:
    """A body up to its limit. Beyond that an answer is refused, while an error's text just ends."""

    def __init__(self, source: Any, is_packed: bool, is_error: bool) -> None:
        self._source, self._is_error = source, is_error
        self._unpacker = zlib.decompressobj(_ANY_HEADER) if is_packed else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_ERROR_BYTES if self._is_error else MAX_BODY_BYTES
        async for piece in self._source:
            chunk = piece if self._unpacker is None else self._unpacked(piece, left + 1)
            if len(chunk) > left:
                if self._is_error:
                    yield chunk[:left]
                    return
                raise UnfitAnswerError(f"sent more than {MAX_BODY_BYTES // 2**20} MiB for one answer", fatal=False)
            left -= len(chunk)
            yield chunk

    def _unpacked(self, piece: bytes, most: int) -> bytes:
        assert self._unpacker is not None
        try:
            return self._unpacker.decompress(piece, most)
        except zlib.error:
            raise UnfitAnswerError("sent a packed body that cannot be unpacked", fatal=False) from None

    async def aclose(self) -> None:
        await self._source.aclose()


def _check_redirect(response: Any) -> None:
    """Raises UnfitAnswerError unless the same question goes to the same host, at least as safely."""
    asked = str(response.request.url)
    try:
        to = urljoin(asked, response.headers["location"])
        before, after = urlsplit(asked), urlsplit(to)
        same = before.hostname == after.hostname and (
            (before.scheme, before.port) == (after.scheme, after.port)
            or (before.scheme, after.scheme) == ("http", "https")
        )
    except ValueError:
        to, same = "(not a URL)", False
    # the others turn a POST into a GET
    if not same or (response.request.method != "GET" and response.status_code not in (307, 308)):
        shown = public_url(to)
        raise UnfitAnswerError(
            f"redirects to {shown}, which is not followed; set proposer.base_url to the endpoint itself", fatal=True
        )
