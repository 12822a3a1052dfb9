"""Who may read the dashboard, and what its pages may do: one layer around all of it.

A page of another site can send requests to this machine. It cannot read the answers, unless its name is made to resolve to
this machine (DNS rebinding); then the Host header still carries its name, which is refused. On an address that other
machines reach, a token is asked for: typed into a form, and kept in a cookie that no script can read.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOGIN = "/login"
STATIC = "/static/"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Access:
    """Where the dashboard listens, and what opens it.

    Attributes:
        token: what a person types once; None where only this machine reaches it.
        session: what the cookie holds after that.
    """

    host: str
    port: int
    token: str | None = None
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def cookie(self) -> str:
        """Cookies are shared by all ports of a host, so the name has the port."""
        return f"discovery_{self.port}"

    @property
    def authority(self) -> str:
        """Host and port as a URL has them."""
        shown = f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host
        return f"{shown}:{self.port}"

    def knows_host(self, header: str) -> bool:
        """Whether a Host header names this server. Another site's page cannot make it an IP address."""
        host = header.lower()
        if host in {f"{name}:{self.port}" for name in self._names()} | {self.authority.lower()}:
            return True
        return self._is_wildcard and host.endswith(f":{self.port}") and _is_address(host[: -len(f":{self.port}")])

    def opens(self, typed: str) -> bool:
        """Whether this is the token."""
        return self.token is not None and hmac.compare_digest(typed.strip().encode(), self.token.encode())

    def is_known(self, cookies: str) -> bool:
        """Whether a Cookie header shows that the token was given, or none is needed."""
        if self.token is None:
            return True
        try:
            found = SimpleCookie(cookies).get(self.cookie)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(found.value.encode(), self.session.encode())

    @property
    def _is_wildcard(self) -> bool:
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_unspecified
        except ValueError:
            return False

    def _names(self) -> Iterable[str]:
        return (*_LOOPBACK, socket.gethostname().lower()) if self._is_wildcard else _LOOPBACK


def access_to(host: str, port: int) -> Access:
    """With a new token where other machines reach the address."""
    return Access(host, port, None if is_loopback(host) else secrets.token_urlsafe(24))


class Guard:
    """Checks each request before the application sees it, and sets the headers of each answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await (self._refusal(scope) or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, path = Headers(scope=scope), scope["path"]
        if not self._access.knows_host(headers.get("host", "")):
            return PlainTextResponse(f"This server answers as http://{self._access.authority}/ only.\n", 421)
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
            return PlainTextResponse("Pages of other sites get nothing from here.\n", 403)
        if path == LOGIN or path.startswith(STATIC) or self._access.is_known(headers.get("cookie", "")):
            return None
        return RedirectResponse(LOGIN, 303)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
