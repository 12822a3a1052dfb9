"""Which candidates, in which order: filters and sort orders as SQL that every database runs.

A metric of a candidate is its mean over the seeds that the campaign ranks by, on the task that ranks it, as for the score:
a candidate with a failed seed, or without a finished one, has none. A comparison with what a candidate lacks is false.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import sqlalchemy as sa

from db.filters import Both, Comparison, Expression, FilterError, Negation, comparisons
from db.models import campaigns, means, metrics, proposals, standings, trials
from db.records import EntryStatus, Origin, Ranking, ReportedMetric, Sort
from evaluators.options import nearest
from sandbox.failure import FailureKind
from sandbox.text import one_line

Condition = sa.ColumnElement[bool]
_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True)
class Fact:
    """Something that every candidate has, by a name that filters and orders use.

    Attributes:
        column: where it is stored.
        kind: what it is compared with: a number, a text, or a time such as "2026-11-26 08:30" (UTC).
        meaning: for people.
        words: the only texts there are; empty where any may be.
    """

    column: sa.ColumnElement[Any]
    kind: Literal["number", "text", "time"]
    meaning: str
    words: tuple[str, ...] = ()


_TOKENS = sa.func.coalesce(proposals.c.prompt_tokens, 0) + sa.func.coalesce(proposals.c.completion_tokens, 0)
FACTS: Mapping[str, Fact] = {
    "score": Fact(standings.c.score, "number", "mean of the metric that ranks"),
    "number": Fact(standings.c.number, "number", "of the proposal, counted from 0 in its campaign"),
    "trials_done": Fact(standings.c.trials_done, "number", "finished trials that rank it"),
    "trials_failed": Fact(standings.c.trials_failed, "number", "failed trials that rank it"),
    "tokens": Fact(_TOKENS, "number", "in prompt and reply; 0 where nobody said"),
    "status": Fact(standings.c.status, "text", "what became of it", get_args(EntryStatus)),
    "origin": Fact(standings.c.origin, "text", "where it came from", get_args(Origin)),
    "proposer": Fact(standings.c.proposer, "text", "who proposed it"),
    "failure": Fact(standings.c.failure_kind, "text", "kind of failure", tuple(str(k) for k in FailureKind)),
    "privileged": Fact(
        sa.case((standings.c.privileged == "", "no"), else_="yes"),
        "text",
        "whether it reads scores or soft labels, which tell more than labels do",
        ("yes", "no"),
    ),
    "model": Fact(proposals.c.reply_model, "text", "the language model that replied"),
    "name": Fact(proposals.c.name, "text", "what its proposer calls it"),
    "campaign": Fact(campaigns.c.name, "text", "the campaign it is in"),
    "created": Fact(proposals.c.created_at, "time", "when it was proposed"),
}
_OF_PROPOSALS = {"tokens", "model", "name", "created"}


@dataclass(frozen=True)
class Scope:
    """What is selected from: campaigns with what ranks them, newest first, and the metrics that their trials report.

    `metrics` is empty while no trial has finished: then nobody knows what names there are.
    """

    rankings: Mapping[int, Ranking]
    metrics: Mapping[str, ReportedMetric]

    def require(self, name: str, at: int | None = None) -> None:
        """Raises FilterError with the nearest name if nothing is called that."""
        if not self.metrics or name in FACTS or name in self.metrics:
            return
        known = [*FACTS, *(m for m in self.metrics if "/" in name or "/" not in m)]  # not each world's part of a metric
        raise FilterError(f"there is no {one_line(name, 60)!r}; {nearest(name, known)}", at)


def condition(expression: Expression, scope: Scope) -> Condition:
    """The expression over rows of `standings` joined as `joined` says. Raises FilterError for names and values."""
    if isinstance(expression, Comparison):
        return _comparison(expression, scope)
    if isinstance(expression, Negation):
        return sa.not_(condition(expression.part, scope))
    parts = [condition(p, scope) for p in expression.parts]
    return sa.and_(*parts) if isinstance(expression, Both) else sa.or_(*parts)


_TIES = (standings.c.campaign_id.desc(), standings.c.number, standings.c.candidate_id)


@dataclass(frozen=True)
class Segment:
    """Part of a sorted listing: rows of `standings` by `keys`, of which no two are equal.

    `campaign` is the column that tells whose they are. SQLite takes the index in whose order they are to come only where
    that column is the index's too: without statistics, every other way looks as good to it.
    """

    keys: tuple[sa.ColumnElement[Any], ...]
    condition: Condition
    campaign: sa.ColumnElement[Any] = standings.c.campaign_id


def order(sort: Sort, scope: Scope) -> tuple[Segment, ...]:
    """A listing's segments, one after the other. Raises FilterError for an unknown name."""
    scope.require(sort.by)
    fact, descending = FACTS.get(sort.by), sort.descending
    if fact is None and descending is None:
        reported = scope.metrics.get(sort.by)
        descending = reported is not None and reported.higher_is_better
    if fact is None and not _ranks(sort.by, scope) and not is_part(sort.by):
        return _by_mean(sort.by, bool(descending), scope)
    value = mean(sort.by, scope) if fact is None else fact.column
    if sort.by == "score" and descending is None:
        value = standings.c.sort_key  # the leading one first, whatever the direction of each campaign's metric
    return (Segment(((value.desc() if descending else value.asc()).nulls_last(), *_TIES), sa.true()),)


