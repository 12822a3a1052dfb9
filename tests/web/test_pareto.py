"""The front of two metrics."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from db.records import ReportedMetric, Scored
from discovery.browse.pareto import Placed, pareto_front

POINTS = ((1.0, 5.0), (2.0, 4.0), (2.0, 3.0), (3.0, 4.0), (4.0, 1.0), (4.0, 1.0), (0.0, 0.0))


@pytest.mark.parametrize("x_higher", [True, False])
@pytest.mark.parametrize("y_higher", [True, False])
def test_the_front_is_what_no_other_point_dominates(x_higher: bool, y_higher: bool) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    points = [Placed(Scored(at, f"{i:064x}", f"p{i}", "proposed", "evolve", 0.0), *p) for i, p in enumerate(POINTS)]
    front = pareto_front(points, ReportedMetric("x", x_higher, ""), ReportedMetric("y", y_higher, ""))
    signs = (1 if x_higher else -1, 1 if y_higher else -1)

    def dominates(a: Placed, b: Placed) -> bool:
        ours, theirs = ((signs[0] * p.x, signs[1] * p.y) for p in (a, b))
        return ours != theirs and ours[0] >= theirs[0] and ours[1] >= theirs[1]

    expected = [p for p in points if not any(dominates(q, p) for q in points)]
    assert sorted(front, key=lambda p: p.candidate.name) == expected
    assert [p.x for p in front] == sorted(p.x for p in front)
