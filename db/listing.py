"""Ranked listings and single entries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from db.convert import candidate_of, failure_of, fingerprint_of, privileged_of
from db.errors import ArchiveError
from db.filters import parse
from db.models import campaigns, candidates, metrics, proposals, standings, tasks, trials
from db.queries import chunks, load_parents
from db.records import Entry, EntryFilter, Page, ReportedMetric, Result, Score, Sort
from db.results import load_results, load_worlds, scores_of
from db.selection import Scope, Segment, condition, joined, mean, names_of, order, within
from db.session import CampaignRef, Session, ranking_of
from db.text_search import saying
from evaluators.options import nearest
from sandbox.text import one_line

_WANTED = (
    standings,
    candidates.c.contract,
    candidates.c.source,
    candidates.c.source_bytes,
    proposals.c.name,
    proposals.c.thought,
    proposals.c.created_at,
    campaigns.c.name.label("campaign"),
    campaigns.c.metric,
    campaigns.c.higher_is_better,
)


class Listing(Session):
    """Candidates as people and strategies see them. Each call is one consistent snapshot and raises ArchiveError."""

    def entries(
        self,
        campaign: CampaignRef | None = None,
        where: EntryFilter | None = None,
        limit: int | None = None,
        offset: int = 0,
        sort: Sort | None = None,
    ) -> list[Entry]:
        """Candidates in leaderboard order: ranked ones from the leading one, then unranked ones as proposed, then failed and
        refused ones. A candidate with any failed seed is unranked. None for `campaign` lists all campaigns, newest first.

        With `sort`, in that order instead, campaigns among each other; ties by campaign, newest first, and number.
        Raises FilterError (an ArchiveError) for an expression or a name that cannot be understood.
        """
        with self._read() as connection:
            wanted = self._selected(connection, campaign, where or EntryFilter(), sort)
            return self._listed(connection, wanted, limit, offset)

    def page(
        self,
        campaign: CampaignRef | None = None,
        where: EntryFilter | None = None,
        limit: int | None = None,
        offset: int = 0,
        sort: Sort | None = None,
    ) -> Page:
        """The same entries, with how many there are without `limit` and `offset`."""
        with self._read() as connection:
            wanted = self._selected(connection, campaign, where or EntryFilter(), sort)
            found = tuple(self._listed(connection, wanted, limit, offset))
            is_last = (limit is None or len(found) < limit) and (found or not offset)
            return Page(found, offset + len(found) if is_last else _count(connection, wanted))

    def metrics(self, campaign: CampaignRef | None = None) -> tuple[ReportedMetric, ...]:
        """What trials of the ranking task report, in the order of their reports; empty while none has finished."""
        with self._read() as connection:
            return tuple(self._scope(connection, campaign).metrics.values())

    def means(
        self, campaign: CampaignRef, names: Sequence[str], ids: Sequence[str] | None = None
    ) -> dict[str, dict[str, float]]:
        """Means of metrics by candidate id and name, over the seeds that rank; only what is there.

        Args:
            campaign: id or name.
            names: metrics; an unknown one raises FilterError.
            ids: candidates; None for all.
        """
        found: dict[str, dict[str, float]] = defaultdict(dict)
        with self._read() as connection:
            scope = self._scope(connection, campaign)
            for name in names:
                scope.require(name)
                columns = sa.select(standings.c.candidate_id, mean(name, scope).label("mean"))
                query = columns.where(within(scope, standings.c.campaign_id), standings.c.sort_key.is_not(None))
                for some in chunks(ids) if ids is not None else (None,):
                    part = query if some is None else query.where(standings.c.candidate_id.in_(some))
                    for row in connection.execute(part):
                        if row.mean is not None:
                            found[row.candidate_id][name] = float(row.mean)
        return dict(found)

    def top(self, campaign: CampaignRef | None = None, n: int = 10, metric: str | None = None) -> list[Entry]:
        """The `n` leading candidates of a campaign (None: the newest), by another metric of its task if one is named."""
        with self._read() as connection:
            if campaign is None:
                newest = connection.execute(sa.select(sa.func.max(campaigns.c.id))).scalar()
                if newest is None:
                    return []
                campaign = int(newest)
            ours = self._campaign(connection, campaign)
            ranking = self._ranking(connection, ours)
        if metric is None or metric == ranking.metric:
            return self.entries(ours, EntryFilter(status="ranked"), limit=n)
        with self._read() as connection:
            scores = scores_of(metric, *load_results(connection, ours, ranking.task_id, metric, ranking.seeds))
            if not scores:
                self._require_metric(connection, ours, ranking.task_id, metric)
            leading = sorted(scores.items(), key=lambda s: -s[1].mean if s[1].higher_is_better else s[1].mean)[:n]
            found: list[RowMapping] = []
            for some in chunks(candidate for candidate, _ in leading):
                query = _entries_query(ours).where(standings.c.candidate_id.in_(some))
                found += connection.execute(query).mappings().all()
            by_id = {row["candidate_id"]: row for row in found}
            rows = [by_id[candidate] for candidate, _ in leading]
            return self._entries(connection, rows, scores)

    def entry(self, given: str, campaign: CampaignRef | None = None) -> Entry:
        """One candidate by its name or the beginning of its id, with fingerprint; None means the newest campaign with it."""
        with self._read() as connection:
            ours = None if campaign is None else self._campaign(connection, campaign)
            candidate = self._candidate(connection, given, ours)
            query = _entries_query(ours)
            query = query.add_columns(candidates.c.fingerprint, candidates.c.fingerprint_rows)
            query = query.where(standings.c.candidate_id == candidate).order_by(standings.c.campaign_id.desc())
            row = connection.execute(query.limit(1)).mappings().first()
            if row is None:
                shown = "the archive" if campaign is None else f"campaign {one_line(str(campaign), 80)!r}"
                raise ArchiveError(f"candidate {candidate[:10]} does not appear in {shown} of {self.url}")
            return self._entries(connection, [row])[0]

    def newest_with(self, given: Sequence[str]) -> str | None:
        """Name of the newest campaign that has all of these candidates; None if none has."""
        with self._read() as connection:
            ids = {self._candidate(connection, one) for one in given}
            query = (
                sa.select(campaigns.c.name)
                .join(standings, standings.c.campaign_id == campaigns.c.id)
                .where(standings.c.candidate_id.in_(ids))
                .group_by(campaigns.c.id, campaigns.c.name)
                .having(sa.func.count() == len(ids))
            )
            found = connection.execute(query.order_by(campaigns.c.id.desc()).limit(1)).scalar()
            return None if found is None else str(found)

    def scores(
        self, campaign: CampaignRef, task_id: str, metric: str, seeds: Sequence[int] | None = None
    ) -> dict[str, Score]:
        """Candidates' scores by id, on any task and metric; candidates with a failed seed are left out.

        Args:
            campaign: id or name.
            task_id: the task measured, e.g. that of a promotion.
            metric: a metric that its trials report.
            seeds: trials that count; None for all.
        """
        with self._read() as connection:
            found = load_results(connection, self._campaign(connection, campaign), task_id, metric, seeds)
            return scores_of(metric, *found)

    def results(
        self, campaign: CampaignRef, task_id: str, metric: str, seeds: Sequence[int] | None = None
    ) -> dict[str, Result]:
        """What is known so far of each candidate that has a finished or failed trial, by id; arguments as for `scores`."""
        with self._read() as connection:
            return load_results(connection, self._campaign(connection, campaign), task_id, metric, seeds)[0]

    def worlds(
        self,
        campaign: CampaignRef,
        task_id: str,
        metric: str,
        seeds: Sequence[int] | None = None,
        only: Sequence[str] | None = None,
    ) -> dict[str, dict[tuple[int, str], float]]:
        """A metric's values by seed and world in finished trials, by candidate id; of those that report it per world.

        `seeds`, `only`: the seeds and the candidates that count; None for all.
        """
        with self._read() as connection:
            return load_worlds(connection, self._campaign(connection, campaign), task_id, metric, seeds, only)

    def _scope(self, connection: Connection, campaign: CampaignRef | None) -> Scope:
        """One campaign or all of them. The metrics are those of one finished trial of each: all trials report the same."""
        query = sa.select(campaigns).order_by(campaigns.c.id.desc())
        if campaign is not None:
            query = query.where(campaigns.c.id == self._campaign(connection, campaign))
        rankings = {row["id"]: ranking_of(row) for row in connection.execute(query).mappings()}
        reported: dict[str, ReportedMetric] = {}
        for ours, ranking in rankings.items():
            trial = (
                sa.select(trials.c.id)
                .where(trials.c.campaign_id == ours, trials.c.task_id == ranking.task_id, trials.c.status == "done")
                .limit(1)
                .scalar_subquery()
            )
            for row in connection.execute(sa.select(metrics).where(metrics.c.trial_id == trial).order_by("position")):
                reported.setdefault(row.name, ReportedMetric(row.name, row.higher_is_better, row.unit))
        return Scope(rankings, reported)

    def _selected(
        self, connection: Connection, campaign: CampaignRef | None, where: EntryFilter, sort: Sort | None
    ) -> _Selected:
        """What is to be listed. Raises ArchiveError for an unknown campaign, FilterError for a wrong expression."""
        expression = parse(where.where) if where.where is not None else None
        scope = self._scope(connection, campaign)
        conditions = list(_plain_conditions(where))
        if expression is not None:
            conditions.append(condition(expression, scope))
        segments = () if sort is None else order(sort, scope)
        tables = joined(names_of(expression, sort))
        if not where.text:
            return _Selected(scope, conditions, conditions, segments, tables, where)
        on_page, in_all = saying(connection, where.text)
        return _Selected(scope, [*conditions, on_page], [*conditions, in_all], segments, tables, where)

    def _listed(self, connection: Connection, wanted: _Selected, limit: int | None, offset: int) -> list[Entry]:
        if wanted.sorted:
            return self._entries(connection, _in_order(connection, wanted, limit, offset))
        ranked = (s for i in wanted.scope.rankings for s in _segments(i, wanted))
        return self._entries(connection, _paged(connection, ranked, limit, offset))

    def _entries(
        self, connection: Connection, rows: Sequence[RowMapping], scores: Mapping[str, Score] | None = None
    ) -> list[Entry]:
        """Entries of rows of `_entries_query`, scored by the campaign's ranking or by `scores`."""
        parents = load_parents(connection, [r["proposal_id"] for r in rows])
        by_campaign: dict[int, list[str]] = defaultdict(list)
        for row in rows:
            if row["status"] == "ranked" and scores is None:
                by_campaign[row["campaign_id"]].append(row["candidate_id"])
        found: dict[tuple[int, str], Score] = {}
        for ours, ids in by_campaign.items():
            r = self._ranking(connection, ours)
            for some in chunks(ids):
                mine = scores_of(r.metric, *load_results(connection, ours, r.task_id, r.metric, r.seeds, some))
                found |= {(ours, candidate): score for candidate, score in mine.items()}
        return [
            _entry(
                row,
                parents.get(row["proposal_id"], ()),
                found.get((row["campaign_id"], row["candidate_id"]))
                if scores is None
                else scores.get(row["candidate_id"]),
            )
            for row in rows
        ]

    def _require_metric(self, connection: Connection, campaign: int, task_id: str, metric: str) -> None:
        """Raises ArchiveError if the campaign's trials report other metrics, but not this one."""
        of_trial = sa.select(trials.c.id).where(
            trials.c.campaign_id == campaign, trials.c.task_id == task_id, trials.c.status == "done"
        )
        one = connection.execute(of_trial.limit(1)).scalar()
        names = list(connection.execute(sa.select(metrics.c.name).where(metrics.c.trial_id == one)).scalars())
        if names and metric not in names:
            raise ArchiveError(f"no trial reports a metric {one_line(metric, 80)!r}; {nearest(metric, names)}")


