"""Values that flow into and out of the archive. Frozen; importable without SQLAlchemy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from db.endings import Ending
from db.messages import Prompt, Reply
from evaluators.base import Metric, Task
from sandbox.candidate import Candidate
from sandbox.failure import Failure
from sandbox.reports import Fingerprint, GateReport, ProbeReport

Origin = Literal["known", "imported", "proposed", "repaired"]


@dataclass(frozen=True)
class Proposal:
    """One attempt at a new objective and its verdict.

    Attributes:
        id: archive row id (0 before it is stored).
        index: its number within the campaign, from 0; with the campaign it is unique.
        origin, proposer: where it came from; `known` baselines have proposer "library", `imported` losses "file".
        parents: candidate ids shown or recombined.
        repair_of: index of the proposal whose error this one answers.
        candidate: None if the reply could not be parsed.
        failure: None if it was accepted for training.
        judged: False for a stored reply that has no verdict yet.
    """

    index: int
    origin: Origin
    proposer: str
    name: str
    thought: str
    parents: tuple[str, ...] = ()
    repair_of: int | None = None
    prompt: Prompt | None = None
    reply: Reply | None = None
    candidate: Candidate | None = None
    gate: GateReport | None = None
    probe: ProbeReport | None = None
    failure: Failure | None = None
    duplicate_of: str | None = None  # candidate id, or the name of a known objective
    id: int = 0
    created_at: datetime | None = None
    judged: bool = True


TrialStatus = Literal["pending", "running", "done", "failed"]


@dataclass(frozen=True)
class Score:
    """Mean of the ranking metric over a candidate's seeds, with the per-seed values that pair with other candidates."""

    metric: str
    higher_is_better: bool
    by_seed: Mapping[int, float]

    @property
    def mean(self) -> float:
        return sum(self.by_seed.values()) / len(self.by_seed)


@dataclass(frozen=True)
class Result:
    """What a candidate's trials of one task gave: a metric by finished seed, and a failure if any seed failed."""

    by_seed: Mapping[int, float]
    failure: Failure | None = None


EntryStatus = Literal["refused", "accepted", "ranked", "failed"]


@dataclass(frozen=True)
class Entry:
    """A candidate as the archive lists it: identity, the first proposal that made it, and how it did.

    `trials_done` and `trials_failed` count the trials that the ranking looks at. `fingerprint` is loaded by
    `Archive.entry` only: listings leave it out.
    """

    candidate: Candidate
    name: str
    thought: str
    origin: Origin
    proposer: str
    campaign: str
    parents: tuple[str, ...] = ()
    score: Score | None = None  # None while unranked: no finished trial, or any seed failed
    failure: Failure | None = None
    trials_done: int = 0
    trials_failed: int = 0
    fingerprint: Fingerprint | None = None
    created_at: datetime | None = None
    status: EntryStatus = "accepted"  # refused by the checks, accepted and unranked, ranked, failed in training
    unconfined: bool = False  # a trial of it ran without the sandbox
    privileged: tuple[str, ...] = ()  # the inputs that tell it more than labels do; none: it sees labels alone


@dataclass(frozen=True)
class EntryFilter:
    """Which entries to list; None means any. All that is given must hold.

    Attributes:
        evaluator: that ranks the campaign.
        text: looked for in name, thought and source, whatever its case.
        where: an expression over metrics and facts (`db.filters`), such as ``frontier > 0.5 and kl < 3``.
        privileged: whether they read inputs that tell more than labels do.
    """

    status: EntryStatus | None = None
    origin: Origin | None = None
    proposer: str | None = None
    evaluator: str | None = None
    text: str | None = None
    where: str | None = None
    privileged: bool | None = None


@dataclass(frozen=True)
class Sort:
    """An order of entries: by a metric, or a fact of `db.selection.FACTS`. What has no value comes last either way.

    `descending` is None for the natural order: the leading one first where a direction is known, else the smallest.
    """

    by: str
    descending: bool | None = None


@dataclass(frozen=True)
class ReportedMetric:
    """A metric that the trials of a campaign report."""

    name: str
    higher_is_better: bool
    unit: str


@dataclass(frozen=True)
class Page:
    """Some of the entries that match a filter, and how many match in all."""

    entries: tuple[Entry, ...]
    total: int


@dataclass(frozen=True)
class Ranking:
    """What ranks a campaign's candidates: the mean of one metric of one task over some seeds (None: over all)."""

    task_id: str
    metric: str
    higher_is_better: bool
    seeds: tuple[int, ...] | None = None


ALIVE = ("running", "silent")  # of a campaign's status: somebody may be driving it


