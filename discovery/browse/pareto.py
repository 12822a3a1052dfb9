"""Two metrics against each other, and the candidates that nothing beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from db.records import ReportedMetric, Scored
from evaluators.options import OptionsError, nearest

if TYPE_CHECKING:
    from db.archive import Archive
    from db.session import CampaignRef


@dataclass(frozen=True)
class Placed:
    """A ranked candidate and its means of the two metrics over the seeds that rank."""

    candidate: Scored
    x: float
    y: float


@dataclass(frozen=True)
class Tradeoff:
    """`front`: those of `points` than which none is at least as good in both metrics and better in one; by x."""

    x: ReportedMetric
    y: ReportedMetric
    points: tuple[Placed, ...]
    front: tuple[Placed, ...]


def tradeoff(archive: Archive, campaign: CampaignRef, x: str, y: str) -> Tradeoff:
    """Raises ArchiveError, and OptionsError for a metric that no trial reports."""
    reported = {m.name: m for m in archive.metrics(campaign)}
    for name in (x, y):
        if name not in reported:
            raise OptionsError(f"no trial reports a metric {name!r}; {nearest(name, list(reported))}")
    means = archive.means(campaign, list(dict.fromkeys((x, y))))
    placed = tuple(
        Placed(scored, values[x], values[y])
        for scored in archive.scored(campaign)
        if {x, y} <= (values := means.get(scored.candidate_id, {})).keys()
    )
    return Tradeoff(reported[x], reported[y], placed, pareto_front(placed, reported[x], reported[y]))


def pareto_front(points: Sequence[Placed], x: ReportedMetric, y: ReportedMetric) -> tuple[Placed, ...]:
    """The points that no other one dominates, by x; of equal ones all."""
    in_x, in_y = (1.0 if m.higher_is_better else -1.0 for m in (x, y))
    front: list[Placed] = []
    for point in sorted(points, key=lambda p: (-in_x * p.x, -in_y * p.y)):
        last = front[-1] if front else None
        if last is None or in_y * point.y > in_y * last.y or (point.x, point.y) == (last.x, last.y):
            front.append(point)
    return tuple(sorted(front, key=lambda p: (p.x, p.y)))
