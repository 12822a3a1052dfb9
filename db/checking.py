"""Whether an archive holds together: links, states, hashes, and what is kept twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from db import models as m
from db.arrays import ARRAYS_SCHEMA, BROKEN, unpack_arrays
from db.convert import candidate_of, fingerprint_of, gate_of, probe_of, search_text
from db.endings import Reason
from db.engine import UNREADABLE, explained, for_reading
from db.messages import Prompt, PromptPart
from db.plain_sql import read, run_plain
from db.records import Ranking
from db.schema import open_archive
from db.session import ranking_of
from db.standings import averages, place_of
from db.types import Blob, Real, Whole, plain
from sandbox.failure import FailureKind
from sandbox.text import one_line

_CHUNK = 1_000  # rows held in memory


@dataclass(frozen=True)
class Problem:
    """Something that cannot be. `where` names the rows."""

    what: str
    where: str


def check(url: str | Path, tell: Callable[[str], None] = lambda what: None) -> Iterator[Problem]:
    """Look at all of an archive, as it is at this moment; it only reads, and campaigns may run meanwhile.

    Args:
        url: as for `Archive`.
        tell: hears what is looked at next.

    Raises:
        ArchiveError: it cannot be opened or read at all.
    """
    target, engine = open_archive(url, create=False)
    try:
        with explained(target), for_reading(engine).connect() as connection:
            missing = list(_missing(connection))
            yield from missing
            for name, look in _LOOKS.items() if not missing else ():
                tell(name)
                try:
                    yield from look(connection)
                except UNREADABLE as error:  # `_values` names the row, or `_links` does
                    yield Problem(f"{name} cannot be looked at to the end", one_line(repr(error), 200))
    finally:
        engine.dispose()


def _missing(connection: Connection) -> Iterator[Problem]:
    """Tables and columns that are not there."""
    look = sa.inspect(connection)
    there = set(look.get_table_names())
    for table in m.metadata.sorted_tables:
        found = {c["name"] for c in look.get_columns(table.name)} if table.name in there else set()
        for column in table.columns if table.name in there else ():
            if column.name not in found:
                yield Problem("a column is not there", f"{table.name}.{column.name}")
        if table.name not in there:
            yield Problem("a table is not there", table.name)


def _of_the_database(connection: Connection) -> Iterator[Problem]:
    """SQLite looks through its file; PostgreSQL keeps its own, and what it cannot read ends in an error."""
    if connection.dialect.name == "sqlite":
        for (said,) in connection.exec_driver_sql("PRAGMA integrity_check(20)"):
            if said != "ok":
                yield Problem("the file is damaged", str(said))


def _links(connection: Connection) -> Iterator[Problem]:
    """Rows that name others which are not there."""
    for table in m.metadata.sorted_tables:
        for key in table.foreign_keys:
            child, parent = key.parent, key.column.table.alias("parent")
            theirs = parent.c[key.column.name]
            lost = sa.select(*table.primary_key.columns, child.label("lost")).select_from(
                table.outerjoin(parent, theirs == child)
            )
            for row in connection.execute(lost.where(child.is_not(None), theirs.is_(None))):
                where = f"{table.name} {_key(row[:-1])}: {child.name} {row.lost}"
                yield Problem(f"a row names one of {key.column.table.name} that is not there", where)


def _key(values: Any) -> str:
    return " ".join(str(v)[:12] for v in values)


def _values(connection: Connection) -> Iterator[Problem]:
    """Values that are not of their column's type, which SQLite stores as well; numbers of trials are looked at elsewhere."""
    if connection.dialect.name != "sqlite":
        return
    for table in m.metadata.sorted_tables:
        if table.name in (m.metrics.name, m.means.name):
            continue
        for row in run_plain(connection, sa.select(table), {}):
            for column, value in zip(table.columns, row, strict=True):
                if value is not None and not _reads(connection, column, value):
                    where = _key(row._mapping[c.name] for c in table.primary_key.columns)
                    yield Problem("a value that cannot be read", f"{table.name}.{column.name}, row {where}")


def _reads(connection: Connection, column: sa.Column[Any], value: Any) -> bool:
    stored = next((types for kind, types in _STORED if isinstance(column.type, kind)), (str,))
    try:
        read(connection, column, value)
    except (ValueError, TypeError):
        return False
    return isinstance(value, stored)


# the driver's types of a column's values; others are stored as texts
_STORED: tuple[tuple[Any, tuple[type, ...]], ...] = (
    (Blob, (bytes,)),
    (sa.Boolean, (int,)),
    ((Whole, sa.Integer), (int,)),
    (Real, (float, int)),
)