def _entries_query(campaign: int | None) -> sa.Select[Any]:
    query = (
        sa.select(*_WANTED)
        .join_from(standings, candidates, candidates.c.id == standings.c.candidate_id)
        .join(proposals, proposals.c.id == standings.c.proposal_id)
        .join(campaigns, campaigns.c.id == standings.c.campaign_id)
    )
    return query if campaign is None else query.where(standings.c.campaign_id == campaign)


@dataclass(frozen=True)
class _Selected:
    """What is to be listed: conditions over `tables`, and in which order (none: as a leaderboard).

    `counting`: the same conditions in the form that is quicker where all rows are looked at.
    """

    scope: Scope
    conditions: list[sa.ColumnElement[bool]]
    counting: list[sa.ColumnElement[bool]]
    sorted: tuple[Segment, ...]
    tables: sa.FromClause
    where: EntryFilter


def _plain_conditions(where: EntryFilter) -> Iterable[sa.ColumnElement[bool]]:
    """All of a filter but its status, which is a segment's, and its expression."""
    if where.origin is not None:
        yield standings.c.origin == where.origin
    if where.proposer is not None:
        yield standings.c.proposer == where.proposer
    if where.privileged is not None:
        yield standings.c.privileged != "" if where.privileged else standings.c.privileged == ""
    if where.evaluator is not None:
        its = sa.select(campaigns.c.id).join(tasks).where(tasks.c.evaluator == where.evaluator)
        yield standings.c.campaign_id.in_(its)


