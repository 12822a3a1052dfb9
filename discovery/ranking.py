"""The order of losses by their means, each with its difference to the leading baseline of its kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from db.records import Entry
from discovery.contest import opponent_of
from discovery.simultaneous import MOST, differences
from discovery.statistics import Difference, pairs_of


@dataclass(frozen=True)
class Row:
    """One line of a leaderboard.

    Attributes:
        difference: against `versus`; both None for the leading baseline of either kind, and without common seeds.
        alike: whether `versus` is of the same kind, privileged or not (`discovery.contest`).
        leads: whether it is the leading baseline of its kind.
    """

    rank: int
    entry: Entry
    mean: float
    is_baseline: bool
    versus: str | None
    difference: Difference | None
    alike: bool = True
    leads: bool = False


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


def leaderboard(
    entries: Iterable[Entry], baselines: Iterable[Entry], comparison: Comparison, top: int | None = None
) -> tuple[Row, ...]:
    """Candidates and baselines by mean score, each with its paired difference to the leading baseline of its kind.

    The intervals hold for all entries of both kinds at once, those that are not shown included: who is shown was chosen by
    the same values. A leading baseline is one with the leading mean, chosen with the same noise as everything else: this
    favours the baseline, never the candidate. Unranked entries (no finished trial, or a failed one) are left out.

    Args:
        entries: candidates; those that are also in `baselines` appear once.
        baselines: known objectives, all of them shown whatever `top` is.
        comparison: what differences pair.
        top: how many candidates to show of each kind.

    Raises:
        ValueError: scores of different metrics.
    """
    known = {e.candidate.id: e for e in baselines}
    everyone = _ranked([*known.values(), *(e for e in entries if e.candidate.id not in known)])
    leading, seen = _ranked(known.values()), shown(everyone, known.values(), top)
    compared = _compared(everyone, seen, leading, comparison)
    return tuple(
        _row(rank, entry, leading, entry.candidate.id in known, compared.get(entry.candidate.id))
        for rank, entry in enumerate(seen, 1)
    )


def _row(rank: int, entry: Entry, leading: Sequence[Entry], is_baseline: bool, difference: Difference | None) -> Row:
    assert entry.score is not None
    opponent = opponent_of(entry, leading)
    leads = opponent is not None and opponent.entry.candidate.id == entry.candidate.id
    versus = opponent.entry.name if difference is not None and opponent is not None else None
    alike = opponent is None or opponent.alike
    return Row(rank, entry, entry.score.mean, is_baseline, versus, difference, alike, leads)


def shown(entries: Iterable[Entry], baselines: Iterable[Entry], top: int | None) -> list[Entry]:
    """All ranked baselines and the leading `top` candidates of each kind, by their means. Raises ValueError as above."""
    known = {e.candidate.id: e for e in baselines}
    everyone = _ranked([*known.values(), *(e for e in entries if e.candidate.id not in known)])
    made = [e for e in everyone if e.candidate.id not in known]
    kinds = ([e for e in made if bool(e.privileged) == kind] for kind in (False, True))
    wanted = known.keys() | {e.candidate.id for kind in kinds for e in kind[:top]}
    return [e for e in everyone if e.candidate.id in wanted]


def columns_of(
    entries: Iterable[Entry], baselines: Iterable[Entry], comparison: Comparison
) -> dict[str, dict[Any, float]]:
    """The paired differences of each entry to the leading baseline of its kind, by candidate id.

    Of those that have a common seed with it, and are not it. Raises ValueError as `leaderboard`.
    """
    leading, found = _ranked(baselines), {}
    for entry in entries:
        opponent = opponent_of(entry, leading)
        if opponent is None or opponent.entry.candidate.id == entry.candidate.id:
            continue
        ours, theirs = _values(entry, opponent.entry, comparison)
        if ours.keys() & theirs.keys():
            found[entry.candidate.id] = pairs_of(ours, theirs)
    return found


def leading_of_each_kind(baselines: Iterable[Entry]) -> int:
    """How many of them lead their kind, and are compared with nothing."""
    return len({bool(b.privileged) for b in baselines})


def _compared(
    everyone: Sequence[Entry], seen: Sequence[Entry], leading: Sequence[Entry], comparison: Comparison
) -> dict[str, Difference]:
    """The differences by candidate id: of everyone, or of those that are seen where everyone is too many."""
    if not leading:
        return {}
    assert leading[0].score is not None
    few = len(everyone) <= MOST
    columns = columns_of(everyone if few else seen, leading, comparison)
    found = differences(
        list(columns.values()),
        leading[0].score.higher_is_better,
        comparison.minimum_effect,
        comparison.joint,
        others=0 if few else len(everyone) - leading_of_each_kind(leading) - len(columns),
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
