"""The family of a candidate: what it was made from, and what was made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from db.records import Ancestor

if TYPE_CHECKING:
    from db.archive import Archive


@dataclass(frozen=True)
class Family:
    """A candidate with its relatives in one campaign.

    Attributes:
        candidate_id, campaign: whose family it is.
        members: by id, the candidate itself, ancestors and descendants; depths count from it, both ways.
        children: by id, of ancestors towards the candidate and of descendants, in the order proposed.
    """

    candidate_id: str
    campaign: str
    members: Mapping[str, Ancestor]
    children: Mapping[str, tuple[str, ...]]

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """Parent and child of each link between members."""
        return tuple((parent, child) for parent, children in self.children.items() for child in children)


def family(archive: Archive, prefix: str, campaign: str | None, with_descendants: bool) -> Family:
    """Raises ArchiveError."""
    entry = archive.entry(prefix, campaign)
    members = {a.candidate_id: a for a in archive.lineage(entry.candidate.id, entry.campaign)}
    if with_descendants:
        below = archive.descendants(entry.candidate.id, entry.campaign)
        members |= {a.candidate_id: a for a in below if a.candidate_id not in members}
    children: dict[str, list[str]] = {}
    for member in members.values():
        for parent in dict.fromkeys(member.parents):
            if parent in members:
                children.setdefault(parent, []).append(member.candidate_id)
    return Family(entry.candidate.id, entry.campaign, members, {p: tuple(c) for p, c in children.items()})