def _segments(campaign: int, wanted: _Selected) -> Iterable[sa.Select[Any]]:
    """One query per status, so that each reads its index in order."""
    for status in ("ranked", "accepted", "failed", "refused"):
        if wanted.where.status not in (None, status):
            continue
        query = _entries_query(campaign).where(*wanted.conditions)
        if status == "ranked":
            query = query.where(standings.c.sort_key.is_not(None)).order_by(standings.c.sort_key, standings.c.number)
        else:
            query = query.where(standings.c.status == status).order_by(standings.c.number)
        yield query


def _matching(
    wanted: _Selected, *columns: sa.ColumnElement[Any], campaign: sa.ColumnElement[Any] = standings.c.campaign_id
) -> sa.Select[Any]:
    """Columns of all rows that match, in no order; `campaign` is the one that tells whose they are."""
    query = sa.select(*columns).select_from(wanted.tables).where(*wanted.counting, within(wanted.scope, campaign))
    return query if wanted.where.status is None else query.where(standings.c.status == wanted.where.status)


def _count(connection: Connection, wanted: _Selected) -> int:
    return int(connection.execute(_matching(wanted, sa.func.count())).scalar_one())


def _paged(
    connection: Connection, segments: Iterable[sa.Select[Any]], limit: int | None, offset: int
) -> list[RowMapping]:
    """Some rows of segments that follow one another."""
    rows: list[RowMapping] = []
    for segment in segments:
        left = None if limit is None else limit - len(rows)
        if left == 0:
            break
        page = segment.limit(left).offset(offset or None)
        found = connection.execute(page).mappings().all()
        rows += found
        if not found and offset:  # the page begins behind this segment
            plain = segment.order_by(None).with_only_columns(sa.func.count(), maintain_column_froms=True)
            offset -= int(connection.execute(plain).scalar_one())
        elif found:
            offset = 0
    return rows


