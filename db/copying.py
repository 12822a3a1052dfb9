"""Copying a whole archive into an empty one, of the same or another kind of database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from db.engine import UNREADABLE, Target, explained, for_reading, for_writing, unreadable
from db.errors import ArchiveError
from db.models import leases, metadata
from db.schema import open_archive
from db.types import HashText, SafeJSON, SafeText, SourceText, StoredText

_CHUNK = 1_000  # rows held in memory

Tell = Callable[[str, int], None]


def copy(source: str | Path, destination: str | Path, tell: Tell = lambda what, rows: None) -> dict[str, int]:
    """Copy one archive into another, which must be empty or not there yet; returns the number of rows by table.

    Campaigns may run in the source meanwhile: the copy is what it held at the beginning. All of it is stored in one
    transaction, then both are read again and compared row by row. Nobody drives the campaigns of the copy.

    Args:
        source, destination: URLs or paths, as for `Archive`.
        tell: hears what is done, such as "trials" or "trials, compared", and how many rows of it.

    Raises:
        ArchiveError: one of them cannot be opened, the destination holds something, or what was copied differs.
    """
    with ExitStack() as open_:
        from_, giving = open_archive(source, create=False)
        open_.callback(giving.dispose)
        to, taking = open_archive(destination, create=True)
        open_.callback(taking.dispose)
        with explained(to):
            _require_empty(taking, to)
        given = open_.enter_context(_snapshot(from_, giving))
        tables = [_as_stored(table) for table in metadata.sorted_tables]
        with explained(to), for_writing(taking).begin() as into:
            counts = {table.name: _copy_table(given, into, table, tell) for table in tables}
            _advance_sequences(into)
        taken = open_.enter_context(_snapshot(to, taking))
        for table in tables:
            _compare(given, taken, table)
            tell(f"{table.name}, compared", counts[table.name])
    return counts


def _require_empty(engine: Engine, target: Target) -> None:
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is not None:
                raise ArchiveError(f"{target.shown} is not empty: copy to a new file or an empty database")


@dataclass(frozen=True)
class _Snapshot:
    """One moment of an archive."""

    target: Target
    connection: Connection

    def rows(self, table: sa.Table) -> Iterator[sa.Row[Any]]:
        """By primary key, texts by their bytes, in whatever language the database sorts otherwise; few in memory."""
        by_language = self.connection.dialect.name == "postgresql"
        keys = (
            c.collate("C") if by_language and isinstance(c.type, (HashText, StoredText)) else c
            for c in table.primary_key.columns
        )
        with explained(self.target):
            try:
                yield from self.connection.execute(sa.select(table).order_by(*keys))
            except UNREADABLE as error:
                raise unreadable(self.target, error) from error


@contextmanager
def _snapshot(target: Target, engine: Engine) -> Iterator[_Snapshot]:
    with ExitStack() as open_:
        with explained(target):
            connection = open_.enter_context(for_reading(engine).connect())
        yield _Snapshot(target, connection.execution_options(stream_results=True, yield_per=_CHUNK))


def _as_stored(table: sa.Table) -> sa.Table:
    """The table with types that change nothing: what is stored has been cleaned once, and is not changed again."""

    def plain(kind: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
        if isinstance(kind, SafeJSON):
            return kind.impl_instance
        return StoredText() if isinstance(kind, (SafeText, SourceText)) else kind

    columns = [sa.Column(c.name, plain(c.type), primary_key=c.primary_key) for c in table.columns]
    return sa.Table(table.name, sa.MetaData(), *columns)


def _copy_table(given: _Snapshot, into: Connection, table: sa.Table, tell: Tell) -> int:
    rows, insert, count = given.rows(table), sa.insert(table), 0
    while some := [dict(row._mapping) for row in islice(rows, _CHUNK)]:
        if table.name == leases.name:
            some = [row | {"held": False} for row in some]
        into.execute(insert, some)
        count += len(some)
        tell(table.name, count)
    return count


def _advance_sequences(connection: Connection) -> None:
    """PostgreSQL numbers rows with counters that know nothing of rows that brought their number."""
    if connection.dialect.name != "postgresql":
        return
    for table in metadata.sorted_tables:
        key = table.autoincrement_column
        if key is None:
            continue
        sequence = sa.func.pg_get_serial_sequence(table.name, key.name)
        largest = sa.select(sa.func.max(key)).scalar_subquery()
        connection.execute(sa.select(sa.func.setval(sequence, sa.func.coalesce(largest, 1), largest.is_not(None))))


def _compare(given: _Snapshot, taken: _Snapshot, table: sa.Table) -> None:
    names = [c.name for c in table.columns]
    for ours, theirs in zip_longest(given.rows(table), taken.rows(table)):
        if ours is None or theirs is None or _differ(table, names, ours, theirs):
            where = tuple((ours if ours is not None else theirs)._mapping[c.name] for c in table.primary_key.columns)
            raise ArchiveError(
                f"{taken.target.shown} is no true copy: {table.name} {where} differs; delete it", fault=True
            )


def _differ(table: sa.Table, names: Sequence[str], ours: sa.Row[Any], theirs: sa.Row[Any]) -> bool:
    skipped = "held" if table.name == leases.name else None
    return any(a != b and name != skipped for name, a, b in zip(names, ours, theirs, strict=True))