def _states(connection: Connection) -> Iterator[Problem]:
    """States that no campaign leaves behind, whenever it is killed."""
    t, a, p = m.trials.c, m.attempts.c, m.proposals.c
    tries = sa.select(sa.func.count()).where(a.trial_id == t.id).correlate(m.trials).scalar_subquery()
    running = sa.exists().where(a.trial_id == t.id, a.number == t.attempts, a.ended_at.is_(None))
    reported = sa.exists().where(m.metrics.c.trial_id == t.id)
    ended, with_kind = t.status.in_(("done", "failed")), t.failure_kind.is_not(None)
    trials: Mapping[str, sa.ColumnElement[bool]] = {
        "a finished trial without a metric": sa.and_(t.status == "done", ~reported),
        "a trial that ended at no time, or has not ended and says when": sa.or_(
            sa.and_(ended, t.finished_at.is_(None)), sa.and_(~ended, t.finished_at.is_not(None))
        ),
        "a trial that failed without a kind of failure, or has one without having failed": sa.or_(
            sa.and_(t.status == "failed", ~with_kind), sa.and_(t.status != "failed", with_kind)
        ),
        "a trial that counts other attempts than it has": t.attempts != tries,
        "a trial that runs without an attempt, or has one running without running itself": sa.or_(
            sa.and_(t.status == "running", ~running), sa.and_(t.status != "running", running)
        ),
    }
    for what, wrong in trials.items():
        for (trial,) in connection.execute(sa.select(t.id).where(wrong)):
            yield Problem(what, f"trial {trial}")
    judged = p.state == "judged"
    proposals = {
        "a proposal that was judged at no time, or has not been judged and says when": sa.or_(
            sa.and_(judged, p.judged_at.is_(None)), sa.and_(~judged, p.judged_at.is_not(None))
        ),
        "a proposal with a candidate or a failure, but without a verdict": sa.and_(
            ~judged, sa.or_(p.candidate_id.is_not(None), p.failure_kind.is_not(None))
        ),
        "a proposal that was accepted without a candidate": sa.and_(
            judged, p.candidate_id.is_(None), p.failure_kind.is_(None)
        ),
        "a proposal without a reply that says why there is no answer in it": sa.and_(
            p.reply_problem.is_not(None), p.reply_text.is_(None)
        ),
    }
    yield from _ends(connection)
    yield from _kinds(connection)
    for what, wrong in proposals.items():
        for (proposal,) in connection.execute(sa.select(p.id).where(wrong)):
            yield Problem(what, f"proposal {proposal}")


def _ends(connection: Connection) -> Iterator[Problem]:
    c = m.campaigns.c
    campaigns: Mapping[str, sa.ColumnElement[bool]] = {
        "a campaign that ended for no reason, or has not ended and says why": c.finished_at.is_(None)
        != c.end_reason.is_(None),
        "a campaign that ended for a reason that this version does not know": c.end_reason.not_in([*Reason]),
    }
    for what, wrong in campaigns.items():
        for (campaign,) in connection.execute(sa.select(c.id).where(wrong)):
            yield Problem(what, f"campaign {campaign}")


def _kinds(connection: Connection) -> Iterator[Problem]:
    """Failures of a kind that nobody reads as one."""
    for table in m.metadata.sorted_tables:
        if "failure_kind" in table.c:
            unknown = sa.select(*table.primary_key.columns).where(table.c.failure_kind.not_in([*FailureKind]))
            for row in connection.execute(unknown):
                yield Problem("a failure of a kind that this version does not know", f"{table.name} {_key(row)}")


def _code(connection: Connection) -> Iterator[Problem]:
    c = m.candidates.c
    for row in _streamed(connection, sa.select(c.id, c.contract, c.source, c.source_bytes)):
        if candidate_of(row._mapping).id != row.id:
            yield Problem("a candidate's code is not what its id is the hash of", f"candidate {row.id[:12]}")


def _reports(connection: Connection) -> Iterator[Problem]:
    """What gate and probe said, which is stored as JSON of any form."""
    c = m.candidates.c
    for row in _streamed(connection, sa.select(c.id, c.contract, c.gate, c.probe, c.fingerprint, c.fingerprint_rows)):
        try:
            gate_of(row.gate, row.contract)
            probe_of(row.probe, fingerprint_of(row._mapping))
        except UNREADABLE:
            yield Problem("a report of gate or probe that cannot be read", f"candidate {row.id[:12]}")


