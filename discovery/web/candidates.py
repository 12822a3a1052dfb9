"""The listing: what the address says about filter, order, columns and page, and what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import BaseModel, Field

from db.records import EntryStatus, Origin
from db.selection import FACTS
from discovery.cli.listings import Filter, means_of
from discovery.web.rendering import link

if TYPE_CHECKING:
    from db.archive import Archive

PATH = "/candidates"
PER_PAGE = 50
MOST_COLUMNS = 50
Typed = Annotated[str, Field(max_length=2_000)]  # more than any of them can mean


class Wanted(BaseModel):
    """The query of the address. Everything that is empty means any."""

    campaign: Typed = ""
    status: Typed = ""
    origin: Typed = ""
    proposer: Typed = ""
    search: Typed = ""
    where: Typed = ""
    sort: Typed = ""
    col: list[Typed] = Field(default_factory=list, max_length=MOST_COLUMNS)
    page: int = Field(default=1, ge=1, le=10**9)

    def filter(self) -> Filter:
        """The same as the terminal's options."""
        return Filter(
            self.campaign or None,
            self.status or None,
            self.origin or None,
            self.proposer or None,
            self.search or None,
            self.where or None,
            self.sort or None,
            PER_PAGE,
            (self.page - 1) * PER_PAGE,
        )

    def address(self, **changes: Any) -> str:
        """This listing with some of it changed; on its first page unless that is what changes."""
        query = self.model_dump() | {"page": 1} | changes
        return link(PATH, **{k: v for k, v in query.items() if (k, v) != ("page", 1)})

    def sorted_by(self, name: str) -> tuple[str, str]:
        """Where a column's heading leads, and how it is sorted now, in the words of `aria-sort`."""
        by, _, way = self.sort.partition(":")
        if by != name:
            return self.address(sort=name), "none"
        if way == "":
            return self.address(sort=f"{name}:asc"), "other"
        return (
            (self.address(sort=f"{name}:desc"), "ascending")
            if way == "asc"
            else (self.address(sort=name), "descending")
        )


def listing(archive: Archive, wanted: Wanted) -> dict[str, Any]:
    """Raises OptionsError for unknown words, FilterError for a malformed filter, ArchiveError."""
    chosen = wanted.filter()
    where, order = chosen.where(), chosen.order()
    there = [m.name for m in archive.metrics(chosen.campaign)]
    names = [n for n in dict.fromkeys([*wanted.col, *chosen.metrics()]) if n in there]
    found = archive.page(chosen.campaign, where, PER_PAGE, chosen.offset, order)
    return _form(archive, wanted, there) | {
        "entries": found.entries,
        "total": found.total,
        "first": chosen.offset + 1,
        "last_page": max(1, -(-found.total // PER_PAGE)),
        "columns": names,
        "means": means_of(archive, found.entries, names),
        "several_metrics": len({e.score.metric for e in found.entries if e.score}) > 1,
    }


def refused(archive: Archive, wanted: Wanted, problem: str) -> dict[str, Any]:
    """The form as it was filled in, with what is wrong with it, and no list. Raises ArchiveError."""
    there = [m.name for m in archive.metrics(wanted.campaign or None)]
    return _form(archive, wanted, there) | {
        "problem": problem, "entries": (), "total": 0, "last_page": 1, "columns": [n for n in wanted.col if n in there],
    }  # fmt: skip


def _form(archive: Archive, wanted: Wanted, there: Sequence[str]) -> dict[str, Any]:
    return {
        "wanted": wanted,
        "problem": "",
        "metrics": [n for n in there if "/" not in n],
        "facts": FACTS,
        "statuses": get_args(EntryStatus),
        "origins": get_args(Origin),
        "campaigns": [r.name for r in archive.campaigns()],
    }
