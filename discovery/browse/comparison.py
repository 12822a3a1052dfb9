"""Candidates side by side: code, curves, and paired differences over the seeds that they have in common."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from db.records import Entry, TrialRecord
from discovery.browse.curves import LossCurve, stored_curve
from discovery.statistics import Difference, minimum_effect, paired_difference
from evaluators.options import OptionsError
from sandbox.text import clean_text, one_line

if TYPE_CHECKING:
    from db.archive import Archive

_SOURCE = 30_000  # characters of a source that are compared


@dataclass(frozen=True)
class MetricComparison:
    """One metric of a candidate minus that of the first, paired over their common seeds on the first's ranking task."""

    metric: str
    higher_is_better: bool
    ranks: bool
    mean: float  # of this candidate, over the common seeds
    first_mean: float
    difference: Difference


@dataclass(frozen=True)
class Beside:
    """A candidate beside the first. `diff`: unified diff from the first's code to its own, cleaned; empty if equal."""

    entry: Entry
    diff: str
    metrics: tuple[MetricComparison, ...]


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
        campaign: None takes for each the newest that has it.

    Raises:
        ArchiveError: one is not there. OptionsError: fewer than two, or one twice.
    """
    entries = [archive.entry(p, campaign) for p in prefixes]
    if len({e.candidate.id for e in entries}) < max(2, len(entries)):
        raise OptionsError("comparing takes two or more different candidates")
    curves = (stored_curve(archive.proposal_of(e.candidate.id, e.campaign)) for e in entries)
    first, ranking = entries[0], archive.campaign(entries[0].campaign).ranking
    measured = {e.candidate.id: archive.trials(e.candidate.id, e.campaign, ranking.task_id) for e in entries}
    ours = measured[first.candidate.id]
    others = [
        Beside(e, code_diff(first, e), tuple(_metrics(measured[e.candidate.id], ours, ranking.metric)))
        for e in entries[1:]
    ]
    return Compared(first, tuple(others), tuple(c for c in curves if c is not None))


def code_diff(old: Entry, new: Entry) -> str:
    """Unified diff from one candidate's source to another's, as cleaned text."""
    a, b = (clean_text(e.candidate.source, _SOURCE).splitlines() for e in (old, new))
    of_a, of_b = (f"{e.candidate.short_id} {one_line(e.name, 60)}" for e in (old, new))
    return "\n".join(difflib.unified_diff(a, b, of_a, of_b, lineterm=""))


def _metrics(theirs: Sequence[TrialRecord], ours: Sequence[TrialRecord], ranks: str) -> list[MetricComparison]:
    """For each metric that both report, but not its parts by world; the one that ranks first."""
    a, b = _by_metric(theirs), _by_metric(ours)
    direction = {m.name: m.higher_is_better for t in ours for m in t.metrics}
    found = []
    for name in sorted((n for n in b if n in a), key=lambda n: n != ranks):
        common = sorted(a[name].keys() & b[name].keys())
        if not common:
            continue
        difference = paired_difference(a[name], b[name], direction[name], minimum_effect(name))
        means = [math.fsum(values[name][s] for s in common) / len(common) for values in (a, b)]
        found.append(MetricComparison(name, direction[name], name == ranks, means[0], means[1], difference))
    return found


def _by_metric(trials: Sequence[TrialRecord]) -> Mapping[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for trial in trials:
        for metric in trial.metrics:
            if "/" not in metric.name:
                found.setdefault(metric.name, {})[trial.seed] = metric.value
    return found
