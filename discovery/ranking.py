"""The order of losses by their means, each with its difference to the leading baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from db.records import Entry
from discovery.simultaneous import MOST, differences
from discovery.statistics import Difference, pairs_of


@dataclass(frozen=True)
class Row:
    """One line of a leaderboard. `difference` is against `versus`: None for that baseline itself or without common seeds."""

    rank: int
    entry: Entry
    mean: float
    is_baseline: bool
    versus: str | None
    difference: Difference | None


@dataclass(frozen=True)
class Comparison:
    """How entries are compared.

    Attributes:
        minimum_effect: what counts as nothing.
        values: finer values per candidate id, e.g. per (seed, world), if there are any.
        joint: whether the intervals may use what all entries have in common (max-T); by Holm's method otherwise.
    """

    minimum_effect: float
    values: Mapping[str, Mapping[Any, float]] | None = None
    joint: bool = True


def leader_of(entries: Iterable[Entry]) -> Entry | None:
    """The entry with the leading mean score; ties go to the first. None if nothing is ranked."""
    ranked = _ranked(entries)
    return ranked[0] if ranked else None


def leaderboard(
    entries: Iterable[Entry], baselines: Iterable[Entry], comparison: Comparison, top: int | None = None
) -> tuple[Row, ...]:
    """Candidates and baselines by mean score, each with its paired difference to the leading baseline.

    The intervals hold for all entries at once, those that are not shown included: who is shown was chosen by the same
    values. The leading baseline is the one with the leading mean, chosen with the same noise as everything else: this
    favours the baseline, never the candidate. Unranked entries (no finished trial, or a failed one) are left out.

    Args:
        entries: candidates; those that are also in `baselines` appear once.
        baselines: known objectives, all of them shown whatever `top` is.
        comparison: what differences pair.
        top: how many candidates to show.

    Raises:
        ValueError: scores of different metrics.
    """
    known = {e.candidate.id: e for e in baselines}
    everyone = _ranked([*known.values(), *(e for e in entries if e.candidate.id not in known)])
    reference, seen = leader_of(known.values()), shown(everyone, known.values(), top)
    compared = {} if reference is None else _compared(everyone, seen, reference, comparison)
    rows = []
    for rank, entry in enumerate(seen, 1):
        assert entry.score is not None
        difference = compared.get(entry.candidate.id)
        versus = reference.name if difference is not None and reference is not None else None
        rows.append(Row(rank, entry, entry.score.mean, entry.candidate.id in known, versus, difference))
    return tuple(rows)


def shown(entries: Iterable[Entry], baselines: Iterable[Entry], top: int | None) -> list[Entry]:
    """All ranked baselines and the leading `top` ranked candidates, by their means. Raises ValueError as `leaderboard`."""
    known = {e.candidate.id: e for e in baselines}
    everyone = _ranked([*known.values(), *(e for e in entries if e.candidate.id not in known)])
    candidates = {e.candidate.id for e in [e for e in everyone if e.candidate.id not in known][:top]}
    return [e for e in everyone if e.candidate.id in known or e.candidate.id in candidates]


def columns_of(entries: Iterable[Entry], reference: Entry, comparison: Comparison) -> dict[str, dict[Any, float]]:
    """The paired differences of each entry to the reference, by candidate id, of those that have a common seed with it."""
    found = {}
    for entry in entries:
        ours, theirs = _values(entry, reference, comparison)
        if entry.candidate.id != reference.candidate.id and ours.keys() & theirs.keys():
            found[entry.candidate.id] = pairs_of(ours, theirs)
    return found


def _compared(
    everyone: Sequence[Entry], seen: Sequence[Entry], reference: Entry, comparison: Comparison
) -> dict[str, Difference]:
    """The differences by candidate id: of everyone, or of those that are seen where everyone is too many."""
    assert reference.score is not None
    columns = columns_of(everyone if len(everyone) <= MOST else seen, reference, comparison)
    found = differences(
        list(columns.values()),
        reference.score.higher_is_better,
        comparison.minimum_effect,
        comparison.joint,
        others=0 if len(everyone) <= MOST else len(everyone) - 1 - len(columns),
    )
    return dict(zip(columns, found, strict=True))


def _ranked(entries: Iterable[Entry]) -> list[Entry]:
    scored: Sequence[Entry] = [e for e in entries if e.score is not None and e.failure is None]
    kinds = {(e.score.metric, e.score.higher_is_better) for e in scored if e.score}
    if len(kinds) > 1:
        raise ValueError(f"cannot rank different metrics together: {sorted(m for m, _ in kinds)}")
    return sorted(scored, key=_badness)


def _badness(entry: Entry) -> float:
    assert entry.score is not None
    return -entry.score.mean if entry.score.higher_is_better else entry.score.mean


def _values(entry: Entry, reference: Entry, comparison: Comparison) -> tuple[Mapping[Any, float], Mapping[Any, float]]:
    assert entry.score is not None
    assert reference.score is not None
    finer = comparison.values or {}
    a, b = entry.candidate.id, reference.candidate.id
    if a in finer and b in finer:
        return finer[a], finer[b]
    return entry.score.by_seed, reference.score.by_seed
