"""Candidates side by side: code, curves, and paired differences over the seeds that they have in common."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from db.measurements import Trials, by_measurement, paired_values, values_by_seed
from db.records import CampaignRecord, Entry, TrialRecord
from discovery.browse.curves import LossCurve, stored_curve
from discovery.effects import effect_of
from discovery.leaderboard import stage_family
from discovery.statistics import ALONE, Difference, Family, paired_difference
from discovery.trials import Stage
from evaluators.options import OptionsError
from sandbox.text import clean_text, one_line

if TYPE_CHECKING:
    from db.archive import Archive

_SOURCE = 30_000  # characters of a source that are compared
_LINES = 1_000  # more than the gate lets through; the time to compare grows with their square
MOST = 12  # candidates compared at once


@dataclass(frozen=True)
class MetricComparison:
    """One metric of a candidate minus that of the first. Pairs are by seed and world where the metric has worlds.

    The interval is as wide as on the leaderboard where that is made of this metric, and else speaks for itself alone.
    """

    metric: str
    higher_is_better: bool
    ranks: bool
    mean: float  # of this candidate, over the common seeds
    first_mean: float
    difference: Difference


@dataclass(frozen=True)
class Measured:
    """What two candidates reported on one task and set of seeds.

    Attributes:
        ranks: the first's campaign ranks by these.
        fresh: the search's task, on seeds that it never saw.
        seeds: that both have finished.
    """

    evaluator: str
    ranks: bool
    fresh: bool
    seeds: tuple[int, ...]
    metrics: tuple[MetricComparison, ...]

    @property
    def title(self) -> str:
        """``preference.enumerable, seeds 0, 1``, with what these seeds are."""
        kind = "" if self.ranks else ", which the search never saw" if self.fresh else ", another task"
        return f"{one_line(self.evaluator, 60)}, {seeds_text(self.seeds)}{kind}"


@dataclass(frozen=True)
class Beside:
    """A candidate beside the first. `diff`: unified diff from the first's code to its own, cleaned; empty if equal."""

    entry: Entry
    diff: str
    measured: tuple[Measured, ...]


@dataclass(frozen=True)
class Compared:
    """Several candidates against the first of them. Curves are of those that have one."""

    first: Entry
    others: tuple[Beside, ...]
    curves: tuple[LossCurve, ...]


def compare(archive: Archive, prefixes: Sequence[str], campaign: str | None) -> Compared:
    """Compare candidates with the first of them.

    Args:
        archive: where they are.
        prefixes: two or more beginnings of ids.
        campaign: None takes the newest that has them all; if none has, for each the newest that has it.

    Raises:
        ArchiveError: one is not there. OptionsError: fewer than two, more than `MOST`, or one twice.
    """
    if len(prefixes) > MOST:
        raise OptionsError(f"{len(prefixes)} candidates are given, and {MOST} can be compared at once; leave some out")
    if len(set(prefixes)) < max(2, len(prefixes)):
        raise OptionsError("comparing takes two or more different candidates")
    if campaign is None:
        campaign = archive.newest_with(prefixes)
    entries = [archive.entry(p, campaign) for p in prefixes]
    if len({e.candidate.id for e in entries}) < max(2, len(entries)):
        raise OptionsError("comparing takes two or more different candidates")
    curves = (stored_curve(archive.proposal_of(e.candidate.id, e.campaign)) for e in entries)
    first, record = entries[0], archive.campaign(entries[0].campaign)
    trials = {e.candidate.id: archive.trials(e.candidate.id, e.campaign) for e in entries}
    ours, families = trials[first.candidate.id], _Families(archive, record)
    others = [
        Beside(e, code_diff(first, e), tuple(_measured(trials[e.candidate.id], ours, families))) for e in entries[1:]
    ]
    return Compared(first, tuple(others), tuple(c for c in curves if c is not None))


def seeds_text(seeds: Sequence[int]) -> str:
    """``seeds 0, 1``; of many, the first few."""
    shown = ", ".join(str(s) for s in seeds[:6]) + (", ..." if len(seeds) > 6 else "")
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {shown}"


