"""The dashboard as a person starts it, in a process of its own, and asking it over HTTP."""

from __future__ import annotations

import http.client
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.command import script


@dataclass(frozen=True)
class Running:
    """`lines`: what it said before it served."""

    url: str
    lines: tuple[str, ...]
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@contextmanager
def dashboard(archive: Path, *options: str, lines: int = 1) -> Iterator[Running]:
    """On a free port, ended by Ctrl-C; it must then end by itself with exit code 0 and nothing on stderr."""
    command = [script(), "dashboard", "--archive", archive, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = tuple(process.stdout.readline().strip() for _ in range(lines))
            url = next((w for w in said[0].split() if w.startswith("http://")), None)
            assert url is not None, (said, process.poll())
            yield Running(url.rstrip("/"), said, process)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
            assert (process.returncode, errors) == (0, "")
        finally:
            process.kill()


def ask(
    running: Running, path: str, headers: Mapping[str, str] | None = None, method: str = "GET", body: str | None = None
) -> Answer:
    """One request; redirects are not followed. A Host header given replaces the usual one."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    try:
        connection.request(method, path, body, {"Host": f"127.0.0.1:{running.port}", **(headers or {})})
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()
