"""Turns of requests: so many at once, each for so long, so that a slow one never holds up the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from db.limits import reads_within

PAGE_S = 10.0  # that all reads of one page may take together
_WAIT_S = 2.0  # for a turn: a page takes tenths of a second


@dataclass
class Turns:
    """Requests of one kind. `most` are answered at once, in threads; who has to wait for too long is told to come again."""

    most: int
    _free: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._free = asyncio.Semaphore(self.most)

    async def take(self, answer: Callable[[], Any]) -> Any:
        """What `answer` returns. Raises what it raises, and HTTPException 503 when there is no turn to be had."""
        try:
            await asyncio.wait_for(self._free.acquire(), _WAIT_S)
        except TimeoutError:
            busy = "The dashboard is busy with other requests: try again in a moment."
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, busy) from None
        try:
            return await run_in_threadpool(_within, answer)
        finally:
            self._free.release()


def _within(answer: Callable[[], Any]) -> Any:
    with reads_within(PAGE_S):
        return answer()
