"""One driver per campaign: who holds it, whether that process lives, and the heart that says so.

Two machines' clocks differ, so no stored time is ever compared. A driver that waits for another one watches with its own
clock whether the other's heartbeat moves. A process of the same machine is known to be dead without any wait: its id, its
start time and the machine's boot name it for good.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from db.errors import ArchiveError
from db.models import leases
from db.plain_sql import run_plain
from sandbox.text import one_line

BEAT_S = 2.0  # between two beats of a driver's heart
LEASE_S = 30.0  # a heart that stands still for so long has stopped
SILENT_S = 120.0  # a driver that has not been heard for so long is shown as silent, whatever the clocks' difference
_LOOK_S = 0.2

_MINE = sa.and_(leases.c.campaign_id == sa.bindparam("campaign"), leases.c.epoch == sa.bindparam("mine"))
# locked until the transaction ends, so that nobody takes over in the middle of it (SQLite has one writer anyway)
_FENCE = sa.select(leases.c.epoch).where(leases.c.campaign_id == sa.bindparam("campaign")).with_for_update(read=True)
_BEAT = sa.update(leases).where(_MINE).values(beats=leases.c.beats + 1, beat_at=sa.bindparam("moment"))
_RELEASE = sa.update(leases).where(_MINE).values(held=False)


@dataclass(frozen=True)
class Holder:
    """A process that drives, or drove, a campaign. `process` names it for good on its machine; "" where that is unknown."""

    host: str
    pid: int
    process: str

    @staticmethod
    def this_process() -> Holder:
        return Holder(socket.gethostname(), os.getpid(), f"{_boot()} {_started(os.getpid())}")

    def is_known_dead(self) -> bool:
        """Whether it ran on this machine, since its last start, and does so no more."""
        boot, _, start = self.process.partition(" ")
        return bool(boot) and boot == _boot() and _started(self.pid) != start


@dataclass(frozen=True)
class Lease:
    """A row of `leases`."""

    epoch: int
    held: bool
    beats: int
    holder: Holder
    since: datetime
    beat_at: datetime

    @staticmethod
    def of(row: RowMapping) -> Lease:
        holder = Holder(row["host"], row["pid"], row["process"])
        return Lease(row["epoch"], row["held"], row["beats"], holder, row["since"], row["beat_at"])

    @property
    def is_free(self) -> bool:
        return not self.held or self.holder.is_known_dead()

    def is_silent(self, moment: datetime) -> bool:
        """For people only: it compares another machine's clock with this one's."""
        return moment - self.beat_at > timedelta(seconds=SILENT_S)

    def __str__(self) -> str:
        holder, since = self.holder, self.since
        return f"process {holder.pid} on {one_line(holder.host, 60)} since {since:%Y-%m-%d %H:%M} UTC"


def await_free(name: str, look: Callable[[], Lease | None], tell: Callable[[str], None]) -> Lease | None:
    """Wait until the campaign may be driven; returns the lease as it was seen then, None if nobody ever held it.

    Args:
        name: the campaign's.
        look: reads its lease.
        tell: hears in one line what is waited for.

    Raises:
        ArchiveError: its driver is alive. Takes a few seconds at most to find out.
    """
    seen, told, stood_since = look(), False, time.monotonic()
    while seen is not None and not seen.is_free:
        time.sleep(_LOOK_S)
        before, seen = seen, look()
        if seen is not None and seen.held and (seen.epoch, seen.beats) != (before.epoch, before.beats):
            raise _driven(name, seen)
        stood_s = time.monotonic() - stood_since
        if stood_s >= LEASE_S:
            return seen
        if not told and stood_s > 2 * BEAT_S:
            told = True
            tell(
                f"{before} drove this campaign and is silent: it is taken over if nothing is heard within {LEASE_S:.0f} s"
            )
    return seen


def take(connection: Connection, campaign: int, name: str, judged: Lease | None, moment: datetime) -> int:
    """Make this process the campaign's driver, if the lease is still the one that was judged; returns the new epoch.

    Raises:
        ArchiveError: another driver came first.
    """
    found = find(connection, campaign, lock=True)
    if found is not None and (judged is None or found.epoch != judged.epoch):
        raise _driven(name, found)
    epoch = 1 if found is None else found.epoch + 1
    ours = Holder.this_process()
    values = {
        "epoch": epoch,
        "held": True,
        "beats": 0,
        "host": ours.host,
        "pid": ours.pid,
        "process": ours.process,
        "since": moment,
        "beat_at": moment,
    }
    if found is None:
        connection.execute(sa.insert(leases).values(campaign_id=campaign, **values))
    else:
        connection.execute(sa.update(leases).where(leases.c.campaign_id == campaign).values(values))
    return epoch


def _driven(name: str, by: Lease) -> ArchiveError:
    return ArchiveError(
        f"the campaign {one_line(name, 80)!r} is being driven by {by}: wait for that one to end, or stop it, "
        "or give this one another name"
    )


def find(connection: Connection, campaign: int, lock: bool = False) -> Lease | None:
    """A campaign's lease; None if it never had a driver."""
    query = sa.select(leases).where(leases.c.campaign_id == campaign)
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    return None if row is None else Lease.of(row)


def is_current(connection: Connection, campaign: int, epoch: int) -> bool:
    """Whether no other driver has taken the campaign; it stays so until the transaction ends."""
    return run_plain(connection, _FENCE, {"campaign": campaign}).scalar() == epoch


def beat(connection: Connection, campaign: int, epoch: int, moment: datetime) -> bool:
    """A sign of life; False if another driver has taken the campaign."""
    return connection.execute(_BEAT, {"campaign": campaign, "mine": epoch, "moment": moment}).rowcount == 1


def release(connection: Connection, campaign: int, epoch: int) -> None:
    """Let the next driver start without waiting. Does nothing to a lease that another driver has taken."""
    connection.execute(_RELEASE, {"campaign": campaign, "mine": epoch})


class Heart:
    """Beats on a thread of its own, because a driver may compute for a while, until it is stopped or finds itself replaced.

    `replaced` says that. A beat that the database refuses is followed by the next one: the driver's own writes will tell.
    """

    def __init__(self, beat_once: Callable[[], bool]) -> None:
        self._beat_once, self._stopping = beat_once, threading.Event()
        self.replaced = False
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when no beat is under way."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self.replaced and not self._stopping.wait(BEAT_S):
            with suppress(ArchiveError):
                self.replaced = not self._beat_once()


def _boot() -> str:
    """Names this start of this machine (of this container's host, which its process ids are not); "" where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, in ticks since the boot; "" if it is gone or has ended and waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
