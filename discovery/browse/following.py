"""Following a campaign that another process runs, by reading the archive again and again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from db.records import CampaignRecord, Entry, EntryFilter, Happening

if TYPE_CHECKING:
    from db.archive import Archive

_OVERLAP = timedelta(seconds=10)  # looked at again: a row may be committed after one that carries a later time
_AT_ONCE = 100_000  # happenings read at most between two looks


@dataclass(frozen=True)
class News:
    """What is new since the last look. `best`: the best ranked candidate that is not a baseline, if that is new."""

    campaign: CampaignRecord
    happenings: tuple[Happening, ...]
    best: Entry | None

    @property
    def is_over(self) -> bool:
        return self.campaign.status != "running"


class Follower:
    """Tells each verdict and each trial of a campaign once. Reads only."""

    def __init__(self, archive: Archive, campaign: str, last: int = 10) -> None:
        """`last`: how many happenings of before the first look it tells. Raises ArchiveError for an unknown campaign."""
        self._archive, self._campaign, self._last = archive, archive.campaign(campaign).id, last
        self._since: datetime | None = None
        self._told: dict[str, datetime] = {}
        self._best: str | None = None

    def look(self) -> News:
        """What is new. The status is read first, so that nothing is missed at the end. Raises ArchiveError."""
        record = self._archive.campaign(self._campaign)
        first = self._since is None
        found = self._archive.happenings(self._campaign, self._since, max(self._last, 1) if first else _AT_ONCE)
        new = [h for h in found if h.key not in self._told]
        self._told |= {h.key: h.at for h in new}
        if found:
            self._since = max(h.at for h in found) - _OVERLAP
            self._told = {key: at for key, at in self._told.items() if at >= self._since}
        elif first:
            self._since = record.created_at - _OVERLAP
        if first:
            new = new[len(new) - min(self._last, len(new)) :]
        return News(record, tuple(new), self._new_best())

    def _new_best(self) -> Entry | None:
        made = EntryFilter(status="ranked", where='origin != "known"')
        best = next(iter(self._archive.entries(self._campaign, made, limit=1)), None)
        if best is None or best.candidate.id == self._best:
            return None
        self._best = best.candidate.id
        return best
