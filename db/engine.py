"""From an archive URL to a connected engine, and from a database's error to one line for people."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from db.errors import ArchiveError
from db.limits import raise_interrupt, watch
from db.redact import redact_secrets, redact_url
from db.types import read_json
from sandbox.text import one_line

_BUSY_MS = 5_000  # how long a statement waits for another writer before it gives up
_CONNECT_S = 10  # how long a database may take to answer at all, unless the URL says otherwise
_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_FORMS = "write a file path, sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE"
_IN_MEMORY = re.compile(r"(\A|file:|/):memory:|[?&]mode=memory", re.IGNORECASE)
_UNFINISHED = re.compile(r"(sqlite|postgres\w*)(\+\w*)?:", re.ASCII)  # a URL without its slashes is no path
_LOG_PAGES = (
    10_000  # 40 MB of SQLite's log before it goes into the file: a page that changes often is written there once
)
MAX_VALUE = 64 * 2**20  # bytes of one text or blob, and of one row: SQLite itself takes up to a thousand million
_POOL: Mapping[str, int] = {"pool_size": 5, "max_overflow": 60}  # threads that read at once are limited elsewhere
_TRUSTED = "archive_trusted"  # whether a connection runs triggers: it writes, to an archive that has been looked at
_WRITES = "archive_writes"  # execution option of transactions that will write


@dataclass(frozen=True)
class Target:
    """Where an archive is. `shown` has no password; `path` is None unless it is a file of this machine."""

    url: URL
    shown: str
    path: Path | None


def parse_target(url: str | Path) -> Target:
    """Understand an archive URL; a text without a scheme is the path of an SQLite file.

    Raises:
        ArchiveError: it is empty, malformed, of an unsupported database, or names no file.
    """
    text = str(url)
    if not text.strip():
        raise ArchiveError(f"the archive has no name: {_FORMS}")
    if _IN_MEMORY.search(text):
        raise ArchiveError(f"{redact_url(text)!r} names no file, and would be gone with this command: {_FORMS}")
    if "://" not in text and not _UNFINISHED.match(text):
        path = Path(text).expanduser()
        _require_short(path)
        return Target(URL.create("sqlite", database=str(path)), text, path)
    shown = redact_url(text)
    try:
        parsed = make_url(text)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        raise ArchiveError(f"cannot read the archive URL {shown!r}: {_FORMS}") from error
    if parsed.port is not None and not 0 < parsed.port < 65_536:
        raise ArchiveError(f"cannot read the archive URL {shown!r}: a port is a number from 1 to 65535")
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise ArchiveError(f"an archive cannot live in {parsed.drivername!r} ({shown}): {_FORMS}")
    parsed = parsed.set(drivername=driver)
    if driver != "sqlite":
        return Target(parsed, shown, None)
    if parsed.database in (None, ""):
        raise ArchiveError(f"the archive URL {shown!r} names no file: write sqlite:///PATH")
    is_uri = "uri" in parsed.query  # sqlite:///file:PATH?mode=ro&uri=true is opened by SQLite itself
    _require_short(Path(str(parsed.database)))
    return Target(parsed, shown, None if is_uri else Path(str(parsed.database)))


def _require_short(path: Path) -> None:
    """SQLite keeps a file beside the archive whose name is longer. Raises ArchiveError."""
    longest = 255 - len("-journal")
    if len(os.fsencode(path.name)) > longest:
        raise ArchiveError(f"the archive's file name {one_line(path.name, 40)!r} is too long: at most {longest} bytes")


def connect_engine(target: Target) -> Engine:
    """An engine for the target; connects on first use. Raises ArchiveError if the database's driver is not installed."""
    try:
        if target.url.get_backend_name() == "sqlite":
            engine = sa.create_engine(target.url, json_deserializer=read_json, **_POOL)
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            event.listen(engine, "handle_error", raise_interrupt)
            return engine
        wait = {} if "connect_timeout" in target.url.query else {"connect_timeout": _CONNECT_S}
        return sa.create_engine(target.url, pool_pre_ping=True, connect_args=wait, json_deserializer=read_json, **_POOL)
    except ImportError as error:
        raise ArchiveError("PostgreSQL needs psycopg: pip install 'objective-discovery[postgres]'") from error
    except (ArgumentError, TypeError, ValueError) as error:
        raise ArchiveError(f"cannot use the archive URL {target.shown!r}: {_FORMS}") from error


def for_reading(engine: Engine) -> Engine:
    """The same engine; all queries of one of its transactions see the same moment."""
    return engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="REPEATABLE READ")


def for_writing(engine: Engine) -> Engine:
    """The same engine; its transactions take the write lock at their start, so that a writer never has to upgrade."""
    return engine.execution_options(**{_WRITES: True})


