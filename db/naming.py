"""Which candidate a person means: by its id, the beginning of it, or its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from db.errors import ArchiveError
from db.models import campaigns, candidates, proposals, standings
from db.types import SafeText
from evaluators.objectives import known_families, known_objectives
from evaluators.options import closest
from sandbox.candidate import looks_like_id
from sandbox.text import one_line

SURE = 8  # hexadecimal digits from which a word that begins an id is that id, whatever is called the same
_SHOWN = 5  # of several that a name may mean
_SUGGESTED = 10_000  # names that a suggestion is looked for among
_CHARACTERS = 60  # of a name, where it is compared or shown


def candidate_named(connection: Connection, archive: str, given: str, campaign: int | None = None) -> str:
    """The full id of the candidate that is meant.

    A word may be the beginning of an id, or the name of a loss: of a known one first, else of one that was accepted for
    training, else of one that the checks refused (a repaired loss has its first attempt's name).

    Args:
        connection: to the archive.
        archive: where it is, for messages.
        given: what a person typed.
        campaign: names count in this one alone; None: in all.

    Raises:
        ArchiveError: there is none (the nearest name is suggested), or there are several (their ids are listed).
    """
    word, shown = given.strip(), one_line(given, 70)
    by_id = _by_id(connection, word.lower()) if looks_like_id(word) else []
    if len(by_id) == 1 and len(word) >= SURE:
        return str(by_id[0])
    by_name = _by_name(connection, word, campaign) if word else []
    found = dict.fromkeys([*by_id, *(row.candidate_id for row in by_name)])
    if len(found) == 1:
        return str(next(iter(found)))
    if not found:
        raise ArchiveError(
            f"{archive} has no candidate {shown!r}, by id or by name; {_hint(connection, word, campaign)}"
        )
    said = {row.candidate_id: f" ({one_line(row.status, 20)}, in {one_line(row.campaign, 40)})" for row in by_name}
    several = ", ".join(f"{one[: max(10, len(word) + 4)]}{said.get(one, '')}" for one in list(found)[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise ArchiveError(f"{shown!r} is ambiguous: {several}{more}; write one of these ids")


def _by_id(connection: Connection, prefix: str) -> list[str]:
    ids = candidates.c.id
    matching = sa.select(ids).where(ids >= prefix, ids < prefix + "g").order_by(ids).limit(_SHOWN + 1)
    return list(connection.execute(matching).scalars())


def _by_name(connection: Connection, name: str, campaign: int | None) -> Sequence[Any]:
    """Candidates of that name, of the first class that has any."""
    status, campaign_name = _beginning(standings.c.status), _beginning(campaigns.c.name)
    columns = (standings.c.candidate_id, standings.c.origin, status.label("status"), campaign_name.label("campaign"))
    query = sa.select(*columns).select_from(_named()).where(proposals.c.name == name, *_within(campaign))
    rows = connection.execute(query.order_by(standings.c.campaign_id.desc(), standings.c.number)).all()
    known = [row for row in rows if row.origin == "known"]
    return known or [row for row in rows if row.status != "refused"] or rows


def _hint(connection: Connection, word: str, campaign: int | None) -> str:
    query = sa.select(_beginning(proposals.c.name)).select_from(_named()).where(*_within(campaign)).distinct()
    names = [one_line(name, _CHARACTERS) for name in connection.execute(query.limit(_SUGGESTED)).scalars()]
    if any(word in known_objectives(family) for family in known_families()):
        return f"it is a known loss that no campaign here has measured: `discovery objectives show {word}`"
    close = closest(word, names, cutoff=0.6)
    return f"did you mean {close!r}?" if close else "`discovery candidates` lists them"


def _beginning(column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """As much of a text as is compared or shown: each row would bring its own copy of a very long one."""
    return sa.func.substr(column, 1, _CHARACTERS, type_=SafeText())


def _named() -> sa.Join:
    return standings.join(proposals, proposals.c.id == standings.c.proposal_id).join(
        campaigns, campaigns.c.id == standings.c.campaign_id
    )


def _within(campaign: int | None) -> Sequence[sa.ColumnElement[bool]]:
    return () if campaign is None else (standings.c.campaign_id == campaign,)
