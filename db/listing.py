"""Ranked listings, single entries and lineage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from db.convert import candidate_of, failure_of, fingerprint_of
from db.errors import ArchiveError
from db.models import campaigns, candidates, metrics, proposals, standings, tasks, trials
from db.queries import chunks, load_parents
from db.records import Ancestor, Entry, EntryFilter, Score
from db.session import CampaignRef, Session
from evaluators.options import nearest
from sandbox.text import one_line

_MAX_DEPTH = 1_000  # generations followed; a campaign's lineage is as deep as its longest chain of improvements
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
    ) -> list[Entry]:
        """Candidates in leaderboard order: ranked ones from the best, then unranked ones as proposed, then failed and
        refused ones. A candidate with any failed seed is unranked. None for `campaign` lists all campaigns, newest first.
        """
        with self._read() as connection:
            if campaign is None:
                newest = sa.select(campaigns.c.id).order_by(campaigns.c.id.desc())
                ids = list(connection.execute(newest).scalars())
            else:
                ids = [self._campaign(connection, campaign)]
            rows: list[RowMapping] = []
            for segment in (s for i in ids for s in _segments(i, where or EntryFilter())):
                left = None if limit is None else limit - len(rows)
                if left == 0:
                    break
                page = segment.limit(left).offset(offset or None)
                found = connection.execute(page).mappings().all()
                rows += found
                if not found and offset:  # the page begins behind this segment
                    offset -= _count(connection, segment)
                elif found:
                    offset = 0
            return self._entries(connection, rows)

    def top(self, campaign: CampaignRef | None = None, n: int = 10, metric: str | None = None) -> list[Entry]:
        """The `n` best ranked candidates of a campaign (None: the newest), by another metric of its task if one is named."""
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
            scores = self._scores(connection, ours, ranking.task_id, metric, ranking.seeds)
            if not scores:
                self._require_metric(connection, ours, ranking.task_id, metric)
            best = sorted(scores.items(), key=lambda s: -s[1].mean if s[1].higher_is_better else s[1].mean)[:n]
            found: list[RowMapping] = []
            for some in chunks(candidate for candidate, _ in best):
                query = _entries_query(ours).where(standings.c.candidate_id.in_(some))
                found += connection.execute(query).mappings().all()
            by_id = {row["candidate_id"]: row for row in found}
            rows = [by_id[candidate] for candidate, _ in best]
            return self._entries(connection, rows, scores)

    def entry(self, id_prefix: str, campaign: CampaignRef | None = None) -> Entry:
        """One candidate by the beginning of its id, with fingerprint; None means the newest campaign that has it."""
        with self._read() as connection:
            candidate = self._candidate(connection, id_prefix)
            query = _entries_query(None if campaign is None else self._campaign(connection, campaign))
            query = query.add_columns(candidates.c.fingerprint, candidates.c.fingerprint_rows)
            query = query.where(standings.c.candidate_id == candidate).order_by(standings.c.campaign_id.desc())
            row = connection.execute(query.limit(1)).mappings().first()
            if row is None:
                shown = "the archive" if campaign is None else f"campaign {one_line(str(campaign), 80)!r}"
                raise ArchiveError(f"candidate {candidate[:10]} does not appear in {shown} of {self.url}")
            return self._entries(connection, [row])[0]

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
            return self._scores(connection, self._campaign(connection, campaign), task_id, metric, seeds)

    def lineage(self, candidate_id: str, campaign: CampaignRef | None = None) -> list[Ancestor]:
        """A candidate and its ancestors, generation by generation. An ancestor appears once, at its nearest depth."""
        start = self.entry(candidate_id, campaign)
        with self._read() as connection:
            ours = self._campaign(connection, start.campaign)
            seen: dict[str, Ancestor] = {}
            generation = [start.candidate.id]
            for depth in range(_MAX_DEPTH):
                new = _ancestors(connection, ours, generation, depth)
                seen |= new
                parents = (p for a in new.values() for p in a.parents if p not in seen)
                generation = list(dict.fromkeys(parents))
                if not generation:
                    break
            return list(seen.values())

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
                mine = self._scores(connection, ours, r.task_id, r.metric, r.seeds, some)
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

    def _scores(
        self,
        connection: Connection,
        campaign: int,
        task_id: str,
        metric: str,
        seeds: Sequence[int] | None,
        only: Sequence[str] | None = None,
    ) -> dict[str, Score]:
        values = sa.and_(metrics.c.trial_id == trials.c.id, metrics.c.name == metric)
        query = (
            sa.select(
                trials.c.candidate_id, trials.c.seed, trials.c.status, metrics.c.value, metrics.c.higher_is_better
            )
            .select_from(trials.outerjoin(metrics, values))
            .where(
                trials.c.campaign_id == campaign,
                trials.c.task_id == task_id,
                trials.c.status.in_(("done", "failed")),
            )
            .order_by(trials.c.candidate_id, trials.c.seed)
        )
        if only is not None:
            query = query.where(trials.c.candidate_id.in_(only))
        wanted = None if seeds is None else set(seeds)
        by_seed: dict[str, dict[int, float]] = defaultdict(dict)
        failed: set[str] = set()
        higher = True
        for row in connection.execute(query):
            if wanted is not None and row.seed not in wanted:
                continue
            if row.status == "failed":
                failed.add(row.candidate_id)
            elif row.value is not None:
                by_seed[row.candidate_id][row.seed] = row.value
                higher = row.higher_is_better
        return {c: Score(metric, higher, seeds_) for c, seeds_ in by_seed.items() if c not in failed}

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


def _segments(campaign: int, where: EntryFilter) -> Iterable[sa.Select[Any]]:
    """One query per status, so that each reads its index in order."""
    for status in ("ranked", "accepted", "failed", "refused"):
        if where.status not in (None, status):
            continue
        query = _entries_query(campaign)
        if status == "ranked":
            query = query.where(standings.c.sort_key.is_not(None)).order_by(standings.c.sort_key, standings.c.number)
        else:
            query = query.where(standings.c.status == status).order_by(standings.c.number)
        if where.origin is not None:
            query = query.where(standings.c.origin == where.origin)
        if where.proposer is not None:
            query = query.where(standings.c.proposer == where.proposer)
        if where.evaluator is not None:
            query = query.join(tasks, tasks.c.id == campaigns.c.task_id).where(tasks.c.evaluator == where.evaluator)
        if where.text:
            looked_in = (proposals.c.name, proposals.c.thought, candidates.c.source)
            query = query.where(sa.or_(*(c.icontains(where.text, autoescape=True) for c in looked_in)))
        yield query


def _count(connection: Connection, query: sa.Select[Any]) -> int:
    plain = query.order_by(None).with_only_columns(sa.func.count(), maintain_column_froms=True)
    return int(connection.execute(plain).scalar_one())


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
        **{name: row[name] for name in same},
    )


def _ancestors(connection: Connection, campaign: int, ids: Sequence[str], depth: int) -> dict[str, Ancestor]:
    found: list[Any] = []
    for some in chunks(ids):
        query = (
            sa.select(standings.c.candidate_id, standings.c.proposal_id, standings.c.origin, proposals.c.name)
            .join(proposals, proposals.c.id == standings.c.proposal_id)
            .where(standings.c.campaign_id == campaign, standings.c.candidate_id.in_(some))
        )
        found += connection.execute(query).all()
    parents = load_parents(connection, [row.proposal_id for row in found])
    made = {
        row.candidate_id: Ancestor(row.candidate_id, row.name, row.origin, depth, parents.get(row.proposal_id, ()))
        for row in found
    }
    return {candidate: made[candidate] for candidate in ids if candidate in made}
