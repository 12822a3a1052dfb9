"""The smallest difference worth a verdict, as a campaign's settings have it: the same wherever a difference is shown."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from db.records import CampaignRecord
from evaluators.base import MetricSpec
from evaluators.options import OptionsError
from evaluators.plugins import load_installed


def sections(record: CampaignRecord) -> list[dict[str, Any]]:
    """The settings of the search, then of the promotions, as far as they are there."""
    promotions = record.config.get("promotions")
    found = [record.config.get("objective"), *(promotions if isinstance(promotions, list) else [])]
    return [section if isinstance(section, dict) else {} for section in found]


@lru_cache(maxsize=32)
def metrics_of(evaluator: str) -> Mapping[str, MetricSpec]:
    """The metrics of an evaluator that an archive names; nothing for one that is not installed: whoever made it had it."""
    try:
        return {m.name: m for m in load_installed("evaluators", evaluator).metrics}
    except (OptionsError, ImportError, AttributeError, TypeError):
        return {}


def own_effect(evaluator: str, metric: str) -> float:
    """The minimum effect that an evaluator's metric has of itself; 0 where nobody says."""
    known = metrics_of(evaluator).get(metric)
    return 0.0 if known is None else known.minimum_effect


def effect_in(section: dict[str, Any], evaluator: str, metric: str) -> float:
    """What a section of the settings says of the metric that it ranks by, else the metric's own."""
    given = section.get("minimum_effect")
    return float(given) if isinstance(given, (int, float)) else own_effect(evaluator, metric)


def effect_of(record: CampaignRecord, evaluator: str, ranks: bool, metric: str, leads: bool) -> float:
    """The minimum effect of a metric that a campaign measured.

    Args:
        record: the campaign.
        evaluator: that measured it.
        ranks: whether on the seeds by which the search ranked; else the promotions on that evaluator count.
        metric: its name.
        leads: whether it is what a section that names no metric ranks by.
    """
    search, *promotions = sections(record)
    for section in [search] if ranks else [p for p in promotions if p.get("evaluator") == evaluator]:
        if section.get("metric") == metric or (section.get("metric") is None and leads):
            return effect_in(section, evaluator, metric)
    return own_effect(evaluator, metric)
