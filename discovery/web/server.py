"""Serving the dashboard until Ctrl-C."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

from db.archive import Archive
from evaluators.options import OptionsError
from sandbox.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    import uvicorn

_GOODBYE_S = 2  # that answers still under way are waited for


def serve(url: str, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve an archive's pages; returns when interrupted.

    Args:
        url: where the archive is.
        host: address to listen on; one that other machines reach asks for a token.
        port: 0 takes a free one.
        say: prints a line for the person.

    Raises:
        ArchiveError: it cannot be opened. OptionsError: the extra is missing, or the address cannot be listened on.
    """
    try:
        import uvicorn

        from discovery.web.app import create_app
        from discovery.web.security import access_to
    except ImportError as error:
        raise OptionsError("the dashboard needs more packages: pip install 'objective-discovery[web]'") from error
    with Archive(url) as archive, _listening(host, port) as listener:
        access = access_to(host, int(listener.getsockname()[1]))
        say(f"dashboard of {one_line(archive.url)}: http://{access.authority}/ (Ctrl-C ends it)")
        if access.token is not None:
            say(
                "other machines can reach this address, over a connection that is not encrypted; pages ask for this token:"
            )
            say(access.token)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # faults are said by the application, in one line
        settings = uvicorn.Config(
            create_app(archive, access),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GOODBYE_S,
        )
        _run(uvicorn.Server(settings), listener)


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # raised again by the server when it has ended: here, that is the ordinary end
        return


def _listening(host: str, port: int) -> socket.socket:
    bare = host.strip("[]")
    try:
        family = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((bare, port), family=family)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise OptionsError(f"cannot listen on {host}:{port} ({why}); choose another --port or --host") from error
