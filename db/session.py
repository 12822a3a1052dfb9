"""What every part of the archive shares: transactions with errors explained, and finding campaigns and candidates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from db import lease as leasing
from db.engine import UNREADABLE, explained, for_reading, for_writing, unreadable
from db.errors import ArchiveError
from db.limits import limited
from db.models import campaigns, version_table
from db.naming import candidate_named
from db.records import Ranking
from db.schema import open_archive
from evaluators.options import nearest
from sandbox.text import one_line

CampaignRef = int | str  # a campaign's id or name
CHUNK = 500  # ids in one IN list
_ONE_BY_ONE = sa.select(version_table.c.version_num).with_for_update()  # SQLite has one writer anyway


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
    if not all(type(seed) is int for seed in seeds or ()):
        raise ValueError("seeds that are no whole numbers")
    return Ranking(row["task_id"], row["metric"], row["higher_is_better"], seeds)


@dataclass(frozen=True)
class _Held:
    """A campaign that this session drives."""

    campaign: int
    name: str
    epoch: int
    heart: leasing.Heart


class Session:
    """One open archive. Threads may share it for reading; one thread writes.

    It writes to campaigns whose lease it holds (`start_campaign`), and to no other. Once another driver has taken one of
    them, it writes nothing more at all, also not to what belongs to no campaign, such as a task's facts.
    """

    def __init__(
        self, url: str | Path, *, create: bool = False, read_limit_s: float | None = None, all_arrays: bool = False
    ) -> None:
        """Open the archive at a file path, ``sqlite:///PATH`` or ``postgresql+psycopg://USER@HOST/DATABASE``.

        Args:
            url: where it is.
            create: make it, and the folder it is in, if there is none; then it must be writable.
            read_limit_s: seconds that one read may take; None for no limit.
            all_arrays: store the arrays of new trials as they are reported, and not only what pages show of them.

        Raises:
            ArchiveError: there is none, it cannot be reached or written, or is not an archive of this schema version.
        """
        self._target, self._engine = open_archive(url, create)
        self._reader, self._writer = for_reading(self._engine), for_writing(self._engine)
        self._read_limit_s, self._all_arrays = read_limit_s, all_arrays
        self._rankings: dict[int, Ranking] = {}
        self._held: dict[int, _Held] = {}

    @property
    def url(self) -> str:
        """Where the archive is, without password."""
        return self._target.shown

    def close(self) -> None:
        """Let go of the database, and of the campaigns driven. Everything committed is safe without it."""
        for held in self._held.values():
            held.heart.stop()
        with suppress(ArchiveError), explained(self._target):  # the next driver has to wait then
            if self._held:
                with self._writer.begin() as connection:
                    for campaign, held in self._held.items():
                        leasing.release(connection, campaign, held.epoch)
        self._held.clear()
        self._engine.dispose()

    def lease(self, name: str) -> leasing.Lease | None:
        """Who drives a campaign, or drove it last; None if nobody did yet, or there is no such campaign."""
        with self._read() as connection:
            campaign = connection.execute(sa.select(campaigns.c.id).where(campaigns.c.name == name)).scalar()
            return None if campaign is None else leasing.find(connection, campaign)

    def require_lease(self, campaign: int) -> None:
        """Whether this session still drives a campaign, as far as its heart has heard; asks no database.

        Raises:
            ArchiveError: another driver has taken the campaign, or it was never started here.
        """
        held = self._held.get(campaign)
        if held is None:
            raise ArchiveError(f"{self.url}: campaign {campaign} is not driven from here: start it first", fault=True)
        if held.heart.replaced:
            raise self._replaced(held)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        """One consistent snapshot, for as long as a read may take. Raises ArchiveError, also for odd values."""
        with explained(self._target), self._reader.connect() as connection:
            try:
                with limited(connection, self._read_limit_s):
                    yield connection
            except UNREADABLE as error:
                raise unreadable(self._target, error) from error

    @contextmanager
    def _write(self, shared: bool = False) -> Iterator[Connection]:
        """One transaction: all of it is stored, or nothing; and nothing if another driver has taken over.

        `shared`: it may make rows that other campaigns make too (tasks, candidates, prompts), so these transactions of
        several drivers go one after the other. Raises ArchiveError.
        """
        with explained(self._target), self._writer.begin() as connection:
            if shared:
                connection.execute(_ONE_BY_ONE)
            for campaign, held in self._held.items():
                if not leasing.is_current(connection, campaign, held.epoch):
                    raise self._replaced(held)
            yield connection

    def _hold(self, campaign: int, name: str, epoch: int) -> None:
        """The lease has been taken: keep it until the campaign or the session ends."""
        self._let_go(campaign)

        def beat() -> bool:
            with explained(self._target), self._writer.begin() as connection:
                return leasing.beat(connection, campaign, epoch, now())

        self._held[campaign] = _Held(campaign, name, epoch, leasing.Heart(beat))

    def _let_go(self, campaign: int) -> None:
        """The lease is held no more."""
        held = self._held.pop(campaign, None)
        if held is not None:
            held.heart.stop()

    def _replaced(self, held: _Held) -> ArchiveError:
        with self._read() as connection:
            by = leasing.find(connection, held.campaign)
        return ArchiveError(
            f"the campaign {one_line(held.name, 80)!r} was taken over by {by}, because this one was silent for too long; "
            "it ends, and what it stored before is kept",
            fault=True,
        )

    def _campaign(self, connection: Connection, ref: CampaignRef) -> int:
        """A campaign's id. Raises ArchiveError with the nearest name."""
        column = campaigns.c.id if isinstance(ref, int) else campaigns.c.name
        found = connection.execute(sa.select(campaigns.c.id).where(column == ref)).scalar()
        if found is None:
            names = list(connection.execute(sa.select(campaigns.c.name).limit(1_000)).scalars())
            hint = nearest(str(ref), names) if names else "it holds none yet"
            raise ArchiveError(f"{self.url} has no campaign {one_line(str(ref), 80)!r}; {hint}")
        return int(found)

    def _candidate(self, connection: Connection, given: str, campaign: int | None = None) -> str:
        """A candidate's full id, from the beginning of it or from a name (see `db.naming`). Raises ArchiveError."""
        return candidate_named(connection, self.url, given, campaign)

    def _ranking(self, connection: Connection, campaign: int) -> Ranking:
        """What ranks a campaign, as stored; the writer keeps its own in `_rankings`."""
        row = connection.execute(sa.select(campaigns).where(campaigns.c.id == campaign)).mappings().one()
        return ranking_of(row)
