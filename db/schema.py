"""Which schema a database holds, and bringing it to this program's."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError, ProgrammingError

from db.engine import Target, connect_engine, enable_wal, explained, for_writing, parse_target
from db.errors import ArchiveError
from db.models import SCHEMA_VERSION, VERSION_TABLE, metadata, version_table
from db.ours import foreign_parts
from sandbox.text import one_line

MIGRATIONS = Path(__file__).parent / "migrations"


def open_archive(url: str | Path, create: bool) -> tuple[Target, Engine]:
    """Connect to an archive and make sure that it is one of this program's schema.

    Args:
        url: as in `parse_target`.
        create: make the archive (and its folder) if there is none, and require that it can be written.

    Raises:
        ArchiveError: there is none, it is something else, of another schema version, or cannot be opened.
    """
    target = parse_target(url)
    _check_path(target, create)
    engine = connect_engine(target)
    with ExitStack() as failed, explained(target, opening=True):
        failed.callback(engine.dispose)
        if create:
            _ensure(engine, target)
        else:
            with engine.connect() as connection:
                found = _version(connection, target)
            if found is None:
                raise ArchiveError(f"{target.shown} holds no archive: check the name, or start a campaign in it")
            _require_current(found, target)
        failed.pop_all()
    return target, engine


def upgrade(url: str | Path) -> str:
    """Migrate an archive (or an empty database) to this program's schema; returns the version it had, "" for none.

    Raises:
        ArchiveError: it is something else, newer than this program, or cannot be written.
    """
    from alembic import command  # a tenth of a second that only migrations pay
    from alembic.config import Config

    target = parse_target(url)
    _check_path(target, create=False)
    engine = connect_engine(target)
    try:
        with explained(target, opening=True), engine.connect() as connection:
            found = _version(connection, target)
        with explained(target):
            if found is not None and found > SCHEMA_VERSION:
                _require_current(found, target)
            if found is None:
                enable_wal(engine)
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS))
            with for_writing(engine).begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, SCHEMA_VERSION)
    finally:
        engine.dispose()
    return found or ""


def _check_path(target: Target, create: bool) -> None:
    path = target.path
    if path is None:
        return
    try:
        if path.is_dir():
            raise ArchiveError(f"{target.shown} is a folder: name a file in it, such as {path / 'archive.db'}")
        if path.exists() and not path.is_file():
            raise ArchiveError(f"{target.shown} is not a file: name another")
        if not create and not path.exists():
            raise ArchiveError(f"there is no archive at {target.shown}: check the name, or start a campaign in it")
        above = next((p for p in path.parents if p.exists()), path)
        if not above.is_dir():
            raise ArchiveError(
                f"the archive {target.shown} cannot be made: {above} is a file, not a folder; name another"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArchiveError(
            f"the archive {target.shown} cannot be opened ({reason}): make its folder writable, or name another place"
        ) from error


def _ensure(engine: Engine, target: Target) -> None:
    """Create the tables in an empty database. Several processes may try at once: one wins, the others find its tables."""
    with engine.connect() as connection:
        fresh = _version(connection, target) is None
    if fresh:
        enable_wal(engine)
    try:
        with for_writing(engine).begin() as connection:
            found = _version(connection, target)
            if found is None:
                metadata.create_all(connection, checkfirst=False)
                version_table.create(connection)
                connection.execute(version_table.insert().values(version_num=SCHEMA_VERSION))
                return
            _require_current(found, target)
            # changes nothing, but tells now, and not after an hour of work, that the archive cannot be written
            connection.execute(version_table.update().values(version_num=SCHEMA_VERSION))
    except (IntegrityError, ProgrammingError):  # PostgreSQL: another process committed the same tables first
        with engine.connect() as connection:
            found = _version(connection, target)
        if found is None:
            raise
    _require_current(found, target)


def _version(connection: Connection, target: Target) -> str | None:
    """The archive's schema version, None for an empty database. Raises ArchiveError for somebody else's."""
    tables = sa.inspect(connection).get_table_names()
    if VERSION_TABLE in tables:
        foreign = next(iter(foreign_parts(connection)), None)
        if foreign is not None:
            raise ArchiveError(
                f"{target.shown} is no archive as this program makes them: {one_line(foreign, 60)!r} in it is of "
                "another's making; name another file, or restore a backup"
            )
        found = connection.execute(sa.select(version_table.c.version_num)).scalar()
        if isinstance(found, str) and found.isdigit():
            return found
    elif not tables:
        return None
    raise ArchiveError(f"{target.shown} belongs to another program: name another file or an empty database")


def _require_current(found: str, target: Target) -> None:
    if found > SCHEMA_VERSION:
        raise ArchiveError(
            f"the archive {target.shown} was written by a newer version (schema {found}, this program knows "
            f"{SCHEMA_VERSION}): pip install -U objective-discovery"
        )
    if found < SCHEMA_VERSION:
        masked = " (with its password)" if target.url.password else ""
        raise ArchiveError(
            f"the archive {target.shown} has the older schema {found}: make a copy of it, then run "
            f"discovery archive upgrade --archive {shlex.quote(target.shown)}{masked}"
        )
