"""Following a campaign that another process runs, by reading the archive again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from db.records import ALIVE, CampaignRecord, Entry, EntryFilter, Happening
from discovery.browse.campaign_stats import End, campaign_end
from discovery.contest import contest_of

if TYPE_CHECKING:
    from db.archive import Archive

_OVERLAP = timedelta(seconds=10)  # looked at again: a row may be committed after one that carries a later time
_AT_ONCE = 100_000  # happenings read at most between two looks


@dataclass(frozen=True)
class News:
    """What is new since the last look. `leader`: the candidate that leads, baselines aside, if that is new."""

    campaign: CampaignRecord
    happenings: tuple[Happening, ...]
    leader: Entry | None
    end: End | None = None  # once it is over

    @property
    def is_over(self) -> bool:
        return self.campaign.status not in ALIVE


class Follower:
    """Tells each verdict and each trial of a campaign once. Reads only."""

    def __init__(self, archive: Archive, campaign: str, last: int = 10) -> None:
        """`last`: how many happenings of before the first look it tells. Raises ArchiveError for an unknown campaign."""
        record = archive.campaign(campaign)
        self._archive, self._campaign, self._last = archive, record.id, last
        self._started = record.created_at
        self._since: datetime | None = None
        self._told: dict[str, datetime] = {}
        self._leader: str | None = None

    def look(self) -> News:
        """What is new. Raises ArchiveError.

        The status is read first, so that nothing is missed at the end, and the leader before the trials that made it.
        """
        record, leader = self._archive.campaign(self._campaign), self._new_leader()
        new = self._first() if self._since is None else self._again(self._since)
        end = campaign_end(self._archive, self._campaign) if record.status not in ALIVE else None
        return News(record, tuple(new), leader, end)

    def _first(self) -> Sequence[Happening]:
        """The last few, and what comes while they are read. Whatever is older counts as told."""
        found = self._archive.happenings(self._campaign, limit=max(self._last, 1))
        newest = (found[-1].at, found[-1].key) if found else (self._started, "")
        later = [h for h in self._again(newest[0] - _OVERLAP) if (h.at, h.key) > newest]
        return [*found[max(len(found) - self._last, 0) :], *later]

    def _again(self, since: datetime) -> Sequence[Happening]:
        found = self._archive.happenings(self._campaign, since, _AT_ONCE)
        new = [h for h in found if h.key not in self._told]
        self._since = max([since, *(h.at - _OVERLAP for h in found)])
        self._told = {h.key: h.at for h in found if h.at >= self._since}
        return new

    def _new_leader(self) -> Entry | None:
        about = contest_of(self._archive, self._campaign)
        made = EntryFilter(status="ranked", where='origin != "known"', privileged=about)
        leader = next(iter(self._archive.entries(self._campaign, made, limit=1)), None)
        if leader is None or leader.candidate.id == self._leader:
            return None
        self._leader = leader.candidate.id
        return leader