def _prompts(connection: Connection) -> Iterator[Problem]:
    for row in _streamed(connection, sa.select(m.prompt_parts)):
        if PromptPart(row.role, row.text).sha256 != row.sha256:
            yield Problem("a text of prompts is not what its key is the hash of", f"prompt part {row.sha256[:12]}")
    links, parts = m.prompt_links.c, m.prompt_parts.c
    query = (
        sa.select(m.prompts.c.id, m.prompts.c.sha256, parts.role, parts.text)
        .join_from(m.prompts, m.prompt_links, links.prompt_id == m.prompts.c.id)
        .join(m.prompt_parts, parts.sha256 == links.part_sha256)
        .order_by(m.prompts.c.id, links.position)
    )
    number, whole, seen = None, "", list[PromptPart]()
    for row in _streamed(connection, query):
        if row.id != number:
            yield from _prompt(number, whole, seen)
            number, whole, seen = row.id, row.sha256, []
        seen.append(PromptPart(row.role, row.text))
    yield from _prompt(number, whole, seen)


def _prompt(number: int | None, sha256: str, parts: list[PromptPart]) -> Iterator[Problem]:
    if number is not None and Prompt(tuple(parts)).sha256 != sha256:
        yield Problem("a prompt has other parts than it had", f"prompt {number}")


def _arrays(connection: Connection) -> Iterator[Problem]:
    for row in _streamed(connection, sa.select(m.trial_arrays)):
        if row.schema != ARRAYS_SCHEMA:
            yield Problem("arrays in a form that this version does not know", f"trial {row.trial_id}")
            continue
        try:
            unpack_arrays(row.data)
        except BROKEN:
            yield Problem("damaged arrays", f"trial {row.trial_id}")


def _texts(connection: Connection) -> Iterator[Problem]:
    p, c, found = m.proposals.c, m.candidates.c, m.proposal_texts.c.text
    query = (
        sa.select(p.id, p.name, p.thought, c.source, found)
        .join_from(m.proposals, m.candidates, c.id == p.candidate_id)
        .outerjoin(m.proposal_texts, m.proposal_texts.c.proposal_id == p.id)
    )
    for row in _streamed(connection, query):
        if row.text != plain(search_text(row.name, row.thought, row.source)):
            yield Problem("a text search does not look through what the proposal says", f"proposal {row.id}")
    if connection.dialect.name == "sqlite":
        indexed: sa.Select[Any] = sa.select(sa.column("id")).select_from(sa.table("proposal_search_docsize"))
        for (proposal,) in connection.execute(sa.select(m.proposal_texts.c.proposal_id).except_(indexed)):
            yield Problem("the index of text searches lacks a proposal", f"proposal {proposal}")


def _standings(connection: Connection) -> Iterator[Problem]:
    """What listings read against the trials that it is computed from."""
    rankings = {r["id"]: ranking_of(r) for r in connection.execute(sa.select(m.campaigns)).mappings()}
    places = sa.select(m.standings).where(m.standings.c.status != "refused")
    for row in run_plain(connection, places, {}).mappings().all():
        if row["campaign_id"] in rankings:
            yield from _standing(connection, row, rankings[row["campaign_id"]])


def _standing(connection: Connection, row: RowMapping, ranking: Ranking) -> Iterator[Problem]:
    place = place_of(connection, row["campaign_id"], row["candidate_id"], ranking)
    where = f"candidate {row['candidate_id'][:12]} in campaign {row['campaign_id']}"
    if any(row[name] != value for name, value in place.values.items()):
        yield Problem("a standing says something else than its trials", where)
    means = m.means.c
    expected = {name: float(value) for name, value in connection.execute(averages(place.trials))}
    kept = sa.select(means.name, means.value).where(means.proposal_id == row["proposal_id"])
    found = {name: float(value) for name, value in connection.execute(kept)}
    if expected.keys() != found.keys() or any(not math.isclose(v, found[k], rel_tol=1e-9) for k, v in expected.items()):
        yield Problem("the means of a candidate's metrics are not those of its trials", where)


def _streamed(connection: Connection, query: sa.Select[Any]) -> Iterator[sa.Row[Any]]:
    return iter(connection.execution_options(stream_results=True, yield_per=_CHUNK).execute(query))


_LOOKS: Mapping[str, Callable[[Connection], Iterator[Problem]]] = {
    "the database itself": _of_the_database,
    "links between rows": _links,
    "values": _values,
    "states of trials, proposals and campaigns": _states,
    "hashes of code": _code,
    "reports": _reports,
    "hashes of prompts": _prompts,
    "arrays": _arrays,
    "search texts": _texts,
    "standings and means": _standings,
}
LOOKS = tuple(_LOOKS)
