"""How long a read of an archive may take: one limit of the session, and one of whoever asks, the earlier of which counts."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.exc import OperationalError

_STEPS = 20_000  # of SQLite's virtual machine between two looks at the clock: some two milliseconds
_KEY = "archive_clock"  # where a connection keeps its clock

_until: ContextVar[float | None] = ContextVar("archive_reads_until", default=None)


@dataclass
class _Clock:
    """When the statement that a connection runs is to end; None: never."""

    until: float | None = None

    def is_over(self) -> bool:
        return self.until is not None and time.monotonic() > self.until


@contextmanager
def reads_within(seconds: float) -> Iterator[None]:
    """All reads inside, of any archive and in this thread, end `seconds` from now with an ArchiveError at the latest."""
    token = _until.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(token)


def watch(connection: Any, info: dict[Any, Any]) -> None:
    """Let SQLite look at a clock while it works. `info` is that of the pooled connection."""
    clock = info[_KEY] = _Clock()
    connection.set_progress_handler(clock.is_over, _STEPS)


def raise_interrupt(context: ExceptionContext) -> None:
    """Ctrl-C during a statement of SQLite's, which takes a handler's exception for a wish to stop and drops it.

    Raises:
        KeyboardInterrupt: SQLite was stopped, and not because the time was over.
    """
    clock = context.connection.info.get(_KEY) if context.connection is not None else None
    if clock is not None and not clock.is_over() and "interrupted" in str(context.original_exception):
        raise KeyboardInterrupt from None


@contextmanager
def limited(connection: Connection, seconds: float | None) -> Iterator[None]:
    """Statements inside are ended by the database when the time is over; it then raises its usual OperationalError.

    Args:
        connection: in a transaction that ends with the block.
        seconds: the session's own limit, None for none.
    """
    ends = [t for t in (_until.get(), None if seconds is None else time.monotonic() + seconds) if t is not None]
    if not ends:
        yield
        return
    if connection.dialect.name == "postgresql":
        milliseconds = max(1, int(1000 * (min(ends) - time.monotonic())))
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
        yield
        return
    clock: _Clock = connection.info[_KEY]
    clock.until = min(ends)
    try:
        if clock.is_over():  # a statement shorter than the handler's steps would never look
            raise OperationalError("", None, sqlite3.OperationalError("interrupted"))
        yield
    finally:
        clock.until = None
