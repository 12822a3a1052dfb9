"""What every part of the archive shares: transactions with errors explained, and finding campaigns and candidates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from db.engine import explained, for_reading, for_writing
from db.errors import ArchiveError
from db.models import campaigns, candidates
from db.records import Ranking
from db.schema import open_archive
from evaluators.options import nearest
from sandbox.text import one_line

CampaignRef = int | str  # a campaign's id or name
CHUNK = 500  # ids in one IN list


def now() -> datetime:
    return datetime.now(UTC)


def new_id(result: sa.CursorResult[Any]) -> int:
    """Id of the one row just inserted."""
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


def ranking_of(row: RowMapping) -> Ranking:
    """The ranking in a row of `campaigns`."""
    seeds = None if row["seeds"] is None else tuple(row["seeds"])
    return Ranking(row["task_id"], row["metric"], row["higher_is_better"], seeds)


class Session:
    """One open archive. Threads may share it for reading; one thread writes."""

    def __init__(self, url: str | Path, *, create: bool = False) -> None:
        """Open the archive at a file path, ``sqlite:///PATH`` or ``postgresql+psycopg://USER@HOST/DATABASE``.

        Args:
            url: where it is.
            create: make it, and the folder it is in, if there is none; then it must be writable.

        Raises:
            ArchiveError: there is none, it cannot be reached or written, or is not an archive of this schema version.
        """
        self._target, self._engine = open_archive(url, create)
        self._reader, self._writer = for_reading(self._engine), for_writing(self._engine)
        self._rankings: dict[int, Ranking] = {}

    @property
    def url(self) -> str:
        """Where the archive is, without password."""
        return self._target.shown

    def close(self) -> None:
        """Let go of the database. Everything committed is safe without it."""
        self._engine.dispose()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        """One consistent snapshot. Raises ArchiveError."""
        with explained(self._target), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """One transaction: all of it is stored, or nothing. Raises ArchiveError."""
        with explained(self._target), self._writer.begin() as connection:
            yield connection

    def _campaign(self, connection: Connection, ref: CampaignRef) -> int:
        """A campaign's id. Raises ArchiveError with the nearest name."""
        column = campaigns.c.id if isinstance(ref, int) else campaigns.c.name
        found = connection.execute(sa.select(campaigns.c.id).where(column == ref)).scalar()
        if found is None:
            names = list(connection.execute(sa.select(campaigns.c.name)).scalars())
            hint = nearest(str(ref), names) if names else "it holds none yet"
            raise ArchiveError(f"{self.url} has no campaign {one_line(str(ref), 80)!r}; {hint}")
        return int(found)

    def _candidate(self, connection: Connection, prefix: str) -> str:
        """A candidate's full id from the beginning of it. Raises ArchiveError if none or several match."""
        wanted = prefix.strip().lower()
        shown = one_line(prefix, 70)
        if not wanted or set(wanted) - set("0123456789abcdef"):
            raise ArchiveError(f"{shown!r} is not a candidate id: ids are hexadecimal and may be shortened")
        ids = candidates.c.id
        matching = sa.select(ids).where(ids >= wanted, ids < wanted + "g").order_by(ids).limit(4)
        found = list(connection.execute(matching).scalars())
        if not found:
            raise ArchiveError(f"{self.url} has no candidate {shown!r}")
        if len(found) > 1:
            several = ", ".join(i[: len(wanted) + 4] for i in found[:3]) + (", ..." if len(found) > 3 else "")
            raise ArchiveError(f"{shown!r} is ambiguous ({several}): write more of the id")
        return str(found[0])

    def _ranking(self, connection: Connection, campaign: int) -> Ranking:
        """What ranks a campaign, as stored; the writer keeps its own in `_rankings`."""
        row = connection.execute(sa.select(campaigns).where(campaigns.c.id == campaign)).mappings().one()
        return ranking_of(row)
