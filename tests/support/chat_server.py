"""A real HTTP server on loopback that speaks the chat-completions protocol, and misbehaves on demand.

In a thread: `with ChatServer(reply="...", script=[status(429, retry_after="0"), None]) as server: server.base_url`.
As a process, for benchmarks: `python -m tests.support.chat_server --port 0 --latency 2.0` prints its base URL.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

Reply = Callable[[dict[str, Any], int], str]
MAX_BODY = 8 * 2**20


def distinct_loss(request: dict[str, Any], number: int) -> str:
    """Reply `number`: a valid loss that behaves like no other of them and like no rescaled known one.

    `a * softplus(-z) + (1 - a) * softplus(k - s z)^2`, with (a, k, s) on a sequence that fills the cube evenly (the R3
    sequence), so that the first thousands of replies stay apart.
    """
    a, k, s = (
        (0.5 + step * (number + 1)) % 1.0 for step in (0.8191725133961645, 0.6710436067037893, 0.5497004779019703)
    )
    a, k, s = 0.1 + 0.8 * a, -1.0 + 3.0 * k, 0.5 + 1.5 * s
    code = f'''"""Logistic loss mixed with a squared soft hinge, variant {number}."""

import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    z = beta * margin
    return {a:.6f} * F.softplus(-z) + {1 - a:.6f} * F.softplus({k:.6f} - {s:.6f} * z) ** 2
'''
    return json.dumps({"thought": f"mixture {number}", "name": f"mixture_{number}", "code": code})


@dataclass
class Received:
    """One request as it came in; header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def messages(self) -> list[dict[str, str]]:
        return list(self.body.get("messages", []))


@dataclass
class Exchange:
    """One request being answered; a script step writes what it wants."""

    server: ChatServer
    request: Received
    number: int
    writer: asyncio.StreamWriter

    async def send(self, status: int, payload: bytes, kind: str = "application/json", headers: str = "") -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(payload)}\r\n{headers}\r\n"
        self.writer.write(head.encode() + payload)
        await self.writer.drain()

    async def send_json(self, status: int, value: Any, headers: str = "") -> None:
        await self.send(status, json.dumps(value).encode(), headers=headers)

    def completion(self, content: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
        prompt = sum(len(str(m.get("content", ""))) for m in self.request.messages) // 4
        return {
            "id": f"chatcmpl-{self.number}",
            "object": "chat.completion",
            "created": 0,
            "model": self.request.body.get("model", "stand-in"),
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish,
                    "message": {"role": "assistant", "content": content, **message},
                }
            ],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": len(content or "") // 4,
                "total_tokens": prompt + len(content or "") // 4,
            },
        }


Step = Callable[[Exchange], Awaitable[None]]


def status(code: int, message: str = "scripted", error_code: str = "", retry_after: str | None = None) -> Step:
    """An error status in OpenAI's form."""

    async def step(exchange: Exchange) -> None:
        error = {"message": message, "type": "error", "param": None, "code": error_code or None}
        header = f"retry-after: {retry_after}\r\n" if retry_after is not None else ""
        await exchange.send_json(code, {"error": error}, header)

    return step


def content(text: str | None, finish: str = "stop", **message: Any) -> Step:
    """A well-formed completion with this content (None: null), finish reason and further message fields."""

    async def step(exchange: Exchange) -> None:
        await exchange.send_json(200, exchange.completion(text, finish, **message))

    return step


def raw(payload: bytes, kind: str = "application/json", headers: str = "") -> Step:
    """A 200 with these bytes and header lines."""

    async def step(exchange: Exchange) -> None:
        await exchange.send(200, payload, kind, headers)

    return step


def raw_error(code: int, payload: bytes) -> Step:
    """An error status with these bytes."""

    async def step(exchange: Exchange) -> None:
        await exchange.send(code, payload)

    return step


def error_body(code: int, body: Any) -> Step:
    """An error status with this body."""
    return raw_error(code, json.dumps(body).encode())


def redirect(code: int, location: str) -> Step:
    """Sends the client elsewhere."""

    async def step(exchange: Exchange) -> None:
        await exchange.send(code, b"", headers=f"location: {location}\r\n")

    return step


def refuse_parameter(name: str, message: str, code: int = 400) -> Step:
    """400, or another status, for requests that carry the parameter, a normal answer otherwise."""

    async def step(exchange: Exchange) -> None:
        if name in exchange.request.body:
            await status(code, message)(exchange)
        else:
            await exchange.server.answer(exchange)

    return step


