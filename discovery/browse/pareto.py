"""Two metrics against each other, and the candidates that nothing beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from db.records import ReportedMetric, Scored
from discovery.contest import competes, contest_of
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
    """The losses of a campaign in two metrics.

    Attributes:
        front: those that may lead (`discovery.contest`) than which none of them is at least as good in both metrics and
            better in one; by x.
        about_privileged: whether privileged losses lead.
    """

    x: ReportedMetric
    y: ReportedMetric
    points: tuple[Placed, ...]
    front: tuple[Placed, ...]
    about_privileged: bool = False


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
    about = contest_of(archive, campaign)
    competing = [p for p in placed if competes(p.candidate, about)]
    return Tradeoff(reported[x], reported[y], placed, pareto_front(competing, reported[x], reported[y]), about)


def pareto_front(points: Sequence[Placed], x: ReportedMetric, y: ReportedMetric) -> tuple[Placed, ...]:
    """The points that no other one dominates, by x; of equal ones all."""
    in_x, in_y = (1.0 if m.higher_is_better else -1.0 for m in (x, y))
    front: list[Placed] = []
    for point in sorted(points, key=lambda p: (-in_x * p.x, -in_y * p.y)):
        last = front[-1] if front else None
        if last is None or in_y * point.y > in_y * last.y or (point.x, point.y) == (last.x, last.y):
            front.append(point)
    return tuple(sorted(front, key=lambda p: (p.x, p.y)))