@dataclass(frozen=True)
class CampaignRecord:
    """A campaign and what it holds so far.

    Attributes:
        config: its settings without secrets.
        status: running, finished, interrupted, or another word its driver gave; "abandoned" where that driver is gone
            without a word, "silent" where it has not been heard for two minutes.
        ranking, evaluator: what ranks its candidates.
        proposals: replies and known objectives stored.
        candidates: accepted for training.
        trials_done, trials_failed: over all tasks.
        unconfined: candidates with a trial that ran without the sandbox.
        resumed: from `start_campaign` only: the campaign was there before.
        previous_config: from `start_campaign` only: the settings it had, where they differ from the new ones.
        previous_finish: from `start_campaign` only: when it was finished, if it was.
        ended: why it ended; None while it runs, and where its driver was killed.
    """

    id: int
    name: str
    config: Mapping[str, Any]
    status: str
    ranking: Ranking
    evaluator: str
    created_at: datetime
    finished_at: datetime | None = None
    proposals: int = 0
    candidates: int = 0
    trials_done: int = 0
    trials_failed: int = 0
    unconfined: int = 0
    resumed: bool = False
    previous_config: Mapping[str, Any] | None = None
    previous_finish: datetime | None = None
    ended: Ending | None = None


@dataclass(frozen=True)
class TaskRecord:
    """A task and what preparing it measured."""

    task: Task
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Ancestor:
    """One candidate of a lineage. `depth` is 0 for the candidate itself, 1 for its parents or its children, ..."""

    candidate_id: str
    name: str
    origin: Origin
    depth: int
    parents: tuple[str, ...]
    status: EntryStatus
    score: float | None
    privileged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Totals:
    """What a campaign cost and where it went. Failures are counted by kind, trials by status.

    `cost` is in US dollars, of the replies whose price was known; None if that is true of none. `lost_requests` were on
    their way when a driver ended; `lost_tokens` and `lost_cost` are the most that they can have taken.
    """

    proposals: int
    unjudged: int
    accepted: int
    prompt_tokens: int
    completion_tokens: int
    attempts: int
    failures: Mapping[str, int]
    trials: Mapping[str, int]
    cost: float | None = None
    lost_requests: int = 0
    lost_tokens: int = 0
    lost_cost: float = 0.0


@dataclass(frozen=True)
class OutcomeCount:
    """How many judged proposals of one kind there are, and their tokens.

    Attributes:
        model: that replied; None where nobody was asked.
        failure: kind, if the checks refused them.
        copies: for duplicates: whether of a loss of the campaign's own ("own") or of a known one ("known").
        status: of the candidate, if it is this proposal that it stands for.
        cost: US dollars, of the replies whose price was known; None if that is true of none.
    """

    proposer: str
    model: str | None
    origin: Origin
    failure: str | None
    copies: Literal["known", "own"] | None
    status: EntryStatus | None
    count: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


@dataclass(frozen=True)
class DeviceTime:
    """Trials that ended on one kind of device, and the seconds that their attempts held a worker."""

    device: str
    trials: int
    seconds: float


@dataclass(frozen=True)
class Scored:
    """A ranked candidate and when the last of its seeds was measured."""

    at: datetime
    candidate_id: str
    name: str
    origin: Origin
    proposer: str
    score: float
    privileged: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunningTrial:
    """A trial that a worker is busy with. `since`: when its present attempt began."""

    candidate_id: str
    name: str
    seed: int
    evaluator: str
    worker: str
    since: datetime


@dataclass(frozen=True)
class Happening:
    """A verdict or a finished trial, as somebody who follows a campaign sees it.

    Attributes:
        key: unique among the campaign's happenings.
        seed: of a trial; None for a verdict.
        value: of the metric that ranks, if the trial reports it, else of its first one.
        metric: the name of that one; None where it is the one that ranks, on the task that ranks.
        evaluator: of a trial.
        failure: why it was refused or failed.
        privileged: the inputs that tell the loss more than labels do.
    """

    at: datetime
    key: str
    candidate_id: str | None
    name: str
    origin: Origin
    proposer: str
    seed: int | None = None
    value: float | None = None
    metric: str | None = None
    evaluator: str | None = None
    failure: Failure | None = None
    privileged: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrialRecord:
    """One trial as stored. `arrays` are loaded separately (`Archive.arrays`)."""

    id: int
    candidate_id: str
    task_id: str
    evaluator: str
    seed: int
    status: TrialStatus
    attempts: int
    metrics: tuple[Metric, ...] = ()
    failure: Failure | None = None
    details: Mapping[str, Any] = field(default_factory=dict)  # timings, device, versions, ...