async def empty_choices(exchange: Exchange) -> None:
    """A completion without any choice."""
    await exchange.send_json(200, {**exchange.completion(""), "choices": []})


async def hang(exchange: Exchange) -> None:
    """Never answers."""
    await exchange.server.stopping.wait()


async def reset(exchange: Exchange) -> None:
    """Closes the connection with a TCP reset."""
    connection = exchange.writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.writer.transport.abort()
    raise ConnectionAbortedError


async def truncated(exchange: Exchange) -> None:
    """Promises more bytes than it sends, then closes."""
    payload = json.dumps(exchange.completion("x" * 400)).encode()
    head = f"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
    exchange.writer.write(head.encode() + payload[:100])
    await exchange.writer.drain()
    raise ConnectionAbortedError


async def trickle(exchange: Exchange) -> None:
    """One byte every 20 ms: each read is fast, the whole never ends."""
    exchange.writer.write(b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n")
    while not exchange.server.stopping.is_set():
        exchange.writer.write(b" ")
        await exchange.writer.drain()
        await asyncio.sleep(0.02)


@dataclass
class ChatServer:
    """POST /v1/chat/completions and GET /v1/models on 127.0.0.1, from its own thread.

    Attributes:
        reply: the answer's text, or a function of (request body, number of the request) that gives it.
        latency_s: wait before each answer.
        script: what to do with request 0, 1, ...; None answers normally, as do all requests after its end.
        always: what to do with every request instead (a step as in `script`).
        api_key: required as a bearer token where set (401 otherwise).
        received: all chat requests so far.
        most_in_flight: high-water mark of concurrent chat requests.
    """

    reply: str | Reply = distinct_loss
    latency_s: float = 0.0
    script: Sequence[Step | None] = ()
    always: Step | None = None
    api_key: str | None = None
    port: int = 0
    received: list[Received] = field(default_factory=list)
    most_in_flight: int = 0
    in_flight: int = 0

    def __enter__(self) -> ChatServer:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve(ready.set)), daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the chat server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self.stopping.set)
        self._thread.join(10)
        if self._thread.is_alive():
            raise RuntimeError("the chat server did not stop")

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, ready: Callable[[], object]) -> None:
        """Serve until `stopping` is set."""
        self._loop, self.stopping = asyncio.get_running_loop(), asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, limit=2**20, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        ready()
        await self.stopping.wait()
        server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._one(reader, writer):
                    pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read one request, answer it; False when the client has closed."""
        start = await reader.readexactly(1)
        if not start.isalpha():  # a TLS handshake, say
            writer.write(b"HTTP/1.1 400 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
            return False
        head = (start + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
        length = min(int(headers.get("content-length", "0")), MAX_BODY)
        payload = await reader.readexactly(length) if length else b""
        request = Received(path, headers, json.loads(payload) if payload else {})
        exchange = Exchange(self, request, len(self.received), writer)
        if self.api_key is not None and headers.get("authorization") != f"Bearer {self.api_key}":
            await status(401, f"Incorrect API key provided: {headers.get('authorization')}")(exchange)
        elif (method, path) == ("GET", "/v1/models"):
            await exchange.send_json(200, {"object": "list", "data": [{"id": "stand-in", "object": "model"}]})
        elif (method, path) != ("POST", "/v1/chat/completions"):
            await status(404, f"no route {method} {path}")(exchange)
        else:
            await self._chat(exchange)
        return headers.get("connection", "").lower() != "close"

    async def _chat(self, exchange: Exchange) -> None:
        self.received.append(exchange.request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            scripted = self.script[exchange.number] if exchange.number < len(self.script) else self.always
            await (scripted or self.answer)(exchange)
        finally:
            self.in_flight -= 1

    async def answer(self, exchange: Exchange) -> None:
        """The normal answer."""
        text = self.reply if isinstance(self.reply, str) else self.reply(exchange.request.body, exchange.number)
        await exchange.send_json(200, exchange.completion(text))


def main() -> None:
    """Serve distinct losses until the process is ended."""
    parser = argparse.ArgumentParser(description="A chat-completions server that answers with distinct losses.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    arguments = parser.parse_args()
    server = ChatServer(latency_s=arguments.latency, port=arguments.port)
    with suppress(KeyboardInterrupt):
        asyncio.run(server.serve(lambda: print(server.base_url, flush=True)))


if __name__ == "__main__":
    main()
