"""Ctrl-C and SIGTERM while a campaign runs, and what else ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

SAME_S = 1.0  # terminals and launchers signal a process and its group: what follows so soon is the same request


@contextmanager
def interrupts(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C asks the campaign to stop; a second one ends the process at once (its Ray and children end with it)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: float | None = None

    def on_interrupt(number: int, frame: object) -> None:
        nonlocal asked
        if asked is None:
            asked = time.monotonic()
            stop()
        elif time.monotonic() - asked > SAME_S:
            os._exit(130)

    before = {number: signal.signal(number, on_interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def finishes(work: Coroutine[Any, Any, None], stopping: asyncio.Event, watch: Coroutine[Any, Any, None]) -> bool:
    """Run the work to its end (True), or until `stopping` is set (False). What is left of it is cancelled.

    Raises:
        BaseException: the work's error, or that of `watch`, which runs beside it and only ends by raising.
    """
    working, asked, watching = (asyncio.ensure_future(c) for c in (work, stopping.wait(), watch))
    try:
        done, _ = await asyncio.wait({working, asked, watching}, return_when=asyncio.FIRST_COMPLETED)
        for ended in (working, watching):
            error = ended.exception() if ended in done else None
            if error is not None:
                raise _innermost(error) from None
        return working in done
    finally:
        for task in (working, asked, watching):
            task.cancel()
        await asyncio.gather(working, asked, watching, return_exceptions=True)


def _innermost(error: BaseException) -> BaseException:
    """The first real error inside task groups, so that people see one line and not a tree."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