def _in_order(connection: Connection, wanted: _Selected, limit: int | None, offset: int) -> list[RowMapping]:
    """Rows of `_entries_query` in a chosen order: sorted by their keys alone, since sources are long."""
    ids = (standings.c.campaign_id, standings.c.candidate_id)
    segments = (
        _matching(wanted, *ids, campaign=s.campaign).where(s.condition).order_by(*s.keys) for s in wanted.sorted
    )
    found = _paged(connection, segments, limit, offset)
    page = [(int(row["campaign_id"]), str(row["candidate_id"])) for row in found]
    rows: dict[tuple[int, str], RowMapping] = {}
    for campaign in {campaign for campaign, _ in page}:
        for some in chunks(candidate for ours, candidate in page if ours == campaign):
            query = _entries_query(campaign).where(standings.c.candidate_id.in_(some))
            rows |= {(campaign, r["candidate_id"]): r for r in connection.execute(query).mappings()}
    return [rows[campaign, candidate] for campaign, candidate in page]


def _entry(row: RowMapping, parents: tuple[str, ...], score: Score | None) -> Entry:
    same = (
        "name", "thought", "origin", "proposer", "campaign", "trials_done", "trials_failed", "created_at", "status",
        "unconfined",
    )  # fmt: skip
    return Entry(
        candidate=candidate_of(row),
        parents=parents,
        score=score,
        failure=failure_of(row),
        fingerprint=fingerprint_of(row) if "fingerprint" in row else None,
        privileged=privileged_of(row["privileged"]),
        **{name: row[name] for name in same},
    )
