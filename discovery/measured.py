"""What a campaign measures: the evaluators that its settings name, and the leaderboards of their stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from db.archive import Archive
from discovery.config import CampaignConfig, ObjectiveConfig, PromotionConfig
from discovery.contest import contest_of
from discovery.leaderboard import Board, stage_board
from discovery.trials import Stage
from discovery.workers import TaskSpec
from evaluators.base import Evaluator, Resources
from evaluators.options import OptionsError, nearest
from evaluators.plugin_border import plugin_border

SEARCH = "search"


@dataclass(frozen=True)
class Measured:
    """A stage with the evaluator that defines it.

    Attributes:
        effect: the difference that counts as none.
        resources: what a worker of it needs.
        description: what is trained and scored, for proposers.
    """

    stage: Stage
    evaluator: Evaluator
    spec: TaskSpec
    effect: float
    resources: Resources
    description: str


def measured(config: CampaignConfig) -> tuple[Measured, ...]:
    """The search, then the promotions.

    Raises:
        OptionsError: an evaluator, its options or a metric is wrong. PluginError: an evaluator is faulty.
    """
    promotions = (_measure(f"promotion {i}", p) for i, p in enumerate(config.promotions, 1))
    return (_measure(SEARCH, config.objective), *promotions)


def board_of(archive: Archive, campaign: int, name: str, stages: Sequence[Measured]) -> Board:
    """Where a campaign stands. Raises ArchiveError."""
    ranked = (stage_board(archive, campaign, m.stage, m.effect, fresh=i > 0) for i, m in enumerate(stages))
    return Board(name, tuple(ranked), contest_of(archive, campaign))


def _measure(key: str, settings: ObjectiveConfig | PromotionConfig) -> Measured:
    spec = TaskSpec(settings.evaluator, settings.options)
    evaluator = spec.build()
    name = settings.metric or evaluator.primary_metric
    metrics = {m.name: m for m in evaluator.metrics}
    if name not in metrics:
        raise OptionsError(f"{settings.evaluator} has no metric {name!r}; {nearest(name, list(metrics))}")
    with plugin_border(evaluator, "asked for its task, resources and task_description"):
        task, resources, description = evaluator.task, evaluator.resources, evaluator.task_description
    stage = Stage(key, task, name, metrics[name].higher_is_better, settings.seed_list)
    effect = metrics[name].minimum_effect if settings.minimum_effect is None else settings.minimum_effect
    return Measured(stage, evaluator, spec, effect, resources, description)
