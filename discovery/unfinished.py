"""Whether a campaign that is run again has anything left to do: if not, nothing is started for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from db.records import Result
from discovery.config import PromotionConfig
from discovery.imports import Given
from discovery.measured import Measured
from discovery.search import Resumed, Search
from discovery.stages import promoted, stored_results


def nothing_left(
    search: Search,
    todo: Sequence[Resumed],
    given: Iterable[Given],
    promotions: Iterable[tuple[Measured, PromotionConfig]],
) -> bool:
    """Whether everything that a campaign's settings ask for is stored.

    Args:
        search: restored from the archive.
        todo: what of it is unfinished, baselines that are not there yet among them.
        given: losses to start from.
        promotions: each with its settings.

    Raises:
        ArchiveError: the archive cannot be read.
    """
    new = (g for g in given if g.candidate is not None and g.candidate.id not in search.names)
    if todo or any(True for _ in new) or not search.is_over:
        return False
    return all(_is_measured(search, measured, settings) for measured, settings in promotions)


def _is_measured(search: Search, promotion: Measured, settings: PromotionConfig) -> bool:
    """Whether all that is promoted has a result on all seeds, or a failure."""
    parts, stage = search.parts, promotion.stage
    results = stored_results(parts.archive, parts.campaign, stage)
    found = (
        results.get(entry.candidate.id, Result({}))
        for entry in promoted(parts.archive, parts.campaign, parts.contract.name, settings)
    )
    return all(result.failure is not None or len(result.by_seed) == len(stage.seeds) for result in found)
