"""Where candidates come from, and what became of them: ancestors and descendants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from db.convert import privileged_of
from db.listing import Listing
from db.models import proposal_parents, proposals, standings
from db.queries import chunks, load_parents
from db.records import Ancestor
from db.session import CampaignRef

_MAX_DEPTH = 1_000  # generations followed; a campaign's lineage is as deep as its longest chain of improvements
_Relatives = Callable[[Connection, int, Mapping[str, Ancestor]], Sequence[str]]


class Lineages(Listing):
    """Following parents and children within a campaign. Each call is one consistent snapshot and raises ArchiveError."""

    def lineage(self, candidate_id: str, campaign: CampaignRef | None = None) -> list[Ancestor]:
        """A candidate and its ancestors, generation by generation. An ancestor appears once, at its nearest depth."""
        return self._followed(
            candidate_id, campaign, lambda _, __, found: [p for a in found.values() for p in a.parents]
        )

    def descendants(self, candidate_id: str, campaign: CampaignRef | None = None) -> list[Ancestor]:
        """A candidate and what was made from it, generation by generation; each once, at its nearest depth."""
        return self._followed(candidate_id, campaign, _children)

    def _followed(self, candidate_id: str, campaign: CampaignRef | None, relatives: _Relatives) -> list[Ancestor]:
        start = self.entry(candidate_id, campaign)
        with self._read() as connection:
            ours = self._campaign(connection, start.campaign)
            seen: dict[str, Ancestor] = {}
            generation = [start.candidate.id]
            for depth in range(_MAX_DEPTH):
                new = _loaded(connection, ours, generation, depth)
                seen |= new
                generation = [c for c in dict.fromkeys(relatives(connection, ours, new)) if c not in seen]
                if not generation:
                    break
            return list(seen.values())


def _children(connection: Connection, campaign: int, found: Mapping[str, Ancestor]) -> Sequence[str]:
    """Ids of candidates whose entry has one of these among its parents, as proposed."""
    children: list[tuple[int, str]] = []
    for some in chunks(found):
        query = (
            sa.select(standings.c.number, standings.c.candidate_id)
            .join_from(proposal_parents, proposals, proposals.c.id == proposal_parents.c.proposal_id)
            .join(standings, sa.and_(standings.c.campaign_id == campaign, standings.c.proposal_id == proposals.c.id,
                                     standings.c.candidate_id == proposals.c.candidate_id))
            .where(proposal_parents.c.parent_id.in_(some), proposals.c.campaign_id == campaign)
        )  # fmt: skip
        children += [(row.number, row.candidate_id) for row in connection.execute(query)]
    return [candidate for _, candidate in sorted(children)]


def _loaded(connection: Connection, campaign: int, ids: Sequence[str], depth: int) -> dict[str, Ancestor]:
    """Those of the candidates that the campaign has, in the order of `ids`."""
    found: list[Any] = []
    wanted = (
        standings.c.candidate_id,
        standings.c.proposal_id,
        standings.c.origin,
        standings.c.status,
        standings.c.score,
        standings.c.privileged,
    )
    for some in chunks(ids):
        query = (
            sa.select(*wanted, proposals.c.name)
            .join(proposals, proposals.c.id == standings.c.proposal_id)
            .where(standings.c.campaign_id == campaign, standings.c.candidate_id.in_(some))
        )
        found += connection.execute(query).all()
    parents = load_parents(connection, [row.proposal_id for row in found])
    made = {
        row.candidate_id: Ancestor(
            row.candidate_id,
            row.name,
            row.origin,
            depth,
            parents.get(row.proposal_id, ()),
            row.status,
            row.score,
            privileged_of(row.privileged),
        )
        for row in found
    }
    return {candidate: made[candidate] for candidate in ids if candidate in made}
