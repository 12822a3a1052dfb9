"""Ctrl-C and SIGTERM while a campaign runs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