def _by_mean(metric: str, descending: bool, scope: Scope) -> tuple[Segment, ...]:
    """What has the metric, as its index has it in order, then what has not."""
    key = means.alias("key")
    has_it = sa.and_(key.c.proposal_id == standings.c.proposal_id, key.c.name == metric)
    lacks_it = ~sa.exists().where(means.c.proposal_id == standings.c.proposal_id, means.c.name == metric)
    ordered = key.c.value.desc() if descending else key.c.value.asc()
    return Segment((ordered, *_TIES), has_it, key.c.campaign_id), Segment(_TIES, lacks_it)


def _ranks(metric: str, scope: Scope) -> bool:
    return all(r.metric == metric for r in scope.rankings.values())


def joined(names: Iterable[str]) -> sa.FromClause:
    """`standings` with the tables that facts of these names are in; no others: joins cost."""
    tables: sa.FromClause = standings
    if "campaign" in names:
        tables = tables.join(campaigns, campaigns.c.id == standings.c.campaign_id)
    return tables.join(proposals, proposals.c.id == standings.c.proposal_id) if _OF_PROPOSALS & set(names) else tables


def within(scope: Scope, column: sa.ColumnElement[Any]) -> Condition:
    """Whether a column names a campaign of the scope; one campaign as an equation, which reads an index in order."""
    return column == next(iter(scope.rankings)) if len(scope.rankings) == 1 else column.in_(scope.rankings)


def is_part(metric: str) -> bool:
    """Whether a metric is a part of another one (`frontier/few_pairs`): its means are not kept."""
    return "/" in metric


def names_of(expression: Expression | None, sort: Sort | None) -> set[str]:
    """All names that a filter and an order use."""
    used = {c.name for c in comparisons(expression)} if expression is not None else set()
    return used | ({sort.by} if sort is not None else set())


def mean(metric: str, scope: Scope) -> sa.ColumnElement[Any]:
    """A metric's mean for the row of `standings` beside it; NULL if it has none."""
    if _ranks(metric, scope):
        return standings.c.score
    if not is_part(metric):
        of_it = (means.c.proposal_id == standings.c.proposal_id, means.c.name == metric)
        return sa.select(means.c.value).where(*of_it).correlate(standings).scalar_subquery()
    task = sa.select(campaigns.c.task_id).where(campaigns.c.id == trials.c.campaign_id).scalar_subquery()
    values = (
        sa.select(sa.func.avg(metrics.c.value))
        .select_from(trials.join(metrics, metrics.c.trial_id == trials.c.id))
        .where(
            trials.c.campaign_id == standings.c.campaign_id,
            trials.c.candidate_id == standings.c.candidate_id,
            trials.c.task_id == task,
            trials.c.status == "done",
            metrics.c.name == metric,
            standings.c.sort_key.is_not(None),  # no seed failed
            counted(scope.rankings),
        )
    )
    return values.correlate(standings).scalar_subquery()