def code_diff(old: Entry, new: Entry) -> str:
    """Unified diff from one candidate's source to another's, as cleaned text."""
    a, b = (clean_text(e.candidate.source, _SOURCE).splitlines()[:_LINES] for e in (old, new))
    of_a, of_b = (f"{e.candidate.short_id} {one_line(e.name, 60)}" for e in (old, new))
    return "\n".join(difflib.unified_diff(a, b, of_a, of_b, lineterm=""))


class _Families:
    """The families of the leaderboards of one campaign, each worked out once."""

    def __init__(self, archive: Archive, record: CampaignRecord) -> None:
        self.record, self._archive = record, archive
        self._found: dict[tuple[str, str, tuple[int, ...]], Family] = {}

    def of(self, group: Trials, metric: str, higher_is_better: bool, seeds: tuple[int, ...]) -> Family:
        """Of what was measured on one task and these seeds. Raises ArchiveError."""
        key = (group.task_id, metric, seeds)
        if key not in self._found:
            stage = Stage("compare", self._archive.task(group.task_id).task, metric, higher_is_better, seeds)
            self._found[key] = stage_family(self._archive, self.record.id, stage, fresh=not group.ranks)
        return self._found[key]


def _measured(theirs: Sequence[TrialRecord], ours: Sequence[TrialRecord], families: _Families) -> Iterator[Measured]:
    """Each measurement that both have, those that rank the first one's campaign first."""
    ranking = families.record.ranking
    groups = {(g.task_id, g.ranks): g.trials for g in by_measurement(theirs, ranking)}
    for group in by_measurement(ours, ranking):
        a, b = (_done(t) for t in (groups.get((group.task_id, group.ranks), ()), group.trials))
        seeds = tuple(sorted(a.keys() & b.keys()))
        if seeds:
            metrics = _metrics([a[s] for s in seeds], [b[s] for s in seeds], group, families)
            yield Measured(b[seeds[0]].evaluator, group.ranks, group.fresh, seeds, tuple(metrics))


def ranking_difference(archive: Archive, campaign: CampaignRecord, candidate: str, other: str) -> Difference | None:
    """One candidate minus another by what ranks the campaign; None without a common seed. Raises ArchiveError."""
    task = campaign.ranking.task_id
    ours, theirs = (archive.trials(c, campaign=campaign.id, task=task) for c in (candidate, other))
    for measured in _measured(ours, theirs, _Families(archive, campaign)):
        for metric in measured.metrics:
            if measured.ranks and metric.ranks:
                return metric.difference
    return None


def _done(trials: Sequence[TrialRecord]) -> Mapping[int, TrialRecord]:
    return {t.seed: t for t in trials if t.status == "done"}


def _metrics(
    theirs: Sequence[TrialRecord], ours: Sequence[TrialRecord], group: Trials, families: _Families
) -> Iterator[MetricComparison]:
    """For each metric that both report on all of these seeds, but not its parts by world; the one that ranks first."""
    direction = {m.name: m.higher_is_better for m in ours[0].metrics if "/" not in m.name}
    record = families.record
    seeds, ranks = tuple(t.seed for t in ours), record.ranking.metric
    leading = ranks if ranks in direction else next(iter(direction), "")
    for name in sorted(direction, key=lambda n: n != ranks):
        a, b = (values_by_seed(trials, name, seeds) for trials in (theirs, ours))
        if not a or a.keys() != b.keys():
            continue
        pairs = paired_values(theirs, ours, name, seeds)
        effect = effect_of(record, ours[0].evaluator, group.ranks, name, leads=name == leading)
        family = families.of(group, name, direction[name], seeds) if name == leading else ALONE
        difference = paired_difference(*pairs, direction[name], effect, family)
        means = [math.fsum(values.values()) / len(values) for values in (a, b)]
        yield MetricComparison(name, direction[name], name == ranks, means[0], means[1], difference)
