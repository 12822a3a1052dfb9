"""Finding candidates by a text that their name, thought or code holds, whatever its case."""

from __future__ import annotations

import re

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from db.models import proposal_search, proposal_texts, standings
from db.types import storable

_FEW = 2_000  # proposals that are listed one by one
_INDEXED = 3  # characters that the index of SQLite needs
_GLOB = re.compile(r"[*?[]")

Condition = sa.ColumnElement[bool]


def saying(connection: Connection, text: str) -> tuple[Condition, Condition]:
    """Whether the proposal of a row of `standings` holds a text: for a page of rows, and for counting all.

    Few are found at once, now. A page of many is soon full when each row in turn is asked.
    """
    part = storable(text.casefold())
    few = list(connection.execute(_found(connection, part).limit(_FEW + 1)).scalars())
    if len(few) <= _FEW:
        listed = standings.c.proposal_id.in_(few) if few else sa.false()
        return listed, listed
    many = sa.select(proposal_texts.c.proposal_id).where(_like(part))
    mine = many.where(proposal_texts.c.proposal_id == standings.c.proposal_id).correlate(standings)
    return mine.exists(), standings.c.proposal_id.in_(many)


def _found(connection: Connection, part: str) -> sa.Select[tuple[int]]:
    """Ids of the proposals that hold a text: what is quickest where few do."""
    whole = sa.select(proposal_texts.c.proposal_id)
    if connection.dialect.name == "postgresql":
        return whole.where(sa.func.strpos(proposal_texts.c.text, part) > 0)
    if len(part) < _INDEXED:
        return whole.where(_like(part))
    pattern = _GLOB.sub("?", part)  # holds for more than was asked for where it has such a character
    found = sa.select(proposal_search.c.rowid).where(proposal_search.c.text.op("GLOB")(f"*{pattern}*"))
    return found if pattern == part else found.where(sa.func.instr(proposal_search.c.text, part) > 0)


def _like(part: str) -> Condition:
    """Quickest where most hold it: each database gives up reading a text where it is found."""
    escaped = part.replace("/", "//").replace("%", "/%").replace("_", "/_")
    return proposal_texts.c.text.like(f"%{escaped}%", escape="/")