def counted(rankings: Mapping[int, Ranking]) -> Condition:
    """Whether a trial of its campaign's task has a seed that the campaign ranks by."""
    by_seeds: dict[tuple[int, ...] | None, list[int]] = {}
    for campaign, ranking in rankings.items():
        by_seeds.setdefault(ranking.seeds, []).append(campaign)
    if len(by_seeds) == 1:
        return _among(next(iter(by_seeds)))
    alternatives = (sa.and_(trials.c.campaign_id.in_(c), _among(seeds)) for seeds, c in by_seeds.items())
    return sa.or_(sa.false(), *alternatives)


def _among(seeds: Sequence[int] | None) -> Condition:
    if seeds is None:
        return sa.true()
    wanted = sorted(set(seeds))
    if wanted and wanted[-1] - wanted[0] == len(wanted) - 1:  # without a gap, as nearly always
        return trials.c.seed.between(wanted[0], wanted[-1])
    return trials.c.seed.in_(wanted)


def _comparison(given: Comparison, scope: Scope) -> Condition:
    scope.require(given.name, given.at)
    fact, compare = FACTS.get(given.name), _OPERATORS[given.operator]
    value = _number(given) if fact is None or fact.kind == "number" else _other(given, fact)
    if given.name == "score" or _ranks(given.name, scope):
        return _score(given, compare, value, scope)
    if fact is not None:
        return sa.func.coalesce(compare(fact.column, value), sa.false())  # `not` of a NULL would not be true
    if is_part(given.name):  # what is not ranked is told apart before its trials are read
        holds = compare(mean(given.name, scope), value)
        return sa.and_(standings.c.sort_key.is_not(None), sa.func.coalesce(holds, sa.false()))
    having = sa.select(means.c.proposal_id).where(
        within(scope, means.c.campaign_id), means.c.name == given.name, compare(means.c.value, value)
    )
    return standings.c.proposal_id.in_(having)


def _score(given: Comparison, compare: Callable[[Any, Any], Any], value: Any, scope: Scope) -> Condition:
    """Where one direction is the better one everywhere, the index of the ranking has the answer."""
    directions = {r.higher_is_better for r in scope.rankings.values()}
    if directions == {False}:
        holds = compare(standings.c.sort_key, value)
    elif directions == {True}:
        holds = _OPERATORS[_TURNED.get(given.operator, given.operator)](standings.c.sort_key, -value)
    else:
        holds = compare(standings.c.score, value)
    return sa.func.coalesce(holds, sa.false())


def _number(given: Comparison) -> float:
    if isinstance(given.value, str):
        raise FilterError(f"{given.name} is compared with a number, not with a text", given.at)
    return given.value


def _other(given: Comparison, fact: Fact) -> str | datetime:
    name, value = given.name, given.value
    if not isinstance(value, str):
        raise FilterError(f"{name} is compared with a text in quotes, not with a number", given.at)
    if fact.kind == "time":
        return _time(given, value)
    if given.operator not in ("==", "!="):
        raise FilterError(f"{name} is a text: compare it with == or !=", given.at)
    if fact.words and value not in fact.words:
        raise FilterError(f"{name} is never {one_line(value, 60)!r}; {nearest(value, list(fact.words))}", given.at)
    return value


def _time(given: Comparison, value: str) -> datetime:
    if given.operator in ("==", "!="):
        raise FilterError(f"{given.name} is a time: compare it with < <= > or >=", given.at)
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        raise FilterError(
            f'{one_line(value, 40)!r} is no time; write one as "2026-11-26" or "2026-11-26 08:30", in UTC', given.at
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
