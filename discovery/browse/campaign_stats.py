"""What became of a campaign's proposals, what they cost, and how the leading score grew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from db.records import CampaignRecord, DeviceTime, OutcomeCount, Scored
from discovery.contest import competes, contest_of
from discovery.copies import Copies

if TYPE_CHECKING:
    from db.archive import Archive
    from db.session import CampaignRef


@dataclass(frozen=True)
class ProposerStats:
    """What one proposer with one model did. `success_rate`: ranked ones among all, from 0 to 1."""

    proposer: str
    model: str | None
    proposals: int
    accepted: int  # for training
    ranked: int  # measured on its seeds without a failure
    prompt_tokens: int
    completion_tokens: int
    failures: Mapping[str, int]  # by the checks
    copies: Copies  # of the failures by the kind DUPLICATE
    usd: float | None

    @property
    def success_rate(self) -> float:
        return self.ranked / self.proposals

    @property
    def usd_per_accepted(self) -> float | None:
        """None if none was accepted, or nobody told prices."""
        return self.usd / self.accepted if self.usd is not None and self.accepted else None

    @property
    def tokens_per_accepted(self) -> float | None:
        """None if none was accepted."""
        return (self.prompt_tokens + self.completion_tokens) / self.accepted if self.accepted else None


@dataclass(frozen=True)
class CampaignStats:
    """A campaign in numbers. Proposals are those of its search: known objectives are not counted among them.

    Attributes:
        check_failures, training_failures: by kind; training counts trials.
        copies: proposals found to behave like a known or an earlier loss, before anything was trained.
        trials_saved, hours_saved: what training them on the ranking seeds would have taken, at the mean of finished trials.
        devices: how long trials held workers.
        usd, usd_per_accepted: what replies cost, where the config named prices; None where it did not.
        lost_requests, lost_tokens, lost_usd: questions that were on their way when a driver ended, and the most they took.
        scored: all ranked candidates, in the order in which they were measured.
        leaders: the steps of the leading score so far, baselines left out, of losses that may lead (`discovery.contest`).
        baselines: known objectives, those of the kind that may lead first, the leading one of each kind first.
        about_privileged: whether privileged losses lead.
        apart: the leading candidate of the kind that may not lead, if one is ranked.
    """

    campaign: CampaignRecord
    proposers: tuple[ProposerStats, ...]
    check_failures: Mapping[str, int]
    training_failures: Mapping[str, int]
    copies: Copies
    trials_saved: int
    hours_saved: float
    prompt_tokens: int
    completion_tokens: int
    tokens_per_accepted: float | None
    usd: float | None
    usd_per_accepted: float | None
    lost_requests: int
    lost_tokens: int
    lost_usd: float
    devices: tuple[DeviceTime, ...]
    scored: tuple[Scored, ...]
    leaders: tuple[Scored, ...]
    baselines: tuple[Scored, ...]
    about_privileged: bool
    apart: Scored | None

    @property
    def device_hours(self) -> float:
        return sum(d.seconds for d in self.devices) / 3600

    @property
    def proposals(self) -> int:
        """Judged ones of the search, repairs included."""
        return sum(p.proposals for p in self.proposers)

    @property
    def end(self) -> End:
        return End(self.campaign, self.copies, self.proposals)


@dataclass(frozen=True)
class End:
    """How a campaign ended, or stands, and what share of its proposals were copies."""

    campaign: CampaignRecord
    copies: Copies
    proposals: int

    @property
    def why(self) -> str:
        """One line, hostile where it is shown; empty while the campaign runs."""
        if self.campaign.ended is not None:
            return self.campaign.ended.text
        is_lost = self.campaign.status == "abandoned"
        return "its driver was killed and left no reason; `discovery run` goes on from here" if is_lost else ""

    @property
    def copied(self) -> str:
        """The share of copies in one line; empty without any."""
        said = self.copies.among(self.proposals)
        return said + ("; the search stalled" if said and self.copies.stalls(self.proposals) else "")

    @property
    def lines(self) -> tuple[str, ...]:
        """What to show of it, without repeating the share where the reason gives it."""
        why, copied = self.why, self.copied
        repeats = bool(copied) and self.copies.among(self.proposals) in why
        return tuple(line for line in (why, "" if repeats else copied) if line)


def campaign_end(archive: Archive, campaign: CampaignRef) -> End:
    """Raises ArchiveError."""
    record = archive.campaign(campaign)
    searched = _searched(archive.outcomes(record.id))
    return End(record, _copies(searched), sum(c.count for c in searched))


def campaign_stats(archive: Archive, campaign: CampaignRef) -> CampaignStats:
    """Raises ArchiveError."""
    record = archive.campaign(campaign)
    counts = archive.outcomes(record.id)
    searched = _searched(counts)
    proposers = by_proposer(searched)
    checks = _failures(counts)
    totals = archive.totals(record.id)
    every = Counter(totals.failures)
    devices = archive.device_times(record.id)
    finished = sum(d.trials for d in devices)
    copies = _copies(searched)
    scored = archive.scored(record.id)
    higher = record.ranking.higher_is_better
    known, made = ([s for s in scored if (s.origin == "known") == is_known] for is_known in (True, False))
    about = contest_of(archive, record.id)
    saved = copies.total * _seeds(record, scored, archive)
    accepted = sum(p.accepted for p in proposers)
    prompt, completion = (sum(getattr(p, n) for p in proposers) for n in ("prompt_tokens", "completion_tokens"))
    return CampaignStats(
        campaign=record,
        proposers=tuple(proposers),
        check_failures=checks,
        training_failures=dict(every - Counter(checks)),
        copies=copies,
        trials_saved=saved,
        hours_saved=saved * sum(d.seconds for d in devices) / finished / 3600 if finished else 0.0,
        prompt_tokens=prompt,
        completion_tokens=completion,
        tokens_per_accepted=(prompt + completion) / accepted if accepted else None,
        usd=totals.cost,
        usd_per_accepted=totals.cost / accepted if totals.cost is not None and accepted else None,
        lost_requests=totals.lost_requests,
        lost_tokens=totals.lost_tokens,
        lost_usd=totals.lost_cost,
        devices=tuple(devices),
        scored=tuple(scored),
        leaders=leading_so_far((s for s in made if competes(s, about)), higher),
        baselines=tuple(sorted(known, key=lambda s: (not competes(s, about), -s.score if higher else s.score))),
        about_privileged=about,
        apart=next(reversed(leading_so_far((s for s in made if not competes(s, about)), higher)), None),
    )


def by_proposer(counts: Iterable[OutcomeCount]) -> list[ProposerStats]:
    """One row per proposer and model, those with most proposals first."""
    groups: dict[tuple[str, str | None], list[OutcomeCount]] = {}
    for count in counts:
        groups.setdefault((count.proposer, count.model), []).append(count)
    made = [
        ProposerStats(
            proposer=proposer,
            model=model,
            proposals=sum(c.count for c in group),
            accepted=sum(c.count for c in group if c.failure is None),
            ranked=sum(c.count for c in group if c.status == "ranked"),
            prompt_tokens=sum(c.prompt_tokens for c in group),
            completion_tokens=sum(c.completion_tokens for c in group),
            failures=_failures(group),
            copies=_copies(group),
            usd=None if all(c.cost is None for c in group) else sum(c.cost or 0.0 for c in group),
        )
        for (proposer, model), group in groups.items()
    ]
    return sorted(made, key=lambda p: (-p.proposals, p.proposer, p.model or ""))


def leading_so_far(scored: Iterable[Scored], higher_is_better: bool) -> tuple[Scored, ...]:
    """Those that were better than all before them, in the order of time."""
    steps: list[Scored] = []
    for one in scored:
        if not steps or (one.score > steps[-1].score if higher_is_better else one.score < steps[-1].score):
            steps.append(one)
    return tuple(steps)


def _searched(counts: Iterable[OutcomeCount]) -> list[OutcomeCount]:
    return [c for c in counts if c.origin in ("proposed", "repaired")]


def _copies(counts: Iterable[OutcomeCount]) -> Copies:
    of: Counter[str | None] = Counter()
    for count in counts:
        of[count.copies] += count.count
    return Copies(of["known"], of["own"])


def _failures(counts: Iterable[OutcomeCount]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for count in counts:
        if count.failure is not None:
            found[count.failure] += count.count
    return dict(found.most_common())


def _seeds(record: CampaignRecord, scored: Sequence[Scored], archive: Archive) -> int:
    """Trials that a candidate takes: the seeds that rank, or, where all count, as many as the first measured one had."""
    if record.ranking.seeds is not None:
        return len(record.ranking.seeds)
    return archive.entry(scored[0].candidate_id, record.name).trials_done if scored else 0
