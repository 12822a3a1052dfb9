"""From trajectories to metrics: frontiers against the physical limit, and what explains them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluators.base import Metric, MetricSpec
from evaluators.preference.enumerable import definition as d
from evaluators.preference.frontier import upper_concave_hull, value_at

if TYPE_CHECKING:
    from evaluators.preference.enumerable.training import Trajectory
    from evaluators.preference.enumerable.worlds import World, Worlds

_FINAL = "; last checkpoints of all betas and learning rates"
_FRONTIER = "area under the upper concave hull of (KL, reward) from 0 to {} nats, relative to the optimal policies"


@dataclass(frozen=True)
class Quantity:
    """One measured quantity: reported as its mean over regimes under `name`, and per regime under `name/regime`."""

    name: str
    higher_is_better: bool
    unit: str
    description: str
    lower: float | None = None
    upper: float | None = None
    minimum_effect: float = 0.0  # 0 for what explains a score: nobody chooses a loss by it


QUANTITIES = (
    Quantity("frontier", True, "ratio", _FRONTIER.format(f"{d.KL_BUDGET:g}") + _FINAL, 0.0, 1.0, 0.005),
    *(
        Quantity(f"frontier_kl{b:g}", True, "ratio", _FRONTIER.format(f"{b:g}") + _FINAL, 0.0, 1.0, 0.005)
        for b in d.OTHER_KL_BUDGETS
    ),
    Quantity("frontier_stopped", True, "ratio", _FRONTIER.format(f"{d.KL_BUDGET:g}") + "; checkpoints on the way too, as if "
             "an oracle knew when to stop", 0.0, 1.0, 0.005),
    Quantity(f"reward_at_kl{d.REWARD_AT_KL:g}", True, "reference deviations", "height of the frontier at that KL",
             minimum_effect=0.01),
    Quantity("ranking_accuracy", True, "share", "held-out labels that log pi/ref ranks right at the end, mean over runs",
             0.0, 1.0, 0.01),
    Quantity("ideal_ranking_accuracy", True, "share", "what the planted reward itself reaches on those labels", 0.0, 1.0),
    Quantity("chosen_fell", False, "share", "share of runs in which the mean chosen log-prob of training pairs fell",
             0.0, 1.0),
    Quantity("chosen_change", True, "nats", "change of the mean chosen log-prob of training pairs, mean over runs"),
    Quantity("diverged", False, "share", "share of runs whose loss or policy was no longer a number; they have no points",
             0.0, 1.0),
    Quantity("final_kl", False, "nats", "KL to the reference at the end, mean over runs", 0.0),
)  # fmt: skip


def metric_specs(regimes: Sequence[d.Regime] = d.REGIMES) -> tuple[MetricSpec, ...]:
    """Every metric of a report: the means over regimes, then the same per regime."""
    means = [
        MetricSpec(
            q.name,
            q.higher_is_better,
            q.unit,
            f"{q.description}; mean over regimes",
            q.lower,
            q.upper,
            q.minimum_effect,
        )
        for q in QUANTITIES
    ]
    worlds = [
        MetricSpec(
            f"{q.name}/{regime.name}",
            q.higher_is_better,
            q.unit,
            f"{q.description}; {regime.name} alone",
            q.lower,
            q.upper,
            q.minimum_effect,
        )
        for q in QUANTITIES
        for regime in regimes
    ]
    return (*means, *worlds)


def frontier_area(kl: NDArray[np.float64], reward: NDArray[np.float64], budget: float) -> float:
    """Area from KL 0 to `budget` under the upper concave hull of (0, 0) and all given points (equal shapes), NaN aside."""
    hull = upper_concave_hull(_points(kl, reward))
    grid = np.linspace(0, budget, d.GRID_POINTS)
    return float(np.trapezoid(value_at(hull, grid), grid))


def _points(kl: NDArray[np.float64], reward: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) measured points; runs that diverged have none."""
    points = np.stack([kl.ravel(), reward.ravel()], 1)
    return np.asarray(points[np.isfinite(points).all(1)])


def ideal_ranking_accuracy(world: World) -> float:
    """Expected share of held-out labels that ranking by the planted reward gets right: no ranking does better."""
    return float(np.maximum(world.preferred, 1 - world.preferred).mean())


def score(worlds: Worlds, trajectory: Trajectory) -> tuple[Metric, ...]:
    """All metrics, in the order of `metric_specs`."""
    rows = [_world_values(w, trajectory, i) for i, w in enumerate(worlds.worlds)]
    means = [Metric(q.name, float(np.mean([r[q.name] for r in rows])), q.higher_is_better, q.unit) for q in QUANTITIES]
    singles = [
        Metric(f"{q.name}/{w.regime.name}", row[q.name], q.higher_is_better, q.unit)
        for q in QUANTITIES
        for w, row in zip(worlds.worlds, rows, strict=True)
    ]
    return (*means, *singles)


def _world_values(world: World, trajectory: Trajectory, index: int) -> dict[str, float]:
    kl, reward = trajectory.kl[index], trajectory.reward[index]  # (L, B, C)
    last_kl, last_reward = kl[..., -1], reward[..., -1]
    lasting = np.isfinite(last_kl)
    change = trajectory.chosen_change[index, ..., -1][lasting]
    hull = upper_concave_hull(_points(last_kl, last_reward))
    values = {f"frontier_kl{b:g}": frontier_area(last_kl, last_reward, b) / world.areas[b] for b in d.OTHER_KL_BUDGETS}
    main = world.areas[d.KL_BUDGET]
    return values | {
        "frontier": frontier_area(last_kl, last_reward, d.KL_BUDGET) / main,
        "frontier_stopped": frontier_area(kl, reward, d.KL_BUDGET) / main,
        f"reward_at_kl{d.REWARD_AT_KL:g}": float(value_at(hull, d.REWARD_AT_KL)),
        "ranking_accuracy": float(trajectory.ranking_accuracy[index, ..., -1][lasting].mean()),
        "ideal_ranking_accuracy": ideal_ranking_accuracy(world),
        "chosen_fell": float((change < 0).mean()),
        "chosen_change": float(change.mean()),
        "diverged": float(1 - lasting.mean()),
        "final_kl": float(last_kl[lasting].mean()),
    }