def _set_up_sqlite(connection: Any, record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin_sqlite`, not guessed by the driver
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
    watch(connection, record.info)
    cursor = connection.cursor()
    # NORMAL with WAL: nothing is lost when a process dies; losing power may lose the last moments, never the file
    pragmas = (
        "foreign_keys=ON", f"busy_timeout={_BUSY_MS}", "synchronous=NORMAL", f"wal_autocheckpoint={_LOG_PAGES}",
        "trusted_schema=OFF", "cell_size_check=ON",
    )  # fmt: skip
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    statement = "BEGIN IMMEDIATE" if writes else "BEGIN"
    driver: Any = connection.connection.driver_connection
    try:
        if (
            writes and _TRUSTED not in connection.info
        ):  # our triggers fill a virtual table; who reads needs none of that
            driver.execute("PRAGMA trusted_schema=ON")
            connection.info[_TRUSTED] = True
        driver.execute(statement)  # not a statement of SQLAlchemy's: that would take ten times as long
    except sqlite3.Error as error:
        raise OperationalError(statement, None, error) from error


def enable_wal(engine: Engine) -> None:
    """Readers and the writer stop waiting for each other; remembered in the file. Not for other databases."""
    if engine.dialect.name == "sqlite":
        raw = engine.raw_connection()
        try:
            cursor = raw.cursor()
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.close()
        finally:
            raw.close()


# a fragment of the database's message (lower case) -> what to tell people, {} being the archive
_LOST = "the connection to the archive {} was lost: run the same command again, it goes on where it stopped"
_SLOW = (
    "reading the archive {} took longer than it may: ask for less, run `discovery archive check` if that is strange, "
    "or look again when the machine is less busy"
)
_SYMPTOMS = {
    "disk is full": "no disk space left for the archive {}: free some and run the same command again",
    "no space left": "no disk space left for the archive {}: free some and run the same command again",
    "could not extend file": "no disk space left for the archive {}: free some and run the same command again",
    "disk i/o error": "the disk refused to read or write the archive {}: check its space and health, then run again",
    "is locked": "the archive {} is locked by another program that writes to it: wait for that to end, then run again",
    "lock timeout": "the archive {} is locked by another program that writes to it: wait for that to end, then run again",
    "readonly database": "the archive {} cannot be written: make the file and its folder writable, or name another",
    "read-only transaction": "the archive {} cannot be written: use an account that may write, or another database",
    "the database system is": "the database of the archive {} starts or ends just now: run the same command again soon",
    "terminating connection": _LOST,
    "permission denied": "the archive {} refuses this account: grant it access, or use another account",
    "file is not a database": "{} is not an archive, or it is damaged: name another file, or restore a backup",
    "too big": "the archive {} holds a value that is too large to be read: name another file, or restore a backup",
    "integer overflow": "the archive {} holds numbers that no campaign writes: name another, or restore a backup",
    "could not decode to utf-8": "the archive {} holds text that is none: name another file, or restore a backup",
    "no such table": "the archive {} is damaged, since a table of it is gone: restore a backup",
    "no such column": "the archive {} is damaged, since a column of it is gone: restore a backup",
    'relation "': "the archive {} is damaged, since a table of it is gone: restore a backup",
    'column "': "the archive {} is damaged, since a column of it is gone: restore a backup",
    "interrupted": _SLOW,
    "statement timeout": _SLOW,
    "malformed": "the archive {} is damaged: restore a backup, or recover it with the sqlite3 tool",
    "unable to open": "the archive {} cannot be opened: check that its folder exists and is writable",
    "authentication failed": "the database refused the password of the archive {}: check the user and the password",
    "no password supplied": "the archive {} needs a password: add it to the URL, or set PGPASSWORD",
    "connection refused": "no database answers at {}: check the host and the port, and that the server runs",
    "could not translate host": "no database answers at {}: check the host's name",
    "failed to resolve host": "no database answers at {}: check the host's name",
    "no such file or directory": "no database answers at {}: check the host and the port, and that the server runs",
    "received invalid response": "what answers at {} is no PostgreSQL: check the host and the port",
    "expected authentication request": "what answers at {} is no PostgreSQL: check the host and the port",
    "invalid connection option": "PostgreSQL knows no such option as the archive URL {} has: take it out",
    "timeout expired": "no database answers at {} in time: check the host, the port and the network",
    '" does not exist': "the database or the user of the archive {} does not exist: create it, or check the URL",
}
# whose fault it is, whenever it comes up; the rest is the machine's, or the URL's if it comes up before anything worked
_ASKED_WRONGLY = (
    "file is not a database", "malformed", "authentication failed", "no password supplied", '" does not exist',
    "too big", "integer overflow", "could not decode to utf-8", "no such table", "no such column", 'relation "',
    'column "',
)  # fmt: skip
_OF_THE_MACHINE = (
    "disk is full", "no space left", "could not extend file", "disk i/o error", "is locked", "lock timeout",
    "the database system is", "terminating connection", "interrupted", "statement timeout",
)  # fmt: skip


def explain(error: SQLAlchemyError, target: Target, opening: bool = False) -> ArchiveError:
    """The database's error as one line that says what to do; never with a password in it.

    `opening`: nothing has worked yet, so that the URL may be wrong.
    """
    original = getattr(error, "orig", None) or error
    text = redact_secrets(one_line(str(original), 300))
    if isinstance(error, DBAPIError):
        for fragment, message in _SYMPTOMS.items():
            if fragment in text.lower():
                wrong = fragment in _ASKED_WRONGLY or (opening and fragment not in _OF_THE_MACHINE)
                return ArchiveError(message.format(target.shown), fault=not wrong)
        if error.connection_invalidated:
            return ArchiveError(_LOST.format(target.shown), fault=True)
    return ArchiveError(f"the archive {target.shown} failed: {text}", fault=not opening)


# what comes of values that have another type, form or range than anything that this program stores
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


def unreadable(target: Target, error: Exception) -> ArchiveError:
    """The archive holds a value that nothing here has written."""
    return ArchiveError(
        f"the archive {target.shown} holds something that no campaign writes ({one_line(str(error), 120)}): "
        "`discovery archive check` names it; restore a backup, or take another archive"
    )


@contextmanager
def explained(target: Target, opening: bool = False) -> Iterator[None]:
    """Turn every database error inside into an ArchiveError; `opening` as for `explain`."""
    try:
        yield
    except SQLAlchemyError as error:
        raise explain(error, target, opening) from error
